"""T5: an encoder and a decoder, RMSNorm, no biases, no attention scale, relative positions as a bias per head."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Key, Tie
from modelsurgeon.architectures.recurring import residual


def stack(side: str, counter: str, *, biased: str, ends: str) -> dict[str, str]:
    """The tensors of one side; `biased`: which blocks have relative positions, `ends`: what the last norm writes."""
    at, mlp = f"{side}.block.{{{counter}}}", 2 if side == "decoder" else 1
    attentions = {0: "SelfAttention", 1: "EncDecAttention"} if side == "decoder" else {0: "SelfAttention"}
    tensors = {f"{side}.block.{biased}.layer.0.SelfAttention.relative_attention_bias.weight": "buckets -> heads"}
    for number, attention in attentions.items():
        tensors |= {
            f"{at}.layer.{number}.layer_norm.weight": "stream => hidden",
            f"{at}.layer.{number}.{attention}.q.weight": "(heads head~) <- hidden",
            f"{at}.layer.{number}.{attention}.k.weight": "(heads head) <- hidden",
            f"{at}.layer.{number}.{attention}.v.weight": "(heads value) <- hidden",
            f"{at}.layer.{number}.{attention}.o.weight": "stream <- (heads value)",
        }
    return tensors | {
        f"{at}.layer.{mlp}.layer_norm.weight": "stream => hidden",
        f"{at}.layer.{mlp}.DenseReluDense.{{wi,wi_0,wi_1}}.weight?": "mlp <- hidden",
        f"{at}.layer.{mlp}.DenseReluDense.wo.weight": "stream <- mlp",
        f"{side}.final_layer_norm.weight": f"stream => {ends}",
    }


ARCHITECTURE = Architecture(
    model="T5ForConditionalGeneration",
    norm="rms",
    eps="layer_norm_epsilon",
    prefix="",
    counters={"layer": "num_layers", "decoder_layer": "num_decoder_layers"},
    tie=Tie("lm_head.weight", "shared.weight", forced="decoder.final_layer_norm.weight", default=True),
    axes={
        "vocab": Axis("vocab_size"),
        "buckets": Axis("relative_attention_num_buckets", 32),
        **residual("d_model", "stream hidden"),
        "final": Axis("d_model", through="residual", scaled=-0.5, when="scale_decoder_outputs"),
        "mlp": Axis("d_ff", through="pointwise"),
        "heads": Axis("num_heads", through="heads"),
        "head": Axis("d_kv", through="inner"),
        "value": Axis("d_kv", through="linear"),
    },
    tensors={
        "shared.weight": "vocab -> stream",
        "{encoder,decoder}.embed_tokens.weight?": "vocab -> stream",
        **stack("encoder", "layer", biased="0", ends="hidden"),
        **stack("decoder", "decoder_layer", biased="0", ends="final"),
        "lm_head.weight?": "vocab <- final",
    },
    outputs={"last_hidden_state": "final", "encoder_last_hidden_state": "hidden"},
    keys="dense_act_fn feed_forward_proj is_decoder is_gated_act relative_attention_max_distance",
    defaults={
        "num_decoder_layers": Key("num_layers"),
        "scale_decoder_outputs": lambda c: c.get("tie_word_embeddings") is not False,
    },
    aliases={
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
    ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
)
