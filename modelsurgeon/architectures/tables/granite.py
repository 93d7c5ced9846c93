"""Granite: Llama with four multipliers in the config, of the embedding, the scores, each branch and the logits.

None of them depends on width: `attention_multiplier` is the whole scale of the scores, whatever the head's size.
Upstream: transformers/models/granite/modeling_granite.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis, Quotient
from modelsurgeon.architectures.tables.llama import ARCHITECTURE as LLAMA

CLASSIFIERS = ("score.{weight,bias}?", "qa_outputs.{weight,bias}?")

ARCHITECTURE = replace(
    LLAMA,
    model="GraniteForCausalLM",
    multiples={},
    axes={
        **{name: axis for name, axis in LLAMA.axes.items() if name != "labels"},
        "head": Axis("head_dim", Quotient("hidden_size", "num_attention_heads"), through="inner"),
    },
    tensors={name: signature for name, signature in LLAMA.tensors.items() if name not in CLASSIFIERS},
    keys="""
        attention_bias attention_multiplier embedding_multiplier hidden_act logits_scaling max_position_embeddings
        mlp_bias residual_multiplier
    """,
    factors={"embedding_multiplier": ("model.embed_tokens.weight", 1.0), "logits_scaling": ("lm_head.weight", -1.0)},
    defaults={**LLAMA.defaults, "embedding_multiplier": 1.0, "logits_scaling": 1.0},
    synonyms=(),
)
