"""UMT5: T5 with relative positions in every block; its head reads the output divided by sqrt(d_model), tied or not."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Key, Tie
from modelsurgeon.architectures.recurring import residual
from modelsurgeon.architectures.tables.t5 import stack

ARCHITECTURE = Architecture(
    model="UMT5ForConditionalGeneration",
    norm="rms",
    eps="layer_norm_epsilon",
    prefix="",
    counters={"layer": "num_layers", "decoder_layer": "num_decoder_layers"},
    tie=Tie("lm_head.weight", "shared.weight", forced="decoder.final_layer_norm.weight", default=True),
    axes={
        "vocab": Axis("vocab_size"),
        "buckets": Axis("relative_attention_num_buckets", 32),
        **residual("d_model", "stream hidden"),
        "final": Axis("d_model", through="residual", scaled=-0.5),
        "mlp": Axis("d_ff", through="pointwise"),
        "heads": Axis("num_heads", through="heads"),
        "head": Axis("d_kv", through="inner"),
        "value": Axis("d_kv", through="linear"),
    },
    tensors={
        "shared.weight": "vocab -> stream",
        "{encoder,decoder}.embed_tokens.weight?": "vocab -> stream",
        **stack("encoder", "layer", biased="{layer}", ends="hidden"),
        **stack("decoder", "decoder_layer", biased="{decoder_layer}", ends="final"),
        "lm_head.weight?": "vocab <- final",
    },
    outputs={"last_hidden_state": "final", "encoder_last_hidden_state": "hidden"},
    keys="dense_act_fn feed_forward_proj is_decoder is_gated_act relative_attention_max_distance",
    defaults={
        "num_decoder_layers": Key("num_layers"),
    },
    aliases={
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
    ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
)
