"""The dtypes of stored numbers, by the names of safetensors files ("BF16") and of configs ("bfloat16")."""

from __future__ import annotations

import torch

DTYPES: dict[str, torch.dtype] = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
FLOATS = ("BF16", "F16", "F32", "F64")
HALF_ULP = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24, "F64": 2.0**-53}  # the largest relative rounding
DTYPE_NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
SIZES = {name: dtype.itemsize for name, dtype in DTYPES.items()}  # bytes of a number
