"""Every family in every form, every axis, in float64 from disk to disk: lossless, or refused while planning.

`growths.py` lists what is tried. Here a choice of it runs; scripts/matrix.py runs all of it, and prints the README's
table.
"""

from __future__ import annotations

import pytest

import tiny
from growths import COLUMNS, growths, trials
from modelsurgeon.checkpoint import open_checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.growth import RULES

VARIANTS = tiny.variants()
FAMILIES = [v for v in VARIANTS if v.main and not v.tied]  # nothing is refused on a tie's account

# {growth: the families that have none such}; all others have. Messages and ways out are in tests/test_refusals.py.
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
def test_growth_changes_nothing_or_is_refused_for_a_reason(variant, tmp_path):
    found = list(trials(variant, tmp_path, every=False))
    assert found
    assert {str(trial): trial.wrong for trial in found if trial.wrong} == {}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_only_what_cannot_be_done_is_refused(variant, rule, source):
    checkpoint = open_checkpoint(source(variant))
    refused = set()
    for growth in growths(checkpoint, variant.tied):
        assert growth.column in COLUMNS
        try:
            growth.of(checkpoint, rule)
        except PlanError:
            refused.add(str(growth))
    assert refused == {growth for growth, families in REFUSED.items() if variant.model_type in families.split()}
