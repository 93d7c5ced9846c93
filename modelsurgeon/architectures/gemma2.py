"""Gemma 2: norms before and after every branch, gains of the form (1 + w), embeddings times sqrt(hidden).

Upstream: transformers/models/gemma2/modeling_gemma2.py.
"""

from modelsurgeon.architecture import Architecture, Axis, Rotary, Tie, group, labels

ARCHITECTURE = Architecture(
    model="Gemma2ForCausalLM",
    norm="rms",
    eps="rms_norm_eps",
    offset=1.0,
    multiplied={"model.embed_tokens.weight": ("stream", 0.5)},
    prefix="model.",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight"),
    axes={
        "vocab": Axis("vocab_size"),
        "labels": Axis(default=labels),
        "stream": Axis("hidden_size", through="residual"),
        "hidden": Axis("hidden_size", through="residual"),
        "branch": Axis("hidden_size", through="residual"),
        "final": Axis("hidden_size", through="residual"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        "heads": Axis("num_attention_heads", through="heads"),
        "kv": Axis("num_key_value_heads", lambda c: 4, through="heads"),
        "group": Axis(default=group("num_attention_heads", "num_key_value_heads", 4)),
        "head": Axis("head_dim", lambda c: 256, through="inner"),  # scaled by query_pre_attn_scalar, whatever its size
        "value": Axis("head_dim", lambda c: 256, through="linear"),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(kv group head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "branch <- (kv group value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "branch => stream",
        "model.layers.{layer}.pre_feedforward_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.up_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "branch <- mlp",
        "model.layers.{layer}.post_feedforward_layernorm.weight": "branch => stream",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    keys=(
        "attention_bias",
        "attn_logit_softcapping",
        "cache_implementation",
        "final_logit_softcapping",
        "hidden_act",
        "hidden_activation",
        "layer_types",
        "max_position_embeddings",
        "query_pre_attn_scalar",
        "sliding_window",
        "use_bidirectional_attention",
    ),
    defaults={"tie_word_embeddings": lambda c: True},
    ignored=(r".*rotary_emb\.inv_freq",),
)
