"""Every family through every transform, from disk to disk, as users run it: in float32 and bf16.

The oracle is `transformers`: source and result are loaded in float32 and run on the same inputs. Every form, axis and
size in float64 is tests/test_matrix.py; here are what `auto` chooses, what is said to be lost, several transforms one
after another, and details that no output shows. Planted mistakes are in test_transform_mistakes.py.
"""

from __future__ import annotations

import itertools
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import RULES
from modelsurgeon.growth.targets import ATTENTIONS
from modelsurgeon.operations.transforms.untying import untie_embeddings
from support import draws, tiny
from support.grow import widen
from support.transformed import FAMILIES, NOTICED, TOLERANCE, VARIANTS, change_config, change_tensors, moved, saved

TIED = [
    v for v in VARIANTS if v.tied and v.name != "deberta-v2-fixed-head"
]  # tests/growth/test_refusals.py has that one


HEADS = [v for v in VARIANTS if v.main and v.tied and not v.table.weightless]  # OLMo's tied head cannot grow
TIED_IN = draws.drawn(TIED, ("float32", "bfloat16"), "dtypes of untying")
NARROW = draws.drawn(HEADS, ATTENTIONS, "attentions in bf16")
ORDERS = draws.drawn(HEADS, itertools.product(("widen", "untie"), RULES), "orders of widening and untying")
CASES = [
    pytest.param(variant, *ways, id=f"{variant}-x3-{'-'.join(ways)}")
    for variant, ways in draws.drawn(FAMILIES, itertools.product(RULES, ATTENTIONS), "rules and attentions")
]


def loses(variant, rule, dtype="float32"):
    """What must be said to be lossy: nothing under the rule `exact`; under `orthogonal` what it needs is not there."""
    return rule == "orthogonal" and (dtype != "float32" or variant.table.eps is None)


# --- widen -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "rule", "attention"), CASES)
def test_a_widened_model_computes_what_its_source_computes(variant, rule, attention, source, tmp_path):
    wide = widen(open_checkpoint(source(variant)), 3, rule=rule, attention=attention)
    assert bool(wide.lossy) == loses(variant, rule)
    if not wide.lossy:
        assert moved(variant, source(variant), saved(wide, tmp_path / "wide")) <= TOLERANCE


GEMMA, T5 = "model.embed_tokens.weight model.norm.weight", "decoder.final_layer_norm.weight"
ROOTS = {
    **{f"{kind}-tied": GEMMA for kind in ("gemma", "gemma2", "gemma3_text")},
    **{f"{kind}-untied": GEMMA.split()[0] for kind in ("gemma", "gemma2", "gemma3_text")},
    **dict.fromkeys(("t5-tied", "umt5-tied", "umt5-untied"), T5),
}


@pytest.mark.parametrize("variant", [*FAMILIES, *HEADS], ids=str)
def test_whole_heads_leave_bf16_tensors_in_bf16_unless_a_square_root_is_left(variant, source):
    """The model itself multiplies by sqrt(width): Gemma its embedding, T5 what reaches its tied head."""
    checkpoint = open_checkpoint(source(variant, "bfloat16"))
    for factor, expected in ((2, set(ROOTS.get(variant.name, "").split())), (4, set())):
        wide = widen(checkpoint, factor, rule="exact", attention="heads")
        assert {name for name, tensor in wide.tensors.items() if tensor.dtype != "BF16"} == expected
        assert {wide.tensors[name].dtype for name in expected} <= {"F32"}


@pytest.mark.parametrize(("variant", "attention"), NARROW, ids=str)
def test_the_orthogonal_rule_in_bf16_is_said_to_round_and_in_float32_does_not(variant, attention, source, tmp_path):
    narrow = source(variant, "bfloat16")
    wide = widen(open_checkpoint(narrow), 2, rule="orthogonal", attention=attention)
    assert any(reason.startswith("weights are rounded to BF16, by 4e-03 of each at most") for reason in wide.lossy)
    wider = widen(open_checkpoint(narrow), 2, rule="orthogonal", attention=attention, dtype="float32")
    assert bool(wider.lossy) == loses(variant, "orthogonal")
    assert {tensor.dtype for tensor in wider.tensors.values()} == {"F32"}
    if not wider.lossy:
        assert moved(variant, narrow, saved(wider, tmp_path / "wide")) <= TOLERANCE


