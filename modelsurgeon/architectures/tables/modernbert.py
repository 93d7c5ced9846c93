"""ModernBERT: a pre-norm encoder with rotary positions, gated MLPs, and layers that see all or a window."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Rotary, Tie
from modelsurgeon.architectures.recurring import attention, multiple_choice, residual, tokens

ARCHITECTURE = Architecture(
    model="ModernBertForMaskedLM",
    norm="layer",
    eps="norm_eps",
    rotary=Rotary("half"),
    tie=Tie("decoder.weight", "model.embeddings.tok_embeddings.weight", default=True),
    axes={
        **tokens(),
        **residual("hidden_size", "embedded stream hidden"),
        "transform": Axis("hidden_size", through="pointwise"),
        "final": Axis("hidden_size", through="residual"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        **attention(),
    },
    tensors={
        "model.embeddings.tok_embeddings.weight": "vocab -> embedded",
        "model.embeddings.norm.{weight,bias?}": "embedded => stream",
        "model.layers.{layer}.attn_norm.{weight,bias?}": "stream => hidden",
        "model.layers.0.attn.Wqkv.{weight,bias?}": "(heads head~ + heads head + heads value) <- stream",
        "model.layers.{layer}.attn.Wqkv.{weight,bias?}": "(heads head~ + heads head + heads value) <- hidden",
        "model.layers.{layer}.attn.Wo.{weight,bias?}": "stream <- (heads value)",
        "model.layers.{layer}.mlp_norm.{weight,bias?}": "stream => hidden",
        "model.layers.{layer}.mlp.Wi.{weight,bias?}": "(mlp + mlp) <- hidden",
        "model.layers.{layer}.mlp.Wo.{weight,bias?}": "stream <- mlp",
        "model.final_norm.{weight,bias?}": "stream => hidden",
        "head.dense.{weight,bias?}?": "transform <- hidden",
        "head.norm.{weight,bias?}?": "transform => final",
        "decoder.weight?": "vocab <- final",
        "decoder.bias?": "vocab <-",
        "classifier.{weight,bias}?": "labels <- final",
    },
    only={"attn_norm": lambda config, layer: layer > 0},  # layer 0 reads what the embeddings' norm writes
    forms=(multiple_choice("final"),),
    outputs={"last_hidden_state": "hidden"},
    keys="""attention_bias classifier_activation classifier_bias classifier_pooling cls_token_id decoder_bias
        deterministic_flash_attn embedding_dropout global_attn_every_n_layers global_rope_theta hidden_activation
        initializer_cutoff_factor layer_types local_attention local_rope_theta max_position_embeddings mlp_bias
        mlp_dropout norm_bias position_embedding_type reference_compile repad_logits_with_grad
        sparse_pred_ignore_index sparse_prediction""",
)
