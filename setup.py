"""Builds each ext/NAME.pyx as rowferry._native.NAME.

ROWFERRY_SANITIZE=1 builds with AddressSanitizer and UndefinedBehaviorSanitizer (see tests/README.md);
ROWFERRY_ONLY=a,b builds just those kernels.
"""

import os
import pathlib

from Cython.Build import cythonize
from setuptools import Extension, setup

only = {name for name in os.environ.get("ROWFERRY_ONLY", "").split(",") if name}
compile_args = ["-O3", "-fno-strict-aliasing", "-Wno-unused-function"]
link_args = []
if os.environ.get("ROWFERRY_SANITIZE") == "1":
    compile_args = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-strict-aliasing"]
    link_args = ["-fsanitize=address,undefined"]

extensions = [
    Extension(
        f"rowferry._native.{path.stem}",
        [str(path)],
        include_dirs=["ext"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for path in sorted(pathlib.Path("ext").glob("*.pyx"))
    if not only or path.stem in only
]

setup(
    ext_modules=cythonize(
        extensions,
        include_path=["ext"],
        build_dir="build/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": False,
        },
    )
)
