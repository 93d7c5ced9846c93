"""UMT5: T5 with relative positions in every block; its head reads the output divided by sqrt(d_model), tied or not."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Key
from modelsurgeon.architectures.tables.t5 import ARCHITECTURE as T5
from modelsurgeon.architectures.tables.t5 import stack

ARCHITECTURE = Architecture(
    model="UMT5ForConditionalGeneration",
    norm="rms",
    eps="layer_norm_epsilon",
    prefix="",
    counters=T5.counters,
    tie=T5.tie,
    axes={**T5.axes, "final": Axis("d_model", through="residual", scaled=-0.5)},
    tensors={
        "shared.weight": "vocab -> stream",
        "{encoder,decoder}.embed_tokens.weight?": "vocab -> stream",
        **stack("encoder", "layer", biased="{layer}", ends="hidden"),
        **stack("decoder", "decoder_layer", biased="{decoder_layer}", ends="final"),
        "lm_head.weight?": "vocab <- final",
    },
    outputs=T5.outputs,
    keys=T5.keys,
    defaults={"num_decoder_layers": Key("num_layers")},
    aliases=T5.aliases,
    ignored=T5.ignored,
)
