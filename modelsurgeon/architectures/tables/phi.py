"""Phi: attention and MLP side by side behind one norm, biases everywhere (the head too), half of each head rotated."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Form, Key, Rotary, Tie
from modelsurgeon.architectures.recurring import HEAD_SIZE, decoder

ARCHITECTURE = Architecture(
    model="PhiForCausalLM",
    norm="layer",
    eps="layer_norm_eps",
    rotary=Rotary("half", partial=0.5),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", requires="lm_head.bias", default=False),
    axes=decoder(kv=Key("num_attention_heads"), key="head_dim"),
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.{weight,bias}": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.dense.{weight,bias}": "stream <- (heads value)",
        "model.layers.{layer}.mlp.fc1.{weight,bias}": "mlp <- hidden",
        "model.layers.{layer}.mlp.fc2.{weight,bias}": "stream <- mlp",
        "model.final_layernorm.{weight,bias}": "stream => final",
        "lm_head.{weight,bias}?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    forms=(
        Form(
            "qk norm",
            when=lambda c, names: bool(c.get("qk_layernorm")),
            tensors={
                "model.layers.{layer}.self_attn.q_proj.{weight,bias}": "(heads prehead) <- hidden",
                "model.layers.{layer}.self_attn.k_proj.{weight,bias}": "(kv prehead) <- hidden",
                "model.layers.{layer}.self_attn.q_layernorm.{weight,bias}": "prehead => head~",
                "model.layers.{layer}.self_attn.k_layernorm.{weight,bias}": "prehead => head",
            },
            axes={
                "head": Axis(default=HEAD_SIZE, through="inner", scaled=-0.5),
                "prehead": Axis(default=HEAD_SIZE, through="normed", follows="head"),
                "value": Axis(default=HEAD_SIZE, through="linear"),
            },
            fields={"equal": {"head_dim": HEAD_SIZE}},  # the size of the norms
        ),
    ),
    keys="embd_pdrop hidden_act max_position_embeddings qk_layernorm resid_pdrop",
)