def test_rounding_to_sixteen_bits_on_request_is_said(source):
    wide = widen(open_checkpoint(source(tiny.named("llama-untied"))), 2, rule="exact", dtype="bfloat16")
    assert wide.lossy


@pytest.mark.parametrize("variant", [v for v in FAMILIES if v.table.rotary and v.model_type != "olmoe"], ids=str)
def test_repeated_rotary_pairs_are_said_to_be_approximate_and_are(variant, source, tmp_path):
    """OLMoE clamps queries, keys and values, so its plain and its repeated coordinates would need one factor."""
    wide = widen(open_checkpoint(source(variant)), 2, rope="repeat", attention="head-dim")
    assert any(reason.startswith("approximate: repeated rotary pairs") for reason in wide.lossy)
    assert moved(variant, source(variant), saved(wide, tmp_path / "wide")) > NOTICED
    whole = widen(open_checkpoint(source(variant)), 2, rope="repeat", rule="exact", attention="heads")
    assert not whole.lossy  # no pair is touched


def test_an_eps_that_the_code_fixes_is_said_to_be_approximate_under_the_orthogonal_rule(source):
    wide = widen(open_checkpoint(source(tiny.named("opt-tied"))), 2, rule="orthogonal")
    assert wide.lossy == ("the norms' eps is fixed in the model's code and cannot be multiplied by 0.5",)


@pytest.mark.parametrize("model_type", ["bert", "roformer"])
def test_two_norms_that_need_different_eps_are_said_to_be_approximate(model_type, source, tmp_path):
    saved(open_checkpoint(source(tiny.named(f"{model_type}-tied"))), tmp_path / "source")
    change_config(tmp_path / "source", layer_norm_eps=1e-5)
    wide = widen(open_checkpoint(tmp_path / "source"), 2, rule="orthogonal")
    assert any("cls.predictions.transform.LayerNorm" in reason for reason in wide.lossy)
    assert not widen(open_checkpoint(tmp_path / "source"), 2, rule="exact").lossy


# --- what `auto` chooses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_auto_loses_nothing_in_any_dtype(variant, source):
    wide = widen(open_checkpoint(source(variant)), 2)
    chosen = wide.steps[-1].arguments
    assert not wide.lossy
    assert (chosen["rule"], chosen["attention"]) == ("exact" if variant.table.eps is None else "orthogonal", "head-dim")
    narrow = widen(open_checkpoint(source(variant, "bfloat16")), 2)
    assert not narrow.lossy
    assert (narrow.steps[-1].arguments["rule"], narrow.steps[-1].arguments["attention"]) == ("exact", "heads")


def test_auto_copies_whole_heads_where_larger_ones_would_have_other_alibi_slopes(source, tmp_path):
    variant = tiny.named("falcon-alibi")
    wide = widen(open_checkpoint(source(variant)), 2)
    assert any(note.startswith("attention heads: ") and "ALiBi's slopes" in note for note in wide.notes)
    assert wide.steps[-1].arguments["attention"] == "heads"
    assert moved(variant, source(variant), saved(wide, tmp_path / "wide")) <= TOLERANCE


def test_auto_copies_whole_heads_where_rotary_positions_are_of_a_type_that_it_does_not_know(source, tmp_path):
    saved(open_checkpoint(source(tiny.named("llama-untied"))), tmp_path / "source")
    change_config(tmp_path / "source", rope_parameters={"rope_type": "spiral", "rope_theta": 1e4})
    wide = widen(open_checkpoint(tmp_path / "source"), 2)
    assert wide.steps[-1].arguments["attention"] == "heads"
    with pytest.raises(
        PlanError, match=r"rope type 'spiral' is not known to keep its frequencies .*whole heads can be"
    ):
        widen(open_checkpoint(tmp_path / "source"), 2, attention="head-dim")


