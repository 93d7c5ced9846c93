"""RoBERTa: BERT with another head, whose positions begin after the padding's: two of the table's rows are unused."""

from modelsurgeon.architectures.architecture import Architecture, Tie
from modelsurgeon.architectures.recurring import encoder, multiple_choice

ARCHITECTURE = Architecture(
    model="RobertaForMaskedLM",
    norm="layer",
    eps="layer_norm_eps",
    prefix="roberta.",
    tie=Tie(
        "lm_head.decoder.weight",
        "roberta.embeddings.word_embeddings.weight",
        also={"lm_head.decoder.bias": "lm_head.bias"},
        requires="lm_head.dense.weight",
        default=True,
    ),
    axes=encoder(),
    tensors={
        "roberta.embeddings.word_embeddings.weight": "vocab -> hidden",
        "roberta.embeddings.position_embeddings.weight": "positions -> hidden",
        "roberta.embeddings.token_type_embeddings.weight": "types -> hidden",
        "roberta.embeddings.LayerNorm.{weight,bias}": "hidden => hidden",
        "roberta.encoder.layer.{layer}.attention.self.query.{weight,bias}": "(heads head~) <- hidden",
        "roberta.encoder.layer.{layer}.attention.self.key.{weight,bias}": "(heads head) <- hidden",
        "roberta.encoder.layer.{layer}.attention.self.value.{weight,bias}": "(heads value) <- hidden",
        "roberta.encoder.layer.{layer}.attention.output.dense.{weight,bias}": "hidden <- (heads value)",
        "roberta.encoder.layer.{layer}.attention.output.LayerNorm.{weight,bias}": "hidden => hidden",
        "roberta.encoder.layer.{layer}.intermediate.dense.{weight,bias}": "mlp <- hidden",
        "roberta.encoder.layer.{layer}.output.dense.{weight,bias}": "hidden <- mlp",
        "roberta.encoder.layer.{layer}.output.LayerNorm.{weight,bias}": "hidden => hidden",
        "roberta.pooler.dense.{weight,bias}?": "pooled <- hidden",
        "lm_head.dense.{weight,bias}?": "transform <- hidden",
        "lm_head.layer_norm.{weight,bias}?": "transform => final",
        "lm_head.bias?": "vocab <-",
        "lm_head.decoder.{weight,bias}?": "vocab <- final",
        "classifier.dense.{weight,bias}?": "pooled <- hidden",
        "classifier.out_proj.{weight,bias}?": "labels <- pooled",
        "{classifier,qa_outputs}.{weight,bias}?": "labels <- hidden",
    },
    forms=(multiple_choice("pooled"),),
    outputs={"last_hidden_state": "hidden", "pooler_output": "pooled"},
    keys="hidden_act is_decoder pad_token_id",  # positions are counted from the padding's
    requires={"position_embedding_type": (None, "absolute")},
    synonyms=((".gamma", ".weight"), (".beta", ".bias")),
    ignored=(r".*embeddings\.position_ids",),
)
