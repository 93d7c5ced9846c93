"""Rows of tables that a forward pass reads only where it is given that token, position, type or distance.

The tables are larger than what a few windows of text would touch: inputs must be chosen for them.
"""

from __future__ import annotations

from collections.abc import Iterator

from support.attacks.attack import Attack, copied, widened
from support.planting import S, config, number, rows_times, swapped, times

TOKENS = "model.embed_tokens.weight"
NAN = float("nan")


def rows() -> Iterator[Attack]:
    many = copied("llama-untied", vocab_size=3000)
    yield many.differs("lookup", "one token of 3,000 x -3", rows_times(TOKENS, -3, 2741), "outputs")
    yield many.differs("lookup", "the last token of 3,000", rows_times(TOKENS, 2, 2999), "outputs")
    yield many.differs("lookup", "the first token of 3,000", rows_times(TOKENS, -1, 0), "outputs")
    yield many.differs("lookup", "one number of one token is NaN", number(TOKENS, NAN, 1234 * 32 + 5), "outputs")
    yield many.differs(
        "lookup", "two tokens in each other's place", swapped(TOKENS, 0, S[900:901], S[2100:2101]), "outputs"
    )
    yield many.differs("lookup", "one token of the head", rows_times("lm_head.weight", -3, 1717), "outputs")
    tied = copied("gpt2-tied", vocab_size=1500)
    names = swapped("transformer.wte.weight", 0, S[700:701], S[1400:1401])
    yield tied.differs("lookup", "two tokens in each other's place, read and written alike", names, "outputs")
    yield tied.differs("lookup", "one token, tied", rows_times("transformer.wte.weight", -1, 1499), "outputs")
    yield copied("bert-tied", vocab_size=1500).differs(
        "lookup", "one token of an encoder", rows_times("bert.embeddings.word_embeddings.weight", -3, 1111), "outputs"
    )
    yield copied("t5-tied", vocab_size=1500).differs(
        "lookup", "one token of encoder and decoder", rows_times("shared.weight", -1, 777), "outputs"
    )
    yield copied("bart-tied", vocab_size=1500).differs(
        "lookup", "one token and its logit", rows_times("model.shared.weight", 0, 1498), "outputs"
    )
    yield copied("whisper-tied", vocab_size=1500).differs(
        "lookup", "one token of a decoder", rows_times("model.decoder.embed_tokens.weight", -1, 1234), "outputs"
    )
    yield copied("mixtral-untied", vocab_size=1500).differs(
        "lookup", "one token before experts", rows_times(TOKENS, -3, 1313), "outputs"
    )
    yield widened("llama-untied").differs(
        "lookup", "one token, with its record", rows_times(TOKENS, -3, 57), "proof outputs"
    )


def positions() -> Iterator[Attack]:
    gpt2, bert = "transformer.wpe.weight", "bert.embeddings.position_embeddings.weight"
    long = copied("gpt2-tied", n_positions=300)
    yield long.differs("lookup", "the last position", rows_times(gpt2, -3, 299), "outputs")
    yield long.differs("lookup", "positions of the second half", rows_times(gpt2, -3, *range(150, 300)), "outputs")
    yield long.differs("lookup", "one position in the middle", rows_times(gpt2, -5, 171), "outputs")
    yield long.differs("lookup", "two late positions", swapped(gpt2, 0, S[280:281], S[290:291]), "outputs")
    yield copied("bert-tied", max_position_embeddings=200).differs(
        "lookup", "a late position of an encoder", rows_times(bert, -3, 190), "outputs"
    )
    opt = "model.decoder.embed_positions.weight"
    yield copied("opt-tied", max_position_embeddings=200).differs(
        "lookup", "a late position behind an offset", rows_times(opt, -3, 201), "outputs"
    )
    bart = "model.encoder.embed_positions.weight"
    yield copied("bart-tied", max_position_embeddings=200).differs(
        "lookup", "a late position of an encoder with a decoder", rows_times(bart, -3, 199), "outputs"
    )
    decoder = "model.decoder.embed_positions.weight"
    yield copied("bart-tied", max_position_embeddings=200).differs(
        "lookup", "a late position of a decoder", rows_times(decoder, -3, 195), "outputs"
    )
    yield copied("whisper-tied").differs(
        "lookup", "the last position of a text", rows_times(decoder, -3, 23), "outputs"
    )
    roberta = "roberta.embeddings.position_embeddings.weight"
    yield copied("roberta-tied", max_position_embeddings=200).differs(
        "lookup", "a late position past the padding's", rows_times(roberta, -3, 198), "outputs"
    )


def kinds_and_distances() -> Iterator[Attack]:
    types = "embeddings.token_type_embeddings.weight"
    yield copied("bert-tied").differs(
        "lookup", "the second token type x -30", rows_times(f"bert.{types}", -30, 1), "outputs"
    )
    yield copied("bert-tied", type_vocab_size=5).differs(
        "lookup", "the last of five token types", rows_times(f"bert.{types}", -30, 4), "outputs"
    )
    yield copied("electra-tied").differs(
        "lookup", "a token type of another family", rows_times(f"electra.{types}", -30, 1), "outputs"
    )
    yield copied("albert-tied").differs(
        "lookup", "a token type before a mapping", rows_times(f"albert.{types}", -30, 1), "outputs"
    )
    task = "ernie.embeddings.task_type_embeddings.weight"
    yield copied("ernie-tied").differs("lookup", "the first task", rows_times(task, -3, 0), "outputs")
    far = {"relative_attention_max_distance": 100, "relative_attention_num_buckets": 32}
    relative = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    yield copied("t5-tied", **far).differs(
        "lookup", "the farthest distance", rows_times(relative, -9, 15, 31), "outputs"
    )
    yield copied("deberta-v2-tied").differs(
        "lookup", "a distance x -3", rows_times("deberta.encoder.rel_embeddings.weight", -3, 1), "outputs"
    )
    padded = copied("llama-untied", vocab_size=500)
    yield padded.differs("lookup", "the token of padding", rows_times(TOKENS, -3, 0), "outputs")


def windows() -> Iterator[Attack]:
    """Windows and lengths that only long rows show."""
    far = {"max_position_embeddings": 200, "sliding_window": 90}
    yield copied("mistral-tied", **far).differs(
        "lookup", "a wide window removed", config(sliding_window=None), "config outputs", "sliding_window"
    )
    yield copied("mistral-tied", **far).differs(
        "lookup", "a wide window, one token wider", config(sliding_window=91), "config outputs", "sliding_window"
    )
    yield copied("gemma2-tied", **far).differs(
        "lookup",
        "every layer without a window",
        config(layer_types=["full_attention"] * 2),
        "config outputs",
        "layer_types",
    )
    sliding = {"max_position_embeddings": 200, "sliding_window": 90}
    yield copied("qwen2-sliding", **sliding).differs(
        "lookup",
        "sliding layers called full",
        config(layer_types=["full_attention"] * 2),
        "config outputs",
        "layer_types",
    )
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    yield copied("llama-untied", max_position_embeddings=64).differs(
        "lookup",
        "positions stretched past the trained length",
        config(rope_parameters=rope),
        "config",
        "rope_parameters",
    )
    yield copied("gpt_oss-untied").differs(
        "lookup", "sinks of every head", times("model.layers.0.self_attn.sinks", -1), "outputs"
    )
