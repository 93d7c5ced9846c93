"""ViT: a pre-norm encoder of image patches, which a convolution as wide as its stride embeds."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Config, Key, labels
from modelsurgeon.architectures.recurring import attention, residual


def patches(config: Config) -> int:
    """How many patches an image has, and one more position for the class token."""
    size = config.get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    patch = config.get("patch_size", 16)
    return int(height // patch) * int(width // patch) + 1


ARCHITECTURE = Architecture(
    model="ViTForImageClassification",
    norm="layer",
    eps="layer_norm_eps",
    prefix="vit.",
    axes={
        "channels": Axis("num_channels", 3),
        "patch": Axis("patch_size", 16),
        "pixels": Axis(default=lambda c: c.get("encoder_stride", 16) ** 2 * c.get("num_channels", 3)),
        "positions": Axis(default=patches),
        "labels": Axis(default=labels),
        **residual("hidden_size"),
        "pooled": Axis("pooler_output_size", Key("hidden_size"), why="the pooler's output has a size of its own"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        **attention(key="head_dim"),
    },
    tensors={
        "vit.embeddings.cls_token": "1 1 -> stream",
        "vit.embeddings.mask_token?": "1 1 -> stream",
        "vit.embeddings.position_embeddings": "1 positions -> stream",
        "vit.embeddings.patch_embeddings.projection.{weight,bias}": "stream <- channels patch patch",
        "vit.encoder.layer.{layer}.layernorm_before.{weight,bias}": "stream => hidden",
        "vit.encoder.layer.{layer}.attention.attention.query.{weight,bias?}": "(heads head~) <- hidden",
        "vit.encoder.layer.{layer}.attention.attention.key.{weight,bias?}": "(heads head) <- hidden",
        "vit.encoder.layer.{layer}.attention.attention.value.{weight,bias?}": "(heads value) <- hidden",
        "vit.encoder.layer.{layer}.attention.output.dense.{weight,bias}": "stream <- (heads value)",
        "vit.encoder.layer.{layer}.layernorm_after.{weight,bias}": "stream => hidden",
        "vit.encoder.layer.{layer}.intermediate.dense.{weight,bias}": "mlp <- hidden",
        "vit.encoder.layer.{layer}.output.dense.{weight,bias}": "stream <- mlp",
        "vit.layernorm.{weight,bias}": "stream => final",
        "vit.pooler.dense.{weight,bias}?": "pooled <- final",
        "classifier.{weight,bias}?": "labels <- final",
        "decoder.0.{weight,bias}?": "pixels <- final 1 1",
    },
    outputs={"last_hidden_state": "final", "pooler_output": "pooled", "reconstruction": "pixels"},  # as a picture
    keys="encoder_stride hidden_act image_size pooler_act qkv_bias",
    synonyms=(  # the names of the library's own modules
        ("layers.", "encoder.layer."),
        (".attention.q_proj.", ".attention.attention.query."),
        (".attention.k_proj.", ".attention.attention.key."),
        (".attention.v_proj.", ".attention.attention.value."),
        (".attention.o_proj.", ".attention.output.dense."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    ),
)
