"""Hashes of files: BLAKE3, which keeps up with a disk where SHA-256 does not.

Source: https://github.com/BLAKE3-team/BLAKE3-specs
"""

from __future__ import annotations

from blake3 import blake3

from modelsurgeon.files.file import File

ALGORITHM = "blake3"
CHUNK = 1 << 20  # bytes read at a time


def digest(file: File) -> str:
    """The hash of a whole file, in hexadecimal. Raises SourceError where it cannot be read."""
    hash = blake3()
    chunk = bytearray(min(CHUNK, file.size))
    for at in range(0, file.size, CHUNK):
        view = memoryview(chunk)[: file.size - at]
        file.read_into(view, at)
        hash.update(view)
    return str(hash.hexdigest())
