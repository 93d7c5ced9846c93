"""GPT-2: pre-norm, learned positions, Conv1D weights stored [in, out], queries, keys and values in one tensor."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Multiple, Tie
from modelsurgeon.architectures.recurring import attention, residual, tokens

ARCHITECTURE = Architecture(
    model="GPT2LMHeadModel",
    norm="layer",
    eps="layer_norm_epsilon",
    prefix="transformer.",
    counters={"layer": "n_layer"},
    tie=Tie("lm_head.weight", "transformer.wte.weight", default=True),
    axes={
        **tokens(positions="n_positions"),
        **residual("n_embd"),
        "mlp": Axis("n_inner", Multiple("n_embd", 4), through="pointwise"),
        **attention("n_embd", "n_head", when="scale_attn_weights"),
    },
    tensors={
        "transformer.wte.weight": "vocab -> stream",
        "transformer.wpe.weight": "positions -> stream",
        "transformer.h.{layer}.ln_1.{weight,bias}": "stream => hidden",
        "transformer.h.{layer}.attn.c_attn.{weight,bias}": "hidden -> (heads head~ + heads head + heads value)",
        "transformer.h.{layer}.attn.c_proj.{weight,bias}": "(heads value) -> stream",
        "transformer.h.{layer}.ln_2.{weight,bias}": "stream => hidden",
        "transformer.h.{layer}.mlp.c_fc.{weight,bias}": "hidden -> mlp",
        "transformer.h.{layer}.mlp.c_proj.{weight,bias}": "mlp -> stream",
        "transformer.ln_f.{weight,bias}": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.weight?": "labels <- final",
        "classifier.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    keys="""activation_function attn_pdrop embd_pdrop n_ctx reorder_and_upcast_attn resid_pdrop
        scale_attn_by_inverse_layer_idx summary_activation summary_first_dropout summary_proj_to_labels summary_type
        summary_use_proj""",
    defaults={"scale_attn_weights": True},
    aliases={
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    ignored=(r".*\.attn\.(masked_)?bias",),
)
