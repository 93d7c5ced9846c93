"""Safetensors files in memory, valid or not: headers made by hand; reads are counted."""

from __future__ import annotations

import json
import struct

from modelsurgeon.files.file import File


class Bytes(File):
    """A file in memory that counts the bytes read."""

    path = None

    def __init__(self, data: bytes, name: str = "model.safetensors") -> None:
        super().__init__()
        self.data, self.name, self.size, self.reads = data, name, len(data), []

    def read_into(self, view: memoryview, at: int) -> None:
        assert at >= 0 and at + len(view) <= self.size, "beyond the file"
        self.reads.append((at, len(view)))
        view[:] = self.data[at : at + len(view)]

    def check_unchanged(self) -> None:
        """Do nothing: nobody changes it."""

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
