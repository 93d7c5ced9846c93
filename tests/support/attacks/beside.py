"""What is beside the function: it must be named, and changes no verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from support.attacks.attack import Attack, Plant, copied, widened
from support.placing import edited, removed, written
from support.planting import config

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def files() -> Iterator[Attack]:
    demo = copied("demo")
    yield demo.proven("beside", "two tokens of the tokenizer exchanged", _exchanged_tokens, "beside", "tokenizer")
    yield demo.proven(
        "beside", "no tokenizer", removed("tokenizer.json", "tokenizer_config.json"), "beside", "tokenizer"
    )
    yield demo.proven("beside", "a chat template", written("chat_template.jinja", TEMPLATE), "beside", "chat")
    yield demo.proven(
        "beside",
        "a chat template inside of the tokenizer's config",
        edited("tokenizer_config.json", chat_template=TEMPLATE),
        "beside",
        "chat",
    )
    yield demo.proven(
        "beside",
        "another generation config",
        edited("generation_config.json", do_sample=True, temperature=0.1),
        "beside",
        "generation",
    )
    yield demo.proven("beside", "no generation config", removed("generation_config.json"), "beside", "generation")
    yield demo.proven("beside", "a README", written("README.md", "# Mine"))
    yield demo.proven("beside", "a licence", written("LICENSE", "none"), "", "LICENSE")
    yield copied("llama-tied").proven(
        "beside", "code of its own", written("modeling_own.py", "raise SystemExit"), "beside", "modeling_own.py"
    )
    yield widened("demo").proven(
        "beside", "two tokens exchanged, with a record", _exchanged_tokens, "beside", "tokenizer"
    )


def keys() -> Iterator[Attack]:
    llama, bert = copied("llama-tied"), copied("bert-sequence")
    yield llama.proven("beside", "dropout", config(attention_dropout=0.5), "beside", "dropout")
    yield copied("gpt2-tied").proven(
        "beside", "dropout of the residual", config(resid_pdrop=0.0), "beside", "resid_pdrop"
    )
    yield copied("bert-tied").proven(
        "beside", "dropout of an encoder", config(hidden_dropout_prob=0.3), "beside", "hidden_dropout_prob"
    )
    yield llama.proven("beside", "another token that ends", config(eos_token_id=9), "beside", "eos_token_id")
    yield llama.proven("beside", "another token that begins", config(bos_token_id=9), "beside", "bos_token_id")
    yield bert.proven("beside", "labels of other names", _labels("good", "bad", "ugly"), "beside", "label")
    yield llama.proven("beside", "a dtype that is not that of the file", config(dtype="bfloat16"), "beside", "dtype")
    yield llama.passes(
        "beside",
        "code that the config names",
        edited("config.json", auto_map={"AutoModelForCausalLM": "modeling_own.Own"}),
        "beside",
        "auto_map",
    )


def _exchanged_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    held = json.loads(path.read_text())
    vocab = held["model"]["vocab"]
    first, second = sorted(vocab)[1000:1002]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(held))


def _labels(*names: str) -> Plant:
    return config(
        id2label={str(number): name for number, name in enumerate(names)},
        label2id={name: number for number, name in enumerate(names)},
    )
