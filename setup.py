"""Builds each ext/NAME.pyx as rowferry._native.NAME.

ROWFERRY_SANITIZE=1 builds with AddressSanitizer and UndefinedBehaviorSanitizer (see tests/README.md);
ROWFERRY_ONLY=a,b builds just those kernels.
"""

import multiprocessing
import os
import pathlib

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

only = {name for name in os.environ.get("ROWFERRY_ONLY", "").split(",") if name}
# -g0: distributions' flags ask for debug information, which doubles compile time and size for nothing.
compile_args = ["-O3", "-g0", "-fno-strict-aliasing", "-Wno-unused-function"]
link_args = []
if os.environ.get("ROWFERRY_SANITIZE") == "1":
    compile_args = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-strict-aliasing"]
    link_args = ["-fsanitize=address,undefined"]

cores = os.cpu_count() or 1
# Cython's workers need fork: under spawn or forkserver each would run this file again.
translators = cores if multiprocessing.get_start_method() == "fork" else 0


class ParallelBuild(build_ext):
    """build_ext with a compiler process for each core, unless ``--parallel`` says otherwise."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or cores


extensions = [
    Extension(
        f"rowferry._native.{path.stem}",
        [str(path)],
        include_dirs=["ext"],
        depends=[str(header) for header in sorted(pathlib.Path("ext").glob("*.pxd"))],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for path in sorted(pathlib.Path("ext").glob("*.pyx"))
    if not only or path.stem in only
]

setup(
    cmdclass={"build_ext": ParallelBuild},
    ext_modules=cythonize(
        extensions,
        include_path=["ext"],
        build_dir="build/cython",
        nthreads=translators if len(extensions) > 1 else 0,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": False,
        },
    ),
)
