"""``pyarrow.compute``'s functions, each made when it is first asked for.

The module itself makes some three hundred of them with their signatures and documentation when it is imported (22 ms
of CPU beside the kernels, a tenth of a copy that converts a column), and a copy calls a handful. What is not an Arrow
kernel under its own name, or is called in other ways than here, comes from there all the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa

#: Kernels whose names are keywords of Python.
_NAMES = {"and_": "and", "or_": "or"}
#: Functions that pyarrow.compute writes itself, or gives other arguments than their kernels have.
_NO_KERNELS = ("cast", "fill_null", "index", "random", "top_k_unstable", "bottom_k_unstable", "rank")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    function = _kernel(name)
    if function is None:
        function = getattr(importlib.import_module("pyarrow.compute"), name)
    globals()[name] = function
    return function


def _kernel(name: str) -> Callable[..., Any] | None:
    """Arrow's kernel of this name as pyarrow.compute would wrap it; None where only that knows how."""
    if name in _NO_KERNELS:
        return None
    try:
        from pyarrow import _compute

        function = _compute.function_registry().get_function(_NAMES.get(name, name))
        options_class: Any = getattr(_compute, function._doc.options_class) if function._doc.options_class else None
    except (ImportError, AttributeError, KeyError):  # another pyarrow: its public module knows
        return None
    arity = None if function.arity is Ellipsis else int(function.arity)

    def call(*arguments: Any, **options: Any) -> Any:
        """The arrays (or scalars), then the options, by place or by name."""
        given = () if arity is None else arguments[arity:]
        made = options_class(*given, **options) if given or options else None
        return function.call(arguments[:arity], made)

    call.__name__ = name
    return call


def cast(values: Any, to: pa.DataType) -> Any:
    """As ``pyarrow.compute.cast(values, to)``: raises ArrowInvalid where a value would change."""
    try:
        from pyarrow._compute import CastOptions, call_function
    except ImportError:
        return importlib.import_module("pyarrow.compute").cast(values, to)
    return call_function("cast", [values], CastOptions.safe(to))


def fill_null(values: Any, value: Any) -> Any:
    """As ``pyarrow.compute.fill_null(values, value)``."""
    if isinstance(value, pa.Scalar):
        value = value.as_py() if value.type != values.type else value
    if not isinstance(value, (pa.Array, pa.ChunkedArray, pa.Scalar)):
        value = pa.scalar(value, values.type)
    return __getattr__("coalesce")(values, value)
