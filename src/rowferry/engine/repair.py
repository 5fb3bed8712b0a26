"""Makes a target table equal to its source: only the rows that a comparison found to differ are touched.

The source is read a third time for the rows whose key digest is among the differing ones. They go
into the target in bounded transactions, each of which deletes the target's rows of the same keys
first. Whether the tables are equal then is for a second comparison to say, not for this module.
"""

from __future__ import annotations

import threading

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry import limits
from rowferry.adapters.protocol import Source, Target
from rowferry.convert import conversion
from rowferry.engine.narrow import digests_of
from rowferry.engine.scan import Side, key_is_read, reading
from rowferry.engine.transfer import conversion_of
from rowferry.engine.verify import TableDifference, verify_tables
from rowferry.errors import DifferenceError, RefusedError, RowferryError, TargetError
from rowferry.model import ColumnPlan, Table, TablePlan
from rowferry.stages.digest import DIGEST

#: Bytes of rows, and keys to delete, that one transaction of a repair holds at most.
REPAIR_BYTES = 8 * limits.MIB
REPAIR_KEYS_MAX = 10_000


def repair(
    source: Source,
    target: Target,
    plan: TablePlan,
    difference: TableDifference,
    delete_extra: bool,
    stop: threading.Event | None = None,
) -> int:
    """Inserts missing rows, replaces changed ones and, only with ``delete_extra``, deletes extra ones.

    Returns the rows that were inserted or deleted (a replaced row counts once). Where there were
    more differences than are held at once, compares again and goes on until none are left.

    Raises RefusedError, before anything is written, where rows cannot be told apart; DataError for a
    source value that the target column cannot hold; what the adapters raise.
    """
    touched = 0
    while True:
        touched += _Repair(source, target, plan, difference, delete_extra, stop).run()
        if difference.complete:
            return touched
        left = difference.missing + difference.changed + (difference.extra if delete_extra else 0)
        with reading(target, 1) as written:
            difference = verify_tables(source, written, [plan], contained=not delete_extra, named_max=0, stop=stop)[0]
        if difference.equal:
            return touched
        if difference.missing + difference.changed + difference.extra >= left:
            raise DifferenceError("the target differs no less after a repair", table=str(plan.target.name))


