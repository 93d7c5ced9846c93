"""JSON that a stranger wrote: an object, of a size that memory holds, with every name once."""

from __future__ import annotations

import json
from typing import Any

from modelsurgeon.errors import SourceError
from modelsurgeon.files import File

LARGEST = 100_000_000  # bytes, as of a header in the safetensors library


def read_json(file: File) -> dict[str, Any]:
    """A JSON object. Raises SourceError for anything else, and where `model_type` is there and no name."""
    if file.size > LARGEST:
        raise SourceError(f"{file}: {file.size} bytes of JSON, expected {LARGEST} at most")
    try:
        value = json.loads(file.read().decode())
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{file}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise SourceError(f"{file}: expected a JSON object, found {type(value).__name__}")
    if not isinstance(value.get("model_type", ""), str):
        raise SourceError(f"{file}: model_type is {value['model_type']!r}, expected a string")
    return value
