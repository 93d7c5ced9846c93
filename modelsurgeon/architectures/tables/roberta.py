"""RoBERTa: BERT with another head, whose positions begin after the padding's: two of the table's rows are unused.

The table has as many rows as the config says (`max_position_embeddings`), the unused ones among them.
Upstream: transformers/models/roberta/modeling_roberta.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Tie
from modelsurgeon.architectures.layouts import multiple_choice
from modelsurgeon.architectures.tables.bert import ARCHITECTURE as BERT

BODY = {name.replace("bert.", "roberta.", 1): text for name, text in BERT.tensors.items() if name.startswith("bert.")}

ARCHITECTURE = replace(
    BERT,
    keys="hidden_act is_decoder pad_token_id",  # positions are counted from it
    model="RobertaForMaskedLM",
    prefix="roberta.",
    tie=Tie(
        "lm_head.decoder.weight",
        "roberta.embeddings.word_embeddings.weight",
        also={"lm_head.decoder.bias": "lm_head.bias"},
        requires="lm_head.dense.weight",
    ),
    tensors={
        **BODY,
        "lm_head.dense.{weight,bias}?": "transform <- hidden",
        "lm_head.layer_norm.{weight,bias}?": "transform => final",
        "lm_head.bias?": "vocab <-",
        "lm_head.decoder.{weight,bias}?": "vocab <- final",
        "classifier.dense.{weight,bias}?": "pooled <- hidden",
        "classifier.out_proj.{weight,bias}?": "labels <- pooled",
        "classifier.{weight,bias}?": "labels <- hidden",
        "qa_outputs.{weight,bias}?": "labels <- hidden",
    },
    forms=(multiple_choice("pooled"),),
)
