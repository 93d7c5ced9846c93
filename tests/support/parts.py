"""Where each family's checkpoints have their attentions, MLPs and routers: views into the tensors, in plain torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from support.foreign import Tensors

View = torch.Tensor


@dataclass
class Attention:
    """Views of one attention, key-value heads first.

    q, o  [kv, group, coordinate, ...]: what queries and the output projection have (rotary q: the same)
    k, v  [kv, coordinate, ...]
    each  [kv, group, ...]: what every query head has one of
    """

    q: list[View] = field(default_factory=list)
    k: list[View] = field(default_factory=list)
    v: list[View] = field(default_factory=list)
    o: list[View] = field(default_factory=list)
    each: list[View] = field(default_factory=list)


@dataclass
class Mlp:
    """Views of one MLP, neurons first; `write` of what is not gated alone may be multiplied."""

    write: list[View]
    read: list[View]


@dataclass
class Router:
    """Views of a router and its experts, experts first; a named expert's tensors are several views [...]."""

    rows: list[View]
    named: list[list[View]] = field(default_factory=list)  # by tensor: one view for each expert


@dataclass
class Parts:
    attentions: list[Attention] = field(default_factory=list)
    mlps: list[Mlp] = field(default_factory=list)
    routers: list[Router] = field(default_factory=list)


def _matching(tensors: Tensors, pattern: str) -> Iterator[tuple[str, ...]]:
    """The distinct groups of a pattern that begins names, in order."""
    found = (re.match(pattern, name) for name in tensors)
    yield from dict.fromkeys(match.groups() for match in found if match)


def _both(tensors: Tensors, name: str) -> list[View]:
    return [tensors[f"{name}.{part}"] for part in ("weight", "bias") if f"{name}.{part}" in tensors]


def _split(view: View, *sizes: int) -> View:
    return view.view(*sizes, *view.shape[1:])


def _last(view: View, *sizes: int) -> View:
    """The last dimension split, and moved to the front."""
    found = view.view(*view.shape[:-1], *sizes)
    for _ in sizes:
        found = found.movedim(-1, 0)
    return found


def _counts(config: dict[str, Any]) -> tuple[int, int]:
    """(key-value heads, query heads of each)."""
    queries = next(config[key] for key in ("num_attention_heads", "n_head", "num_heads", "n_heads") if key in config)
    kv = config.get("num_key_value_heads") or queries
    return kv, queries // kv


