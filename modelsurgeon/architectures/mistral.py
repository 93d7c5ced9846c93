"""Mistral: Llama with a sliding window and other defaults.

Upstream: transformers/models/mistral/modeling_mistral.py.
"""

from modelsurgeon.architecture import Architecture, Axis, Rotary, Tie, group, labels, quotient

ARCHITECTURE = Architecture(
    model="MistralForCausalLM",
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
        "kv": Axis("num_key_value_heads", lambda c: 8, through="heads"),
        "group": Axis(default=group("num_attention_heads", "num_key_value_heads", 8)),
        "head": Axis("head_dim", quotient("hidden_size", "num_attention_heads"), through="inner", scaled=-0.5),
        "value": Axis("head_dim", quotient("hidden_size", "num_attention_heads"), through="linear"),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.weight": "(kv group head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.weight": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.weight": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.weight": "stream <- (kv group value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.up_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    keys=("hidden_act", "max_position_embeddings", "sliding_window"),
    defaults={"tie_word_embeddings": lambda c: False},
    ignored=(r".*rotary_emb\.inv_freq",),
)
