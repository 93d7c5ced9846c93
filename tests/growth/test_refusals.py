"""What cannot grow without changing the function is refused while planning: why, and which sizes or way out there are.

Beside each refusal stands what looks like it and can be done, and is then tried on the outputs.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelsurgeon.architectures.config import lookup
from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import RULES
from modelsurgeon.operations.transforms.untying import untie_embeddings
from modelsurgeon.saving.save import save
from support import tiny
from support.grow import widen
from support.growths import LOSSLESS, Source
from support.refusal import checkpoint, lossless, refusal

__all__ = ["checkpoint", "lossless", "refusal"]  # fixtures

POST_NORM = [
    *(("albert-untied", "hidden_size"), ("bart-untied", "d_model"), ("bert-untied", "hidden_size")),
    *(("deberta-v2-untied", "hidden_size"), ("distilbert-untied", "dim"), ("electra-untied", "hidden_size")),
    *(("ernie-untied", "hidden_size"), ("opt-350m", "hidden_size"), ("opt-post-norm", "hidden_size")),
    *(("roberta-untied", "hidden_size"), ("roformer-untied", "hidden_size")),
    # A norm writes BLOOM's embedding, and ModernBERT's, into the stream that other norms read.
    *(("bloom-untied", "hidden_size"), ("modernbert-untied", "hidden_size")),
]
# Families whose heads have no size of their own: the head is the width over their count.
COUPLED = [
    *POST_NORM,
    *(("falcon-untied", "hidden_size"), ("gpt2-untied", "n_embd"), ("gpt_neo-untied", "hidden_size")),
    *(("gpt_neox-untied", "hidden_size"), ("gptj-untied", "n_embd"), ("mpt-untied", "d_model")),
    *(("olmoe-untied", "hidden_size"), ("opt-untied", "hidden_size"), ("stablelm-untied", "hidden_size")),
    ("whisper-untied", "d_model"),
]
HEADS = ("n_head", "n_heads", "num_heads", "num_attention_heads", "encoder_attention_heads")
# {variant: (the key of the experts, how many are there)} where the router has no bias that serves the choice alone
ROUTED = {
    "deepseek_v2-untied": ("n_routed_experts", 8),
    "mixtral-untied": ("num_local_experts", 6),
    "olmoe-untied": ("num_experts", 6),
    "qwen2_moe-untied": ("num_experts", 6),
    "qwen3_moe-untied": ("num_local_experts", 6),
}
BIASED = {"deepseek_v3-untied": ("n_routed_experts", 8), "gpt_oss-untied": ("num_local_experts", 6)}


# --- the hidden size -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "key"), POST_NORM)
def test_a_post_norm_model_has_whole_multiples_of_its_width_only(name, key, refusal):
    said = refusal(name, **{key: 44})
    assert f"({key}) cannot go from 32 to 44: a LayerNorm reads what another one writes, whose mean must stay" in said
    assert said.endswith("sizes that work: 32 or 64")


def test_whisper_has_whole_multiples_of_its_width_only(refusal):
    assert refusal("whisper-untied", d_model=44) == (
        "axis 'encoder' (d_model) cannot go from 32 to 44: an activation writes what is summed; "
        "sizes that work: 32 or 64"
    )


@pytest.mark.parametrize(("name", "key"), COUPLED)
def test_where_heads_have_no_size_of_their_own_the_width_makes_them_larger(name, key, checkpoint):
    """That is what the wanted config says. The matrix tries it on the outputs, under the column `hidden`."""
    small = checkpoint(name)
    wide = widen(small, settings={key: 2 * small.resolved[key]})
    heads = [axis for axis in small.sizes if axis.split("_")[-1] == "head"]
    assert heads
    assert [wide.sizes[axis] for axis in heads] == [2 * small.sizes[axis] for axis in heads]


@pytest.mark.parametrize(("name", "key"), COUPLED)
def test_where_heads_have_no_size_of_their_own_more_of_them_need_more_width(name, key, checkpoint, refusal):
    small = checkpoint(name).resolved
    heads = next(key for key in HEADS if key in small)
    said = refusal(name, **{heads: 2 * small[heads]})
    assert "head' cannot go from" in said
    assert said.endswith("growth never takes away, and other sizes of the config make it so")


def test_a_tied_head_that_no_weight_stands_before_is_untied_first(source, refusal, tmp_path):
    """OLMo's norms have no weights. Its heads and MLPs may grow tied."""
    said = refusal("olmo-tied", hidden_size=64)
    assert said == "lm_head.weight is tied, and the norm before it has no weight to take a factor: untie first"
    variant = tiny.named("olmo-tied")
    small = Source(variant, source(variant, "float64"))
    for rule in RULES:
        untied = untie_embeddings(small.checkpoint)
        wide = widen(untied, settings={"hidden_size": 64}, rule=rule)
        if rule == "exact":  # the eps of these norms is fixed in the code
            assert not wide.lossy
            assert small.error(save(wide, tmp_path / rule)) <= LOSSLESS