def separate(tensors: Tensors, kv: int, group: int, at: str, names: tuple[str, str, str, str]) -> Attention:
    """Four nn.Linear of one attention."""
    q, k, v, o = (f"{at}{name}" for name in names)
    found = Attention()
    found.q = [_split(view, kv, group, len(view) // (kv * group)) for view in _both(tensors, q)]
    found.k = [_split(view, kv, len(view) // kv) for view in _both(tensors, k)]
    found.v = [_split(view, kv, len(view) // kv) for view in _both(tensors, v)]
    weight = tensors[f"{o}.weight"]
    found.o = [_last(weight, kv, group, weight.shape[1] // (kv * group))]
    return found


def gated(tensors: Tensors, at: str, write: tuple[str, ...], read: str) -> Mlp:
    """An MLP of nn.Linear."""
    written = [view for name in write for view in _both(tensors, f"{at}{name}")]
    return Mlp(written, [tensors[f"{at}{read}.weight"].T])


def llama(tensors: Tensors, config: dict[str, Any]) -> Parts:
    """Llama, and what is named like it: fused or not, with experts or without, with sinks."""
    kv, group = _counts(config)
    parts = Parts()
    for (at,) in _matching(tensors, r"(.*layers\.\d+\.)"):
        if f"{at}self_attn.qkv_proj.weight" in tensors:
            parts.attentions.append(_phi3(tensors, at, kv, group, config))
        else:
            one = separate(tensors, kv, group, f"{at}self_attn.", ("q_proj", "k_proj", "v_proj", "o_proj"))
            if f"{at}self_attn.sinks" in tensors:
                one.each.append(tensors[f"{at}self_attn.sinks"].view(kv, group))
            parts.attentions.append(one)
        _llama_mlp(tensors, at, parts)
    return parts


def _llama_mlp(tensors: Tensors, at: str, parts: Parts) -> None:
    if f"{at}mlp.gate_up_proj.weight" in tensors:
        both = tensors[f"{at}mlp.gate_up_proj.weight"]
        parts.mlps.append(Mlp([*both.chunk(2)], [tensors[f"{at}mlp.down_proj.weight"].T]))
    elif f"{at}mlp.gate_proj.weight" in tensors:
        parts.mlps.append(gated(tensors, f"{at}mlp.", ("gate_proj", "up_proj"), "down_proj"))
    elif f"{at}mlp.experts.gate_up_proj_bias" in tensors:
        _gpt_oss(tensors, f"{at}mlp.", parts)
    for block, names in (("mlp.", ("gate_proj", "up_proj", "down_proj")), ("block_sparse_moe.", ("w1", "w3", "w2"))):
        numbers = [int(n) for (n,) in _matching(tensors, re.escape(f"{at}{block}experts.") + r"(\d+)\.")]
        if not numbers:
            continue
        here = [f"{at}{block}experts.{n}." for n in sorted(numbers)]
        parts.mlps += [gated(tensors, one, names[:2], names[2]) for one in here]
        rows = _both(tensors, f"{at}{block}gate")
        rows += [t for n, t in tensors.items() if n == f"{at}{block}gate.e_score_correction_bias"]
        parts.routers.append(Router(rows, [[tensors[f"{one}{name}.weight"] for one in here] for name in names]))
    if f"{at}mlp.shared_experts.up_proj.weight" in tensors:
        parts.mlps.append(gated(tensors, f"{at}mlp.shared_experts.", ("gate_proj", "up_proj"), "down_proj"))


def _gpt_oss(tensors: Tensors, at: str, parts: Parts) -> None:
    """All experts in one tensor, gate and up of a neuron side by side."""
    both, bias = tensors[f"{at}experts.gate_up_proj"], tensors[f"{at}experts.gate_up_proj_bias"]
    down = tensors[f"{at}experts.down_proj"]
    for expert in range(len(both)):
        neurons = both.shape[2] // 2
        written = [both[expert].view(-1, neurons, 2).movedim(1, 0), bias[expert].view(neurons, 2)]
        parts.mlps.append(Mlp(written, [down[expert]]))
    rows = [both, bias, down, tensors[f"{at}experts.down_proj_bias"], *_both(tensors, f"{at}router")]
    parts.routers.append(Router(rows))


def _phi3(tensors: Tensors, at: str, kv: int, group: int, config: dict[str, Any]) -> Attention:
    fused, out = tensors[f"{at}self_attn.qkv_proj.weight"], tensors[f"{at}self_attn.o_proj.weight"]
    size = fused.shape[0] // (kv * (group + 2))
    q, k, v = fused.split([kv * group * size, kv * size, kv * size])
    return Attention(
        [_split(q, kv, group, size)], [_split(k, kv, size)], [_split(v, kv, size)], [_last(out, kv, group, size)]
    )


def gpt2(tensors: Tensors, config: dict[str, Any]) -> Parts:
    """Conv1D: [in, out]; queries beside keys beside values."""
    parts, count = Parts(), config["n_head"]
    for (at,) in _matching(tensors, r"(.*h\.\d+\.)"):
        found = Attention()
        for fused in _both(tensors, f"{at}attn.c_attn"):
            q, k, v = _last(fused, 3, count, fused.shape[-1] // (3 * count)).unbind(0)
            found.q.append(q[:, None])
            found.k.append(k)
            found.v.append(v)
        out = tensors[f"{at}attn.c_proj.weight"]
        found.o = [_split(out, count, 1, len(out) // count)]
        parts.attentions.append(found)
        written = [view.movedim(-1, 0) for view in _both(tensors, f"{at}mlp.c_fc")]
        parts.mlps.append(Mlp(written, [tensors[f"{at}mlp.c_proj.weight"]]))
    return parts


def per_head(tensors: Tensors, config: dict[str, Any]) -> Parts:
    """GPT-NeoX, Falcon and Bloom: one tensor with the queries, keys and values of each head."""
    parts = Parts()
    count = config.get("num_attention_heads") or config["n_head"]
    grouped = config.get("new_decoder_architecture")
    kv = config["num_kv_heads"] if grouped else 1 if config.get("multi_query") else count
    group = count // kv
    for (at,) in _matching(tensors, r"(.*(?:layers|h)\.\d+\.)"):
        found = Attention()
        name = next(n for n in ("attention", "self_attention") if f"{at}{n}.query_key_value.weight" in tensors)
        for fused in _both(tensors, f"{at}{name}.query_key_value"):
            each = _split(fused, kv, group + 2, len(fused) // (kv * (group + 2)))
            found.q.append(each[:, :group])
            found.k.append(each[:, group])
            found.v.append(each[:, group + 1])
        out = tensors[f"{at}{name}.dense.weight"]
        found.o = [_last(out, kv, group, out.shape[1] // count)]
        parts.attentions.append(found)
        parts.mlps.append(gated(tensors, f"{at}mlp.", ("dense_h_to_4h",), "dense_4h_to_h"))
    return parts


def t5(tensors: Tensors, config: dict[str, Any]) -> Parts:
    """Relative positions of the first block serve all blocks: self-attentions of one side have one order."""
    parts, count = Parts(), config["num_heads"]
    sides: dict[str, Attention] = {}
    for side, block, layer, kind in _matching(tensors, r"(\w+)\.block\.(\d+)\.layer\.(\d)\.(\w+)\."):
        at = f"{side}.block.{block}.layer.{layer}.{kind}."
        if kind == "DenseReluDense":
            written = [f"{name}" for name in ("wi", "wi_0", "wi_1") if f"{at}{name}.weight" in tensors]
            parts.mlps.append(gated(tensors, at, tuple(written), "wo"))
        elif kind in ("SelfAttention", "EncDecAttention"):
            one = separate(tensors, count, 1, at, ("q", "k", "v", "o"))
            if bias := _both(tensors, f"{at}relative_attention_bias"):
                one.each.append(bias[0].T[:, None])
            if kind == "EncDecAttention" or config["model_type"] == "umt5":
                parts.attentions.append(one)
            else:
                whole = sides.setdefault(side, Attention())
                for name in ("q", "k", "v", "o", "each"):
                    getattr(whole, name).extend(getattr(one, name))
    parts.attentions += sides.values()
    return parts


def bart(tensors: Tensors, config: dict[str, Any]) -> Parts:
    """BART, Whisper and OPT."""
    parts = Parts()
    for (at,) in _matching(tensors, r"(.*layers\.\d+\.)"):
        side = "decoder" if "decoder" in at else "encoder"
        count = config.get(f"{side}_attention_heads") or config["num_attention_heads"]
        for name in ("self_attn", "encoder_attn"):
            if f"{at}{name}.q_proj.weight" in tensors:
                names = ("q_proj", "k_proj", "v_proj", "out_proj")
                parts.attentions.append(separate(tensors, count, 1, f"{at}{name}.", names))
        parts.mlps.append(gated(tensors, at, ("fc1",), "fc2"))
    return parts


def bert(tensors: Tensors, config: dict[str, Any]) -> Parts:
    parts, count = Parts(), config["num_attention_heads"]
    for (at,) in _matching(tensors, r"(.*layer\.\d+\.)"):
        names = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
        parts.attentions.append(separate(tensors, count, 1, at, names))
        parts.mlps.append(gated(tensors, at, ("intermediate.dense",), "output.dense"))
    return parts


def deepseek(tensors: Tensors, config: dict[str, Any]) -> Parts:
    """Keys are a part of their own for each head, and a rotated one for all; `k` and `q` are the former."""
    parts, count = Parts(), config["num_attention_heads"]
    nope, rope, size = (config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    for (at,) in _matching(tensors, r"(.*layers\.\d+\.)"):
        found, name = Attention(), "q_b_proj" if f"{at}self_attn.q_b_proj.weight" in tensors else "q_proj"
        q = _split(tensors[f"{at}self_attn.{name}.weight"], count, 1, nope + rope)
        both = _split(tensors[f"{at}self_attn.kv_b_proj.weight"], count, nope + size)
        found.q, found.k, found.v = [q[:, :, :nope]], [both[:, :nope]], [both[:, nope:]]
        found.each = [q[:, :, nope:]]
        found.o = [_last(tensors[f"{at}self_attn.o_proj.weight"], count, 1, size)]
        parts.attentions.append(found)
        _llama_mlp(tensors, at, parts)
    return parts


def modernbert(tensors: Tensors, config: dict[str, Any]) -> Parts:
    parts, count = Parts(), config["num_attention_heads"]
    for (at,) in _matching(tensors, r"(.*layers\.\d+\.)"):
        found = Attention()
        for fused in _both(tensors, f"{at}attn.Wqkv"):
            q, k, v = _split(fused, 3, count, len(fused) // (3 * count)).unbind(0)
            found.q.append(q[:, None])
            found.k.append(k)
            found.v.append(v)
        out = tensors[f"{at}attn.Wo.weight"]
        found.o = [_last(out, count, 1, out.shape[1] // count)]
        parts.attentions.append(found)
        parts.mlps.append(Mlp([*tensors[f"{at}mlp.Wi.weight"].chunk(2)], [tensors[f"{at}mlp.Wo.weight"].T]))
    return parts


LLAMAS = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "mixtral", "qwen3_moe", "gpt_oss", "granite")
FAMILIES: dict[str, Callable[[Tensors, dict[str, Any]], Parts]] = {
    **dict.fromkeys(LLAMAS, llama),
    "gpt2": gpt2,
    **dict.fromkeys(("gpt_neox", "falcon", "bloom"), per_head),
    **dict.fromkeys(("t5", "mt5", "umt5"), t5),
    **dict.fromkeys(("bart", "whisper", "opt"), bart),
    **dict.fromkeys(("bert", "roberta", "ernie"), bert),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), deepseek),
    "modernbert": modernbert,
}
