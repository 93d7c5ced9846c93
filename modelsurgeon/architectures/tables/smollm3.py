"""SmolLM3: Llama with tied embeddings, in which every fourth layer has no rotary positions.

`no_rope_layers` says which layers turn (1) and which do not (0); heads of both kinds grow by the same map.
Upstream: transformers/models/smollm3/modeling_smollm3.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis
from modelsurgeon.architectures.tables.llama import ARCHITECTURE as LLAMA

ARCHITECTURE = replace(
    LLAMA,
    model="SmolLM3ForCausalLM",
    multiples={},
    axes={**LLAMA.axes, "kv": Axis("num_key_value_heads", 4, through="heads", follows="heads")},
    keys="""
        attention_bias hidden_act layer_types max_position_embeddings max_window_layers mlp_bias no_rope_layer_interval
        no_rope_layers pretraining_tp sliding_window use_sliding_window
    """,
    defaults={"tie_word_embeddings": True},
)
