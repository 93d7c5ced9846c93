"""Invented documents of verification: one with everything that a page can show, and one with next to nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

from modelsurgeon import verification

SIDE = {"revision": None, "model_type": "llama", "model": "LlamaForCausalLM", "dtype": "BF16"}


def validator() -> jsonschema.Draft202012Validator:
    """The validator of the package's schema."""
    text = Path(verification.__file__).with_name("schema.json").read_text(encoding="utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))


def full() -> dict[str, Any]:
    """The same function, half of whose new neurons would never part; every level, every plot."""
    tensors = [tensor(f"model.layers.{layer}.mlp.{part}_proj.weight") for layer in range(6) for part in ("up", "down")]
    return {
        "format": 2,
        "same": True,
        "proven": True,
        "verdict": "same function, proven for all inputs; but 64 of 128 pairs of MLP neurons will stay copies for ever",
        "source": "demo",
        "result": "build/wide",
        "checkpoints": {
            "source": {**SIDE, "parameters": 787_552, "bytes": 1_575_104, "sizes": {"mlp": 192, "vocab": 4096}},
            "result": {**SIDE, "parameters": 2_100_000, "bytes": 4_200_000, "sizes": {"mlp": 384, "vocab": 4096}},
        },
        "maps": {
            "from": "record",
            "steps": [
                {"operation": "widen", "version": "0.1.0", "arguments": {"factor": 2, "dtype": None}, "lossy": []},
            ],
        },
        "inferred": None,
        "settings": {
            "text": {"sample": True, "characters": 4993},
            **{"samples": 4, "length": 128, "dtype": "float32", "device": "cpu", "seed": 0, "memory": None},
        },
        "proof": {
            "verdict": "rounded",
            "rounding": 6e-8,
            "approximations": [],
            "tensors": [tensor("config.json"), *tensors, tensor("model.norm.weight", "rounded", 6e-8)],
        },
        "config": _config(),
        "logits": _report("float32", 5.3e-6) | {"layers": _layers(), "generation": _generation()} | _curves(),
        "stored": _report("bfloat16", 1.2e-2) | {"noise": _report("bfloat16", 9e-3)["comparisons"]} | absent(),
        "trainable": _trainable(),
        "beside": _beside(),
        "notes": [],
        "seconds": {"proof": 0.2, "logits": 3.1, "trainable": 1.4},
        "environment": {
            **{"modelsurgeon": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0"},
            **{"numpy": "2.4.6", "platform": "Linux", "device": "cpu", "hardware": ["AMD EPYC"], "threads": 2},
        },
        "command": "modelsurgeon verify demo build/wide --trainable --report out.html",
    }


def _config() -> dict[str, Any]:
    sides = {"source": 1e-5, "result": 2e-5}
    inert = {"key": "attention_dropout", **sides, "reason": "dropout: off when a model is run"}
    counts = {"equal": 30, "mapped": ["hidden_size"], "undecided": ["vocab_size"]}
    return {**counts, "inert": [inert], "different": [{"key": "rms_norm_eps", **sides}]}


def bare() -> dict[str, Any]:
    """Different, by the proof of two checkpoints that are not on this disk."""
    nothing = dict.fromkeys(("maps", "inferred", "settings", "config", "logits", "stored", "trainable", "command"))
    wrong = tensor("model.norm.weight", "wrong", "nan", "at [3] (folded): expected 1, found nan")
    proof = {"verdict": "wrong", "rounding": "nan", "approximations": [], "tensors": [wrong]}
    note = "logits not compared: org/name is read where it is, and not stored on this disk"
    told = {"same": False, "proven": False, "verdict": "different", "notes": [note], "seconds": {"proof": 0.1}}
    return {**full(), **nothing, **told, "proof": proof, "beside": []}


def _beside() -> list[dict[str, str]]:
    rows = [
        ("tokenizer.json", "same", "the same bytes"),
        ("generation_config.json", "different", "eos_token_id (2 -> [2, 3])"),
        ("chat templates", "only in source", "default"),
        ("licence and README", "not compared", "README.md (source)"),
    ]
    return [dict(zip(("what", "finding", "detail"), row, strict=True)) for row in rows]


def tensor(name: str, verdict: str = "exact", rounding: Any = 0.0, detail: str = "") -> dict[str, Any]:
    return {"name": name, "verdict": verdict, "rounding": rounding, "ulps": 0.5 if rounding else 0.0, "detail": detail}


def _comparison(inputs: str, positions: int, error: float, loss: float | None = None) -> dict[str, Any]:
    told = {"inputs": inputs, "output": "logits", "positions": positions, "max_abs": 4 * error, "max_rel": error}
    told |= {"typical": error / 4, "nonfinite": 0, "unread": 0, "kl": error**2, "top1": 1.0, "flip": 0.0, "unit": 3.0}
    return {**told, "loss_before": loss, "loss_after": loss, "loss_apart": loss and 1e-6}


def _report(dtype: str, error: float) -> dict[str, Any]:
    kinds = [("text", 512, 4.702), ("random ids, length 1", 1, None), ("padded batch", 246, None)]
    compared = [_comparison(inputs, positions, error, loss) for inputs, positions, loss in kinds]
    limits = [{"output": "logits", "max_rel": 1e-4, "typical": 1e-4, "kl": 1e-7, "loss": 6e-4}]
    told = {"dtype": dtype, "same": True, "decides": dtype == "float32", "reasons": [], "tolerance": 1e-4}
    told |= {"limits": limits, "comparisons": compared, "noise": [], "blind": [], "slack": 1.0}
    share = dict.fromkeys(("position_rows", "experts")) | {"tokens": [4096, 4096], "token_types": [1, 2]}
    coverage = {**share, "positions": 759, "longest": 2048, "trained": 2048}
    return {**told, "notes": [], "seconds": 3.1, "coverage": coverage}


def absent() -> dict[str, Any]:
    return dict.fromkeys(("layers", "generation", "loss_by_position", "scatter", "perplexity"))


def _layers() -> dict[str, Any]:
    parts = ("input_layernorm", "self_attn.o_proj", "mlp.down_proj", "")
    rows = [
        {
            "name": f"model.layers.{layer}.{part}".removesuffix("."),
            **{"layer": layer, "part": part, "max_abs": 1e-5},
            "max_rel": 1e-6 * (1 + layer) * (1 + at / 3) if layer else 0.0,
            **{"typical": 1e-7, "noise": None, "limit": 1e-3, "typical_limit": 1e-3},
        }
        for layer in range(8)
        for at, part in enumerate(parts)
    ]
    end = {"name": "model.norm", "layer": None, "part": "model.norm", "max_abs": 1e-5, "max_rel": 8e-6}
    end |= {"typical": 1e-7, "noise": None, "limit": 1e-3, "typical_limit": 1e-3}
    return {"inputs": "text", "rows": [*rows, end], "first": None, "tolerance": 1e-3}


def _generation() -> dict[str, Any]:
    first = {"prompt": 2, "at": 17, "expected": 321, "found": 45, "margin": 3e-6, "share": 1e-6}
    errors = {"error": 5e-6, "cache_error": 4e-6, "cache_floor": 4e-6, "tolerance": 1e-4, "allowed": 4e-5}
    return {"prompts": 3, "tokens": 32, "same": True, "tie": True, "undecided": False, "first": first, **errors}


def _curves() -> dict[str, Any]:
    losses = [4.2 + 3 / (1 + position) + (position * 37 % 17) / 20 for position in range(127)]
    points = [((i * 7919) % 1000 / 100) - 6 for i in range(600)]
    return {
        "loss_by_position": {"before": losses, "after": [loss + 1e-6 for loss in losses]},
        "scatter": {"before": points, "after": [point + 1e-5 for point in points]},
        "perplexity": {"before": 110.17, "after": 110.17},
    }


def _trainable() -> dict[str, Any]:
    def axis(name: str, stuck: int, least: float, says: str) -> dict[str, Any]:
        cosine = {"min": least, "mean": (1 + least) / 2, "max": 1.0 if stuck else 0.93}
        sizes = {"axis": name, "through": "pointwise", "size": 192, "new_size": 384, "pairs": 128, "stuck": stuck}
        return {
            **sizes,
            "cosine": cosine,
            "weight_cosine": {"min": 0.9, "mean": 0.98, "max": 1.0},
            "slow": 0,
            "dead": 0,
            "says": says,
        }

    never = "64 of 128 pairs of MLP neurons will stay copies for ever"
    said = f"{never}: equal weights get equal gradients; the other 64 will part"
    rank = {"tensor": "model.layers.0.mlp.up_proj.weight", "shape": [384, 128], "rank": 64, "possible": 128}
    return {
        "loss": 4.702,
        "axes": [axis("mlp", 64, 0.31, said), axis("heads", 0, -0.22, "all 128 pairs of attention heads will part")],
        "ranks": [{**rank, "copies_allow": 64, "weight_rank": 128}],
        "trainable": False,
        "notes": ["dropout is off"],
        "seconds": 1.4,
    }
