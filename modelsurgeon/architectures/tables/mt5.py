"""mT5: T5 whose head reads the decoder's output as it is, never divided by sqrt(d_model)."""

from modelsurgeon.architectures.architecture import Axis, but
from modelsurgeon.architectures.tables.t5 import ARCHITECTURE as T5

ARCHITECTURE = but(
    T5,
    "MT5ForConditionalGeneration",
    axes={"final": Axis("d_model", through="residual")},
    without=("scale_decoder_outputs",),
)
