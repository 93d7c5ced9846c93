"""Verdicts: every limit has a source, and every measure is judged where its number is planted."""

import math
from typing import Any

import pytest

from modelsurgeon.diagnosis.measures import MEASURES, Finding
from modelsurgeon.diagnosis.verdicts import judge, thresholds
from modelsurgeon.text import printable

TABLE = {
    "tensor": "embed",
    "vocab": 32000,
    "width": 512,
    "far_rows": {"count": 0, "examples": []},
    "far_components": {"count": 0, "largest": 5.0, "examples": []},
    "untrained": {"count": 0, "added": 0, "beyond": 0, "examples": []},
    "tokenizer": {"tokens": 32000, "added": 3},
}
LOSS = {"applies": True, "tied": True, "uniform": 10.0, "predicted": 10.5}
LOST = {"overflow": 0, "underflow": 0}
NUMBERS = {"count": 1000, "nan": 0, "inf": 0, "float16": LOST, "bfloat16": LOST, "tensors": []}
GAIN = {"tensor": "layers.0.norm", "kind": "gain", "place": "body", "mean": 1.0, "min": 0.5, "max": 2.0, "rms": 1.1}
MATRIX = {
    "tensor": "layers.0.up",
    "layer": 0,
    "shape": [512, 512],
    "stable_rank": 90.0,
    "times_xavier": 1.1,
    "times_truncated": 2.0,
}
STATE = {"side": "", "anisotropy": 0.1, "norm_mean": 20.0, "largest": 9.0, "median": 0.6}
RUNNING = {
    "tokens": 512,
    "loss_by_position": [4.0] * 4 + [3.9, 3.8] * 4 + [3.0] * 4,
    "states": [{**STATE, "name": f"layer {number}", "norm_mean": 20.0 + number} for number in range(5)],
    "last": {"anisotropy": 0.2},
    "head_cut": {"full": 3.0, "points": [{"rank": 512, "loss": 3.0}, {"rank": 448, "loss": 3.003}]},
    "attention": [{"name": "layers.0.attn", "largest": 20.0}],
}
SOUND: dict[str, Any] = {
    "embedding": TABLE,
    "head": None,
    "initial_loss": LOSS,
    "fresh": False,
    "spectrum": {"shape": [32000, 512], "effective_rank": 450.0, "random_entropy": 0.01, "largest_share": 0.01},
    "gains": [GAIN, {**GAIN, "place": "last", "tensor": "norm"}],
    "matrices": [MATRIX],
    "copies": [],
    "numbers": NUMBERS,
    "running": RUNNING,
}
REMEDIES = {"source": "SOURCE", "origin": "ORIGIN", "widen": "modelsurgeon widen SOURCE -o OUT --set hidden_size=1024"}


def planted(path: str, value: Any) -> dict[str, Any]:
    """A sound model's document with one number changed; `path` is dotted, numbers are places in lists."""

    def changed(node: Any, steps: list[str]) -> Any:
        if not steps:
            return value
        key: Any = int(steps[0]) if isinstance(node, list) else steps[0]
        inner = changed(node[key], steps[1:])
        if isinstance(node, list):
            return [*node[:key], inner, *node[key + 1 :]]
        return {**node, key: inner}

    found: dict[str, Any] = changed(SOUND, path.split("."))
    return found


