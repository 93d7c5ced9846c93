"""ERNIE: BERT, with embeddings of the task beside those of the sentence where the config says so.

Upstream: transformers/models/ernie/modeling_ernie.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis, Tie
from modelsurgeon.architectures.layouts import TOKENS, multiple_choice, unpooled
from modelsurgeon.architectures.tables.bert import ARCHITECTURE as BERT

ARCHITECTURE = replace(
    BERT,
    model="ErnieForMaskedLM",
    prefix="ernie.",
    tie=Tie(
        "cls.predictions.decoder.weight",
        "ernie.embeddings.word_embeddings.weight",
        also={"cls.predictions.decoder.bias": "cls.predictions.bias"},
        requires="cls.predictions.transform.dense.weight",
    ),
    axes={**BERT.axes, "tasks": Axis("task_type_vocab_size", 3)},
    tensors={
        **{name.replace("bert.", "ernie.", 1): text for name, text in BERT.tensors.items()},
        "ernie.embeddings.task_type_embeddings.weight?": "tasks -> hidden",
    },
    keys="hidden_act is_decoder use_task_id",
    forms=(unpooled("ernie.pooler.dense.weight"), TOKENS, multiple_choice("pooled")),
)