# --- details that no output of a tiny model shows --------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_stored_table_of_sines_is_the_one_that_the_library_makes_for_the_new_size(attention, source, tmp_path):
    wide = widen(open_checkpoint(source(tiny.named("roformer-untied"))), 3, attention=attention)
    saved(wide, tmp_path / "wide")
    name = "roformer.encoder.embed_positions.weight"
    table = load_file(tmp_path / "wide" / "model.safetensors")[name]
    old = load_file(source(tiny.named("roformer-untied")) / "model.safetensors")[name]
    config = transformers.RoFormerConfig.from_pretrained(tmp_path / "wide")
    fresh = transformers.RoFormerModel(config).encoder.embed_positions.weight
    torch.testing.assert_close(table, fresh, rtol=0, atol=1e-7)  # a rounding of float32 below 1
    if attention == "head-dim":
        assert torch.equal(table[:, ::3], old)  # old pairs keep their columns to the last bit


def test_an_mlp_size_that_was_implied_is_written_out(source):
    checkpoint = open_checkpoint(source(tiny.named("gpt2-implied-mlp")))
    assert checkpoint.config.get("n_inner") is None
    assert widen(checkpoint, 2).config["n_inner"] == 2 * 4 * 32


def test_t5_v1_1_files_that_say_only_untied_are_read_as_the_library_reads_them(source, tmp_path):
    """On the Hub, v1.1 has `tie_word_embeddings: false` and no key for the scale: the library then does not scale."""
    variant = tiny.named("t5-untied")
    saved(open_checkpoint(source(variant)), tmp_path / "source")
    change_config(tmp_path / "source", tie_word_embeddings=False, scale_decoder_outputs=None)
    for rule in RULES:
        wide = widen(open_checkpoint(tmp_path / "source"), 2, rule=rule)
        assert moved(variant, tmp_path / "source", saved(wide, tmp_path / "wide")) <= TOLERANCE


@pytest.mark.parametrize("scaled", [True, False])
def test_a_t5_head_may_be_scaled_or_not(scaled, source, tmp_path):
    for variant, rule in zip(
        (tiny.named("t5-untied"), tiny.named("t5-tied")), RULES[:: 1 if scaled else -1], strict=True
    ):
        saved(open_checkpoint(source(variant)), tmp_path / "source")
        change_config(tmp_path / "source", scale_decoder_outputs=scaled)
        wide = widen(open_checkpoint(tmp_path / "source"), 2, rule=rule)
        assert moved(variant, tmp_path / "source", saved(wide, tmp_path / "wide")) <= TOLERANCE
        untied = untie_embeddings(open_checkpoint(tmp_path / "source"))
        assert moved(variant, tmp_path / "source", saved(untied, tmp_path / "untied")) == 0


# --- untie-embeddings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "dtype"), draws.some(TIED_IN, 32, "untied"), ids=str)
def test_an_untied_model_computes_the_same_to_the_last_bit(variant, dtype, source, tmp_path):
    before = tiny.run(source(variant, dtype), variant.kind)
    untied = saved(untie_embeddings(open_checkpoint(source(variant, dtype))), tmp_path / "untied")
    after = tiny.run(untied, variant.kind)
    assert {name for name in before if not torch.equal(before[name], after[name])} == set()
    assert {t.dtype for t in open_checkpoint(untied).tensors.values()} == {"F32" if dtype == "float32" else "BF16"}


