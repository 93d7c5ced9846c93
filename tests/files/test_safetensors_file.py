"""Headers of safetensors files: what the library refuses is refused, what is accepted is what the library loads.

Thousands of headers, sound ones spoilt at random, are judged by both. What only this side refuses says why, in words
that are listed here; and each check, taken away, is missed by one of the cases.
"""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save

from modelsurgeon.errors import SourceError
from modelsurgeon.files import safetensors_file
from modelsurgeon.files.file import File, LocalFile
from modelsurgeon.files.safetensors_file import BITS, Entry, layout, read_entries
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.stored import Stored, read_header

CASES = 4000
STRICTER = (  # what the library lets through
    "a name that appears twice",
    "its keys are",
    "which no memory holds",
    "a header that begins with",
    "begins no entry of a tensor",  # an entry as a list of its three values, or null for the metadata
)


class Bytes(File):
    """A file in memory, which counts what is read of it."""

    path = None

    def __init__(self, data: bytes, name: str = "model.safetensors") -> None:
        super().__init__()
        self.data, self.name, self.size, self.reads = data, name, len(data), []

    def read_into(self, view: memoryview, at: int) -> None:
        assert at >= 0 and at + len(view) <= self.size, "beyond the file"
        self.reads.append((at, len(view)))
        view[:] = self.data[at : at + len(view)]

    def check_unchanged(self) -> None:
        """Nobody changes it."""

    @property
    def stamp(self) -> tuple[object, ...]:
        return (self.size,)

    def __str__(self) -> str:
        return self.name


def file_of(header: object, data: bytes = b"", length: int | None = None) -> Bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return Bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8), **more: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


# The same verdict as the library's


def sound_files() -> list[bytes]:
    """Whole files as the library writes them."""
    some = {"a": torch.randn(3, 4), "b.weight": torch.randn(2).half(), "scalar": torch.tensor(1.5)}
    packed = {
        "w": torch.zeros(4, 6).to(torch.float8_e4m3fn),
        "s": torch.ones(4),
        "q": torch.ones(2, 2, dtype=torch.int8),
    }
    empty = {"none": torch.zeros(0, 3), "one": torch.ones(1), "mask": torch.ones(5, dtype=torch.bool)}
    named = {'\u00e9\u4e16 "quoted" \\ {braces} [red]': torch.ones(2, dtype=torch.int64), "": torch.ones(1)}
    metadata = {"format": "pt", "note": 'text with {"braces": [1, 2]} and \u00e9'}
    return [save(some), save(some, metadata), save(packed), save(empty, {"format": "pt"}), save(named, metadata)]


def taken_apart(raw: bytes) -> tuple[dict[str, object], bytes]:
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


ODD = [
    -1,
    0,
    1,
    2,
    3,
    8,
    2**31,
    2**62,
    2**63,
    2**64,
    10**30,
    True,
    None,
    1.0,
    0.5,
    "2",
    [],
    [1],
    {},
    -0.0,
    float("nan"),
]
ODD_NAMES = ["__metadata__", "a", "\ud800", "\x00", "two\nlines", "x" * 300, "../../etc/passwd", "\ufeff", "\U0001f600"]


def spoil_fields(header: dict[str, object], data: bytes, chance: random.Random) -> tuple[object, bytes]:
    """One or two entries changed, as the header's writer could have."""
    names = [name for name in header if name != "__metadata__"]
    one, other = header[chance.choice(names)], header[chance.choice(names)]
    kind = chance.randrange(14)
    if kind == 0:
        one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]
    elif kind == 1:
        by = chance.choice([-8, -4, -1, 1, 4, 8, 2**63])
        one["data_offsets"] = [at + by for at in one["data_offsets"]]
    elif kind == 2:
        one["data_offsets"][chance.randrange(2)] = chance.choice(ODD)
    elif kind == 3:
        one["dtype"] = chance.choice([*BITS, *ODD, "F7", "f32", "", "float32"])
    elif kind == 4:
        one["shape"] = [*one["shape"], chance.choice(ODD)]
        chance.shuffle(one["shape"])
    elif kind == 5:
        one["shape"] = chance.choice([one["shape"][::-1], [0], [0, 2**62], [2**62, 0, 4], [], *ODD])
    elif kind == 6:
        del header[chance.choice(names)]
    elif kind == 7:
        del one[chance.choice(list(one))]
    elif kind == 8:
        one[chance.choice(["strides", "dtype ", ""])] = chance.choice(ODD)
    elif kind == 9:
        header[chance.choice(ODD_NAMES)] = chance.choice([one, {**one, "data_offsets": [len(data)] * 2, "shape": [0]}])
    elif kind == 10:
        header["__metadata__"] = chance.choice([*ODD, {"a": chance.choice(ODD)}, {"\ud800": ""}, {"a": "\udc00"}])
    elif kind == 11:
        header[chance.choice(names)] = chance.choice([*ODD, list(one.values())])
    elif kind == 12:
        data = chance.choice([data + b"\0", data[:-1], data * 2, b""])
    else:
        header = dict(chance.sample(sorted(header.items()), len(header)))
    return header, data


