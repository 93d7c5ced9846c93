"""Changes that leave the function as it is: none may be called different, and weights prove most of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from modelsurgeon.operations.untie_embeddings import UntieEmbeddings
from modelsurgeon.operations.widen import Widen
from support.attacks.attack import Attack, Made, Plant, copied, widened
from support.placing import cast, renamed, resaved, written
from support.planting import all_of, config, nothing, tensors, together

WIDE = (
    "llama-tied",
    "gpt2-tied",
    "bert-tied",
    "t5-tied",
    "mixtral-untied",
    "gemma2-tied",
    "bloom-tied",
    "vit",
    "whisper-tied",
)
ORDER = [3, 0, 7, 5, 1, 9, 2, 8, 6, 4]  # of ten blocks


def permuted() -> Iterator[Attack]:
    llama, gpt2, bert, mixtral = (copied(name) for name in ("llama-tied", "gpt2-tied", "bert-tied", "mixtral-untied"))
    one, other = _neurons("model.layers.0.mlp", ORDER), _neurons("model.layers.1.mlp", ORDER[::-1])
    yield llama.proven("nothing", "neurons of one layer in another order", one)
    yield llama.proven("nothing", "neurons of every layer, each in an order of its own", all_of(one, other))
    yield llama.proven(
        "nothing", "heads with their keys and values in another order", _heads("model.layers.0.self_attn")
    )
    within = [1, 0, 2, 3]  # query heads of one group
    yield llama.proven("nothing", "query heads inside of their group", _queries("model.layers.1.self_attn", within))
    yield llama.proven("nothing", "neurons and heads", all_of(one, _heads("model.layers.1.self_attn")))
    h = "transformer.h.0"
    yield gpt2.proven(
        "nothing",
        "neurons with their bias",
        together(ORDER, (f"{h}.mlp.c_fc.weight", 1), (f"{h}.mlp.c_fc.bias", 0), (f"{h}.mlp.c_proj.weight", 0)),
    )
    fused = [2, 0, 3, 1, 6, 4, 7, 5, 10, 8, 11, 9]
    yield gpt2.proven(
        "nothing",
        "heads of a fused tensor",
        all_of(
            together(fused, (f"{h}.attn.c_attn.weight", 1), (f"{h}.attn.c_attn.bias", 0)),
            together([2, 0, 3, 1], (f"{h}.attn.c_proj.weight", 0)),
        ),
    )
    layer = "bert.encoder.layer.1"
    yield bert.proven(
        "nothing",
        "neurons of an encoder",
        together(
            ORDER,
            (f"{layer}.intermediate.dense.weight", 0),
            (f"{layer}.intermediate.dense.bias", 0),
            (f"{layer}.output.dense.weight", 1),
        ),
    )
    parts = [
        (f"{layer}.attention.self.{name}.{part}", 0)
        for name in ("query", "key", "value")
        for part in ("weight", "bias")
    ]
    yield bert.proven(
        "nothing", "heads of an encoder", together([2, 0, 3, 1], *parts, (f"{layer}.attention.output.dense.weight", 1))
    )
    moe = "model.layers.0.block_sparse_moe"
    yield mixtral.proven("nothing", "experts with their rows of the router", _experts(moe, [4, 0, 5, 1, 3, 2]))
    neurons = together(
        ORDER, (f"{moe}.experts.2.w1.weight", 0), (f"{moe}.experts.2.w3.weight", 0), (f"{moe}.experts.2.w2.weight", 1)
    )
    yield mixtral.proven("nothing", "neurons of one expert", neurons)
    yield mixtral.proven("nothing", "experts and neurons", all_of(_experts(moe, [1, 0, 2, 3, 5, 4]), neurons))
    yield copied("t5-tied").proven(
        "nothing",
        "neurons of a decoder",
        together(
            ORDER,
            ("decoder.block.0.layer.2.DenseReluDense.wi.weight", 0),
            ("decoder.block.0.layer.2.DenseReluDense.wo.weight", 1),
        ),
    )
    yield llama.passes("nothing", "the whole stream in another order", tensors(_turned_stream))
    values = [1, 0, 3, 2, 5, 4, 7, 6]
    yield llama.passes(
        "nothing", "numbers of values inside of their heads", _values("model.layers.0.self_attn", values)
    )
    wide = widened("llama-tied").unrecorded
    yield wide.passes("nothing", "neurons of a wider model in another order", one)


def operations() -> Iterator[Attack]:
    for name in WIDE:
        yield widened(name).proven("nothing", "a wider model", nothing)
        yield widened(name).unrecorded.proven("nothing", "a wider model, its record gone", nothing)
    for name in ("llama-tied", "gpt2-tied", "bert-tied"):
        yield widened(name, rule="orthogonal", noise=0.5).proven("nothing", "a wider model with noise", nothing)
        yield (
            widened(name)
            .proven("nothing", "a wider model, its record not looked at", nothing)
            .given(ignore_record=True)
        )
    untied = Made("llama-tied", (UntieEmbeddings(),))
    yield untied.proven("nothing", "a head of its own", nothing)
    yield untied.unrecorded.proven("nothing", "a head of its own, no record", nothing)
    yield Made("llama-tied", (UntieEmbeddings(), Widen(factor=2), Widen(factor=2))).proven(
        "nothing", "a chain of three", nothing
    )


def other_words() -> Iterator[Attack]:
    llama = copied("llama-tied")
    for name in ("llama-tied", "gpt2-tied", "bert-tied", "t5-tied", "mixtral-untied", "vit", "whisper-tied"):
        yield copied(name).proven("nothing", "saved again by the library", resaved)
    yield llama.proven("nothing", "a copy", nothing)
    yield llama.proven("nothing", "a README", written("README.md", "# Mine"))
    yield copied("llama-tied", "bfloat16").proven("nothing", "bfloat16 in float32", cast(torch.float32))
    yield copied("llama-tied", "float16").proven("nothing", "float16 in float32", cast(torch.float32))
    yield widened("llama-tied", dtype="bfloat16").proven(
        "nothing", "bfloat16 in float32, with a record", cast(torch.float32)
    )
    yield llama.proven("nothing", "the tied head written out", tensors(_written_out))
    yield copied("gpt2-tied").proven(
        "nothing", "names without their prefix", renamed(lambda name: name.removeprefix("transformer."))
    )
    yield llama.refused(
        "file", "names of a compiled model", renamed(lambda name: f"_orig_mod.{name}"), "files", "_orig_mod."
    )
    yield llama.refused("file", "names of a parallel model", renamed(lambda name: f"module.{name}"), "files", "module.")
    pad = copied("llama-tied").prepared(config(pad_token_id=61))
    yield pad.proven("nothing", "a token of padding outside of the vocabulary in both", nothing)
    yield copied("bert-body", hidden_size=64, max_position_embeddings=64).proven(
        "nothing", "a width that is a length", nothing
    )


def _neurons(mlp: str, order: list[int]) -> Plant:
    return together(order, (f"{mlp}.gate_proj.weight", 0), (f"{mlp}.up_proj.weight", 0), (f"{mlp}.down_proj.weight", 1))


def _heads(attention: str) -> Plant:
    """Both groups of two query heads in each other's place, with their keys and values."""
    shared = together([1, 0], (f"{attention}.k_proj.weight", 0), (f"{attention}.v_proj.weight", 0))
    return all_of(shared, _queries(attention, [2, 3, 0, 1]))


