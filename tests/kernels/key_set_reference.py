"""The twin of ext/key_set.pyx: a dictionary from key to owner. Shares no code with the kernel."""

from __future__ import annotations

from collections.abc import Collection


class ReferenceKeySet:
    """As ``KeySet``; bits of its answers as lists of booleans."""

    def __init__(self) -> None:
        self.owners: dict[bytes, int] = {}

    def claim(self, keys: bytes, owner: int, earlier: Collection[int] = ()) -> list[bool]:
        return [self._claim_one(keys[i : i + 16], owner, earlier) for i in range(0, len(keys), 16)]

    def _claim_one(self, key: bytes, owner: int, earlier: Collection[int]) -> bool:
        held = self.owners.get(key)
        if held is not None and (held == owner or held not in earlier):
            return False
        self.owners[key] = owner
        return True

    def contains(self, keys: bytes) -> list[bool]:
        return [keys[i : i + 16] in self.owners for i in range(0, len(keys), 16)]

    def __len__(self) -> int:
        return len(self.owners)


def bits(bitmap: bytes, count: int) -> list[bool]:
    """An Arrow bitmap as booleans."""
    return [bool(bitmap[i >> 3] >> (i & 7) & 1) for i in range(count)]
