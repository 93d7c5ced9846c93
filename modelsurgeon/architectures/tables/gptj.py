"""GPT-J: attention and MLP side by side behind one norm, part of each head (`rotary_dim`) turned in adjacent pairs."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Multiple, Rotary, Tie
from modelsurgeon.architectures.recurring import attention, residual, tokens

ARCHITECTURE = Architecture(
    model="GPTJForCausalLM",
    norm="layer",
    eps="layer_norm_epsilon",
    prefix="transformer.",
    counters={"layer": "n_layer"},
    rotary=Rotary("interleaved", size_key="rotary_dim"),  # the base is fixed: 10000
    tie=Tie("lm_head.weight", "transformer.wte.weight", requires="lm_head.bias", default=False),
    axes={
        **tokens(),
        **residual("n_embd"),
        "mlp": Axis("n_inner", Multiple("n_embd", 4), through="pointwise"),
        **attention("n_embd", "n_head"),
    },
    tensors={
        "transformer.wte.weight": "vocab -> stream",
        "transformer.h.{layer}.ln_1.{weight,bias}": "stream => hidden",
        "transformer.h.{layer}.attn.q_proj.weight": "(heads head~) <- hidden",
        "transformer.h.{layer}.attn.k_proj.weight": "(heads head) <- hidden",
        "transformer.h.{layer}.attn.v_proj.weight": "(heads value) <- hidden",
        "transformer.h.{layer}.attn.out_proj.weight": "stream <- (heads value)",
        "transformer.h.{layer}.mlp.fc_in.{weight,bias}": "mlp <- hidden",
        "transformer.h.{layer}.mlp.fc_out.{weight,bias}": "stream <- mlp",
        "transformer.ln_f.{weight,bias}": "stream => final",
        "lm_head.{weight,bias}?": "vocab <- final",
        "score.weight?": "labels <- final",
        "qa_outputs.{weight,bias}?": "labels <- final",
    },
    keys="activation_function attn_pdrop embd_pdrop n_positions resid_pdrop",
    defaults={"rotary_dim": 64},
    aliases={
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    ignored=(r".*\.attn\.(masked_)?bias", r".*\.attn\.embed_positions"),
)
