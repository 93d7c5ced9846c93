"""Invented documents of diagnosis: one with every measure, and one with next to none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

from modelsurgeon import diagnosis
from support import reports

LAYERS, WIDTH, VOCAB = 4, 64, 512
PARTS = ("input_layernorm", "post_attention_layernorm")
MATRICES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")


def validator() -> jsonschema.Draft202012Validator:
    """The validator of the package's schema."""
    text = Path(diagnosis.__file__).with_name("schema.json").read_text(encoding="utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))


def document(*models: dict[str, Any]) -> dict[str, Any]:
    environment = reports.full()["environment"]
    return {"format": 1, "models": list(models), "command": "modelsurgeon diagnose demo", "environment": environment}


def full(source: str = "demo", times: float = 1.0) -> dict[str, Any]:
    """A document with every measure; `times` scales every curve, so that two documents differ."""
    head = "model.embed_tokens.weight"
    return {
        **{"source": source, "revision": None, "model_type": "llama", "model": "LlamaForCausalLM", "dtype": "BF16"},
        **{"parameters": 787_552, "bytes": 1_575_104, "sizes": {"hidden": WIDTH, "vocab": VOCAB}, "layers": LAYERS},
        "fresh": False,
        "embedding": table(head, times),
        "head": None,
        "initial_loss": {
            **{"applies": True, "why": "tied", "tied": True, "uniform": 6.238, "predicted": 7.1, "exponent": 7.04},
            **{"factor": 1.0, "deviation": 0.11, "deviation_for_uniform": 0.0975, "measured": 7.2},
            **{"measured_plain": 7.05, "samples": 256},
        },
        "spectrum": {
            **{"tensor": head, "shape": [VOCAB, WIDTH], "values": [times * 40 / (i + 1) ** 0.5 for i in range(WIDTH)]},
            **{"entropy": 0.21, "random_entropy": 0.016, "effective_rank": 51.9, "rank": WIDTH, "largest_share": 0.071},
            **{"participation": 12.1, "method": "Gram matrix in float64, exact", "resolution": 1e-8, "seconds": 0.02},
        },
        "gains": [*gains(times), gain("model.norm.weight", None, "norm", "last", 2.4 * times)],
        "matrices": [*matrices(times), matrix(head, None, times)],
        "copies": [
            {
                **{"axis": "mlp", "through": "pointwise", "layer": 1, "size": 192, "groups": 3, "copies": 5, "dead": 2},
                "example": [17, 81],
            }
        ],
        "numbers": {**numbers(787_552, 3), "tensors": [{"tensor": head, **numbers(32_768, 3)}]},
        "running": running(times),
        "verdicts": verdicts(),
        "seconds": {"weights": 0.4, "running": 2.1},
        "notes": ["attention of the last layer: fused, not measured"],
        "memory": {"bound": 10**9, "peak": 600 * 10**6},
    }


def bare(source: str = "org/name") -> dict[str, Any]:
    """A document of weights alone, of a model without tokens: null wherever allowed, NaN and infinities."""
    nothing = dict.fromkeys(
        ("embedding", "head", "initial_loss", "spectrum", "running", "model", "model_type", "layers")
    )
    unknown = [verdict(one["theme"], "unknown", None, {}, None) for one in verdicts()]
    odd = matrix("conv.weight", None, 1.0) | {"deviation": "nan", "times_xavier": "nan", "spectral_norm": "inf"}
    return {
        **{**full(source), **nothing, "gains": [], "matrices": [odd], "copies": [], "verdicts": unknown},
        "numbers": {**numbers(100, 100), "nan": 100, "largest": "inf", "tensors": []},
        "seconds": {"weights": 0.1, "running": None},
        "notes": ["not run: org/name is read where it is, and not stored on this disk"],
    }


def table(tensor: str, times: float) -> dict[str, Any]:
    far = {"row": 3, "token": "</s>", "column": 9, "value": -98.5, "times": 896.0}
    return {
        **{"tensor": tensor, "vocab": VOCAB, "width": WIDTH, "mean": 1e-4, "deviation": 0.11 * times},
        "norms": {"median": 0.9, "min": 0.0, "max": 98.6, "quantiles": [times * 0.01 * i for i in range(100)] + [98.6]},
        "far_rows": {"count": 1, "examples": [{"row": 3, "token": "</s>", "norm": 98.6, "times": 109.0}]},
        "far_components": {"count": 1, "largest": 896.0, "examples": [far]},
        "components": {"median_deviation": 0.11, "columns": {"median": 0.11, "max": 0.7, "column": 9}},
        "dead": {"count": 1, "examples": [511]},
        "duplicates": {"groups": 1, "rows": 2, "examples": [[5, 6, 7]]},
        "untrained": {"count": 3, "added": 1, "beyond": 1, "examples": [{"row": 6, "token": None, "why": "equals 5"}]},
        "tokenizer": {"tokens": 511, "added": 3},
    }


def gains(times: float) -> list[dict[str, Any]]:
    return [
        gain(f"model.layers.{layer}.{part}.weight", layer, part, "body", times * (0.8 + layer / 10))
        for layer in range(LAYERS)
        for part in PARTS
    ]


def gain(tensor: str, layer: int | None, part: str, place: str, mean: float) -> dict[str, Any]:
    template = tensor.replace(f".{layer}.", ".{n}.")
    told = {"tensor": tensor, "template": template, "kind": "gain", "layer": layer, "part": part, "place": place}
    spread = {"size": WIDTH, "mean": mean, "deviation": 0.1, "min": mean / 2, "max": mean * 2, "rms": mean * 1.01}
    return {**told, **spread}


def matrices(times: float) -> list[dict[str, Any]]:
    return [
        matrix(f"model.layers.{layer}.{part}.weight", layer, times * (1 + at / 4 + layer / 10))
        for layer in range(LAYERS)
        for at, part in enumerate(MATRICES)
    ]


def matrix(tensor: str, layer: int | None, times: float) -> dict[str, Any]:
    return {
        **{
            "tensor": tensor,
            "template": tensor.replace(f".{layer}.", ".{n}."),
            "layer": layer,
            "shape": [WIDTH, WIDTH],
        },
        **{"dtype": "BF16", "fan_in": WIDTH, "mean": 0.0, "deviation": times / 8, "xavier": 0.125},
        **{"times_xavier": times, "times_truncated": times * 7.1, "spectral_norm": 3.1, "norm_error": 1e-9},
        **{"frobenius": 8.2, "stable_rank": 7.0 / times, "equal_rows": 0, "equal_columns": 1, "zero_rows": 0},
        "zero_columns": 0,
    }


def numbers(count: int, subnormal: int) -> dict[str, Any]:
    lost = {"overflow": 0, "underflow": 7}
    told = {"count": count, "nan": 0, "inf": 0, "zero": 65, "subnormal": subnormal, "largest": 98.5}
    return {**told, "float16": lost, "bfloat16": lost}


def running(times: float) -> dict[str, Any]:
    states = [
        {
            **{"name": f"layer {layer - 1}" if layer else "embedding", "layer": layer, "side": ""},
            **{"anisotropy": min(0.99, 0.1 * times * layer), "norm_mean": times * 2.0**layer, "norm_max": 3.0**layer},
            **{"largest": 4.0, "median": 0.5, "effective_rank": 30.0},
        }
        for layer in range(LAYERS + 1)
    ]
    states.append({**states[-1], "name": "last"})
    attention = [
        {"name": f"model.layers.{i}.self_attn", "layer": i, "largest": 9.0 * times, "deviation": 1.0, "entropy": 2.0}
        for i in range(LAYERS)
    ]
    points = [{"rank": 2**i, "loss": 4.7 + times * 2 / (i + 1)} for i in range(7)]
    return {
        "text": {"sample": True, "characters": 4993},
        **{"windows": 4, "length": 128, "tokens": 512, "dtype": "float32", "device": "cpu", "loss": 4.702},
        "loss_by_position": [None, *(times * (4.2 + 3 / (1 + position)) for position in range(126))],
        "states": states,
        "last": {"anisotropy": 0.4, "effective_rank": 40.1, "rank": 64, "possible": 64, "entropy": 0.4},
        "head_cut": {"full": 4.702, "points": points},
        "attention": attention,
        "seconds": 2.1,
    }


def verdicts() -> list[dict[str, Any]]:
    wider = "modelsurgeon widen demo -o OUT --set hidden_size=1024"
    return [
        verdict("numbers", "fine", 0, {"act": 1}, None),
        verdict("bottleneck", "act", 64, {"watch": 1500, "act": 1000}, wider),
        verdict("spectrum", "watch", 0.31, {"watch": 0.5, "act": 0.25}, None),
        verdict("copies", "act", 5, {"act": 1}, "modelsurgeon widen demo -o OUT --noise 0.5"),
        verdict("anisotropy", "fine", 0.4, {"watch": 0.5, "act": 0.8}, None),
        verdict("attention", "fine", 9.0, {"watch": 1000, "act": 10000}, None),
        verdict("tokens", "unknown", None, {}, None),
    ]


def verdict(theme: str, word: str, value: Any, limits: dict[str, float], command: str | None) -> dict[str, Any]:
    return {
        **{"theme": theme, "measure": f"what {theme} measures", "verdict": word, "value": value, "limits": limits},
        **{"shown": "" if value is None else f"{value:,}", "reference": "a reference number"},
        "source": "arXiv 2404.07647, figure 6; https://spaces.ac.cn/archives/9698; the limits are a convention",
        **{"says": f"{theme}: this says what follows", "command": command},
    }