def spoil_text(text: bytes, chance: random.Random) -> bytes:
    """A byte or two changed, put in or left out; or spaces where they make no difference."""
    at = chance.randrange(len(text))
    kind = chance.randrange(7)
    if kind == 0:
        return text[:at] + bytes([text[at] ^ 1 << chance.randrange(8)]) + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at + chance.randrange(1, 4) :]
    if kind == 2:
        signs = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b" ", b"\n", b"-", b"0", b"1", b"e3", b"NaN", b"\x00"]
        return text[:at] + chance.choice([*signs, b"\xff", b"\xef\xbb\xbf", b"\\u0061", b"\\ud800"]) + text[at:]
    if kind == 3:
        return chance.choice([b" ", b"\n", b"\xef\xbb\xbf", b"[", b"\t"]) + text
    if kind == 4:
        return text + chance.choice([b" ", b"\n", b"}", b"\0", b",", b"{}", b"\t\r\n "])
    if kind == 5:
        return text.replace(
            *chance.choice([(b",", b" ,\n"), (b":", b"\t: "), (b"[", b"[ "), (b"}", b" }"), (b"0", b"-0")])
        )
    pieces = text.split(b"},")
    pieces.insert(chance.randrange(len(pieces)), chance.choice(pieces))  # an entry that appears twice
    return b"},".join(pieces)


def spoilt(raw: bytes, chance: random.Random) -> bytes:
    """A file made from a sound one."""
    header, data = taken_apart(raw)
    header = json.loads(json.dumps(header))
    kind = chance.randrange(10)
    if kind == 0:  # anywhere, the length too
        at = chance.randrange(len(raw))
        return chance.choice([raw[:at], raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :], raw[at:], raw + raw])
    if kind < 6:
        header, data = spoil_fields(header, data, chance)
    text = json.dumps(header, ensure_ascii=chance.random() < 0.5, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )
    for _ in range(chance.choice([0, 0, 1, 2]) if kind < 6 else 1):
        text = spoil_text(text, chance)
    length = len(text) + (chance.choice([-1, 1, 2**32, 2**63]) if chance.random() < 0.03 else 0)
    return struct.pack("<Q", length) + text + data


Found = dict[str, tuple[str, tuple[int, ...], bytes]]  # {name: (dtype, shape, bytes)}


def theirs(raw: bytes, path: Path) -> Found | None:
    """What the library makes of a file; None where it refuses."""
    path.write_bytes(raw)
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            names = set(opened.keys())
        found = {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in safetensors.deserialize(raw)}
    except (safetensors.SafetensorError, OSError):
        return None
    assert names == set(found)
    return found


def ours(raw: bytes) -> Found | str:
    """What this side makes of it; the message where it refuses. No other exception may come out."""
    file = Bytes(raw)
    try:
        entries = read_entries(file)
    except SourceError as error:
        return str(error)
    assert len(file.reads) <= 2
    return {name: (e.dtype, e.shape, file.read(e.start, e.nbytes)) for name, e in entries.items()}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, Found | None]]:
    """(file, the library's verdict)."""
    chance, whole = random.Random(0), sound_files()
    path = tmp_path_factory.mktemp("cases") / "x.safetensors"
    files = [*whole, *(spoilt(chance.choice(whole), chance) for _ in range(CASES))]
    return [(raw, theirs(raw, path)) for raw in files]


