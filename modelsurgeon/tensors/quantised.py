"""Quantised checkpoints are refused: packed or 8-bit numbers cannot be copied, shared out and summed as floats.

The way out depends on the method: transformers undoes some while it loads, some afterwards, the rest never.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

KEYS = ("quantization_config", "compression_config")
UNDONE_WHILE_LOADED = {  # by transformers' `..., dequantize=True)`
    "compressed-tensors": "CompressedTensorsConfig",
    "fp8": "FineGrainedFP8Config",
    "metal": "MetalConfig",
    "mxfp4": "Mxfp4Config",
}
UNDONE_AFTERWARDS = ("bitsandbytes", "higgs")  # by model.dequantize()
ORIGINAL = "start from the checkpoint that it was made from"
LOAD = "or load it in transformers with dtype=bfloat16"
STORED = {
    "U8": "8-bit or packed integers",
    "I8": "8-bit integers",
    "I32": "integers, of which packed weights are made",
    "I16": "16-bit integers",
    "U16": "16-bit integers",
    "U32": "integers, of which packed weights are made",
    "F4": "4-bit floats",
    "F6_E2M3": "6-bit floats",
    "F6_E3M2": "6-bit floats",
    "F8_E8M0": "8-bit scales of blocks",
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), "8-bit floats"),
}


def in_config(config: Mapping[str, Any]) -> str:
    """The config key that marks a quantised checkpoint; empty where there is none."""
    return next((key for key in KEYS if config.get(key)), "")


def refusal(config: Mapping[str, Any], dtypes: Collection[str]) -> str:
    """Which method packed a checkpoint into which dtypes, and the way out. Its config must name one (`in_config`)."""
    key = in_config(config)
    settings = config[key]
    if not isinstance(settings, Mapping):
        return f"config.json: {key} is {settings!r}, expected an object or none"
    method = settings.get("quant_method")
    if method is None:  # early files of bitsandbytes name only the number of bits
        method = "bitsandbytes" if settings.get("load_in_8bit") or settings.get("load_in_4bit") else ""
    method = str(method)[:60]
    packed = [f"{dtype} ({STORED[dtype]})" for dtype in sorted(set(dtypes) & set(STORED))]
    stored = f", its weights stored as {' and '.join(packed)}" if packed else ""
    return f"a quantised checkpoint ({key}: {method or 'no quant_method'}{stored}); {way_out(method)}"


def way_out(method: str = "") -> str:
    """How to get a checkpoint of floats, as far as that is known for the method."""
    if method in UNDONE_WHILE_LOADED:
        option = f"quantization_config={UNDONE_WHILE_LOADED[method]}(dequantize=True)"
        return f"{ORIGINAL}, {LOAD} and {option}, then save_pretrained"
    if method in UNDONE_AFTERWARDS:
        return f"{ORIGINAL}, {LOAD}, then model.dequantize() and save_pretrained"
    if method:
        return f"{ORIGINAL}: transformers cannot undo it"
    return f"{ORIGINAL}, {LOAD}, dequantise it and save_pretrained"


def of_tensor(name: str, dtype: str) -> str:
    """The refusal of one tensor that is not stored as floats."""
    kind = STORED.get(dtype, "no floats")
    return f"tensor {name!r} is stored as {dtype} ({kind}): quantised checkpoints cannot be operated on; {way_out()}"
