"""One tensor or one number of a copy that has no record: what was run must show it, and nothing may prove it."""

from __future__ import annotations

from collections.abc import Iterator

from support.attacks.attack import Attack, Plant, copied, widened
from support.planting import (
    S,
    all_of,
    exchanged,
    filled,
    in_heads,
    in_order,
    number,
    rows_times,
    swapped,
    times,
    zeroed,
)

NAN, INF = float("nan"), float("inf")
LLAMA, GPT2, BERT, T5 = "model.layers.1", "transformer.h.1", "bert.encoder.layer.1", "decoder.block.1.layer"
BART, WHISPER = "model.decoder.layers.2", "model.encoder.layers.0"
EXPERTS, MOE, OSS = "model.layers.0.block_sparse_moe", "model.layers.1.mlp", "model.layers.0.mlp"


def by_family() -> Iterator[tuple[str, str, Plant]]:
    """(family, what was changed, how)"""
    yield "llama-untied", "a gain of the other sign", times("model.norm.weight", -1, S[5:6])
    yield "llama-untied", "a value row of zeros", filled(f"{LLAMA}.self_attn.v_proj.weight", S[3:4], 0.0)
    yield "llama-untied", "a NaN in a down projection", number(f"{LLAMA}.mlp.down_proj.weight", NAN, 77)
    yield "llama-untied", "an infinity in the head", number("lm_head.weight", INF, 33)
    yield "llama-untied", "a gate of the other sign", times(f"{LLAMA}.mlp.gate_proj.weight", -1)
    yield "llama-untied", "one neuron of zeros", rows_times(f"{LLAMA}.mlp.up_proj.weight", 0, 17)
    yield "llama-untied", "attention that adds nothing", zeroed(f"{LLAMA}.self_attn.o_proj.weight")
    yield "llama-untied", "gate and up in each other's place", exchanged(*_both(f"{LLAMA}.mlp.", "gate", "up"))
    yield "llama-untied", "the norms of a layer in each other's place", _norms(LLAMA)
    yield (
        "llama-untied",
        "one MLP in two layers' places",
        exchanged("model.layers.0.mlp.down_proj.weight", f"{LLAMA}.mlp.down_proj.weight"),
    )
    yield "llama-untied", "rotary pairs in another order, of queries and keys alike", _turned(LLAMA)
    yield "llama-untied", "query heads that read other keys", _queries(LLAMA, [2, 3, 0, 1])
    yield "llama-untied", "a row of the head x -3", rows_times("lm_head.weight", -3, 7)
    yield "gpt2-tied", "one number of the last norm's bias", number("transformer.ln_f.bias", 3.0, 9)
    yield "gpt2-tied", "a bias of queries left out", filled(f"{GPT2}.attn.c_attn.bias", S[0:32], 0.0)
    yield "gpt2-tied", "keys in the place of values", swapped(f"{GPT2}.attn.c_attn.weight", 1, S[32:64], S[64:96])
    yield "gpt2-tied", "one column of the MLP x 1.1", times(f"{GPT2}.mlp.c_proj.weight", 1.1, S[4:5])
    yield "bert-tied", "one number of the head's bias", number("cls.predictions.bias", 2.0, 44)
    yield "bert-tied", "a norm of the embeddings scaled", times("bert.embeddings.LayerNorm.weight", 1.05)
    yield (
        "bert-tied",
        "query and key in each other's place",
        exchanged(*_both(f"{BERT}.attention.self.", "query", "key", "")),
    )
    yield (
        "bert-tied",
        "the transform before the head transposed",
        swapped("cls.predictions.transform.dense.weight", 0, S[0:16], S[16:32]),
    )
    yield "t5-tied", "a relative bias of one distance", rows_times(f"encoder.{_relative()}", -4, 1)
    yield "t5-tied", "the decoder's relative bias of one head", times(f"decoder.{_relative()}", 3, S[2:3])
    yield (
        "t5-tied",
        "cross attention of another layer",
        exchanged(f"{T5}.1.EncDecAttention.k.weight", "decoder.block.0.layer.1.EncDecAttention.k.weight"),
    )
    yield (
        "t5-tied",
        "encoder and decoder share a last norm",
        exchanged("encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight"),
    )
    yield "bart-tied", "a bias of the logits", number("final_logits_bias", 1.5, 12)
    yield "bart-tied", "a forbidden token", number("final_logits_bias", -1e9, 12)
    yield "bart-tied", "a token allowed again", number("final_logits_bias", 1e9, 3)
    yield "bart-tied", "a bias of cross attention", times(f"{BART}.encoder_attn.v_proj.bias", -1)
    yield (
        "bart-tied",
        "the decoder's first norm is the encoder's",
        exchanged("model.encoder.layernorm_embedding.weight", "model.decoder.layernorm_embedding.weight"),
    )
    yield "mixtral-untied", "two rows of a router", swapped(f"{EXPERTS}.gate.weight", 0, S[1:2], S[4:5])
    yield "mixtral-untied", "an expert that adds nothing", zeroed(f"{EXPERTS}.experts.3.w2.weight")
    yield "mixtral-untied", "experts without their rows of the router", all_of(*_experts(EXPERTS, 0, 5))
    yield "qwen2_moe-untied", "a gate of the shared expert", times(f"{MOE}.shared_expert_gate.weight", -1)
    yield "qwen2_moe-untied", "a router with larger scores", times(f"{MOE}.gate.weight", 2)
    yield "qwen2_moe-untied", "one expert's up projection", times(f"{MOE}.experts.4.up_proj.weight", 1.5)
    yield (
        "deepseek_v3-untied",
        "a correction that chooses another expert",
        number(f"{MOE}.gate.e_score_correction_bias", 5.0, 6),
    )
    yield (
        "deepseek_v3-untied",
        "a norm of compressed keys",
        times("model.layers.0.self_attn.kv_a_layernorm.weight", 1.1),
    )
    yield (
        "deepseek_v3-untied",
        "a norm of compressed queries",
        times("model.layers.0.self_attn.q_a_layernorm.weight", -1, S[2:3]),
    )
    yield "deepseek_v3-untied", "shared experts of zeros", zeroed(f"{MOE}.shared_experts.down_proj.weight")
    yield "gpt_oss-untied", "a sink that draws everything", number("model.layers.0.self_attn.sinks", 9.0, 1)
    yield "gpt_oss-untied", "an expert's bias", times(f"{OSS}.experts.down_proj_bias", -1, S[3:4])
    yield "gpt_oss-untied", "a bias of the router", number(f"{OSS}.router.bias", 4.0, 2)
    yield "gemma2-tied", "a gain behind the MLP", times("model.layers.0.post_feedforward_layernorm.weight", 1.2)
    yield "gemma3_text-tied", "a query norm", times("model.layers.0.self_attn.q_norm.weight", 1.5)
    yield "whisper-tied", "a convolution's bias", number("model.encoder.conv1.bias", 1.0, 4)
    yield "whisper-tied", "a bias that only values have", times(f"{WHISPER}.self_attn.v_proj.bias", -1)
    yield "whisper-tied", "one frame's position", rows_times("model.encoder.embed_positions.weight", -1, 9)
    yield "vit", "a bias of patches", number("vit.embeddings.patch_embeddings.projection.bias", 1.0, 3)
    yield "vit", "a class in another's place", swapped("classifier.weight", 0, S[0:1], S[1:2])
    yield (
        "vit",
        "a channel in another's place",
        swapped("vit.embeddings.patch_embeddings.projection.weight", 1, S[0:1], S[2:3]),
    )
    yield "opt-350m", "a projection in", times("model.decoder.project_in.weight", 1.05, S[0:6])
    yield "bloom-tied", "a norm of embeddings", times("transformer.word_embeddings_layernorm.bias", -1, S[0:2])
    yield "phi-untied", "a bias of the head", number("lm_head.bias", 2.0, 30)
    yield "electra-tied", "a mapping of embeddings", times("electra.embeddings_project.weight", 1.1, S[0:3])
    yield (
        "albert-tied",
        "a layer that all share",
        times("albert.encoder.albert_layer_groups.0.albert_layers.1.ffn.bias", -1),
    )
    yield (
        "deberta-v2-tied",
        "keys of distances",
        times("deberta.encoder.layer.0.attention.self.pos_key_proj.weight", 1.1),
    )
    yield "modernbert-tied", "a local layer's MLP", times("model.layers.1.mlp.Wo.weight", 0.9)
    yield "olmo2-untied", "a norm of whole queries", times("model.layers.1.self_attn.q_norm.weight", -1, S[7:8])
    yield "qwen3-tied", "a key norm", times("model.layers.1.self_attn.k_norm.weight", 1.2, S[0:1])
    yield "cohere-normed-heads", "a norm of one key head", rows_times("model.layers.1.self_attn.k_norm.weight", -1, 1)
    yield (
        "falcon-grouped",
        "values of a group",
        rows_times("transformer.h.0.self_attention.query_key_value.weight", 2, *range(24, 32)),
    )
    yield "mpt-tied", "a norm without a bias", times("transformer.blocks.1.norm_2.weight", 1.1)
    yield "gptj-untied", "a head's bias", number("lm_head.bias", 2.0, 8)
    yield "smollm3-tied", "queries of the layer without positions", times("model.layers.1.self_attn.q_proj.weight", 1.1)
    yield "granite-untied", "one gain", number("model.layers.0.input_layernorm.weight", 4.0, 31)
    yield "bert-sequence", "the classifier's bias", number("classifier.bias", 1.0, 2)
    yield "bert-body", "a pooler", times("pooler.dense.weight", -1, S[0:5])