def _queries(attention: str, order: list[int]) -> Plant:
    return together(order, (f"{attention}.q_proj.weight", 0), (f"{attention}.o_proj.weight", 1))


def _values(attention: str, order: list[int]) -> Plant:
    rows = [8 * head + place for head in range(2) for place in order]
    columns = [8 * head + place for head in range(4) for place in order]
    return all_of(
        together(rows, (f"{attention}.v_proj.weight", 0)), together(columns, (f"{attention}.o_proj.weight", 1))
    )


def _experts(layer: str, order: list[int]) -> Plant:
    def change(held: dict[str, torch.Tensor]) -> None:
        before = dict(held)
        for new, old in enumerate(order):
            for part in ("w1", "w2", "w3"):
                held[f"{layer}.experts.{new}.{part}.weight"] = before[f"{layer}.experts.{old}.{part}.weight"].clone()
        held[f"{layer}.gate.weight"] = before[f"{layer}.gate.weight"][order]

    return tensors(change)


def _turned_stream(held: dict[str, torch.Tensor]) -> None:
    """Every number of the stream in another place: norms, writers and readers alike."""
    order = torch.randperm(32, generator=torch.Generator().manual_seed(3))
    for name, tensor in held.items():
        if "norm" in name or "o_proj" in name or "down_proj" in name:
            held[name] = tensor[order]
        else:
            held[name] = tensor[:, order]


def _written_out(held: dict[str, torch.Tensor]) -> None:
    held["lm_head.weight"] = held["model.embed_tokens.weight"].clone()
