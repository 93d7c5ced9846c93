"""Changes that leave the function as it is: none may be called different, and weights prove most of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from modelsurgeon.operations.untie_embeddings import UntieEmbeddings
from modelsurgeon.operations.widen import Widen
from support.attacks.attack import Attack, Made, Plant, copied, widened
from support.placing import cast, renamed, resaved, written
from support.planting import Change, all_of, config, nothing, scaled, tensors, together

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


def scaled_back() -> Iterator[Attack]:
    """Factors in one tensor that the next one takes back."""
    llama, attention, mlp = copied("llama-tied"), "model.layers.1.self_attn", "model.layers.1.mlp"
    yield llama.passes("nothing", "values x 2, their readers x 1/2", _factors(attention, v_proj=2, o_proj=0.5))
    yield llama.passes("nothing", "queries x 4, keys x 1/4", _factors(attention, q_proj=4, k_proj=0.25))
    yield llama.passes("nothing", "up and down x -1", _factors(mlp, up_proj=-1, down_proj=-1))
    gain, readers = "model.layers.1.input_layernorm.weight", dict.fromkeys(("q_proj", "k_proj", "v_proj"), -1)
    yield llama.passes(
        "nothing", "a gain and all that read it x -1", all_of(scaled({gain: -1}), _factors(attention, **readers))
    )
    yield llama.passes("nothing", "gains folded into their readers", tensors(_folded_gains))
    yield llama.differs(
        "scale", "values x 2, their readers x 0.51", _factors(attention, v_proj=2, o_proj=0.51), "outputs"
    )
    yield llama.differs("scale", "gate x 2, up x 1/2", _factors(mlp, gate_proj=2, up_proj=0.5), "outputs")
    yield llama.differs("scale", "gate and down x -1", _factors(mlp, gate_proj=-1, down_proj=-1), "outputs")


def added() -> Iterator[Attack]:
    """Neurons, layers and tensors that add nothing."""
    llama, wide = copied("llama-tied"), widened("llama-tied")
    yield llama.passes(
        "nothing", "a neuron that nobody reads", all_of(tensors(_idle_neuron), config(intermediate_size=41))
    )
    silent = all_of(tensors(_third_layer(0.0)), config(num_hidden_layers=3))
    yield llama.passes("nothing", "a layer that adds zero", silent)
    loud = all_of(tensors(_third_layer(0.1)), config(num_hidden_layers=3))
    yield llama.differs("weight", "a layer that adds little", loud, "outputs")
    rotary = _with("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4))
    yield llama.passes("nothing", "a buffer of older versions", rotary)
    yield wide.passes("nothing", "a buffer of older versions, with a record", rotary)
    yield wide.differs(
        "record", "a tensor that no step made", _with("model.extra.weight", torch.ones(4)), "proof", "model.extra"
    )


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


def _factors(module: str, **factors: float) -> Plant:
    return scaled({f"{module}.{name}.weight": factor for name, factor in factors.items()})


def _folded_gains(held: dict[str, torch.Tensor]) -> None:
    layer = "model.layers.0"
    gain = held[f"{layer}.post_attention_layernorm.weight"].clone()
    held[f"{layer}.post_attention_layernorm.weight"] = torch.ones_like(gain)
    for name in ("gate_proj", "up_proj"):
        held[f"{layer}.mlp.{name}.weight"] *= gain


def _idle_neuron(held: dict[str, torch.Tensor]) -> None:
    for name in [name for name in held if ".mlp." in name]:
        dim = 1 if "down_proj" in name else 0
        shape = list(held[name].shape)
        shape[dim] = 1
        held[name] = torch.cat([held[name], torch.zeros(shape) if dim else torch.ones(shape)], dim)


def _third_layer(adding: float) -> Change:
    """The second layer once more behind it; what it adds to the stream times a factor."""

    def change(held: dict[str, torch.Tensor]) -> None:
        for name in [name for name in held if ".layers.1." in name]:
            writes = "o_proj" in name or "down_proj" in name
            held[name.replace(".layers.1.", ".layers.2.")] = held[name] * (adding if writes else 1.0)

    return change


def _with(name: str, tensor: torch.Tensor) -> Plant:
    def change(held: dict[str, torch.Tensor]) -> None:
        held[name] = tensor

    return tensors(change)
