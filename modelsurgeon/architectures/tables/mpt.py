"""MPT: pre-norm with ALiBi, no biases at all (its norms included), queries, keys and values one after another."""

from modelsurgeon.architectures import alibi
from modelsurgeon.architectures.architecture import Architecture, Axis, Multiple, Tie
from modelsurgeon.architectures.config import lookup
from modelsurgeon.architectures.recurring import attention, residual, tokens

ARCHITECTURE = Architecture(
    model="MptForCausalLM",
    norm="layer",
    eps="layer_norm_epsilon",
    prefix="transformer.",
    counters={"layer": "n_layers"},
    clip="attn_config.clip_qkv",
    tie=Tie("lm_head.weight", "transformer.wte.weight", default=True),
    axes={
        **tokens(),
        **residual("d_model"),
        "mlp": Axis(default=Multiple("d_model", 4), through="pointwise"),
        **attention(
            "d_model", "n_heads", when=lambda c: lookup(c, "attn_config.softmax_scale") is None, slopes=alibi.mpt
        ),
    },
    tensors={
        "transformer.wte.weight": "vocab -> stream",
        "transformer.blocks.{layer}.norm_1.weight": "stream => hidden",
        "transformer.blocks.{layer}.attn.Wqkv.weight": "(heads head~ + heads head + heads value) <- hidden",
        "transformer.blocks.{layer}.attn.out_proj.weight": "stream <- (heads value)",
        "transformer.blocks.{layer}.norm_2.weight": "stream => hidden",
        "transformer.blocks.{layer}.ffn.up_proj.weight": "mlp <- hidden",
        "transformer.blocks.{layer}.ffn.down_proj.weight": "stream <- mlp",
        "transformer.norm_f.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.weight?": "labels <- final",
        "classifier.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    # Upstream reads clip_qkv and softmax_scale of attn_config alone. It ignores expansion_ratio, no_bias,
    # learned_pos_emb and logit_scale.
    keys="""attn_config emb_pdrop embedding_fraction expansion_ratio init_device learned_pos_emb logit_scale
        max_seq_len no_bias norm_type resid_pdrop""",
    aliases={"hidden_size": "d_model", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
)
