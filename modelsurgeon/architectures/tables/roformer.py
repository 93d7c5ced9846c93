"""RoFormer: BERT with rotary positions, read from a stored table of sines and cosines."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Form, Key, Rotary
from modelsurgeon.architectures.recurring import HEAD_SIZE, bert_tie, multiple_choice, projected, residual, tokens
from modelsurgeon.architectures.sinusoid import sinusoid

TURNING = "values turn with the keys, by angles that depend on its size"

ARCHITECTURE = Architecture(
    model="RoFormerForMaskedLM",
    norm="layer",
    eps="layer_norm_eps",
    prefix="roformer.",
    rotary=Rotary("interleaved"),
    tie=bert_tie("roformer."),
    axes={
        **tokens(positions="max_position_embeddings", types="type_vocab_size"),
        **residual("hidden_size", "hidden embedded"),
        "transform": Axis("hidden_size", through="pointwise"),
        "final": Axis("hidden_size", through="residual"),
        "pooled": Axis("hidden_size", through="pointwise"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        "heads": Axis("num_attention_heads", through="heads"),
        "head": Axis(default=HEAD_SIZE, through="inner", scaled=-0.5),
        "angles": Axis(default=HEAD_SIZE, through="angles", follows="head"),
        "value": Axis(default=HEAD_SIZE, through="linear"),
    },
    tensors={
        "roformer.embeddings.word_embeddings.weight": "vocab -> embedded",
        "roformer.embeddings.token_type_embeddings.weight": "types -> embedded",
        "roformer.embeddings.LayerNorm.{weight,bias}": "embedded => hidden",
        "roformer.embeddings_project.{weight,bias}?": "hidden <- embedded",
        "roformer.encoder.embed_positions.weight": "positions -> angles",  # sines and cosines
        "roformer.encoder.layer.{layer}.attention.self.query.{weight,bias}": "(heads head~) <- hidden",
        "roformer.encoder.layer.{layer}.attention.self.key.{weight,bias}": "(heads head) <- hidden",
        "roformer.encoder.layer.{layer}.attention.self.value.{weight,bias}": "(heads value) <- hidden",
        "roformer.encoder.layer.{layer}.attention.output.dense.{weight,bias}": "hidden <- (heads value)",
        "roformer.encoder.layer.{layer}.attention.output.LayerNorm.{weight,bias}": "hidden => hidden",
        "roformer.encoder.layer.{layer}.intermediate.dense.{weight,bias}": "mlp <- hidden",
        "roformer.encoder.layer.{layer}.output.dense.{weight,bias}": "hidden <- mlp",
        "roformer.encoder.layer.{layer}.output.LayerNorm.{weight,bias}": "hidden => hidden",
        "cls.predictions.transform.dense.{weight,bias}?": "transform <- hidden",
        "cls.predictions.transform.LayerNorm.{weight,bias}?": "transform => final",
        "cls.predictions.bias?": "vocab <-",
        "cls.predictions.decoder.{weight,bias}?": "vocab <- final",
        "classifier.dense.{weight,bias}?": "pooled <- hidden",
        "classifier.out_proj.{weight,bias}?": "labels <- pooled",
        "{classifier,qa_outputs}.{weight,bias}?": "labels <- hidden",
    },
    computed={"roformer.encoder.embed_positions.weight": sinusoid},
    outputs={"last_hidden_state": "hidden"},
    keys="hidden_act is_decoder rotary_value",
    projected=("embedded", "hidden"),
    equal={"embedding_size": "hidden_size"},
    synonyms=((".gamma", ".weight"), (".beta", ".bias")),
    forms=(
        projected("roformer.", Key("hidden_size")),
        Form(
            "rotary values",
            when=lambda config, names: bool(config.get("rotary_value")),
            axes={
                "head": Axis(default=HEAD_SIZE, scaled=-0.5, why=TURNING),
                "value": Axis(default=HEAD_SIZE, why=TURNING),
            },
        ),
        multiple_choice("hidden"),
    ),
)