@pytest.mark.parametrize(
    ("name", "settings", "total", "part"),
    [
        ("llama-untied", {"hidden_size": 42}, "hidden_size = 42", "num_attention_heads = 4"),
        ("llama-untied", {"num_attention_heads": 6}, "hidden_size = 32", "num_attention_heads = 6"),
        ("gemma2-untied", {"hidden_size": 42}, "hidden_size = 42", "num_attention_heads = 4"),
        ("gemma3_text-untied", {"hidden_size": 42}, "hidden_size = 42", "num_attention_heads = 4"),
        ("deepseek_v2-untied", {"hidden_size": 42}, "hidden_size = 42", "num_attention_heads = 4"),
        ("deepseek_v2-untied", {"kv_lora_rank": 15}, "kv_lora_rank = 15", "2"),
    ],
)
def test_what_the_library_cannot_load_is_refused(name, settings, total, part, refusal):
    said = refusal(name, **settings)
    assert said.startswith(f"{total}: transformers wants a multiple of {part}, such as ")


@pytest.mark.parametrize(
    ("name", "small", "settings"),
    [
        ("opt-projected", {}, {"word_embed_proj_dim": 32}),
        ("opt-projected", {}, {"word_embed_proj_dim": 64, "hidden_size": 64}),
        ("opt-350m", {}, {"word_embed_proj_dim": 32}),
        ("electra-untied", {"embedding_size": 16}, {"embedding_size": 32}),
        ("electra-untied", {"embedding_size": 64}, {"hidden_size": 64}),
        ("roformer-projected", {"embedding_size": 16}, {"embedding_size": 32}),
        ("deberta-v2-projected", {"embedding_size": 16}, {"embedding_size": 32}),
    ],
)
def test_a_projection_that_the_library_would_leave_out_at_equal_sizes_is_kept(name, small, settings, tmp_path):
    """Between an embedding and a stream of one size it builds none."""
    variant = tiny.named(name)
    variant = replace(variant, config={**variant.config, **small})
    folder = tiny.save(variant, tmp_path / "small", "float64")
    for rule in RULES:
        with pytest.raises(PlanError, match="projection"):
            widen(open_checkpoint(folder), settings=settings, rule=rule)


# --- the MLP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keys", "can"),
    [
        ("bloom-untied", ("n_inner", "intermediate_size"), "hidden_size, n_head"),
        ("mpt-untied", ("d_ff", "expansion_ratio", "intermediate_size"), "d_model, n_heads"),
    ],
)
def test_an_mlp_that_the_code_makes_four_times_the_width_does_not_grow_alone(name, keys, can, refusal):
    for key in keys:
        said = refusal(name, **{key: 256})
        assert said.startswith(f"{key}: ")
        assert said.endswith(f"what can grow: {can}")


@pytest.mark.parametrize("name", ["deepseek_v2-untied", "deepseek_v3-untied"])
def test_shared_experts_widen_with_the_others(name, checkpoint, refusal):
    assert "shared experts widen with moe_intermediate_size" in refusal(name, n_shared_experts=4)
    wide = widen(checkpoint(name), settings={"moe_intermediate_size": 31})
    assert {t.shape[0] for name, t in wide.tensors.items() if name.endswith("shared_experts.up_proj.weight")} == {62}