def disagreement(raw: bytes, verdict: Found | None) -> str:
    """In what both sides differ that they must not; empty where in nothing."""
    found = ours(raw)
    if isinstance(found, str):
        return found if verdict is not None and not any(reason in found for reason in STRICTER) else ""
    return "" if found == verdict else f"{found} is {verdict} to the library"


def test_the_verdict_on_every_case_is_the_library_s(cases):
    for raw, verdict in cases:
        assert not disagreement(raw, verdict), raw


def test_the_cases_are_of_both_kinds_and_meet_every_stricter_check(cases):
    sound = sum(verdict is not None for _, verdict in cases)
    assert CASES // 10 < sum(isinstance(ours(raw), dict) for raw, _ in cases) <= sound < CASES // 2
    stricter = " ".join(str(ours(raw)) for raw, verdict in cases if verdict is not None)
    assert [reason for reason in STRICTER if reason not in stricter] == []


def test_messages_are_of_one_short_line(cases):
    for raw, _ in cases:
        found = ours(raw)
        assert isinstance(found, dict) or ("\n" not in repr(found)[1:-1] and len(found) < 1000), found


# Each check, taken away, is missed

MUTANTS = {
    "places": ("_check_places", lambda entries, data, size: None),
    "sizes": ("_nbytes", lambda name, dtype, shape: 8),
    "whole numbers": ("_are_whole", lambda values: isinstance(values, list)),
    "minus zero": ("_DECODER", json.JSONDecoder()),
    "surrogates": ("_name", lambda text: json.loads(text)),
    "metadata": ("_check_metadata", lambda text: None),
    "the end": ("_SPACES", safetensors_file.re.compile(rb".*", safetensors_file.re.DOTALL)),
    "the width of F16": ("BITS", {**BITS, "F16": 32}),
    "a dtype nobody knows": ("BITS", {**BITS, "F7": 32, "f32": 32}),
    "a dtype that is one": ("BITS", {dtype: bits for dtype, bits in BITS.items() if dtype != "F8_E4M3"}),
}


@pytest.mark.parametrize(("name", "mutant"), MUTANTS.values(), ids=MUTANTS)
def test_a_check_taken_away_is_seen(name, mutant, cases, monkeypatch):
    monkeypatch.setattr(safetensors_file, name, mutant)

    def seen(raw: bytes, verdict: Found | None) -> bool:
        try:
            return bool(disagreement(raw, verdict))
        except Exception:
            return True

    assert any(seen(raw, verdict) for raw, verdict in cases)


# What is refused, by name

