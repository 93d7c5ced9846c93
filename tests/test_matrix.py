"""Every family in every form, every axis, in float64 from disk to disk: lossless, or refused while planning.

`growths.py` lists what is tried. Here a choice of it runs; scripts/tables/matrix.py runs all of it, and prints
the README's table.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.errors import PlanError
from support import tiny
from support.growths import COLUMNS, Growth, Source, Trial, growths, some_trials

# Classifiers of a family differ in their last line alone: one of each family is tried.
CLASSIFIERS = ("-sequence", "-token", "-question", "-choice")
LAST = {v.model_type: v for v in tiny.variants() if v.name.endswith(CLASSIFIERS)}
VARIANTS = [v for v in tiny.variants() if not v.name.endswith(CLASSIFIERS) or v == LAST[v.model_type]]
FAMILIES = [v for v in VARIANTS if v.main and not v.tied]  # nothing is refused on a tie's account

# {growth: the families that have none such}; all others have. tests/growth/test_refusals.py has the messages.
REFUSED = {
    # a LayerNorm reads what another one writes, and means are not kept but by whole multiples (post-norm)
    "d_model=44": "bart whisper",  # whisper: GELU writes what its encoder sums
    "encoder_attention_heads=6 d_model=48": "bart whisper",
    "decoder_attention_heads=3 d_model=48": "bart whisper",
    "dim=44": "distilbert",
    "n_heads=6 dim=48": "distilbert",
    "hidden_size=44": "albert bert bloom deberta-v2 electra ernie falcon modernbert olmoe roberta roformer",
    "num_attention_heads=6 hidden_size=48": "albert bert deberta-v2 electra ernie modernbert roberta roformer",
    "n_head=6 hidden_size=48": "bloom",
    "embedding_size=33": "albert electra",
    # rotary pairs keep their frequencies at whole multiples (falcon, olmoe: a head is the width over their count)
    "head_dim=11": (
        "cohere gemma gemma2 gemma3_text gpt_oss granite llama mistral mixtral olmo olmo2 qwen2 qwen2_moe smollm3 "
        "starcoder2"
    ),
    "head_dim=16": "qwen3 qwen3_moe",
    "qk_rope_head_dim=11": "deepseek_v2 deepseek_v3",
    # every expert is copied as often as each other
    "n_routed_experts=12 num_experts_per_tok=4": "deepseek_v2",
    "num_experts=9 num_experts_per_tok=3": "olmoe qwen2_moe",
    "num_local_experts=9 num_experts_per_tok=3": "gpt_oss mixtral qwen3_moe",
}


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
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
    assert refused == {growth for growth, families in REFUSED.items() if variant.model_type in families.split()}


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
