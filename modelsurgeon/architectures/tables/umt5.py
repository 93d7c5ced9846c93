"""UMT5: T5 with relative positions in every block, whose head reads the output divided by sqrt(d_model), tied or not.

Upstream: transformers/models/umt5/modeling_umt5.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis
from modelsurgeon.architectures.tables.t5 import ARCHITECTURE as T5

BIAS = "SelfAttention.relative_attention_bias.weight"

ARCHITECTURE = replace(
    T5,
    model="UMT5ForConditionalGeneration",
    axes={**T5.axes, "final": Axis("d_model", through="residual", scaled=-0.5)},
    tensors={
        **{name: signature for name, signature in T5.tensors.items() if BIAS not in name},
        f"encoder.block.{{layer}}.layer.0.{BIAS}": "buckets -> heads",
        f"decoder.block.{{decoder_layer}}.layer.0.{BIAS}": "buckets -> heads",
    },
    defaults={key: default for key, default in T5.defaults.items() if key != "scale_decoder_outputs"},
)