# --- positions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bloom-untied", {"n_head": 8, "hidden_size": 64}),
        ("bloom-six-heads", {"n_head": 12, "hidden_size": 96}),
        ("bloom-six-heads", {"n_head": 8, "hidden_size": 96}),  # larger heads, too
        ("mpt-untied", {"n_heads": 8, "d_model": 64}),
        ("mpt-untied", {"n_heads": 5, "d_model": 40}),
        ("mpt-six-heads", {"n_heads": 8, "d_model": 64}),
        ("falcon-alibi", {"num_attention_heads": 8, "hidden_size": 64}),
        ("falcon-alibi", {"num_attention_heads": 6, "hidden_size": 48}),
    ],
)
def test_heads_with_alibi_slopes_go_where_their_slopes_are(name, settings, lossless):
    """Copies would have other slopes; those of more heads contain the old ones, and the heads between say nothing."""
    lossless(name, **settings)


@pytest.mark.parametrize("size", [48, 64])
def test_larger_heads_would_divide_falcons_alibi_slopes(size, refusal):
    assert refusal("falcon-alibi", hidden_size=size) == (
        f"axis 'head' cannot go from 8 to {size // 4}: attention divides ALiBi's slopes by sqrt(head); "
        "sizes that work: 8"
    )


@pytest.mark.parametrize(("name", "settings"), [("bloom-untied", {"hidden_size": 64}), ("mpt-untied", {"d_model": 64})])
def test_larger_heads_keep_alibi_slopes_that_nothing_divides(name, settings, lossless):
    lossless(name, **settings)


@pytest.mark.parametrize(
    ("name", "key", "size", "nearest"),
    [
        ("cohere-untied", "head_dim", 12, "8 or 16"),
        ("deepseek_v2-untied", "qk_rope_head_dim", 12, "8 or 16"),
        ("deepseek_v3-untied", "qk_rope_head_dim", 20, "16 or 24"),
        ("llama-untied", "head_dim", 9, "8 or 16"),
        ("llama-untied", "head_dim", 12, "8 or 16"),
        ("qwen3-untied", "head_dim", 18, "12 or 24"),
        ("falcon-untied", "hidden_size", 48, "8 or 16"),  # a head is the width over their count
    ],
)
def test_rotated_heads_have_whole_multiples_of_their_size_only(name, key, size, nearest, refusal):
    said = refusal(name, **{key: size})
    assert said.endswith(f"rotary pairs keep their frequencies at whole multiples; sizes that work: {nearest}")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("phi-untied", {"head_dim": 11}),
        ("gpt_neox-untied", {"hidden_size": 88}),
        ("gptj-untied", {"n_embd": 44}),
        ("stablelm-untied", {"hidden_size": 88}),
    ],
)
def test_partly_rotated_heads_have_any_size(name, settings, lossless):
    """What is added is not rotated; the share that is rotated shrinks in the config."""
    lossless(name, **settings)


@pytest.mark.parametrize("name", ["gpt_oss-yarn", "llama-dynamic-rope", "llama-longrope", "llama-yarn-rope"])
def test_frequencies_that_depend_on_the_size_of_the_head_are_rewritten(name, lossless):
    """YaRN's bounds are solved anew, LongRoPE's factors repeated. Dynamic: up to max_position_embeddings."""
    lossless(name, head_dim=16)


def test_half_a_rotary_pair_is_refused(tmp_path):
    """GLM-4 runs with 3 of 6 coordinates rotated, as if there were 4; twice as many would be 6."""
    odd = replace(tiny.named("glm4-untied"), config={"head_dim": 6})
    with pytest.raises(PlanError, match="axis 'head': 3 of its coordinates are rotated, expected pairs"):
        widen(open_checkpoint(tiny.save(odd, tmp_path / "odd")), 2)