PLANTED = {
    "not_finite": ("numbers.nan", 1, "act"),
    "float16_overflow": ("numbers.float16.overflow", 1, "watch"),
    "float16_underflow": ("numbers.float16.underflow", 500, "watch"),
    "far_components": ("embedding.far_components.largest", 60.0, "watch"),
    "far_rows": ("embedding.far_rows.count", 400, "watch"),
    "untrained_tokens": ("embedding.untrained.added", 2, "watch"),
    "head_width": ("embedding.width", 512, "act"),
    "head_cut": ("running.head_cut.points.1.loss", 3.1, "act"),
    "effective_rank": ("spectrum.effective_rank", 200.0, "watch"),
    "last_gain": ("gains.1.mean", 2.4, "watch"),
    "gain_spread": ("gains.0.max", 30.0, "watch"),
    "rank_collapse": ("matrices.0.stable_rank", 1.3, "watch"),
    "drift": ("matrices.0.times_xavier", 4.0, "watch"),
    "copies": ("copies", [{"axis": "mlp", "copies": 64, "dead": 0}], "act"),
    "dead": ("copies", [{"axis": "mlp", "copies": 0, "dead": 2}], "watch"),
    "anisotropy": ("running.last.anisotropy", 0.95, "act"),
    "late_loss": ("running.loss_by_position", [3.0] * 8 + [6.0, 6.1] * 4, "act"),
    "attention_logits": ("running.attention.0.largest", 2e4, "act"),
    "massive_activations": ("running.states.2.largest", 5000.0, "watch"),
    "residual_growth": ("running.states.2.norm_mean", 900.0, "watch"),
}


def verdicts(model: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(thresholds(), judge(model, REMEDIES), strict=True))


def test_every_limit_belongs_to_a_measure_and_says_who_set_it() -> None:
    assert list(thresholds()) == list(MEASURES)
    for name, entry in thresholds().items():
        assert entry["source"] and entry["reference"] and entry["theme"], name
        assert entry["worse"] in ("above", "below"), name
        limits = [entry[key] for key in ("watch", "act") if key in entry]
        assert limits and limits == sorted(limits, reverse=entry["worse"] == "below"), name
        assert set(entry["says"]) == {"fine", *({"watch", "act"} & set(entry))}, name
        assert set(entry.get("command", {})) <= set(entry["says"]), name
    assert set(PLANTED) == set(MEASURES) - {"initial_loss"}


def test_a_sound_model_is_fine_but_for_its_width() -> None:
    found = verdicts(planted("embedding.width", 2048) | {"running": {**RUNNING, "head_cut": None}})
    assert {name for name, one in found.items() if one.verdict != "fine"} == {"head_cut"}
    assert found["head_cut"].verdict == "unknown" and found["head_cut"].value is None


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_number_is_seen_by_its_own_measure(name: str) -> None:
    path, value, verdict = PLANTED[name]
    before, after = verdicts(SOUND), verdicts(planted(path, value))
    assert after[name].verdict == verdict
    changed = {other for other in after if after[other].verdict != before[other].verdict}
    assert changed <= {name}
    for one in after.values():
        assert "{" not in f"{one.says}{one.command}{one.measure}{one.reference}", one


def test_the_tied_rule_is_of_weights_that_nobody_trained() -> None:
    fresh = {**SOUND, "fresh": True, "running": None}
    steep = {**fresh, "initial_loss": {**LOSS, "predicted": 55.4}}
    assert verdicts(fresh)["initial_loss"].verdict == "fine"
    assert verdicts(steep)["initial_loss"].verdict == "act"
    assert verdicts(steep)["initial_loss"].command == ("modelsurgeon untie-embeddings SOURCE -o OUT --head half-swap")
    ran = {**steep, "running": {**RUNNING, "loss": 10.6}}
    assert verdicts(ran)["initial_loss"].verdict == "fine"  # branches that are not near zero: the rule does not hold
    assert verdicts({**steep, "fresh": False})["initial_loss"].verdict == "fine"
    untied = {**steep, "initial_loss": {**LOSS, "predicted": 55.4, "tied": False}}
    assert verdicts(untied)["initial_loss"].verdict == "unknown"


def test_small_activations_are_not_massive_however_far_above_the_median() -> None:
    assert verdicts(planted("running.states.2.median", 1e-3))["massive_activations"].verdict == "fine"


def test_a_number_that_is_none_is_never_fine() -> None:
    nan = verdicts(planted("running.attention.0.largest", "nan"))["attention_logits"]
    assert nan.verdict == "act" and math.isnan(nan.value)
    assert printable(nan)["value"] == "nan"
    assert MEASURES["head_width"]({**SOUND, "initial_loss": None}) is None
    assert MEASURES["head_width"](planted("embedding.vocab", 512)) == Finding(math.inf, {"why": "only 512 tokens"})
