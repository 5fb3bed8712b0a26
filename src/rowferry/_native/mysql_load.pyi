from typing import Any

import pyarrow as pa

LOAD_FORMAT: str

class EncodeError(ValueError):
    row: int
    column: int
    reason: str
    def __init__(self, row: int, column: int, reason: str) -> None: ...

class Block:
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...

class Encoder:
    block_rows: int
    def __init__(
        self,
        columns: list[tuple[str, dict[str, Any]]],
        *,
        block_bytes: int = ...,
        sql: bool = ...,
        row_bytes_max: int = ...,
    ) -> None: ...
    def begin(self, batch: pa.RecordBatch) -> None: ...
    def fill(self) -> Block | None: ...
    def rest(self) -> Block: ...