def test_gptjs_rotated_size_grows_with_its_heads_only(checkpoint, refusal, lossless):
    for size in (6, 8):
        assert "rotary_dim" in refusal("gptj-untied", rotary_dim=size)
    lossless("gptj-untied", n_embd=64, rotary_dim=8)
    lossless("gptj-untied", n_embd=64)


# --- heads -----------------------------------------------------------------------------------------------------------


def test_key_value_heads_must_divide_the_heads(refusal):
    said = refusal("mistral-untied", num_key_value_heads=3)
    assert said == (
        "axis 'heads' (num_attention_heads) cannot go from 4 to 4: "
        "4 query heads cannot share 3 key-value heads evenly; sizes that work: 6"
    )
    said = refusal("llama-untied", num_attention_heads=8, num_key_value_heads=3)
    assert said.endswith("8 query heads cannot share 3 key-value heads evenly; sizes that work: 6 or 9")


def test_heads_with_keys_and_values_of_their_own_need_more_of_both(refusal, lossless):
    said = refusal("llama-wide-heads", num_key_value_heads=8)
    assert said.endswith("4 query heads cannot share 8 key-value heads evenly; sizes that work: 8")
    lossless("llama-wide-heads", num_attention_heads=8, num_key_value_heads=8)
    lossless("llama-wide-heads", num_attention_heads=8)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("olmo2-untied", {"num_attention_heads": 6}),
        ("olmo2-untied", {"num_attention_heads": 6, "num_key_value_heads": 3}),
        ("olmo2-untied", {"num_attention_heads": 12}),
        ("olmoe-untied", {"num_attention_heads": 6, "hidden_size": 48}),
    ],
)
def test_a_norm_over_all_heads_passes_heads_that_are_not_copied_alike(name, settings, lossless):
    """Heads of which there are more copies weigh less before the norm: an isometry."""
    lossless(name, **settings)


# --- experts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROUTED)
def test_more_experts_need_more_of_them_chosen(name, checkpoint, refusal, lossless):
    key, size = ROUTED[name]
    chosen = checkpoint(name).resolved["num_experts_per_tok"]
    assert refusal(name, **{key: 2 * size}) == (
        f"{key}: 2 copies of every expert are the same function where num_experts_per_tok is {2 * chosen}, "
        f"not {chosen}: the router chooses among them by their scores alone"
    )
    assert f"num_experts_per_tok is {chosen}, not {2 * chosen}" in refusal(name, num_experts_per_tok=2 * chosen)
    said = refusal(name, **{key: size + size // 2, "num_experts_per_tok": 2 * chosen})
    assert said.endswith(f"experts are copied as often as each other; sizes that work: {size} or {2 * size}")
    lossless(name, **{key: 2 * size, "num_experts_per_tok": 2 * chosen})


@pytest.mark.parametrize("name", BIASED)
def test_a_bias_of_the_choice_alone_keeps_further_experts_from_being_chosen(name, lossless):
    key, size = BIASED[name]
    lossless(name, **{key: size + size // 2})


def test_groups_of_experts_stay_equal(refusal):
    said = refusal("deepseek_v3-untied", n_routed_experts=10)
    assert said.endswith("the 4 groups of experts must stay equal; sizes that work: 8 or 12")


# --- clamps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "key"),
    [
        ("mpt-clipped", {"d_model": 64}, "attn_config.clip_qkv"),
        ("olmo-clipped", {"head_dim": 16}, "clip_qkv"),
        ("olmoe-untied", {"hidden_size": 64}, "clip_qkv"),
    ],
)
def test_a_clamp_on_queries_keys_and_values_is_multiplied_as_they_are(name, settings, key, checkpoint, lossless):
    small = checkpoint(name)
    wide = widen(small, settings=settings)
    assert lookup(wide.config, key) == pytest.approx(2**0.25 * lookup(small.config, key), rel=1e-15)
    lossless(name, **settings)


def test_a_clamp_is_no_width(refusal):
    assert refusal("olmo-clipped", clip_qkv=2).startswith("clip_qkv: not a width")
