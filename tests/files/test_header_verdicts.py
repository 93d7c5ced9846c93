"""Headers of safetensors files: what the library refuses is refused, what is accepted is what the library loads.

Thousands of headers, sound ones spoilt at random, are judged by both. What only this side refuses says why, in words
that are listed here; and each check, taken away, is missed by one of the cases.
"""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save

from modelsurgeon.errors import SourceError
from modelsurgeon.files import safetensors_file
from modelsurgeon.files.safetensors_file import BITS, read_entries
from support import draws
from support.header_bytes import Bytes

CASES = 4000
STRICTER = (  # what the library lets through
    "a name that appears twice",
    "its keys are",
    "which no memory holds",
    "a header that begins with",
    "begins no entry of a tensor",  # an entry as a list of its three values, or null for the metadata
)


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
    """(file, the library's verdict): the same cases in every run, so that every kind is among them."""
    return judged(random.Random(0), CASES, tmp_path_factory.mktemp("cases") / "x.safetensors")


def judged(chance: random.Random, count: int, path: Path) -> list[tuple[bytes, Found | None]]:
    """(file, the library's verdict) of sound files and of so many that are spoilt."""
    whole = sound_files()
    files = [*whole, *(spoilt(chance.choice(whole), chance) for _ in range(count))]
    return [(raw, theirs(raw, path)) for raw in files]


def disagreement(raw: bytes, verdict: Found | None) -> str:
    """In what both sides differ that they must not; empty where in nothing."""
    found = ours(raw)
    if isinstance(found, str):
        return found if verdict is not None and not any(reason in found for reason in STRICTER) else ""
    return "" if found == verdict else f"{found} is {verdict} to the library"


def test_the_verdict_on_every_case_is_the_library_s(cases, tmp_path):
    drawn = judged(draws.chance("headers"), draws.examples(1000), tmp_path / "x.safetensors")
    for raw, verdict in [*cases, *drawn]:
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
