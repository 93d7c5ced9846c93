"""mT5: T5 whose head reads the decoder's output as it is, never divided by sqrt(d_model).

Upstream: transformers/models/mt5/modeling_mt5.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis
from modelsurgeon.architectures.tables.t5 import ARCHITECTURE as T5

ARCHITECTURE = replace(
    T5,
    model="MT5ForConditionalGeneration",
    axes={**T5.axes, "final": Axis("d_model", through="residual")},
    defaults={key: default for key, default in T5.defaults.items() if key != "scale_decoder_outputs"},
)
