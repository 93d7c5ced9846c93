"""BLOOM: pre-norm with ALiBi, a norm behind the embedding, queries, keys and values in one tensor, head by head."""

from modelsurgeon.architectures import alibi
from modelsurgeon.architectures.architecture import Architecture, Axis, Form, Multiple, Tie
from modelsurgeon.architectures.recurring import attention, residual, tokens

QKV = "transformer.h.{layer}.self_attention.query_key_value.{weight,bias}"

ARCHITECTURE = Architecture(
    model="BloomForCausalLM",
    norm="layer",
    eps="layer_norm_epsilon",
    prefix="transformer.",
    counters={"layer": "n_layer"},
    tie=Tie("lm_head.weight", "transformer.word_embeddings.weight", default=True),
    axes={
        **tokens(),
        **residual("hidden_size", "embedded stream hidden final"),
        "mlp": Axis(default=Multiple("hidden_size", 4), through="pointwise"),
        **attention("hidden_size", "n_head", slopes=alibi.bloom),
    },
    tensors={
        "transformer.word_embeddings.weight": "vocab -> embedded",
        "transformer.word_embeddings_layernorm.{weight,bias}": "embedded => stream",
        "transformer.h.{layer}.input_layernorm.{weight,bias}": "stream => hidden",
        QKV: "(heads (head~ + head + value)) <- hidden",
        "transformer.h.{layer}.self_attention.dense.{weight,bias}": "stream <- (heads value)",
        "transformer.h.{layer}.post_attention_layernorm.{weight,bias}": "stream => hidden",
        "transformer.h.{layer}.mlp.dense_h_to_4h.{weight,bias}": "mlp <- hidden",
        "transformer.h.{layer}.mlp.dense_4h_to_h.{weight,bias}": "stream <- mlp",
        "transformer.ln_f.{weight,bias}": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.weight?": "labels <- final",
        "classifier.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    forms=(
        Form(
            "post-norm",  # sums start from the norms' outputs
            when=lambda c, names: bool(c.get("apply_residual_connection_post_layernorm")),
            tensors={
                "transformer.h.{layer}.input_layernorm.{weight,bias}": "stream => stream",
                QKV: "(heads (head~ + head + value)) <- stream",
                "transformer.h.{layer}.post_attention_layernorm.{weight,bias}": "stream => stream",
                "transformer.h.{layer}.mlp.dense_h_to_4h.{weight,bias}": "mlp <- stream",
            },
        ),
    ),
    keys="apply_residual_connection_post_layernorm pretraining_tp slow_but_exact",
    aliases={"n_embed": "hidden_size", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
)
