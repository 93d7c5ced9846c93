"""ELECTRA: BERT's body under embeddings of a size of their own; a generator, or a discriminator of replaced tokens."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Form, Tie
from modelsurgeon.architectures.recurring import encoder, multiple_choice, projected

ARCHITECTURE = Architecture(
    model="ElectraForMaskedLM",
    norm="layer",
    eps="layer_norm_eps",
    prefix="electra.",
    tie=Tie(
        "generator_lm_head.weight",
        "electra.embeddings.word_embeddings.weight",
        requires="generator_predictions.dense.weight",
        default=True,
    ),
    axes={**encoder(), "embedded": Axis("hidden_size", through="residual")},
    tensors={
        "electra.embeddings.word_embeddings.weight": "vocab -> embedded",
        "electra.embeddings.position_embeddings.weight": "positions -> embedded",
        "electra.embeddings.token_type_embeddings.weight": "types -> embedded",
        "electra.embeddings.LayerNorm.{weight,bias}": "embedded => hidden",
        "electra.embeddings_project.{weight,bias}?": "hidden <- embedded",
        "electra.encoder.layer.{layer}.attention.self.query.{weight,bias}": "(heads head~) <- hidden",
        "electra.encoder.layer.{layer}.attention.self.key.{weight,bias}": "(heads head) <- hidden",
        "electra.encoder.layer.{layer}.attention.self.value.{weight,bias}": "(heads value) <- hidden",
        "electra.encoder.layer.{layer}.attention.output.dense.{weight,bias}": "hidden <- (heads value)",
        "electra.encoder.layer.{layer}.attention.output.LayerNorm.{weight,bias}": "hidden => hidden",
        "electra.encoder.layer.{layer}.intermediate.dense.{weight,bias}": "mlp <- hidden",
        "electra.encoder.layer.{layer}.output.dense.{weight,bias}": "hidden <- mlp",
        "electra.encoder.layer.{layer}.output.LayerNorm.{weight,bias}": "hidden => hidden",
        "generator_predictions.dense.{weight,bias}?": "transform <- hidden",
        "generator_predictions.LayerNorm.{weight,bias}?": "transform => final",
        "generator_lm_head.weight?": "vocab <- final",
        "generator_lm_head.bias?": "vocab <-",
        "discriminator_predictions.dense.{weight,bias}?": "pooled <- hidden",
        "discriminator_predictions.dense_prediction.{weight,bias}?": "1 <- pooled",
        "{sequence_summary.summary,classifier.dense}.{weight,bias}?": "pooled <- hidden",
        "classifier.out_proj.{weight,bias}?": "labels <- pooled",
        "{classifier,qa_outputs}.{weight,bias}?": "labels <- hidden",
    },
    keys="""hidden_act is_decoder summary_activation summary_first_dropout summary_last_dropout summary_type
        summary_use_proj""",
    requires={"position_embedding_type": (None, "absolute")},
    synonyms=((".gamma", ".weight"), (".beta", ".bias")),
    ignored=(r".*embeddings\.position_ids",),
    equal={"embedding_size": "hidden_size"},
    outputs={"last_hidden_state": "hidden"},
    projected=("embedded", "hidden"),
    forms=(
        projected("electra."),
        multiple_choice("hidden"),
        Form(
            "summary",
            when=lambda config, names: "sequence_summary.summary.weight" in names,
            tensors={"classifier.{weight,bias}?": "1 <- pooled"},
        ),
    ),
)
