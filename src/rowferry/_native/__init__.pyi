"""Type checkers do not see compiled modules: a kernel without a stub of its own is Any."""

from typing import Any

def __getattr__(name: str) -> Any: ...