class _Repair:
    def __init__(
        self,
        source: Source,
        target: Target,
        plan: TablePlan,
        difference: TableDifference,
        delete_extra: bool,
        stop: threading.Event | None,
    ) -> None:
        self._source = source
        self._target = target
        self._plan = plan
        self._stop = stop
        self._keyed = key_is_read(plan)
        self._table, self._columns = _as_written(target, plan)
        self._conversions = [conversion_of(c, str(plan.target.name)) for c in self._columns]
        entries = difference.entries
        if not delete_extra:
            entries = entries.filter(pc.greater(entries["source"], 0))
        self._refuse(entries, delete_extra)
        self._entries = entries
        self._wanted: pa.Array = _whole(entries["key"])
        #: How many rows of a digest are still to be inserted, where there is no key.
        self._surplus: dict[bytes, int] = {}
        if not self._keyed:
            self._surplus = dict(zip(entries["key"].to_pylist(), entries["source"].to_pylist(), strict=True))
        self._pending: list[pa.RecordBatch] = []
        self._pending_keys: list[pa.Array] = []
        self._pending_bytes = 0
        #: Keys whose rows of the target are deleted already: their other rows may come in a later batch.
        self._replaced: list[pa.Array] = []
        self._touched = 0

    def _refuse(self, entries: pa.Table, delete_extra: bool) -> None:
        name = str(self._plan.target.name)
        if self._plan.dedup is not None:
            raise RefusedError(
                f"table {name!r} is deduplicated: which of several like rows is to stand there only a copy decides",
                hint="copy it again with --mode replace or truncate",
            )
        if self._keyed:
            compared = {column.target for column in self._columns}
            lost = [c.name for c in self._table.columns if c.name not in compared and not c.generated]
            if lost and pc.any(pc.and_(pc.greater(entries["source"], 0), pc.greater(entries["target"], 0))).as_py():
                raise RefusedError(
                    f"table {name!r}: replacing changed rows would lose what stands in {', '.join(lost)},"
                    " which were not compared",
                    hint="compare all columns, or mend the changed rows by hand",
                )
            if not delete_extra and pc.any(pc.greater(entries["target"], entries["source"])).as_py():
                raise RefusedError(
                    f"table {name!r}: several rows of the target have one key, so that replacing them deletes rows",
                    hint="allow it with --delete-extra",
                )
        elif delete_extra and (pc.sum(entries["target"]).as_py() or 0):
            raise RefusedError(
                f"table {name!r} has no key by which its extra rows could be deleted",
                hint="delete them by hand, or repair without --delete-extra, which inserts the missing rows",
            )

    def run(self) -> int:
        if not len(self._wanted):
            return 0
        if self._keyed:
            # First of all: the target's engine may take an extra row's key for that of a row that is missing ('A'
            # and 'a' under a loose collation).
            extra = _whole(self._entries.filter(pc.equal(self._entries["source"], 0))["key"])
            self._delete_keys(extra)
            self._replaced.append(extra)
        if pc.any(pc.greater(self._entries["source"], 0)).as_py() or self._keyed:
            with Side(self._source, self._plan, "source", 1, stop=self._stop) as side:
                digester = side.digester()

                def take(batch: pa.RecordBatch) -> None:
                    keys, _ = digests_of(digester, batch)
                    self._take(batch, keys)

                side.scan([take])
        self._flush()
        if self._keyed:
            self._delete_rest()
        return self._touched

    def _take(self, batch: pa.RecordBatch, keys: pa.Array) -> None:
        mask = pc.is_in(keys, value_set=self._wanted)
        if not pc.any(mask).as_py():
            return
        batch, keys = batch.filter(mask), keys.filter(mask)
        if not self._keyed:
            mask = pa.array([self._claim(digest) for digest in keys.to_pylist()], pa.bool_())
            batch, keys = batch.filter(mask), keys.filter(mask)
        if not batch.num_rows:
            return
        self._pending.append(self._converted(batch))
        self._pending_keys.append(keys)
        self._pending_bytes += batch.nbytes
        if self._pending_bytes >= REPAIR_BYTES or sum(map(len, self._pending_keys)) >= REPAIR_KEYS_MAX:
            self._flush()

    def _claim(self, digest: bytes) -> bool:
        left = self._surplus.get(digest, 0)
        self._surplus[digest] = left - 1
        return left > 0

    def _converted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        arrays = []
        for way, column, array in zip(self._conversions, self._columns, batch.columns, strict=True):
            try:
                arrays.append(way.apply(array)[0])
            except RowferryError as error:
                raise error.at(table=str(self._plan.target.name), column=column.target) from None
        return pa.RecordBatch.from_arrays(arrays, [c.target for c in self._columns])

    def _flush(self) -> None:
        """Puts what is pending into the target: the rows of the same keys go, these come, in one transaction."""
        if not self._pending:
            return
        delete: pa.RecordBatch | None = None
        if self._keyed:
            keys = pc.unique(pa.concat_arrays(self._pending_keys))
            fresh = keys.filter(pc.invert(pc.is_in(keys, value_set=self._replaced_keys())))
            delete = self._target_keys(fresh)
            self._replaced.append(fresh)
        inserts, self._pending, self._pending_keys, self._pending_bytes = self._pending, [], [], 0
        self._touched += self._target.repair(self._table, self._columns, self._plan.key, delete, inserts)

    def _replaced_keys(self) -> pa.Array:
        return pa.concat_arrays([pa.array([], DIGEST), *self._replaced])

    def _delete_rest(self) -> None:
        """Deletes what has a wanted key that the source does not have any more."""
        self._delete_keys(self._wanted.filter(pc.invert(pc.is_in(self._wanted, value_set=self._replaced_keys()))))

    def _delete_keys(self, digests: pa.Array) -> None:
        delete = self._target_keys(digests)
        for start in range(0, 0 if delete is None else delete.num_rows, REPAIR_KEYS_MAX):
            assert delete is not None
            part = delete.slice(start, REPAIR_KEYS_MAX)
            self._target.repair(self._table, self._columns, self._plan.key, part, [])
            self._touched += part.num_rows

    def _target_keys(self, digests: pa.Array) -> pa.RecordBatch | None:
        """The key columns of the target's rows with these key digests, each key once; None where there are none.

        The target's own values, since equal under a comparison rule is not always the same to its engine.
        """
        found: list[pa.RecordBatch] = []
        if len(digests):
            seen: set[bytes] = set()
            with (
                reading(self._target, 1) as written,
                Side(written, self._plan, "target", 1, columns=self._plan.key, stop=self._stop) as side,
            ):
                digester = side.digester()

                def take(batch: pa.RecordBatch) -> None:
                    keys, _ = digests_of(digester, batch)
                    wanted = pc.is_in(keys, value_set=digests)
                    if pc.any(wanted).as_py():
                        first = [_first(key, seen) for key in keys.filter(wanted).to_pylist()]
                        found.append(batch.filter(wanted).filter(pa.array(first, pa.bool_())))

                side.scan([take])
        if not found:
            return None
        table = pa.Table.from_batches(found).combine_chunks()
        if not table.num_rows:
            return None
        arrays = [self._as_key(name, table[name]) for name in self._plan.key]
        return pa.RecordBatch.from_arrays(arrays, list(self._plan.key))

    def _as_key(self, name: str, values: pa.ChunkedArray) -> pa.Array:
        """Key values as they were read, in the type that the target takes."""
        read = next(c for c in self._plan.columns if c.target == name).column.type
        way = conversion(read, next(c for c in self._columns if c.target == name).column.type)
        if isinstance(way, str):
            raise RefusedError(way, table=str(self._plan.target.name), column=name)
        return way.apply(_whole(values))[0]


def _first(key: bytes, seen: set[bytes]) -> bool:
    if key in seen:
        return False
    seen.add(key)
    return True


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([pa.array([], column.type), *column.chunks])


def _as_written(target: Target, plan: TablePlan) -> tuple[Table, tuple[ColumnPlan, ...]]:
    """The target table as its writer sees it, and the plan's columns with the types and checks of that.

    A comparison may have been of another form than the one that is written (a column read as text).
    """
    table = target.describe(plan.target.name)
    if table is None:
        raise TargetError("the table is gone", table=str(plan.target.name))
    columns = []
    for column in plan.columns:
        written = table.column(column.target)
        if isinstance(conversion(column.form, written.type), str):
            written = column.column
        checks = column.checks or target.checks(written)
        columns.append(msgspec.structs.replace(column, column=written, checks=checks))
    return table, tuple(columns)
