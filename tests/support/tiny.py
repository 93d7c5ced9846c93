"""Tiny models of every architecture, with every parameter random: the oracle of the surgery.

Fresh models have gains of 1 and biases of 0, which hides most errors; here gains lie around 1 by 0.3, biases around
0 by 0.3, and matrices have the deviation that keeps activations near 1. `variants.py` lists the models, from their
tables; `tiny_config.py` has their sizes.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.pytorch_utils import Conv1D

from support.oracle import in_float64
from support.tiny_config import LENGTH, OVERRIDES, POSITIONS, VOCAB, sizes
from support.variants import FORMS, Variant, named, variants

__all__ = [
    "FORMS",
    "LENGTH",
    "OVERRIDES",
    "POSITIONS",
    "ROUNDING",
    "VOCAB",
    "Variant",
    "build",
    "error",
    "folded",
    "inputs",
    "load",
    "load64",
    "named",
    "outputs",
    "randomise",
    "run",
    "run64",
    "save",
    "sizes",
    "variants",
]

# Float32 passes of one function that sum in another order, in units of the outputs' deviation. Some thirty sums of up
# to a hundred numbers follow one another, each rounded either way by half of float32's eps: five deviations of such a
# walk are 140 eps. Attention that is sharp, T5's without a scale, magnifies that about three times.
ROUNDING = 400 * 2.0**-23


def build(variant: Variant) -> Any:
    """The model in float32, random and the same in every run."""
    torch.manual_seed(zlib.crc32(variant.name.encode()))
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config_class = transformers.CONFIG_MAPPING[variant.model_type]
    config = config_class(**{**tokens, **sizes(variant.model_type), **variant.config})
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = getattr(transformers, variant.kind)(config).eval()
    if variant.own_head:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    randomise(model)
    return model


def randomise(model: Any) -> None:
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:  # RoFormer's table of sines is frozen
                continue
            seen.add(id(parameter))
            with torch.no_grad():
                if parameter.ndim == 1:
                    start = parameter if name == "weight" else 0.0  # a gain's own start: 1, or 0 where it is 1 + w
                    parameter.copy_(start + 0.6 * (torch.rand(parameter.shape) - 0.5))
                else:
                    parameter.normal_(0.0, _deviation(module, name, parameter))
        for name, buffer in module.named_buffers(recurse=False):
            if name == "e_score_correction_bias":  # stored, and large enough to change which experts are chosen
                buffer.uniform_(-0.3, 0.3)


def _deviation(module: Any, name: str, parameter: torch.Tensor) -> float:
    if isinstance(module, torch.nn.Embedding):
        return 0.5
    if name.endswith("_bias"):  # of all experts together
        return 0.2
    if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d):
        return float(parameter[0].numel() ** -0.5)
    transposed = isinstance(module, Conv1D) or getattr(module, "is_transposed", False)
    return float(parameter.shape[-2 if transposed else -1] ** -0.5)


def save(variant: Variant, folder: Path, dtype: str = "float32") -> Path:
    """A saved checkpoint of the variant in `dtype`."""
    build(variant).to(getattr(torch, dtype)).save_pretrained(folder, save_original_format=not variant.modern)
    return folder


def load(folder: Path, kind: str) -> Any:
    """The model from disk, in float32. Nothing may be missing, made up or left over."""
    return _load(folder, kind, dtype=torch.float32)


def load64(folder: Path, kind: str) -> Any:
    """The model from disk, in float64; run it inside `oracle.in_float64()`, too."""
    with in_float64():
        return _load(folder, kind, dtype=torch.float64, experts_implementation="eager")


def _load(folder: Path, kind: str, **options: Any) -> Any:
    model, info = getattr(transformers, kind).from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True, **options
    )
    wrong = {key: value for key, value in info.items() if value and key != "unexpected_keys"}
    assert not wrong, f"{folder}: {wrong}"
    for parameter in model.parameters():  # in a file, weights lie at any address: BLAS may round by their alignment
        parameter.data = parameter.data.clone()
    return model.eval()


def inputs(model: Any) -> dict[str, torch.Tensor]:
    """Two rows of random ids, the second one padded; random pictures or sounds for a model of such."""
    config, generator = model.config, torch.Generator().manual_seed(1)
    if model.main_input_name == "pixel_values":
        size = (config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(2, *size, generator=generator).to(model.dtype)}
    ids = torch.randint(3, config.vocab_size, (2, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    ids[1, -2:] = 0
    takes = inspect.signature(model.forward).parameters
    written = {"decoder_input_ids": ids.flip(1)} if "decoder_input_ids" in takes else {}
    if model.main_input_name == "input_features":
        size = (config.num_mel_bins, 2 * config.max_source_positions)  # frames: the second convolution halves them
        return {"input_features": torch.randn(2, *size, generator=generator).to(model.dtype), **written}
    if written:
        ids[:, 3] = config.eos_token_id  # where BART's classifier reads
    found = {"input_ids": ids, "attention_mask": mask, **written}
    if getattr(config, "type_vocab_size", 0):
        found["token_type_ids"] = torch.arange(LENGTH).expand(2, -1) % config.type_vocab_size
    if "MultipleChoice" in type(model).__name__:
        return {name: value[None] for name, value in found.items()}  # one question, two choices
    return found


def outputs(model: Any) -> dict[str, torch.Tensor]:
    """{name: float tensor} of everything that a forward pass returns, caches left out."""
    with torch.no_grad():
        found = model(**inputs(model), use_cache=False) if _caches(model) else model(**inputs(model))
    return {name: value.double() for name, value in found.items() if isinstance(value, torch.Tensor)}


def folded(output: torch.Tensor, axis_map: Any) -> torch.Tensor:
    """An output whose last axis grew, as its source would have returned it: D h / gain."""
    spread = output[..., torch.from_numpy(~axis_map.gaps)] * torch.from_numpy(axis_map.share[~axis_map.gaps])
    index = torch.from_numpy(axis_map.source[~axis_map.gaps])
    return output.new_zeros(*output.shape[:-1], axis_map.size).index_add(-1, index, spread) / axis_map.gain


def error(
    before: Mapping[str, torch.Tensor],
    after: Mapping[str, torch.Tensor],
    variant: Variant,
    maps: Mapping[str, Any] | None = None,
) -> float:
    """The largest difference of any output, in units of that output's deviation. NaN counts as infinite."""
    assert before.keys() == after.keys()
    worst = 0.0
    for name, old in before.items():
        axis = variant.table.outputs.get(name)
        new = folded(after[name], maps[axis]) if maps and axis in maps else after[name]
        assert old.shape == new.shape, name
        worst = max(worst, float(torch.nan_to_num((old - new).abs().max() / old.std(), nan=torch.inf)))
    return worst


def _caches(model: Any) -> bool:
    return bool(getattr(model.config, "use_cache", False))


def run(folder: Path, kind: str) -> Mapping[str, torch.Tensor]:
    """What the model on disk computes in float32."""
    return _run(folder, kind, _written(folder))


def run64(folder: Path, kind: str) -> Mapping[str, torch.Tensor]:
    """What the model on disk computes in float64; save it in float64, or the file's rounding is seen."""
    return _run64(folder, kind, _written(folder))


def _written(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """The identity of a folder's files: it changes when they are written again."""
    found = ((path.name, path.stat()) for path in sorted(folder.iterdir()))
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found)


@lru_cache(maxsize=256)  # the sources of all families: each test compares with them
def _run(folder: Path, kind: str, written: object) -> Mapping[str, torch.Tensor]:
    return outputs(load(folder, kind))


@lru_cache(maxsize=256)
def _run64(folder: Path, kind: str, written: object) -> Mapping[str, torch.Tensor]:
    with in_float64():
        return outputs(load64(folder, kind))