@pytest.mark.parametrize("variant", [v for v in TIED if v.main or v.name == "bart-causal"], ids=str)
def test_an_untied_head_moves_the_logits_and_leaves_the_embedding(variant, source, tmp_path):
    untied = saved(untie_embeddings(open_checkpoint(source(variant))), tmp_path / "untied")
    tie = open_checkpoint(source(variant)).architecture.tie
    config = json.loads((untied / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    assert {tie.head, *tie.also} <= set(open_checkpoint(untied).tensors)
    before = tiny.load(source(variant), variant.kind)
    for own in (tie.head, *tie.also):
        saved(open_checkpoint(untied), tmp_path / "changed")
        change_tensors(tmp_path / "changed", lambda tensors, own=own: {**tensors, own: tensors[own] * 1.5 + 0.1})
        after = tiny.load(tmp_path / "changed", variant.kind)
        assert torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)
        assert tiny.error(tiny.outputs(before), tiny.outputs(after), variant) > NOTICED


@pytest.mark.parametrize("variant", [v for v in VARIANTS if not v.tied], ids=str)
def test_what_is_not_tied_is_left_as_it_is(variant, source):
    checkpoint = open_checkpoint(source(variant))
    untied = untie_embeddings(checkpoint)
    assert untied.tensors == checkpoint.tensors
    assert untied.config == checkpoint.config
    assert untied.steps == ()
    assert any("copied as it is" in note for note in untied.notes)


def test_flags_in_nested_configs_go_off_too(source, tmp_path):
    saved(open_checkpoint(source(tiny.named("llama-tied"))), tmp_path / "source")
    change_config(
        tmp_path / "source", text_config={"tie_word_embeddings": True, "deeper": {"tie_word_embeddings": True}}
    )
    config = untie_embeddings(open_checkpoint(tmp_path / "source")).config
    assert config["tie_word_embeddings"] is False
    assert config["text_config"] == {"tie_word_embeddings": False, "deeper": {"tie_word_embeddings": False}}


# --- one after another -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "ways"), draws.some(ORDERS, 16, "both orders"), ids=str)
def test_widen_and_untie_go_together_in_both_orders(variant, ways, source, tmp_path):
    """Both are planned; one is run, in an order and by a rule that are drawn, for it has the other's shapes."""
    checkpoint, (order, rule) = open_checkpoint(source(variant)), ways
    planned = {
        "widen": untie_embeddings(widen(checkpoint, 2, rule=rule)),
        "untie": widen(untie_embeddings(checkpoint), 2, rule=rule),
    }
    shapes = [{name: tensor.shape for name, tensor in result.tensors.items()} for result in planned.values()]
    assert shapes[0] == shapes[1] and variant.table.tie.head in shapes[0]
    assert planned["widen"].config == planned["untie"].config
    result = planned[order]
    assert result.steps[0].operation.startswith(order)
    if not result.lossy:
        assert moved(variant, source(variant), saved(result, tmp_path / "result")) <= TOLERANCE


@pytest.mark.parametrize("variant", draws.some(FAMILIES, 17, "widened twice"), ids=str)
def test_widening_twice_on_disk_is_one_map_from_the_source(variant, source, tmp_path):
    """By the rules and attentions in turn: maps of both kinds compose."""
    once = widen(open_checkpoint(source(variant)), 2, attention="head-dim")
    saved(once, tmp_path / "once")
    twice = widen(open_checkpoint(tmp_path / "once"), 2, rule="exact", attention="heads")
    saved(twice, tmp_path / "twice")
    assert [step.operation for step in open_checkpoint(tmp_path / "twice").steps] == ["widen", "widen"]
    assert not twice.lossy
    assert moved(variant, source(variant), tmp_path / "twice") <= TOLERANCE


@pytest.mark.parametrize("name", ["llama-untied", "gpt2-tied", "bert-tied", "t5-tied"])
def test_widening_a_plan_is_widening_what_it_writes(name, source, tmp_path):
    def twice(checkpoint, between):
        once = widen(checkpoint, 2, rule="exact", attention="heads")
        return widen(between(once), 2, rule="exact", attention="heads")

    checkpoint = open_checkpoint(source(tiny.named(name)))
    saved(twice(checkpoint, lambda plan: plan), tmp_path / "lazy")
    saved(twice(checkpoint, lambda plan: open_checkpoint(saved(plan, tmp_path / "once"))), tmp_path / "disk")
    lazy, disk = (load_file(tmp_path / folder / "model.safetensors") for folder in ("lazy", "disk"))
    assert lazy.keys() == disk.keys()
    # float32 rounds sqrt(2) once more on the way over the disk (T5's final norm); all else is equal to the last bit
    for tensor in lazy:
        torch.testing.assert_close(lazy[tensor], disk[tensor], rtol=2e-7 if name == "t5-tied" else 0, atol=0)