def tensors() -> Iterator[Attack]:
    for family, what, plant in by_family():
        yield copied(family).differs("weight", what, plant, "outputs")
    recorded = widened("llama-untied")
    yield recorded.differs(
        "weight", "a NaN beside an honest record", number("model.norm.weight", NAN, 3), "proof outputs"
    )
    yield recorded.differs(
        "weight", "one number by its last bits", times("model.norm.weight", 1 + 2**-20, S[3:4]), "proof"
    )
    unrecorded = recorded.unrecorded
    yield unrecorded.differs(
        "weight", "a neuron's copy x -1", rows_times(f"{LLAMA}.mlp.down_proj.weight", -1, 4), "outputs"
    )
    yield unrecorded.runs_alike(
        "weight", "one number by its last bits, no record", times("model.norm.weight", 1 + 2**-20, S[3:4])
    )
    yield copied("llama-tied").runs_alike(
        "weight", "one gain by its last bits", times("model.norm.weight", 1 + 2**-20, S[3:4])
    )


def _both(prefix: str, first: str, second: str, ending: str = "_proj") -> tuple[str, str]:
    return f"{prefix}{first}{ending}.weight", f"{prefix}{second}{ending}.weight"


def _norms(layer: str) -> Plant:
    return exchanged(f"{layer}.input_layernorm.weight", f"{layer}.post_attention_layernorm.weight")


def _turned(layer: str) -> Plant:
    order = [1, 0, 2, 3, 5, 4, 6, 7]
    return all_of(*(in_heads(f"{layer}.self_attn.{name}_proj.weight", order) for name in "qk"))


def _queries(layer: str, order: list[int]) -> Plant:
    rows, columns = f"{layer}.self_attn.q_proj.weight", f"{layer}.self_attn.o_proj.weight"
    return all_of(in_order(rows, 0, order), in_order(columns, 1, order))


def _relative() -> str:
    return "block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def _experts(layer: str, first: int, second: int) -> list[Plant]:
    names = [
        (f"{layer}.experts.{first}.{part}.weight", f"{layer}.experts.{second}.{part}.weight")
        for part in ("w1", "w2", "w3")
    ]
    return [exchanged(*pair) for pair in names]
