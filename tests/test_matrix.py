"""Every family in every form, every axis, in float64 from disk to disk: lossless, or refused while planning.

`growths.py` lists what is tried. Here a choice of it runs; scripts/tables/matrix.py runs all of it, and prints
the README's table.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.errors import PlanError
from support import draws, tiny
from support.growths import COLUMNS, Growth, Source, Trial, growths, some_trials

# Classifiers of a family differ in their last line alone: one of each family is tried.
CLASSIFIERS = ("-sequence", "-token", "-question", "-choice")
LAST = {v.model_type: v for v in tiny.variants() if v.name.endswith(CLASSIFIERS)}
VARIANTS = [v for v in tiny.variants() if not v.name.endswith(CLASSIFIERS) or v == LAST[v.model_type]]
FAMILIES = [v for v in VARIANTS if v.main and not v.tied]  # nothing is refused on a tie's account
# Some families, and every growth of their tiny models that is refused.
REFUSED = {
    "bert": {"hidden_size=44", "num_attention_heads=6 hidden_size=48"},
    "bloom": {"hidden_size=44", "n_head=6 hidden_size=48"},
    "deepseek_v2": {"qk_rope_head_dim=11", "n_routed_experts=12 num_experts_per_tok=4"},
    "falcon": {"hidden_size=44"},  # a head is the width over their number, and wholly rotated
    "gpt2": set(),
    "llama": {"head_dim=11"},
    "olmoe": {"hidden_size=44", "num_experts=9 num_experts_per_tok=3"},
    "phi": set(),  # half of each head is rotated: the other half grows
    "whisper": {"d_model=44", "encoder_attention_heads=6 d_model=48", "decoder_attention_heads=3 d_model=48"},
}


def reason(checkpoint: Checkpoint, growth: Growth) -> str:
    """Why a growth cannot be, from the table and the sizes alone; tests/growth/test_refusals.py has the messages."""
    table, old = checkpoint.architecture, checkpoint.sizes
    written = {axis.key: old[name] for name, axis in table.axes.items() if axis.key}
    new = table.sizes({**checkpoint.resolved, **written, **growth.settings})
    odd = {name for name in old if new[name] % old[name]}
    normed = {axis for _, signature in table.norms if signature.normalises for axis in signature.normalises.axes()}
    for name in odd & normed:
        if "pointwise" in table.axes[name].through:
            return "a norm reads what an activation writes: copies of scale 1 alone, all as often"
        if table.norm == "layer" and any(name in signature.gains for _, signature in table.norms):
            return "a LayerNorm reads what another one writes: only whole multiples keep means (post-norm)"
    rotary = table.rotary
    if rotary and rotary.axis in odd and rotary.partial is None and rotary.size_key is None:
        return "rotary pairs keep their frequencies at whole multiples, and there are no others"
    for name in odd:
        if table.axes[name].through == "experts" and table.axes[name].active in growth.settings:
            return "every expert is copied as often as each other"
    return ""


OTHERS = [variant for variant in VARIANTS if not variant.main]
TRIED = [v for v in VARIANTS if v.main] + draws.some(OTHERS, len(OTHERS) // 3, "other forms of the matrix")


@pytest.mark.parametrize("variant", TRIED, ids=str)
def test_growth_changes_nothing_or_is_refused_for_a_reason(variant, source, tmp_path):
    found = list(some_trials(variant, source, tmp_path / "grown"))
    assert found
    assert {str(trial): trial.wrong for trial in found if trial.wrong} == {}


@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_only_what_cannot_be_done_is_refused(variant, source):
    checkpoint = open_checkpoint(source(variant))
    refused = set()
    for growth in growths(checkpoint, variant.tied):
        assert growth.column in COLUMNS
        try:
            growth.of(checkpoint, "exact")
        except PlanError:
            refused.add(str(growth))
    assert refused == {str(growth) for growth in growths(checkpoint, variant.tied) if reason(checkpoint, growth)}


def test_the_reasons_are_those_of_known_families(source):
    """What the rule above says of some families, written out: it must not become true of nothing, or of everything."""
    found = {}
    for model_type in REFUSED:
        variant = next(v for v in FAMILIES if v.model_type == model_type)
        checkpoint = open_checkpoint(source(variant))
        found[model_type] = {str(one) for one in growths(checkpoint, variant.tied) if reason(checkpoint, one)}
    assert found == REFUSED


def test_one_number_that_is_off_by_a_millionth_is_seen(source, tmp_path):
    variant = tiny.named("llama-untied")
    small = Source(variant, source(variant, "float64"))
    trial = small.try_out(Growth("", "x2", factor=2), "exact", tmp_path / "wide")
    assert trial.wrong == ""
    held = load_file(tmp_path / "wide" / "model.safetensors")
    held["model.layers.1.mlp.down_proj.weight"][3, 5] *= 1 + 1e-6
    save_file(held, tmp_path / "wide" / "model.safetensors", {"format": "pt"})
    off = replace(trial, error=small.error(tmp_path / "wide"))
    assert off.wrong.startswith("error ")


def test_a_refusal_without_a_reason_and_a_wrong_proof_are_told():
    trial = Trial(Growth("", "x2"), "exact", "F64", error=0.0, proof="exact")
    assert trial.wrong == ""
    assert replace(trial, refused="no").wrong == "refused: 'no'"
    assert replace(trial, proof="wrong").wrong == "the proof says 'wrong'"
    assert replace(trial, error=2e-9).wrong == "error 2e-09"
    assert replace(trial, lossy=("",)).wrong == "lossy, and no reason"
