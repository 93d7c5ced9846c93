"""Falcon: attention per head (rw), with one key-value head for all (7b), or with groups of queries (40b, 11b)."""

from modelsurgeon.architectures import alibi
from modelsurgeon.architectures.architecture import Architecture, Axis, Config, Form, Key, Multiple, Rotary, Tie
from modelsurgeon.architectures.recurring import HEAD_SIZE, attention, residual, tokens

QKV = "transformer.h.{layer}.self_attention.query_key_value.{weight,bias?}"


def _grouped(config: Config) -> bool:
    return bool(config.get("new_decoder_architecture"))


ARCHITECTURE = Architecture(
    model="FalconForCausalLM",
    norm="layer",
    eps="layer_norm_epsilon",
    prefix="transformer.",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "transformer.word_embeddings.weight", default=True),
    axes={
        **tokens(),
        **residual("hidden_size"),
        "mlp": Axis("ffn_hidden_size", Multiple("hidden_size", 4), through="pointwise"),
        **attention(),
    },
    tensors={
        "transformer.word_embeddings.weight": "vocab -> stream",
        "transformer.h.{layer}.input_layernorm.{weight,bias}": "stream => hidden",
        QKV: "(heads (head~ + head + value)) <- hidden",
        "transformer.h.{layer}.self_attention.dense.{weight,bias?}": "stream <- (heads value)",
        "transformer.h.{layer}.mlp.dense_h_to_4h.{weight,bias?}": "mlp <- hidden",
        "transformer.h.{layer}.mlp.dense_4h_to_h.{weight,bias?}": "stream <- mlp",
        "transformer.ln_f.{weight,bias}": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.weight?": "labels <- final",
        "classifier.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    forms=(
        Form(
            "multi-query",
            when=lambda c, names: not _grouped(c) and bool(c.get("multi_query", True)),
            tensors={QKV: "(heads head~ + kv head + kv value) <- hidden"},
            axes={"kv": Axis(default=1, through="heads", follows="heads")},
            fields={"equal": {}},  # whatever num_kv_heads says
        ),
        Form(
            "grouped",
            when=lambda c, names: _grouped(c),
            tensors={QKV: "kv[heads head~ + kv head + kv value] <- hidden"},
            axes={"kv": Axis("num_kv_heads", Key("num_attention_heads"), through="heads", follows="heads")},
            fields={"equal": {}},
        ),
        Form(
            "two norms",
            when=lambda c, names: _grouped(c) and c.get("num_ln_in_parallel_attn") in (None, 2),
            tensors={
                "transformer.h.{layer}.input_layernorm.{weight,bias}": None,
                "transformer.h.{layer}.{ln_attn,ln_mlp}.{weight,bias}": "stream => hidden",
            },
        ),
        Form(
            "sequential",
            when=lambda c, names: not _grouped(c) and not c.get("parallel_attn", True),
            tensors={"transformer.h.{layer}.post_attention_layernorm.{weight,bias}": "stream => hidden"},
        ),
        Form(
            "alibi",
            when=lambda c, names: bool(c.get("alibi")),
            axes={
                "heads": Axis("num_attention_heads", through="heads", slopes=alibi.falcon),
                "head": Axis(default=HEAD_SIZE, why="attention divides ALiBi's slopes by sqrt(head)"),
            },
            fields={"rotary": None},
        ),
    ),
    keys="""activation alibi apply_residual_connection_post_layernorm bias max_position_embeddings multi_query
        new_decoder_architecture num_kv_heads num_ln_in_parallel_attn parallel_attn rope_parameters rope_scaling
        rope_theta""",
    equal={"num_kv_heads": "num_attention_heads"},
    aliases={"n_embed": "hidden_size"},
    ignored=(r".*rotary_emb\.inv_freq",),
)
