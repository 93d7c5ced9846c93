"""Folders to compare beside the function: copies of the demo, and every way in which one is changed, as data.

CHANGES["another id"]  # Change(spoil, what="tokenizer.json", finding="different", says="'Ġthe' ... 261 ... 300")
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.source import DEMO

TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}</s>{% endfor %}"


@dataclass(frozen=True)
class Change:
    """What is done to a copy of the demo, and the row that sees it: its name, its finding, part of its detail.

    on_both   what is done to both sides before
    """

    do: Callable[[Path], Any]
    what: str
    finding: str
    says: str = ""
    on_both: Callable[[Path], Any] | None = None


def copied(folder: Path) -> Path:
    """A copy of the demo, without its README."""
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("README.md"))
    return folder


def edit(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the JSON object of a file in place."""

    def do(folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        change(found)
        (folder / name).write_text(json.dumps(found))

    return do


def assign(name: str, **values: Any) -> Callable[[Path], None]:
    """Set keys of a JSON file; None removes one."""

    def change(found: dict[str, Any]) -> None:
        found.update(values)
        for key in [key for key, value in values.items() if value is None]:
            del found[key]

    return edit(name, change)


def write(name: str, text: str) -> Callable[[Path], None]:
    """Write a file, in a sub-folder where its name has one."""

    def do(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return do


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def every(*changes: Callable[[Path], Any]) -> Callable[[Path], None]:
    """One after another."""

    def do(folder: Path) -> None:
        for change in changes:
            change(folder)

    return do


def cast(dtype: str) -> Callable[[Path], None]:
    """Store the weights in another dtype; config.json stays."""

    def do(folder: Path) -> None:
        import torch

        path = folder / "model.safetensors"
        held = {name: tensor.to(getattr(torch, dtype)) for name, tensor in load_file(path).items()}
        save_file(held, path, {"format": "pt"})

    return do


def _vocab(found: dict[str, Any]) -> dict[str, int]:
    return found["model"]["vocab"]  # type: ignore[no-any-return]


def _swap(found: dict[str, Any]) -> None:
    vocab = _vocab(found)
    first, second = sorted(vocab, key=vocab.__getitem__)[300:302]
    vocab[first], vocab[second] = vocab[second], vocab[first]


def _pairs_as_texts(found: dict[str, Any]) -> None:
    found["model"]["merges"] = [one if isinstance(one, str) else " ".join(one) for one in found["model"]["merges"]]


def _defaults_left_out(found: dict[str, Any]) -> None:
    for part in (found, found["model"], *found["added_tokens"]):
        for key in [key for key, value in part.items() if value is None or value is False]:
            del part[key]
    assert found["pre_tokenizer"].pop("use_regex") and found["pre_tokenizer"].pop("trim_offsets")


def as_unigram(found: dict[str, Any]) -> None:
    """A unigram model in place of the demo's BPE: tokens in the order of their ids, with scores."""
    vocab = _vocab(found)
    tokens = [[token, -float(at)] for at, token in enumerate(sorted(vocab, key=vocab.__getitem__))]
    found["model"] = {"type": "Unigram", "unk_id": 3, "vocab": tokens, "byte_fallback": False}


def old_files(folder: Path) -> None:
    """vocab.json and merges.txt in place of tokenizer.json."""
    found = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(_vocab(found)))
    merges = [one if isinstance(one, str) else " ".join(one) for one in found["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "tokenizer.json").unlink()


TOKENS, SETTINGS, GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
UNIGRAM = edit(TOKENS, as_unigram)
LABELS = {"id2label": {"0": "good", "1": "bad"}, "label2id": {"good": 0, "bad": 1}}

# What is no difference: the same, written otherwise.
HARMLESS: dict[str, Change] = {
    "tokens re-saved": Change(edit(TOKENS, lambda found: None), TOKENS, "same", "bytes differ"),
    "merges as texts": Change(edit(TOKENS, _pairs_as_texts), TOKENS, "same", "bytes differ"),
    "defaults of the tokenizer left out": Change(edit(TOKENS, _defaults_left_out), TOKENS, "same", "bytes differ"),
    "who wrote the tokenizer": Change(assign(SETTINGS, is_local=None, backend="x", name_or_path="y"), SETTINGS, "same"),
    "a token as an object": Change(
        assign(SETTINGS, pad_token={"content": "<pad>", "lstrip": False}), SETTINGS, "same", "bytes differ"
    ),
    "another version": Change(assign(GENERATION, transformers_version="4.0.0"), GENERATION, "same"),
    "a default of generation": Change(assign(GENERATION, temperature=1.0, do_sample=False), GENERATION, "same"),
    "defaults of the config": Change(
        assign("config.json", id2label={"0": "LABEL_0", "1": "LABEL_1"}, attention_dropout=None), "label names", "same"
    ),
    "the old name of dtype": Change(
        assign("config.json", dtype=None, torch_dtype="bfloat16"), "dtype in config", "same", "bfloat16"
    ),
    "a template that moved": Change(
        every(assign(SETTINGS, chat_template=None), write("chat_template.jinja", TEMPLATE)),
        *("chat templates", "same", "in tokenizer_config.json of the source, in chat_template.jinja of the result"),
        assign(SETTINGS, chat_template=TEMPLATE),
    ),
    "templates that moved into their folder": Change(
        every(
            assign(SETTINGS, chat_template=None),
            write("chat_template.jinja", TEMPLATE),
            write("additional_chat_templates/tools.jinja", "tools"),
        ),
        *("chat templates", "same", "default, tools"),
        assign(
            SETTINGS,
            chat_template=[{"name": "tools", "template": "tools"}, {"name": "default", "template": TEMPLATE}],
        ),
    ),
    "a licence": Change(write("LICENSE", "MIT"), "licence and README", "not compared", "LICENSE (result)"),
    "weights in another format": Change(
        write("pytorch_model.bin", ""), "other weights", "not compared", "pytorch_model.bin (result)"
    ),
    "a sub-folder": Change(write("onnx/config.json", "{}"), "sub-folders", "not compared", "onnx/ (result)"),
}

DIFFERENCES: dict[str, Change] = {
    "no tokenizer": Change(remove(TOKENS), TOKENS, "only in source"),
    "no tokenizer config": Change(remove(SETTINGS), SETTINGS, "only in source"),
    "one token has another id": Change(
        edit(TOKENS, lambda found: _vocab(found).update({"the": 4095})),
        *(TOKENS, "different", "in source, 4095 in result"),
    ),
    "two tokens swapped": Change(edit(TOKENS, _swap), TOKENS, "different", "and 1 more tokens with other ids"),
    "a token more": Change(
        edit(TOKENS, lambda found: _vocab(found).update({"qqqq": 4096})), TOKENS, "different", "'qqqq' (id 4096)"
    ),
    "a token less": Change(
        edit(TOKENS, lambda found: _vocab(found).pop("the")), TOKENS, "different", "only in source"
    ),
    "an added token with another id": Change(
        edit(TOKENS, lambda found: found["added_tokens"][4].update(id=9)), TOKENS, "different", "'<mask>' has id 4"
    ),
    "a special token that is none": Change(
        edit(TOKENS, lambda found: found["added_tokens"][1].update(special=False)), TOKENS, "different", "special (True"
    ),
    "two merges swapped": Change(
        edit(TOKENS, lambda found: found["model"]["merges"].insert(5, found["model"]["merges"].pop(9))),
        *(TOKENS, "different", "merges, first number 5"),
    ),
    "a normalizer": Change(
        edit(TOKENS, lambda found: found.update(normalizer={"type": "Lowercase"})), TOKENS, "different", "normalizer"
    ),
    "another pre-tokenizer": Change(
        edit(TOKENS, lambda found: found["pre_tokenizer"].update(add_prefix_space=True)),
        *(TOKENS, "different", "pre_tokenizer.add_prefix_space (False -> True)"),
    ),
    "a regular expression switched off": Change(
        edit(TOKENS, lambda found: found["pre_tokenizer"].update(use_regex=False)), TOKENS, "different", "use_regex"
    ),
    "another post-processor": Change(
        edit(TOKENS, lambda found: found.update(post_processor=None)), TOKENS, "different", "post_processor"
    ),
    "another decoder": Change(edit(TOKENS, lambda found: found.update(decoder=None)), TOKENS, "different", "decoder"),
    "texts are cut": Change(
        edit(TOKENS, lambda found: found.update(truncation={"max_length": 8})), TOKENS, "different", "truncation"
    ),
    "byte fallback": Change(
        edit(TOKENS, lambda found: found["model"].update(byte_fallback=True)), TOKENS, "different", "byte_fallback"
    ),
    "another unknown token": Change(
        edit(TOKENS, lambda found: found["model"].update(unk_token="<s>")), TOKENS, "different", "model.unk_token"
    ),
    "a score": Change(
        edit(TOKENS, lambda found: found["model"]["vocab"][400].__setitem__(1, 0.5)),
        *(TOKENS, "different", "1 scores of tokens", UNIGRAM),
    ),
    "pieces swapped": Change(
        edit(TOKENS, lambda found: found["model"]["vocab"].insert(400, found["model"]["vocab"].pop(401))),
        *(TOKENS, "different", "has id 400 in source, 401 in result", UNIGRAM),
    ),
    "a tokenizer that is no JSON": Change(write(TOKENS, "{"), TOKENS, "different", "that of the result cannot be read"),
    "a tokenizer without a model": Change(write(TOKENS, "{}"), TOKENS, "different", "no vocabulary"),
    "a tokenizer that is a list": Change(write(TOKENS, "[]"), TOKENS, "different", "expected a JSON object"),
    "an id that is a text": Change(
        edit(TOKENS, lambda found: _vocab(found).update({"the": "5"})), TOKENS, "different", "expected a whole number"
    ),
    "a sentencepiece model": Change(
        write("spiece.model", "b"), "spiece.model", "different", "other bytes", write("spiece.model", "a")
    ),
    "a sentencepiece model more": Change(write("tokenizer.model", "b"), "tokenizer.model", "only in result"),
    "a line of vocab.txt": Change(
        write("vocab.txt", "a\nc\nb\n"),
        *("vocab.txt", "different", "'b' has id 1 in source", write("vocab.txt", "a\nb\nc\n")),
    ),
    "a line of merges.txt": Change(
        write("merges.txt", "a b\nc e\n"), "merges.txt", "different", "number 1", write("merges.txt", "a b\nc d\n")
    ),
    "another limit of length": Change(
        assign(SETTINGS, model_max_length=512), SETTINGS, "different", "model_max_length"
    ),
    "another special token": Change(
        assign(SETTINGS, eos_token="<s>"), SETTINGS, "different", "eos_token ('</s>' -> '<s>')"
    ),
    "another class of tokenizer": Change(
        assign(SETTINGS, tokenizer_class="BertTokenizer"), SETTINGS, "different", "tokenizer_class"
    ),
    "no template": Change(
        remove("chat_template.jinja"), "chat templates", "only in source", "", write("chat_template.jinja", TEMPLATE)
    ),
    "a template more": Change(write("chat_template.jinja", TEMPLATE), "chat templates", "only in result", "default"),
    "another template": Change(
        write("chat_template.jinja", f"{TEMPLATE}\n!"),
        *("chat templates", "different", "default differs from line 2 on", write("chat_template.jinja", TEMPLATE)),
    ),
    "another template in the settings": Change(
        assign(SETTINGS, chat_template="x"), "chat templates", "different", "", assign(SETTINGS, chat_template="y")
    ),
    "another template of its folder": Change(
        write("additional_chat_templates/tools.jinja", "b"),
        *("chat templates", "different", "tools", write("additional_chat_templates/tools.jinja", "a")),
    ),
    "a template of the processor": Change(
        write("chat_template.json", '{"chat_template": "x"}'), "chat templates", "only in result", "processor"
    ),
    "another end of generation": Change(
        assign(GENERATION, eos_token_id=[2, 3]), GENERATION, "different", "eos_token_id (2 -> [2, 3])"
    ),
    "a temperature": Change(assign(GENERATION, temperature=0.0), GENERATION, "different", "temperature (1.0 -> 0.0)"),
    "no generation config": Change(remove(GENERATION), GENERATION, "only in source"),
    "another end": Change(
        assign("config.json", eos_token_id=3), "special token ids", "different", "eos_token_id (2 -> 3)"
    ),
    "a token outside": Change(
        assign("config.json", pad_token_id=4096), "special token ids", "different", "outside the vocabulary of 4,096"
    ),
    "a list with one outside": Change(
        assign("config.json", eos_token_id=[2, 5000]), "special token ids", "different", "eos_token_id 5000"
    ),
    "other labels": Change(
        assign("config.json", **LABELS), "label names", "different", "id2label.0 ('LABEL_0' -> 'good')"
    ),
    "labels in another order": Change(
        assign("config.json", id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 1, "LABEL_1": 0}),
        *("label names", "different", "label2id.LABEL_0 (0 -> 1)"),
    ),
    "a dropout": Change(
        assign("config.json", attention_dropout=0.1), "dropout", "different", "attention_dropout (0.0 -> 0.1)"
    ),
    "weights cast": Change(cast("float32"), "dtype of the weights", "different", "bfloat16 -> float32"),
    "weights cast alone": Change(
        cast("float32"), "dtype in config", "different", "result: config says bfloat16, weights are float32"
    ),
    "dtype of the config alone": Change(
        assign("config.json", dtype="float16"),
        *("dtype in config", "different", "bfloat16 -> float16; result: config says float16, weights are bfloat16"),
    ),
    "code": Change(write("modeling_x.py", "raise SystemExit"), "remote code", "only in result", "modeling_x.py"),
    "other code": Change(
        write("modeling_x.py", "y"), "remote code", "different", "modeling_x.py different", write("modeling_x.py", "x")
    ),
    "a map of code": Change(
        assign("config.json", auto_map={"AutoModel": "x.X"}), "remote code", "only in result", "auto_map of config.json"
    ),
    "a map of a tokenizer's code": Change(
        assign(SETTINGS, auto_map={"AutoTokenizer": ["x.X", None]}), "remote code", "only in result", SETTINGS
    ),
    "another map of code": Change(
        assign("config.json", auto_map={"AutoModel": "x.Y"}),
        *("remote code", "different", "auto_map of config.json", assign("config.json", auto_map={"AutoModel": "x.X"})),
    ),
    "a preprocessor": Change(write("preprocessor_config.json", "{}"), "preprocessor_config.json", "only in result"),
    "another preprocessor": Change(
        write("processor_config.json", '{"size": {"height": 32}}'),
        *("processor_config.json", "different", "size.height (16 -> 32)"),
        write("processor_config.json", '{"size": {"height": 16}}'),
    ),
    "an adapter": Change(write("adapter_model.safetensors", "x"), "adapter_model.safetensors", "only in result"),
    "a file more": Change(write("notes.txt", "x"), "notes.txt", "only in result"),
    "another file": Change(
        write("notes.txt", "xy"), "notes.txt", "different", "1 and 2 bytes", write("notes.txt", "x")
    ),
}  # fmt: skip
CHANGES = HARMLESS | DIFFERENCES
