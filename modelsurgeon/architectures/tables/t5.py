"""T5: an encoder and a decoder, RMSNorm, no biases, no attention scale, relative positions as a bias per head.

The embedding serves as head, and what reaches it is divided by sqrt(d_model) while `scale_decoder_outputs` says so.
Upstream: transformers/models/t5/modeling_t5.py.
"""

from modelsurgeon.architectures.architecture import Architecture, Axis, Key, Tie
from modelsurgeon.architectures.axes import residual

ARCHITECTURE = Architecture(
    model="T5ForConditionalGeneration",
    norm="rms",
    eps="layer_norm_epsilon",
    counters={"layer": "num_layers", "decoder_layer": "num_decoder_layers"},
    tie=Tie("lm_head.weight", "shared.weight", forced="decoder.final_layer_norm.weight"),
    axes={
        "vocab": Axis("vocab_size"),
        "buckets": Axis("relative_attention_num_buckets", 32),
        **residual("d_model", "stream hidden"),
        "final": Axis("d_model", through="residual", scaled=-0.5, when="scale_decoder_outputs"),
        "mlp": Axis("d_ff", through="pointwise"),
        "heads": Axis("num_heads", through="heads"),
        "head": Axis("d_kv", through="inner"),
        "value": Axis("d_kv", through="linear"),
    },
    tensors={
        "shared.weight": "vocab -> stream",
        "encoder.embed_tokens.weight?": "vocab -> stream",
        "decoder.embed_tokens.weight?": "vocab -> stream",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "buckets -> heads",
        "encoder.block.{layer}.layer.0.layer_norm.weight": "stream => hidden",
        "encoder.block.{layer}.layer.0.SelfAttention.q.weight": "(heads head~) <- hidden",
        "encoder.block.{layer}.layer.0.SelfAttention.k.weight": "(heads head) <- hidden",
        "encoder.block.{layer}.layer.0.SelfAttention.v.weight": "(heads value) <- hidden",
        "encoder.block.{layer}.layer.0.SelfAttention.o.weight": "stream <- (heads value)",
        "encoder.block.{layer}.layer.1.layer_norm.weight": "stream => hidden",
        "encoder.block.{layer}.layer.1.DenseReluDense.wi.weight?": "mlp <- hidden",
        "encoder.block.{layer}.layer.1.DenseReluDense.wi_0.weight?": "mlp <- hidden",
        "encoder.block.{layer}.layer.1.DenseReluDense.wi_1.weight?": "mlp <- hidden",
        "encoder.block.{layer}.layer.1.DenseReluDense.wo.weight": "stream <- mlp",
        "encoder.final_layer_norm.weight": "stream => hidden",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "buckets -> heads",
        "decoder.block.{decoder_layer}.layer.0.layer_norm.weight": "stream => hidden",
        "decoder.block.{decoder_layer}.layer.0.SelfAttention.q.weight": "(heads head~) <- hidden",
        "decoder.block.{decoder_layer}.layer.0.SelfAttention.k.weight": "(heads head) <- hidden",
        "decoder.block.{decoder_layer}.layer.0.SelfAttention.v.weight": "(heads value) <- hidden",
        "decoder.block.{decoder_layer}.layer.0.SelfAttention.o.weight": "stream <- (heads value)",
        "decoder.block.{decoder_layer}.layer.1.layer_norm.weight": "stream => hidden",
        "decoder.block.{decoder_layer}.layer.1.EncDecAttention.q.weight": "(heads head~) <- hidden",
        "decoder.block.{decoder_layer}.layer.1.EncDecAttention.k.weight": "(heads head) <- hidden",
        "decoder.block.{decoder_layer}.layer.1.EncDecAttention.v.weight": "(heads value) <- hidden",
        "decoder.block.{decoder_layer}.layer.1.EncDecAttention.o.weight": "stream <- (heads value)",
        "decoder.block.{decoder_layer}.layer.2.layer_norm.weight": "stream => hidden",
        "decoder.block.{decoder_layer}.layer.2.DenseReluDense.wi.weight?": "mlp <- hidden",
        "decoder.block.{decoder_layer}.layer.2.DenseReluDense.wi_0.weight?": "mlp <- hidden",
        "decoder.block.{decoder_layer}.layer.2.DenseReluDense.wi_1.weight?": "mlp <- hidden",
        "decoder.block.{decoder_layer}.layer.2.DenseReluDense.wo.weight": "stream <- mlp",
        "decoder.final_layer_norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
    },
    outputs={"last_hidden_state": "final", "encoder_last_hidden_state": "hidden"},
    keys="dense_act_fn feed_forward_proj is_decoder is_gated_act relative_attention_max_distance",
    defaults={
        "num_decoder_layers": Key("num_layers"),
        "scale_decoder_outputs": lambda c: c.get("tie_word_embeddings") is not False,
        "tie_word_embeddings": True,
    },
    aliases={
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
    ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
)
