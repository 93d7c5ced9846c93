"""DistilBERT: half of BERT's layers, no token types, no pooler, norms whose eps is fixed in the code (1e-12)."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Tie
from modelsurgeon.architectures.recurring import attention, multiple_choice, residual, tokens, unpooled

ARCHITECTURE = Architecture(
    model="DistilBertForMaskedLM",
    norm="layer",
    eps=None,
    prefix="distilbert.",
    counters={"layer": "n_layers"},
    tie=Tie(
        "vocab_projector.weight",
        "distilbert.embeddings.word_embeddings.weight",
        requires="vocab_transform.weight",
        default=True,
    ),
    axes={
        **tokens(positions="max_position_embeddings"),
        **residual("dim", "hidden final"),
        "transform": Axis("dim", through="pointwise"),
        "pooled": Axis("dim", through="pointwise"),
        "mlp": Axis("hidden_dim", through="pointwise"),
        **attention("dim", "n_heads"),
    },
    tensors={
        "distilbert.embeddings.word_embeddings.weight": "vocab -> hidden",
        "distilbert.embeddings.position_embeddings.weight": "positions -> hidden",
        "distilbert.embeddings.LayerNorm.{weight,bias}": "hidden => hidden",
        "distilbert.transformer.layer.{layer}.attention.q_lin.{weight,bias}": "(heads head~) <- hidden",
        "distilbert.transformer.layer.{layer}.attention.k_lin.{weight,bias}": "(heads head) <- hidden",
        "distilbert.transformer.layer.{layer}.attention.v_lin.{weight,bias}": "(heads value) <- hidden",
        "distilbert.transformer.layer.{layer}.attention.out_lin.{weight,bias}": "hidden <- (heads value)",
        "distilbert.transformer.layer.{layer}.sa_layer_norm.{weight,bias}": "hidden => hidden",
        "distilbert.transformer.layer.{layer}.ffn.lin1.{weight,bias}": "mlp <- hidden",
        "distilbert.transformer.layer.{layer}.ffn.lin2.{weight,bias}": "hidden <- mlp",
        "distilbert.transformer.layer.{layer}.output_layer_norm.{weight,bias}": "hidden => hidden",
        "vocab_transform.{weight,bias}?": "transform <- hidden",
        "vocab_layer_norm.{weight,bias}?": "transform => final",
        "vocab_projector.weight?": "vocab <- final",
        "vocab_projector.bias?": "vocab <-",
        "pre_classifier.{weight,bias}?": "pooled <- hidden",
        "classifier.{weight,bias}?": "labels <- pooled",
        "qa_outputs.{weight,bias}?": "labels <- hidden",
    },
    forms=(unpooled("pre_classifier.weight"), multiple_choice("pooled")),
    outputs={"last_hidden_state": "hidden"},
    keys="activation qa_dropout seq_classif_dropout sinusoidal_pos_embds",
    aliases={"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    synonyms=((".gamma", ".weight"), (".beta", ".bias")),
    ignored=(r".*embeddings\.position_ids",),
)
