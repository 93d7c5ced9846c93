"""GPT-NeoX (Pythia): pre-norm, a quarter of each head rotated, queries, keys and values in one tensor, head by head."""

from modelsurgeon.architectures.architecture import Architecture, Rotary, Tie
from modelsurgeon.architectures.recurring import decoder

ARCHITECTURE = Architecture(
    model="GPTNeoXForCausalLM",
    norm="layer",
    eps="layer_norm_eps",
    prefix="gpt_neox.",
    rotary=Rotary("half", partial=0.25),
    tie=Tie("embed_out.weight", "gpt_neox.embed_in.weight", default=False),
    axes=decoder(),
    tensors={
        "gpt_neox.embed_in.weight": "vocab -> stream",
        "gpt_neox.layers.{layer}.input_layernorm.{weight,bias}": "stream => hidden",
        "gpt_neox.layers.{layer}.attention.query_key_value.{weight,bias?}": "(heads (head~ + head + value)) <- hidden",
        "gpt_neox.layers.{layer}.attention.dense.{weight,bias?}": "stream <- (heads value)",
        "gpt_neox.layers.{layer}.post_attention_layernorm.{weight,bias}": "stream => hidden",
        "gpt_neox.layers.{layer}.mlp.dense_h_to_4h.{weight,bias}": "mlp <- hidden",
        "gpt_neox.layers.{layer}.mlp.dense_4h_to_h.{weight,bias}": "stream <- mlp",
        "gpt_neox.final_layer_norm.{weight,bias}": "stream => final",
        "embed_out.weight?": "vocab <- final",
        "score.weight?": "labels <- final",
        "classifier.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    keys="""attention_bias hidden_act is_decoder max_position_embeddings rotary_emb_base rotary_pct
        use_parallel_residual""",
    synonyms=(("lm_head.weight", "embed_out.weight"),),
    ignored=(r".*\.attention\.(masked_)?bias",),
)
