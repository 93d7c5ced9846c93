"""Phi-3: Llama with queries, keys and values in one tensor, and gate and up in another."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Config, Form, Key, Rotary, Tie
from modelsurgeon.architectures.config import lookup
from modelsurgeon.architectures.recurring import HEAD_SIZE, decoder


def _has_factors(config: Config) -> bool:
    """Whether the config lists a factor for each rotated pair: rope type longrope, or its old names su and yarn."""
    records, lists = ("rope_parameters", "rope_scaling"), ("short_factor", "long_factor")
    return any(lookup(config, f"{record}.{name}") is not None for record in records for name in lists)


ARCHITECTURE = Architecture(
    model="Phi3ForCausalLM",
    norm="rms",
    rotary=Rotary("half", partial=1.0),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes=decoder(kv=Key("num_attention_heads"), key="head_dim"),
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.qkv_proj.weight": "(heads head~ + kv head + kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.weight": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate_up_proj.weight": "(mlp + mlp) <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    forms=(
        Form(
            "long range",
            when=lambda c, names: _has_factors(c),
            axes={
                "head": Axis(default=HEAD_SIZE, through="inner", scaled=-0.5),
                "value": Axis(default=HEAD_SIZE, through="linear"),
            },
            fields={"equal": {"head_dim": HEAD_SIZE}},  # the library checks the lists' length against it
        ),
    ),
    keys="embd_pdrop hidden_act max_position_embeddings original_max_position_embeddings resid_pdrop sliding_window",
)
