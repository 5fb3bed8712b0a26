"""The digest kernel against arrays that lie: it raises, and never reads outside a buffer. Run under ASan, too."""

from __future__ import annotations

import ctypes
import dataclasses
import decimal
import random
import struct
from typing import Any

import pyarrow as pa
import pytest

from hashing import batch_of, kernel_sum, program, sizes_of
from rowferry._native.row_digest import Hasher

D = decimal.Decimal


class CSchema(ctypes.Structure):
    pass


class CArray(ctypes.Structure):
    pass


CSchema._fields_ = [
    ("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_char_p), ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64), ("children", ctypes.POINTER(ctypes.POINTER(CSchema))),
    ("dictionary", ctypes.POINTER(CSchema)), ("release", ctypes.c_void_p), ("private_data", ctypes.c_void_p),
]  # fmt: skip
CArray._fields_ = [
    ("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64), ("n_children", ctypes.c_int64), ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(CArray))), ("dictionary", ctypes.POINTER(CArray)),
    ("release", ctypes.c_void_p), ("private_data", ctypes.c_void_p),
]  # fmt: skip

_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_KEPT = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
#: Marks structs as not yet released; the memory is Python's own.
RELEASE = ctypes.cast(_KEPT, ctypes.c_void_p).value


@dataclasses.dataclass
class Node:
    """An Arrow array written by hand, true or not. The kernel is told the buffers' true sizes."""

    format: bytes
    length: int
    buffers: list[bytes | None]
    children: list[Node] = dataclasses.field(default_factory=list)
    offset: int = 0
    null_count: int = -1


class Handmade:
    """A batch of hand-written columns, for what pyarrow itself would not make."""

    def __init__(self, *columns: Node, length: int | None = None) -> None:
        self.kept: list[Any] = []
        self.sizes: list[int] = []
        rows = columns[0].length if length is None else length
        schema, array = self._build(Node(b"+s", rows, [None], list(columns), 0, 0))
        del self.sizes[0]  # the batch itself has no buffer
        self.capsules = (
            _capsule(ctypes.addressof(schema), b"arrow_schema", None),
            _capsule(ctypes.addressof(array), b"arrow_array", None),
        )

    def _build(self, node: Node) -> tuple[CSchema, CArray]:
        data = [None if b is None else ctypes.create_string_buffer(b, len(b)) for b in node.buffers]
        self.sizes += [0 if b is None else len(b) for b in node.buffers]
        built = [self._build(child) for child in node.children]
        n = len(built)
        schema, array = CSchema(), CArray()
        schema.format, schema.name, schema.n_children, schema.release = node.format, b"", n, RELEASE
        schema.children = (ctypes.POINTER(CSchema) * n)(*(ctypes.pointer(s) for s, _ in built))
        array.length, array.null_count, array.offset = node.length, node.null_count, node.offset
        array.n_buffers, array.n_children, array.release = len(data), n, RELEASE
        addresses = [None if d is None else ctypes.addressof(d) for d in data]
        array.buffers = (ctypes.c_void_p * max(1, len(data)))(*addresses)
        array.children = (ctypes.POINTER(CArray) * n)(*(ctypes.pointer(a) for _, a in built))
        self.kept += [data, built, schema, array]
        return schema, array

    def __arrow_c_array__(self) -> Any:
        return self.capsules


def refuses(spec: str, node: Node) -> None:
    """The batch raises and adds nothing; the hasher is of use afterwards."""
    hasher = Hasher([program(spec)])
    batch = Handmade(node)
    with pytest.raises(ValueError):
        hasher.add(batch, batch.sizes)
    assert hasher.result() == (0, 0)
    good = batch_of([pa.nulls(3)])
    hasher.add(good, sizes_of(good))
    assert hasher.result()[0] == 3


def packed(*values: int, width: str = "i") -> bytes:
    return struct.pack(f"<{len(values)}{width}", *values)


def test_handmade_batch_digests_as_pyarrows_does() -> None:
    text = Node(b"u", 3, [b"\x0b", packed(0, 2, 2, 2, 5), b"abxyz"], offset=1)
    batch = Handmade(text)
    hasher = Hasher([program("text")])
    hasher.add(batch, batch.sizes)
    rows, total = hasher.result()
    assert f"{rows}:{total:032x}" == kernel_sum(["text"], [pa.array(["", None, "xyz"])])


@pytest.mark.parametrize("values", [(0, 9), (-1, 2), (5, 2), (0, 2**31 - 1), (-(2**31), 0), (7, 7)])
@pytest.mark.parametrize("width", ["i", "q"])
@pytest.mark.parametrize("spec", ["text", "json", "numeric"])
def test_offsets_outside_the_data_raise(values: tuple[int, int], width: str, spec: str) -> None:
    refuses(spec, Node(b"u" if width == "i" else b"U", 1, [None, packed(*values, width=width), b"abcdef"]))


@pytest.mark.parametrize("offset", [2**48 - 1, 2**48])
@pytest.mark.parametrize("width", [2**16, 2**31 - 1])
def test_values_whose_bytes_are_more_than_any_memory_raise(width: int, offset: int) -> None:
    """65,536 × 2^48 is 0 in 64 bits, which any buffer has."""
    refuses("binary", Node(b"w:%d" % width, 1, [None, bytes(100)], offset=offset))


def test_offsets_that_fall_within_a_block_raise() -> None:
    refuses("text", Node(b"u", 3, [None, packed(0, 3, 1, 6), b"abcdef"]))


@pytest.mark.parametrize("values", [(0, 9), (-1, 2), (5, 2)])
@pytest.mark.parametrize("width", ["i", "q"])
def test_list_offsets_outside_the_elements_raise(values: tuple[int, int], width: str) -> None:
    elements = Node(b"c", 3, [None, b"\1\2\3"])
    refuses(
        "list<number(0)>", Node(b"+l" if width == "i" else b"+L", 1, [None, packed(*values, width=width)], [elements])
    )


def test_map_offsets_outside_the_entries_raise() -> None:
    entries = Node(b"+s", 1, [None], [Node(b"u", 1, [None, packed(0, 1), b"k"]), Node(b"c", 1, [None, b"v"])])
    refuses("map<text, number(0)>", Node(b"+m", 1, [None, packed(0, 2)], [entries]))


def test_children_that_are_too_short_raise() -> None:
    refuses("struct<number(0)>", Node(b"+s", 3, [None], [Node(b"c", 2, [None, b"ab"])]))
    refuses("struct<number(0)>", Node(b"+s", 1, [None], [Node(b"c", 2, [None, b"ab"])], offset=2))
    refuses("list<number(0)>", Node(b"+w:2", 2, [None], [Node(b"c", 3, [None, b"abc"])]))
    refuses("list<number(0)>", Node(b"+w:2147483647", 2**33, [None], [Node(b"c", 3, [None, b"abc"])]))


@pytest.mark.parametrize(
    ("spec", "format_", "width"),
    [("number(0)", b"l", 8), ("number(0)", b"c", 1), ("number(0)", b"d:5,0", 16), ("number(0)", b"d:50,0,256", 32),
     ("number(0)", b"d:5,0,32", 4), ("float", b"f", 4), ("uuid", b"w:16", 16), ("interval", b"tin", 16),
     ("timestamp", b"tsu:", 8), ("date", b"tdD", 4), ("time", b"ttm", 4), ("duration", b"tDs", 8)],
)  # fmt: skip
def test_buffers_that_are_too_short_raise(spec: str, format_: bytes, width: int) -> None:
    refuses(spec, Node(format_, 10, [None, bytes(10 * width - 1)]))
    refuses(spec, Node(format_, 5, [None, bytes(9 * width)], offset=5))
    refuses(spec, Node(format_, 1, [None, None]))
    refuses(spec, Node(format_, 100, [b"\xff", bytes(100 * width)]))
    refuses(spec, Node(format_, 1, [None]))
    refuses(spec, Node(format_, 1, [None, bytes(width), b""]))
    batch = Handmade(Node(format_, 9, [None, bytes(9 * width)]))
    Hasher([program(spec)]).add(batch, batch.sizes)


def test_offsets_and_bits_that_are_too_short_raise() -> None:
    refuses("text", Node(b"u", 2, [None, packed(0, 1), b"abc"]))
    refuses("text", Node(b"U", 1, [None, packed(0, 1), b"abc"]))
    refuses("list<bool>", Node(b"+l", 2, [None, packed(0, 1)], [Node(b"b", 8, [None, b"\0"])]))
    refuses("bool", Node(b"b", 9, [None, b"\0"]))


def test_date64_that_is_not_at_midnight_raises() -> None:
    refuses("date", Node(b"tdm", 1, [None, packed(86_400_001, width="q")]))


@pytest.mark.parametrize(
    ("spec", "array"),
    [("number(0)", pa.array(["1"])), ("text", pa.array([1])), ("text", pa.array([b"1"] * 2, pa.binary(2 - 1))),
     ("number(1)", pa.array([D("1.25")], pa.decimal128(5, 2))), ("uuid", pa.array([b"1"], pa.binary(1))),
     ("float", pa.array([1.0], pa.float16())), ("text", pa.array(["a"], pa.string_view())),
     ("text", pa.array(["a"]).dictionary_encode()), ("bool", pa.array([1])), ("date", pa.array([1])),
     ("list<text>", pa.array(["a"])), ("number(200)", pa.array([1]))],
)  # fmt: skip
def test_formats_that_do_not_fit_raise_type_error(spec: str, array: pa.Array) -> None:
    batch = batch_of([array])
    with pytest.raises(TypeError):
        Hasher([program(spec)]).add(batch, sizes_of(batch))


def test_wrong_sizes_children_and_columns_raise() -> None:
    batch = batch_of([pa.array([1, 2]), pa.array(["a", "b"])])
    hasher = Hasher([("number", 0, ()), ("text", 0, ())])
    sizes = sizes_of(batch)
    for wrong in (sizes[:-1], [*sizes, 0], [], [0] * len(sizes), [-1] * len(sizes)):
        with pytest.raises(ValueError):
            hasher.add(batch, wrong)
    with pytest.raises(ValueError):
        Hasher([("number", 0, ())]).add(batch, sizes)
    array = batch_of([pa.array([{"a": 1}])])
    with pytest.raises(ValueError):
        Hasher([program("struct<number(0), text>")]).add(array, sizes_of(array))
    hasher.add(batch, sizes)
    assert hasher.result()[0] == 2


@pytest.mark.parametrize(
    ("columns", "more"),
    [([("text", 0, (("text", 0, ()),))], {}), ([("list", 0, ())], {}), ([("map", 0, (("text", 0, ()),))], {}),
     ([("text", 0, ())], {"key": [1]}), ([("text", 0, ())], {"key": [-1]}), ([], {"bucket_count": 3}),
     ([], {"bucket_count": 0}), ([], {"bucket_count": 131072})],
)  # fmt: skip
def test_columns_that_make_no_sense_raise(columns: list[Any], more: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Hasher(columns, **more)


def test_nesting_beyond_the_limit_raises() -> None:
    column: Any = ("text", 0, ())
    for _ in range(70):
        column = ("list", 0, (column,))
    with pytest.raises(ValueError, match="nested"):
        Hasher([column])


_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class Mutated:
    """A batch whose C structs are altered after pyarrow made them, and put back before pyarrow frees them."""

    def __init__(self, batch: pa.RecordBatch, mutate: Any) -> None:
        self.capsules = batch.__arrow_c_array__()
        self.schema = CSchema.from_address(_capsule_pointer(self.capsules[0], b"arrow_schema"))
        self.array = CArray.from_address(_capsule_pointer(self.capsules[1], b"arrow_array"))
        self.undo: list[tuple[Any, bytes]] = []
        mutate(self)

    def set(self, struct_: Any, name: str, value: Any) -> None:
        self.undo.append((struct_, bytes(struct_)))
        setattr(struct_, name, value)

    def __arrow_c_array__(self) -> Any:
        return self.capsules

    def restore(self) -> None:
        for struct_, before in reversed(self.undo):
            ctypes.memmove(ctypes.addressof(struct_), before, len(before))


NODES = ["top", "number", "text", "list", "element", "struct", "field"]


def nodes_of(m: Mutated) -> list[tuple[CSchema, CArray]]:
    top = [(m.schema.children[i].contents, m.array.children[i].contents) for i in range(4)]
    inner = [(top[i][0].children[0].contents, top[i][1].children[0].contents) for i in (2, 3)]
    return [(m.schema, m.array), top[0], top[1], top[2], inner[0], top[3], inner[1]]


def structs_batch() -> tuple[pa.RecordBatch, list[Any]]:
    batch = batch_of([
        pa.array([1, None, 3], pa.int64()), pa.array(["a", None, "ccc"]),
        pa.array([[1, 2], None, []], pa.list_(pa.int16())),
        pa.array([{"x": "a"}, None, {"x": None}], pa.struct([("x", pa.utf8())])),
    ])  # fmt: skip
    return batch, [program(s) for s in ("number(0)", "text", "list<number(0)>", "struct<text>")]


@pytest.mark.parametrize("node", range(len(NODES)), ids=NODES)
@pytest.mark.parametrize(
    ("name", "value"),
    [("length", -1), ("length", 2**62), ("offset", -1), ("offset", 2**62), ("offset", 2**63 - 1), ("n_buffers", 0),
     ("n_buffers", 9), ("n_children", 7), ("n_children", -1), ("release", None), ("buffers", None), ("offset", 200),
     ("children", None)],
)  # fmt: skip
def test_altered_c_arrays_raise(node: int, name: str, value: Any) -> None:
    batch, programs = structs_batch()
    mutated = Mutated(batch, lambda m: m.set(nodes_of(m)[node][1], name, value))
    leaf, top = NODES[node] in ("number", "text", "element", "field"), NODES[node] == "top"
    harmless = (name == "children" and leaf) or (top and name in ("buffers", "n_buffers"))
    try:
        hasher = Hasher(programs)
        if harmless:
            hasher.add(mutated, sizes_of(batch))
        else:
            with pytest.raises((ValueError, TypeError)):
                hasher.add(mutated, sizes_of(batch))
    finally:
        mutated.restore()


@pytest.mark.parametrize("node", range(len(NODES)), ids=NODES)
@pytest.mark.parametrize(
    "text", [b"", b"+", b"w:", b"w:-1", b"w:99999999999", b"d:", b"d:1", b"d:999,0", b"d:5,99", b"d:5,0,7",
             b"ts", b"tsx:", b"+w:x", b"+w:99999999", b"vu", b"+vl", b"+r", b"+ud:0", b"?", b"\xff", None],
)  # fmt: skip
def test_altered_formats_raise(node: int, text: bytes | None) -> None:
    batch, programs = structs_batch()
    mutated = Mutated(batch, lambda m: m.set(nodes_of(m)[node][0], "format", text))
    try:
        with pytest.raises((ValueError, TypeError)):
            Hasher(programs).add(mutated, sizes_of(batch))
    finally:
        mutated.restore()


#: (spec, how a hand-written array of it is made of junk)
SHAPES: list[tuple[str, bytes]] = [
    ("text", b"u"), ("text", b"U"), ("binary", b"Z"), ("json", b"u"), ("numeric", b"u"), ("number(3)", b"d:10,1"),
    ("number(70)", b"d:70,0,256"), ("numeric", b"d:70,5,256"), ("timestamp", b"tsn:"), ("float", b"g"), ("bool", b"b"),
    ("list<text>", b"+l"), ("list<number(0)>", b"+L"), ("list<bool>", b"+w:3"), ("map<text, date>", b"+m"),
    ("struct<json, uuid>", b"+s"),
]  # fmt: skip
CHILDREN = {
    "list<text>": [b"u"], "list<number(0)>": [b"L"], "list<bool>": [b"b"], "map<text, date>": [b"+s"],
    "struct<json, uuid>": [b"U", b"w:16"],
}  # fmt: skip


def test_fuzzed_buffers_raise_or_digest_but_never_crash() -> None:
    """Junk as offsets, bitmaps and payloads, at junk lengths and offsets: most valuable under ASan."""
    draw = random.Random(7)
    raised = digested = 0
    for _ in range(20_000):
        spec, format_ = draw.choice(SHAPES)
        batch = Handmade(fuzzed(draw, format_, CHILDREN.get(spec, [])), length=draw.randrange(0, 12))
        hasher = Hasher([program(spec)], [0])
        try:
            hasher.rows(batch, batch.sizes)
            digested += 1
        except ValueError:
            raised += 1
    assert raised > 2000
    assert digested > 2000


def fuzzed(draw: random.Random, format_: bytes, children: list[bytes]) -> Node:
    inner = [fuzzed(draw, c, [b"u", b"tdD"] if c == b"+s" else []) for c in children]
    count = 3 if format_ in (b"u", b"U", b"Z") else 1 if format_[:2] in (b"+s", b"+w") else 2
    buffers = [None if draw.random() < 0.5 else draw.randbytes(draw.choice([1, 2, 8]))]
    buffers += [junk(draw, format_) for _ in range(count - 1)]
    return Node(format_, draw.randrange(0, 30), buffers, inner, draw.choice([0, 0, 1, 7]), draw.choice([-1, 0, 1]))


def junk(draw: random.Random, format_: bytes) -> bytes | None:
    """Random bytes, or offsets that mostly ascend, or JSON's own characters."""
    kind = draw.randrange(8)
    if kind == 0:
        return None
    if kind == 1:
        return draw.randbytes(draw.choice([0, 1, 8, 64, 200, 700]))
    if kind == 2:
        return bytes(draw.choices(b'{}[]",:0123456789eE.-\\utrfn ', k=draw.randrange(0, 200)))
    ascending = sorted(draw.randrange(0, 12) for _ in range(draw.randrange(0, 80)))
    if ascending and draw.random() < 0.1:
        ascending[draw.randrange(len(ascending))] = draw.choice([-1, 13, 1000, 2**31 - 1])
    return packed(*ascending, width="q" if format_ in (b"U", b"Z", b"+L") else "i")
