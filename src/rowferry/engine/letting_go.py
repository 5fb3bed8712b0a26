"""What a run lets go of at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def stages(opened: bool) -> Iterator[None]:
    """While tables may be transformed: lets go of what their stages hold at the end. opened: whether any are."""
    try:
        yield
    finally:
        if opened:
            from rowferry.engine import transforming

            transforming.release()
