"""Qwen3: Llama with an RMSNorm on each head's query and key, and a head size of its own.

Upstream: transformers/models/qwen3/modeling_qwen3.py.
"""

from modelsurgeon.architecture import Architecture, Axis, Rotary, Tie, group, labels

ARCHITECTURE = Architecture(
    model="Qwen3ForCausalLM",
    norm="rms",
    eps="rms_norm_eps",
    prefix="model.",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight"),
    axes={
        "vocab": Axis("vocab_size"),
        "labels": Axis(default=labels),
        "stream": Axis("hidden_size", through="residual"),
        "hidden": Axis("hidden_size", through="residual"),
        "final": Axis("hidden_size", through="residual"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        "heads": Axis("num_attention_heads", through="heads"),
        "kv": Axis("num_key_value_heads", lambda c: 32, through="heads"),
        "group": Axis(default=group("num_attention_heads", "num_key_value_heads", 32)),
        "head": Axis("head_dim", lambda c: 128, through="inner", scaled=-0.5),
        "prehead": Axis("head_dim", lambda c: 128, through="normed", follows="head"),
        "value": Axis("head_dim", lambda c: 128, through="linear"),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(kv group prehead) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv prehead) <- hidden",
        "model.layers.{layer}.self_attn.q_norm.weight": "prehead => head~",
        "model.layers.{layer}.self_attn.k_norm.weight": "prehead => head",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "stream <- (kv group value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.up_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    keys=(
        "attention_bias",
        "hidden_act",
        "layer_types",
        "max_position_embeddings",
        "max_window_layers",
        "sliding_window",
        "use_sliding_window",
    ),
    defaults={"tie_word_embeddings": lambda c: False},
    ignored=(r".*rotary_emb\.inv_freq",),
)