HUGE = "which no memory holds"
REFUSED = {
    "nothing": (Bytes(b""), "0 bytes, expected the 8 of a header's length"),
    "seven bytes": (Bytes(b"abcdefg"), "7 bytes, expected the 8"),
    "a length of 2**63": (file_of(b"{}", length=2**63), f"a header of {2**63} bytes, expected 100000000 at most"),
    "a length of 2**64 - 1": (file_of(b"{}", length=2**64 - 1), "at most"),
    "a length beyond the file": (file_of(b"{}", length=3), "a header of 3 bytes in a file of 10"),
    "no header": (Bytes(bytes(8)), "a header that begins with b''"),
    "zeros": (Bytes(bytes(4096)), "a header that begins with b''"),
    "a list": (file_of([]), "a header that begins with b'['"),
    "a mark of byte order": (file_of(b"\xef\xbb\xbf{}"), "begins with"),
    "UTF-16": (file_of('{"a": 1}'.encode("utf-16-le")), "begins no entry"),
    "no UTF-8": (file_of(b'{"\xff": {}}'), "can't decode"),
    "deep objects": (file_of(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "begins no entry"),
    "deep lists": (file_of(b'{"a": {"shape": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}"), "an entry of 100011"),
    "lists as deep as an entry can be": (file_of(b'{"a": {"shape": ' + b"[" * 2000 + b"]" * 2000 + b"}}"), "recursion"),
    "an endless name": (file_of({"x" * 5000: entry()}), "a name of 5002 bytes, expected 4096 at most"),
    "an endless number": (file_of({"x": entry(shape=[10**4200])}), "expected 4096 at most"),
    "a key that appears twice": (file_of(b'{"a": {"dtype": "F32", "dtype": "F32"}}'), "appears twice, 'dtype'"),
    "a tensor that appears twice, escaped": (
        file_of(b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"\\u0061":{}}', bytes(4)),
        "a name that appears twice, 'a'",
    ),
    "metadata that appear twice": (file_of(b'{"__metadata__": {}, "__metadata__": {}}'), "appears twice"),
    "a key of the metadata twice": (file_of(b'{"__metadata__": {"a": "", "a": ""}}'), "appears twice, 'a'"),
    "metadata that are no strings": (file_of({"__metadata__": {"a": 1}}), "__metadata__ holds a int, expected strings"),
    "no entry": (file_of({"a": 1}), "byte 1 of the header begins no entry"),
    "a comma too many": (file_of(b'{"__metadata__": {},}'), "byte 20 of the header begins no entry"),
    "more behind the header": (file_of(b"{}{}"), "goes on behind its end, at byte 2"),
    "a key too few": (file_of({"a": {"dtype": "F32", "shape": [2]}}), "its keys are ['dtype', 'shape'], expected"),
    "a key too many": (file_of({"a": entry(strides=[1])}, bytes(8)), "'strides'"),
    "a dtype that nobody knows": (file_of({"a": entry("F7")}, bytes(8)), "unknown dtype 'F7'"),
    "a dtype that is a list": (file_of({"a": entry(["F32"])}, bytes(8)), "unknown dtype ['F32']"),
    "a shape that is none": (file_of({"a": entry(shape="2")}, bytes(8)), "shape '2', expected whole numbers"),
    "a negative size": (file_of({"a": entry(shape=[-2])}, bytes(8)), "shape [-2], expected whole numbers of 0 or more"),
    "two negative sizes": (file_of({"a": entry(shape=[-2, -1])}, bytes(8)), "expected whole numbers of 0 or more"),
    "a size that is true": (file_of({"a": entry(shape=[2, True])}, bytes(8)), "shape [2, True]"),
    "a size with a point": (file_of({"a": entry(shape=[2.0])}, bytes(8)), "shape [2.0]"),
    "a size of 2e0": (file_of(b'{"a":{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}}', bytes(8)), "shape [2.0]"),
    "a size of NaN": (file_of({"a": entry(shape=[float("nan")])}, bytes(8)), "shape [nan]"),
    "an infinite size": (file_of({"a": entry(shape=[float("inf")])}, bytes(8)), "shape [inf]"),
    "a huge size": (file_of({"a": entry(shape=[2**62])}, bytes(8)), HUGE),
    "sizes that overflow to those of the file": (file_of({"a": entry(shape=[2**32, 2**32, 2])}, bytes(8)), HUGE),
    "a huge size beside a zero": (file_of({"a": entry(shape=[0, 2**62], offsets=[0, 0])}), HUGE),
    "a size that is not the data's": (file_of({"a": entry(shape=[3])}, bytes(8)), "8 bytes, but F32 of shape [3]"),
    "half a byte": (file_of({"a": entry("F4", [3], [0, 1])}, bytes(1)), "F4 of shape [3] ends inside of a byte"),
    "one offset": (file_of({"a": entry(offsets=[8])}, bytes(8)), "data_offsets [8], expected a begin and an end"),
    "three offsets": (file_of({"a": entry(offsets=[0, 8, 8])}, bytes(8)), "expected a begin and an end"),
    "negative offsets": (file_of({"a": entry(offsets=[-8, 0])}, bytes(8)), "data_offsets [-8, 0]"),
    "reversed offsets": (file_of({"a": entry(offsets=[8, 0])}, bytes(8)), "-8 bytes, but F32 of shape [2] takes 8"),
    "a gap before": (file_of({"a": entry(offsets=[4, 12])}, bytes(12)), "'a' leaves a gap before it: it begins at"),
    "a gap between": (
        file_of({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)),
        "tensor 'b' leaves a gap before it: it begins at byte 12 of the data, not at 8",
    ),
    "an overlap": (
        file_of({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)),
        "tensor 'b' overlaps the one before: it begins at byte 4 of the data, not at 8",
    ),
    "the same bytes twice": (file_of({"a": entry(), "b": entry()}, bytes(8)), "tensor 'b' overlaps"),
    "a file cut short": (file_of({"a": entry()}, bytes(7)), "8 bytes of tensors, but 7 bytes of data"),
    "bytes behind": (file_of({"a": entry()}, bytes(9)), "8 bytes of tensors, but 9 bytes of data"),
    "bytes behind nothing": (file_of({}, bytes(1)), "0 bytes of tensors, but 1 bytes of data"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_sound_is_refused_with_the_reason(file, said):
    with pytest.raises(SourceError) as refused:
        read_header(file)
    assert str(refused.value).startswith("model.safetensors: not a sound safetensors file: ")
    assert said in str(refused.value)
    assert len(file.reads) <= 2


@pytest.mark.parametrize("dtype", sorted(set(BITS) - set(DTYPES)))
def test_dtypes_that_surgery_cannot_work_on_are_refused_by_name_with_the_way_out(dtype):
    file = file_of({"x.weight": entry(dtype, [8], [0, BITS[dtype]])}, bytes(BITS[dtype]))
    assert read_entries(file) == {"x.weight": Entry(file, dtype, (8,), file.size - BITS[dtype], BITS[dtype])}
    with pytest.raises(
        SourceError, match=rf"tensor 'x.weight' is stored as {dtype} \(.*dtype=bfloat16.*save_pretrained"
    ):
        read_header(file)


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "\u202eright to left", "\x7f"])
def test_names_that_would_move_a_cursor_are_refused(name):
    with pytest.raises(SourceError, match="has control characters in its name"):
        read_header(file_of({name: entry()}, bytes(8)))


# What is accepted


def test_every_dtype_of_the_library_is_known(tmp_path):
    """Its own message lists them."""
    raw = file_of({"a": entry("F7")}, bytes(8)).data
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(safetensors.SafetensorError) as refused, safetensors.safe_open(tmp_path / "x", "pt"):
        pass
    assert set(str(refused.value).split("expected one of")[1].split(" at line")[0].replace("`", "").split(", ")) == {
        *BITS, " BOOL"
    } - {"BOOL"}  # fmt: skip


def test_what_layout_writes_is_read_again(tmp_path):
    tensors = {"b": Stored(Bytes(b""), "BF16", (3, 2), 0), "a": Stored(Bytes(b""), "F32", (2,), 0)}
    prefix, starts = layout(tensors)
    (tmp_path / "x").write_bytes(prefix + bytes(sum(tensor.nbytes for tensor in tensors.values())))
    file = LocalFile(tmp_path / "x")
    assert read_header(file) == {
        name: Stored(file, tensors[name].dtype, tensors[name].shape, starts[name]) for name in ("a", "b")
    }


@pytest.mark.parametrize("count", [1, 5000])
def test_a_header_takes_one_read_or_two_and_no_tensor_is_read(count):
    header = {f"model.layers.{i}.weight": entry(offsets=[8 * i, 8 * i + 8]) for i in range(count)}
    file = file_of(header, bytes(8 * count))
    assert len(read_header(file)) == count
    assert len(file.reads) == (1 if count == 1 else 2)
    assert sum(length for _, length in file.reads) <= max(len(json.dumps(header)) + 8, safetensors_file.FIRST_READ)


# What it costs

HOSTILE = {
    "lists": b'{"a":{"shape":[' + b"[]," * 3_000_000,
    "objects": b'{"a":{' + b'"b":{},' * 1_400_000,
    "nested": b'{"a":' * 2_000_000,
    "metadata": b'{"__metadata__":{' + b",".join(b'"%x":""' % i for i in range(900_000)) + b"}}",
    "strings": b'{"__metadata__":{"' + b'","":"' * 1_600_000,
    "tensors": b"{"
    + b",".join(b'"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(20_000))
    + b"}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_takes_memory_in_proportion(text):
    file = file_of(text)
    tracemalloc.start()
    try:
        read_entries(file)
    except SourceError as refused:
        assert len(str(refused)) < 300
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 30 * len(text)
