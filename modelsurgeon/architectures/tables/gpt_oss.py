"""gpt-oss: experts in every layer, stored in one tensor, and a sink for each head that takes part in its softmax."""

from typing import Any

from modelsurgeon.architectures.architecture import Architecture, Axis, Config, Key, Null, Rotary, Tie
from modelsurgeon.architectures.recurring import HEAD_SIZE, attention, residual, tokens


def rope(config: Config) -> dict[str, Any]:
    """What the absence of `rope_parameters` means: the older `rope_scaling`, or else YaRN."""
    yarn = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
    scaling = config.get("rope_scaling") or {**yarn, "original_max_position_embeddings": 4096}
    return {"rope_theta": config.get("rope_theta", 150000.0), **scaling}


ARCHITECTURE = Architecture(
    model="GptOssForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes={
        **tokens(),
        **residual("hidden_size"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        "experts": Axis("num_local_experts", 128, through="experts", active="num_experts_per_tok"),
        "choice": Axis("num_local_experts", 128, through="choice", follows="experts"),
        **attention(
            kv=Null("num_key_value_heads", absent=8, null=Key("num_attention_heads")),
            key="head_dim",
            size=Null("head_dim", absent=64, null=HEAD_SIZE),
        ),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.sinks": "heads <-",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.router.weight": "experts <- hidden",
        "model.layers.{layer}.mlp.router.bias": "choice <-",
        "model.layers.{layer}.mlp.experts.gate_up_proj": "experts~ hidden -> (mlp 2)",
        "model.layers.{layer}.mlp.experts.gate_up_proj_bias": "experts (mlp 2) <-",
        "model.layers.{layer}.mlp.experts.down_proj": "experts~ mlp -> stream",
        "model.layers.{layer}.mlp.experts.down_proj_bias": "experts stream <-",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    fills={"model.layers.{layer}.mlp.router.bias": -8192.0},  # it enters before the softmax over the chosen
    keys="""attention_bias hidden_act layer_types max_position_embeddings output_router_logits router_aux_loss_coef
        sliding_window swiglu_alpha swiglu_limit""",
    defaults={"num_experts_per_tok": 4, "rope_parameters": rope},
    aliases={"num_experts": "num_local_experts"},
)
