"""What every SQL adapter means by a transaction: all of it or nothing, whatever goes wrong in between."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Session(Protocol):
    """One connection that can begin, commit and roll back."""

    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...


@contextlib.contextmanager
def transaction(session: Session) -> Iterator[None]:
    """The statements within are one transaction of their own. Any exception rolls back and goes on."""
    session.begin()
    try:
        yield
        session.commit()
    except BaseException:
        session.rollback()
        raise


def atomic(session: Session, in_transaction: bool) -> contextlib.AbstractContextManager[None]:
    """The statements within are part of the transaction that is open, or one of their own."""
    return contextlib.nullcontext() if in_transaction else transaction(session)
