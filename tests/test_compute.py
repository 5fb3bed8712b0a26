"""The lean way to Arrow's kernels: the same functions as pyarrow.compute's, without loading it."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.compute
import pytest

from rowferry import compute

SOURCE = pathlib.Path(compute.__file__).parent
USED = sorted({name for path in SOURCE.rglob("*.py") for name in re.findall(r"\bpc\.([a-z_0-9]+)\(", path.read_text())})


@pytest.mark.parametrize("name", USED)
def test_function_is_pyarrows_own_kernel_or_comes_from_pyarrow_compute(name: str) -> None:
    theirs = getattr(pyarrow.compute, name)
    ours = getattr(compute, name)
    if name == "take":  # its wrapper says no more than the kernel's options do
        assert ours(pa.array([1, 2]), pa.array([1, None])).to_pylist() == [2, None]
        with pytest.raises(IndexError):
            ours(pa.array([1, 2]), pa.array([5]))
    elif compute._kernel(name) is not None:
        described = theirs.__arrow_compute_function__
        assert described["name"] == compute._NAMES.get(name, name)
    elif name not in ("cast", "fill_null"):
        assert ours is theirs


def test_options_are_taken_by_place_and_by_name() -> None:
    texts = pa.array(["xax", None, "b"])
    for module in (compute, pyarrow.compute):
        assert module.ascii_trim(texts, characters="x").to_pylist() == ["a", None, "b"]
        assert module.ascii_trim(texts, "x").to_pylist() == ["a", None, "b"]
        assert module.binary_join_element_wise(texts, texts, "-").to_pylist() == ["xax-xax", None, "b-b"]
        assert module.and_(pa.array([True, None]), True).to_pylist() == [True, None]
        assert module.sum(pa.array([], pa.int64()), min_count=0).as_py() == 0
        assert module.fill_null(texts, "q").to_pylist() == ["xax", "q", "b"]
        assert module.fill_null(pa.array([1.5, None]), 0).to_pylist() == [1.5, 0.0]
        assert module.cast(pa.array([1, None]), pa.string()).to_pylist() == ["1", None]
        with pytest.raises(pa.ArrowInvalid):
            module.cast(pa.array([300]), pa.int8())
        with pytest.raises(TypeError):
            module.ascii_trim(texts, nonsense=1)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        compute.no_such_function  # noqa: B018


def test_kernels_are_called_without_loading_pyarrow_compute() -> None:
    code = """
import sys, pyarrow as pa
from rowferry import compute as pc
a = pa.array([1, None, 3])
print(pc.cast(pc.fill_null(pc.add(a, 1), 0), pa.int32()).to_pylist(), pc.sum(a).as_py())
assert "pyarrow.compute" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "[2, 0, 4] 4\n", done.stderr
