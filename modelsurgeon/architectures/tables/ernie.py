"""ERNIE: BERT, with embeddings of the task beside those of the sentence where the config says so."""

from modelsurgeon.architectures.architecture import Axis, but
from modelsurgeon.architectures.tables.bert import ARCHITECTURE as BERT

ARCHITECTURE = but(
    BERT,
    "ErnieForMaskedLM",
    prefix="ernie.",
    axes={"tasks": Axis("task_type_vocab_size", 3)},
    tensors={"ernie.embeddings.task_type_embeddings.weight?": "tasks -> hidden"},
    keys="use_task_id",
)
