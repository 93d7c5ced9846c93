"""ALBERT: a post-norm encoder whose layers share their weights, under projected embeddings of a size of their own."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Tie
from modelsurgeon.architectures.recurring import attention, classifiers, embeddings, tokens

ARCHITECTURE = Architecture(
    model="AlbertForMaskedLM",
    norm="layer",
    eps="layer_norm_eps",
    prefix="albert.",
    counters={"group": "num_hidden_groups", "inner": "inner_group_num"},  # num_hidden_layers passes go through them
    tie=Tie(
        "predictions.decoder.weight",
        "albert.embeddings.word_embeddings.weight",
        also={"predictions.decoder.bias": "predictions.bias"},
        requires="predictions.dense.weight",
        default=True,
    ),
    axes={
        **tokens(positions="max_position_embeddings", types="type_vocab_size"),
        "hidden": Axis("hidden_size", through="residual"),
        **embeddings(),
        "pooled": Axis("hidden_size", through="pointwise"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        **attention(),
    },
    tensors={
        "albert.embeddings.word_embeddings.weight": "vocab -> embedded",
        "albert.embeddings.position_embeddings.weight": "positions -> embedded",
        "albert.embeddings.token_type_embeddings.weight": "types -> embedded",
        "albert.embeddings.LayerNorm.{weight,bias}": "embedded => embedded",
        "albert.encoder.embedding_hidden_mapping_in.{weight,bias}": "hidden <- embedded",
        **{
            f"albert.encoder.albert_layer_groups.{{group}}.albert_layers.{{inner}}.{name}.{{weight,bias}}": text
            for name, text in {
                "attention.query": "(heads head~) <- hidden",
                "attention.key": "(heads head) <- hidden",
                "attention.value": "(heads value) <- hidden",
                "attention.dense": "hidden <- (heads value)",
                "attention.LayerNorm": "hidden => hidden",
                "ffn": "mlp <- hidden",
                "ffn_output": "hidden <- mlp",
                "full_layer_layer_norm": "hidden => hidden",
            }.items()
        },
        "albert.pooler.{weight,bias}?": "pooled <- hidden",
        "predictions.dense.{weight,bias}?": "transform <- hidden",
        "predictions.LayerNorm.{weight,bias}?": "transform => final",
        "predictions.bias?": "vocab <-",
        "predictions.decoder.{weight,bias}?": "vocab <- final",
        "sop_classifier.classifier.{weight,bias}?": "labels <- pooled",
        "classifier.{weight,bias}?": "labels <- pooled",
        "qa_outputs.{weight,bias}?": "labels <- hidden",
    },
    forms=classifiers("albert.pooler.weight"),
    outputs={"last_hidden_state": "hidden", "pooler_output": "pooled"},
    keys="classifier_dropout_prob hidden_act num_hidden_layers",
    requires={"position_embedding_type": (None, "absolute")},
    synonyms=((".gamma", ".weight"), (".beta", ".bias")),
    ignored=(r".*embeddings\.position_ids",),
)
