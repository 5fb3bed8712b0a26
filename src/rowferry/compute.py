"""``pyarrow.compute``, loaded when the first of its functions is asked for.

It makes some three hundred functions when it is imported (30 ms), and a copy that converts nothing
calls none of them.
"""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    function = getattr(importlib.import_module("pyarrow.compute"), name)
    globals()[name] = function
    return function
