"""DeBERTa v2 and v3: a post-norm encoder with disentangled attention.

Beside q.k, queries meet keys of relative positions (`c2p`) and keys meet queries of them (`p2c`). Both come from one
table. The scores are divided by sqrt(head * (1 + the number of such terms)).
"""

from modelsurgeon.architectures.architecture import Architecture, Axis, Config, Form, Key, Tie, labels
from modelsurgeon.architectures.recurring import HEAD_SIZE, attention, bert_tie, classifiers, embeddings, residual


def buckets(config: Config) -> int:
    """Rows of the table of relative positions: so many to either side."""
    spans = [config.get(key) or 0 for key in ("position_buckets", "max_relative_positions")]
    return 2 * int(next((span for span in spans if span > 0), config["max_position_embeddings"]))


SUPPORTED = {"conv_groups": (None, 1), "conv_kernel_size": (None, 0, 3)}

ARCHITECTURE = Architecture(
    model="DebertaV2ForMaskedLM",
    norm="layer",
    eps="layer_norm_eps",
    prefix="deberta.",
    tie=bert_tie("deberta."),
    axes={
        "vocab": Axis("vocab_size"),
        "positions": Axis("max_position_embeddings"),
        "types": Axis(default=lambda c: c.get("type_vocab_size") or 1),  # 0: there are none
        "buckets": Axis(default=buckets),
        "labels": Axis(default=labels),
        **residual("hidden_size", "hidden embedded"),
        "transform": Axis("hidden_size", through="pointwise"),
        "final": Axis("hidden_size", through="residual"),
        "pooled": Axis("hidden_size", through="pointwise"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        **attention(),
    },
    tensors={
        "deberta.embeddings.word_embeddings.weight": "vocab -> embedded",
        "deberta.embeddings.position_embeddings.weight?": "positions -> embedded",
        "deberta.embeddings.token_type_embeddings.weight?": "types -> embedded",
        "deberta.embeddings.embed_proj.weight?": "hidden <- embedded",
        "deberta.embeddings.LayerNorm.{weight,bias}": "embedded => hidden",
        "deberta.encoder.rel_embeddings.weight?": "buckets -> hidden",
        "deberta.encoder.LayerNorm.{weight,bias}?": "hidden => hidden",
        "deberta.encoder.conv.conv.{weight,bias}?": "hidden <- hidden 3",
        "deberta.encoder.conv.LayerNorm.{weight,bias}?": "hidden => hidden",
        "deberta.encoder.layer.{layer}.attention.self.query_proj.{weight,bias}": "(heads head~) <- hidden",
        "deberta.encoder.layer.{layer}.attention.self.key_proj.{weight,bias}": "(heads head) <- hidden",
        "deberta.encoder.layer.{layer}.attention.self.value_proj.{weight,bias}": "(heads value) <- hidden",
        "deberta.encoder.layer.{layer}.attention.self.pos_query_proj.{weight,bias}?": "(heads head~) <- hidden",
        "deberta.encoder.layer.{layer}.attention.self.pos_key_proj.{weight,bias}?": "(heads head) <- hidden",
        "deberta.encoder.layer.{layer}.attention.output.dense.{weight,bias}": "hidden <- (heads value)",
        "deberta.encoder.layer.{layer}.attention.output.LayerNorm.{weight,bias}": "hidden => hidden",
        "deberta.encoder.layer.{layer}.intermediate.dense.{weight,bias}": "mlp <- hidden",
        "deberta.encoder.layer.{layer}.output.dense.{weight,bias}": "hidden <- mlp",
        "deberta.encoder.layer.{layer}.output.LayerNorm.{weight,bias}": "hidden => hidden",
        "cls.predictions.transform.dense.{weight,bias}?": "transform <- hidden",
        "cls.predictions.transform.LayerNorm.{weight,bias}?": "transform => final",
        "cls.predictions.bias?": "vocab <-",
        "cls.predictions.decoder.{weight,bias}?": "vocab <- final",
        "lm_predictions.lm_head.dense.{weight,bias}?": "transform <- hidden",
        "lm_predictions.lm_head.LayerNorm.{weight,bias}?": "transform => final",
        "lm_predictions.lm_head.bias?": "vocab <-",
        "pooler.dense.{weight,bias}?": "pooled <- hidden",
        "classifier.{weight,bias}?": "labels <- pooled",
        "qa_outputs.{weight,bias}?": "labels <- hidden",
    },
    outputs={"last_hidden_state": "hidden"},
    keys="""cls_dropout conv_act hidden_act legacy max_relative_positions norm_rel_ebd pooler_dropout
        pooler_hidden_act pos_att_type position_biased_input position_buckets relative_attention share_att_key
        type_vocab_size""",
    requires=SUPPORTED,
    projected=("embedded", "hidden"),
    equal={"attention_head_size": HEAD_SIZE, "embedding_size": "hidden_size", "pooler_hidden_size": "hidden_size"},
    synonyms=((".gamma", ".weight"), (".beta", ".bias")),
    ignored=(r".*embeddings\.position_ids", r"mask_predictions\..*"),
    forms=(
        Form(
            "projected",
            when=lambda config, names: "deberta.embeddings.embed_proj.weight" in names,
            tensors={"deberta.embeddings.LayerNorm.{weight,bias}": "hidden => hidden"},
            axes=embeddings(Key("hidden_size")),
            fields={"equal": {"attention_head_size": HEAD_SIZE, "pooler_hidden_size": "hidden_size"}},
        ),
        Form(
            "convolution",  # its activation writes the stream: only copies of scale 1 pass
            when=lambda config, names: "deberta.encoder.conv.conv.weight" in names,
            axes={"hidden": Axis("hidden_size", through="pointwise residual")},
        ),
        Form(
            "legacy = false",
            when=lambda config, names: config.get("legacy") is False,
            fields={
                "tie": Tie(
                    "cls.predictions.decoder.weight",
                    "deberta.embeddings.word_embeddings.weight",
                    default=True,
                    requires="lm_predictions.lm_head.dense.weight",
                    refused="with legacy = false the model multiplies by its word embeddings themselves",
                ),
                "requires": {**SUPPORTED, "tie_word_embeddings": (None, True)},
            },
        ),
        *classifiers("pooler.dense.weight"),
    ),
)
