"""Two models that are no pair: said first, compared where they can be, and never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from support.attacks.attack import Attack, copied, pair
from support.placing import edited
from support.planting import all_of, config, nothing, number, rows_times

FAMILIES = (
    ("llama-tied", "gpt2-tied"),
    ("llama-untied", "qwen2-untied"),
    ("llama-tied", "mistral-tied"),
    ("llama-tied", "mixtral-untied"),
    ("gpt2-tied", "bloom-tied"),
    ("bert-tied", "roberta-tied"),
    ("bert-tied", "gpt2-tied"),
    ("t5-tied", "bart-tied"),
    ("t5-tied", "llama-tied"),
    ("bert-tied", "vit"),
    ("whisper-tied", "bart-tied"),
    ("vit", "llama-tied"),
    ("gemma2-tied", "gemma3_text-tied"),
)
CLASSES = (
    ("llama-tied", "llama-body"),
    ("bert-tied", "bert-sequence"),
    ("bert-sequence", "bert-token"),
    ("bert-body", "bert-tied"),
    ("llama-tied", "llama-sequence"),
)


def families() -> Iterator[Attack]:
    for first, second in FAMILIES:
        yield pair(first, second).differs("pair", "another family", nothing, "family", "famil")
    same = copied("llama-tied")
    renamed = edited("config.json", model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=4096)
    yield same.runs_alike("pair", "the same weights under another family's name", renamed, "family", "famil")
    short = edited("config.json", model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=3)
    yield same.differs("pair", "the same weights under a family with a window", short, "family outputs", "famil")


def classes() -> Iterator[Attack]:
    for first, second in CLASSES:
        yield pair(first, second).differs("pair", "another class", nothing, "")
    yield copied("llama-tied").differs("pair", "a class without a head", config(architectures=["LlamaModel"]), "")


def others() -> Iterator[Attack]:
    """Models of one family that have nothing to do with each other."""
    yield pair("llama-untied", "llama-tied").differs("pair", "other weights, other ties", nothing, "outputs")
    yield pair("llama-biased", "llama-untied").differs("pair", "no biases", nothing, "")
    yield pair("llama-wide-heads", "llama-tied").differs("pair", "narrower heads", nothing, "outputs")
    yield copied("llama-untied").differs("pair", "every number drawn anew", _drawn(1.0), "outputs")
    yield copied("bart-tied").differs("pair", "two random models that forbid one token", _both_forbid, "outputs")
    yield copied("llama-untied").differs("pair", "one layer fewer", _shallower, "outputs")
    yield copied("gpt2-tied").differs("pair", "every number of the other sign", _drawn(-1.0), "outputs")
    forbidding = copied("bart-tied").prepared(number("final_logits_bias", -1e9, 12))
    yield forbidding.differs("pair", "two random models that both forbid one token", _both_forbid, "outputs")


def vocabularies() -> Iterator[Attack]:
    llama, gpt2 = copied("llama-untied"), copied("gpt2-tied")
    tokens = "model.embed_tokens.weight"
    yield llama.runs_alike("pair", "three tokens more", _resized(64, tokens, "lm_head.weight"), "", "vocab")
    yield llama.runs_alike("pair", "three tokens fewer", _resized(58, tokens, "lm_head.weight"), "", "vocab")
    yield gpt2.runs_alike("pair", "three tokens more, tied", _resized(64, "transformer.wte.weight"), "", "vocab")
    wrong = all_of(_resized(64, tokens, "lm_head.weight"), rows_times(tokens, -1, 17))
    yield llama.differs("pair", "three tokens more, and an old one changed", wrong, "outputs", "vocab")


def _resized(size: int, *names: str) -> Callable[[Path], None]:
    """Another number of tokens: rows of noise more, or the last ones left out."""

    def plant(folder: Path) -> None:
        generator = torch.Generator().manual_seed(5)
        held = load_file(folder / "model.safetensors")
        for name in names:
            more = torch.randn(max(0, size - len(held[name])), held[name].shape[1], generator=generator)
            held[name] = torch.cat([held[name], more])[:size].contiguous()
        save_file(held, folder / "model.safetensors", {"format": "pt"})
        config(vocab_size=size)(folder)

    return plant


def _drawn(sign: float) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        generator = torch.Generator().manual_seed(7)
        held = load_file(folder / "model.safetensors")
        for name, tensor in held.items():
            new = torch.randn(tensor.shape, generator=generator) * tensor.std() + tensor.mean()
            held[name] = -tensor if sign < 0 else new
        save_file(held, folder / "model.safetensors", {"format": "pt"})

    return plant


def _both_forbid(folder: Path) -> None:
    _drawn(1.0)(folder)
    number("final_logits_bias", -1e9, 12)(folder)


def _shallower(folder: Path) -> None:
    held = load_file(folder / "model.safetensors")
    left = {name: tensor for name, tensor in held.items() if ".layers.1." not in name}
    save_file(left, folder / "model.safetensors", {"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 1}))
