"""BERT: a post-norm encoder, in every usual form: masked-LM, next-sentence, pooler, classifiers, or the bare body."""

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.recurring import bert_tie, classifiers, encoder

ARCHITECTURE = Architecture(
    model="BertForMaskedLM",
    norm="layer",
    eps="layer_norm_eps",
    prefix="bert.",
    tie=bert_tie("bert."),
    axes=encoder(),
    tensors={
        "bert.embeddings.word_embeddings.weight": "vocab -> hidden",
        "bert.embeddings.position_embeddings.weight": "positions -> hidden",
        "bert.embeddings.token_type_embeddings.weight": "types -> hidden",
        "bert.embeddings.LayerNorm.{weight,bias}": "hidden => hidden",
        "bert.encoder.layer.{layer}.attention.self.query.{weight,bias}": "(heads head~) <- hidden",
        "bert.encoder.layer.{layer}.attention.self.key.{weight,bias}": "(heads head) <- hidden",
        "bert.encoder.layer.{layer}.attention.self.value.{weight,bias}": "(heads value) <- hidden",
        "bert.encoder.layer.{layer}.attention.output.dense.{weight,bias}": "hidden <- (heads value)",
        "bert.encoder.layer.{layer}.attention.output.LayerNorm.{weight,bias}": "hidden => hidden",
        "bert.encoder.layer.{layer}.intermediate.dense.{weight,bias}": "mlp <- hidden",
        "bert.encoder.layer.{layer}.output.dense.{weight,bias}": "hidden <- mlp",
        "bert.encoder.layer.{layer}.output.LayerNorm.{weight,bias}": "hidden => hidden",
        "bert.pooler.dense.{weight,bias}?": "pooled <- hidden",
        "cls.predictions.transform.dense.{weight,bias}?": "transform <- hidden",
        "cls.predictions.transform.LayerNorm.{weight,bias}?": "transform => final",
        "cls.predictions.bias?": "vocab <-",
        "cls.predictions.decoder.{weight,bias}?": "vocab <- final",
        "cls.seq_relationship.{weight,bias}?": "2 <- pooled",
        "classifier.{weight,bias}?": "labels <- pooled",
        "qa_outputs.{weight,bias}?": "labels <- hidden",
    },
    forms=classifiers("pooler.dense.weight"),
    outputs={"last_hidden_state": "hidden", "pooler_output": "pooled"},
    keys="hidden_act is_decoder",
    requires={"position_embedding_type": (None, "absolute")},
    synonyms=((".gamma", ".weight"), (".beta", ".bias")),
    ignored=(r".*embeddings\.position_ids",),
)
