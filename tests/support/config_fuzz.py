"""Config fuzz, the runs: what the library computes with another config, beside what it computes with the source's.

    Runs(variant, folder).outcome(trial.of(config))  # ("same" | "differs" | "unclear" | "cannot be run", where or why)

Both models read the same file of weights, in float64 from end to end (`oracle.py`), and the same inputs: rows longer
than any window, rows padded with and without a mask, rows beyond the trained length where positions have no table,
every token type, labels of every kind that the class takes.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers

from support import tiny
from support.oracle import in_float64

# Deviations of an output: float64 passes of one function that sum in the same order differ by nothing; a function that
# is the same up to rounding (GELU by erf or by the library's own formula) by some 1e-15, and one that is another by
# far more than a constant of ten digits (1e-11, in gelu_fast) moves it.
EQUAL, DIFFERENT = 1e-13, 1e-9
LENGTH, LONG = 20, 40  # LONG: beyond the trained length of 24
KEPT = {"long", "shifted"}  # calls that count even where the source fails: another config may not

# What the tiny configs lack for some key to show: a limit of positions, a loss, a balance of experts.
FURTHER_FORMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gptj-limited": ("gptj-untied", {"n_positions": 24}),
    "mixtral-balanced": ("mixtral-untied", {"output_router_logits": True}),
    "gpt_oss-balanced": ("gpt_oss-untied", {"output_router_logits": True}),
    "olmoe-balanced": ("olmoe-untied", {"output_router_logits": True}),
    "qwen2_moe-balanced": ("qwen2_moe-untied", {"output_router_logits": True}),
    "qwen3_moe-balanced": ("qwen3_moe-untied", {"output_router_logits": True}),
    "modernbert-sparse": ("modernbert-tied", {"sparse_prediction": True}),
    "t5-started": ("t5-tied", {"decoder_start_token_id": 0}),
    "mt5-started": ("mt5-tied", {"decoder_start_token_id": 0}),
    "umt5-started": ("umt5-tied", {"decoder_start_token_id": 0}),
}


def forms() -> tuple[tiny.Variant, ...]:
    """All that is tried: the forms of every family, and those of FURTHER_FORMS."""
    by_name = {variant.name: variant for variant in tiny.variants()}
    further = (
        replace(by_name[base], name=name, config={**by_name[base].config, **config}, main=False)
        for name, (base, config) in FURTHER_FORMS.items()
    )
    return (*by_name.values(), *further)


# Labels of each kind of class, by a piece of its name; of a regression, of one class, of several.
LABELS: Mapping[str, tuple[str, ...]] = {
    "SequenceClassification": ("classes", "numbers", "number"),
    "ImageClassification": ("classes", "numbers", "number"),
    "AudioClassification": ("classes",),
    "TokenClassification": ("token classes",),
    "QuestionAnswering": ("spans",),
    "MultipleChoice": ("classes",),
    "NextSentence": ("classes",),
    "ElectraForPreTraining": ("token classes",),
    "PreTraining": ("pairs",),
    "CausalLM": ("tokens",),
    "MaskedLM": ("tokens",),
    "LMHead": ("tokens",),
    "ConditionalGeneration": ("tokens",),
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


@dataclass
class Runs:
    """One variant's weights in a folder, and the inputs that every config is run on."""

    variant: tiny.Variant
    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json as saved."""
        with in_float64():
            tiny.save(self.variant, self.folder, "float64")
        found: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        return found

    @cached_property
    def source(self) -> dict[str, torch.Tensor]:
        """What the source computes."""
        return self._run(self.config, made=self.inputs)

    @cached_property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """{name: arguments of a call}; those that the source cannot be run on are left out."""
        with in_float64():
            model = self._load(self.config)
            made = calls(model)
            return {
                name: call for name, call in made.items() if KEPT & {*name.split(", ")} or _result(model, name, call)
            }

    def outcome(self, config: Mapping[str, Any]) -> tuple[str, str]:
        """("same" | "differs" | "unclear" | "cannot be run", where and by how much, or why)."""
        source = self.source
        try:
            found = self._run(config, made=self.inputs)
        except Exception as error:  # whatever the library raises for a config without sense
            return "cannot be run", f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
        return compared(source, found)

    def _run(self, config: Mapping[str, Any], made: Mapping[str, dict[str, Any]]) -> dict[str, torch.Tensor]:
        with in_float64():
            model = self._load(config)
            found = {}
            for name, arguments in made.items():
                outputs = _result(model, name, arguments)
                found |= {f"{name}: {key}": value for key, value in (outputs or {"failed": torch.ones(1)}).items()}
            if found.keys() == {f"{name}: failed" for name in made}:
                raise ValueError("no input can be run")
            return found

    def _load(self, config: Mapping[str, Any]) -> Any:
        """The model with these settings; nothing may be missing or made up."""
        kind = getattr(transformers, (config.get("architectures") or [self.variant.kind])[0])
        with _quiet():
            made = transformers.CONFIG_MAPPING[self.variant.model_type].from_dict(copy.deepcopy(dict(config)))
            model, info = kind.from_pretrained(
                self.folder,
                config=made,
                dtype=torch.float64,
                attn_implementation="eager",
                experts_implementation="eager",
                output_loading_info=True,
            )
        wrong = {key: value for key, value in info.items() if value and key != "unexpected_keys"}
        if wrong:
            raise ValueError(f"weights: {str(wrong)[:100]}")
        return model.eval()


def _result(model: Any, name: str, arguments: Mapping[str, Any]) -> dict[str, torch.Tensor] | None:
    """{name: tensor} of one call; None where it fails."""
    run = _in_two_steps if name == "cached" else _at_once
    try:
        with _quiet(), torch.no_grad():
            model.config.problem_type = _problem(model)
            model.set_attn_implementation("sdpa" if name == "sdpa" else "eager")
            found = run(model, copy.deepcopy(dict(arguments)))
    except Exception:  # a config without sense, or labels of a kind that this class does not take
        return None
    names = [name for name in found if isinstance(found[name], torch.Tensor) and name != "router_logits"]
    return {name: found[name].double() for name in names}


def _at_once(model: Any, arguments: dict[str, Any]) -> Any:
    takes = inspect.signature(model.forward).parameters
    return model(**arguments, **({"use_cache": False} if "use_cache" in takes else {}), return_dict=True)


def _in_two_steps(model: Any, arguments: dict[str, Any]) -> Any:
    """The second half of the ids, after the first one has filled a cache."""
    name = "decoder_input_ids" if "decoder_input_ids" in arguments else "input_ids"
    ids, others = arguments.pop(name), arguments
    half = ids.shape[1] // 2
    cache = model(**{name: ids[:, :half]}, **others, use_cache=True, return_dict=True).past_key_values
    return model(**{name: ids[:, half:]}, **others, past_key_values=cache, use_cache=True, return_dict=True)


def _problem(model: Any) -> Any:
    """The config's problem type as it was loaded: a run with labels writes it."""
    if not hasattr(model, "loaded_problem"):
        model.loaded_problem = getattr(model.config, "problem_type", None)
    return model.loaded_problem


def calls(model: Any) -> dict[str, dict[str, Any]]:
    """{name: arguments}: plain, unmasked, long, and with labels of each kind."""
    config, generator = model.config, torch.Generator().manual_seed(5)
    takes = inspect.signature(model.forward).parameters
    if model.main_input_name == "pixel_values":
        return _labelled(_pictures(config, generator), takes, model, generator)
    made = {"plain": _ids(model, LENGTH, generator, masked=True), "unmasked": _ids(model, LENGTH, generator)}
    made["long"] = _ids(model, LONG, generator)
    made["sdpa"] = made["unmasked"]  # which leaves a causal mask to its kernel
    if "past_key_values" in takes:
        made["cached"] = made["unmasked"]
    if "token_type_ids" in takes and getattr(config, "type_vocab_size", 0):
        types = {name: torch.arange(ids["input_ids"].shape[-1]).expand(2, -1) for name, ids in made.items()}
        made |= {
            f"{name}, types": {**ids, "token_type_ids": types[name] % config.type_vocab_size}
            for name, ids in made.items()
            if name != "cached"
        }
    if "MultipleChoice" in type(model).__name__:
        made = {name: {key: value[None] for key, value in ids.items()} for name, ids in made.items()}
    return _labelled(made, takes, model, generator)


def _ids(model: Any, length: int, generator: torch.Generator, masked: bool = False) -> dict[str, Any]:
    config, takes = model.config, inspect.signature(model.forward).parameters
    ids = torch.randint(0, config.vocab_size, (2, length), generator=generator)
    ids[1, -3:] = 0
    ids[0, 4:6] = torch.tensor([0, 1])  # padding and a beginning inside
    if getattr(config, "eos_token_id", None) is not None and "decoder_input_ids" in takes:
        ids[ids == config.eos_token_id] = 3
        ids[:, 3] = config.eos_token_id  # where BART's classifier reads
    found: dict[str, Any] = {"input_ids": ids}
    if masked:
        found["attention_mask"] = torch.ones_like(ids)
        found["attention_mask"][1, -3:] = 0
    if "decoder_input_ids" in takes:
        found["decoder_input_ids"] = torch.randint(0, config.vocab_size, ids.shape, generator=generator)
    if model.main_input_name == "input_features":
        found = {name: value for name, value in found.items() if name == "decoder_input_ids"}
        size = (config.num_mel_bins, 2 * config.max_source_positions)
        found["input_features"] = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    return found


def _pictures(config: Any, generator: torch.Generator) -> dict[str, dict[str, Any]]:
    size = (2, config.num_channels, config.image_size, config.image_size)
    pictures = {"pixel_values": torch.randn(*size, generator=generator, dtype=torch.float64)}
    patches = (config.image_size // config.patch_size) ** 2
    mask = torch.rand(2, patches, generator=generator) > 0.5
    return {"plain": pictures, "masked": {**pictures, "bool_masked_pos": mask}}


def _labelled(
    made: dict[str, dict[str, Any]], takes: Mapping[str, Any], model: Any, generator: torch.Generator
) -> dict[str, dict[str, Any]]:
    """The calls, and the kinds of labels that the class takes beside the first two."""
    config, kind_of_model = model.config, type(model).__name__
    kinds: dict[str, Callable[[int, int], dict[str, Any]]] = {
        "tokens": lambda rows, length: {"labels": _tokens(config, rows, length, generator)},
        "classes": lambda rows, length: {"labels": torch.arange(rows) % 2},
        "numbers": lambda rows, length: {"labels": torch.rand(rows, config.num_labels, generator=generator).round()},
        "number": lambda rows, length: {"labels": torch.rand(rows, generator=generator)},
        "token classes": lambda rows, length: {"labels": torch.arange(rows * length).reshape(rows, length) % 2},
        "spans": lambda rows, length: {
            "start_positions": torch.arange(rows),
            "end_positions": torch.arange(rows) + 1,
        },
        "pairs": lambda rows, length: {
            "labels": _tokens(config, rows, length, generator),
            "next_sentence_label": torch.arange(rows) % 2,
            "sentence_order_label": torch.arange(rows) % 2,
        },
    }
    taken = next((names for piece, names in LABELS.items() if piece in kind_of_model), ())
    found = dict(made)
    for name in list(made)[:2]:
        given = made[name]
        shape = next(iter(given.values())).shape
        rows, length = given["decoder_input_ids"].shape if "decoder_input_ids" in given else (shape[0], shape[-1])
        if "decoder_input_ids" in given:
            found[f"{name}, shifted"] = {key: value for key, value in given.items() if not key.startswith("decoder_")}
        for kind in taken:
            make = kinds[kind]
            labels = {key: value for key, value in make(rows, length).items() if key in takes}
            call = {**given, **labels}
            if labels:
                found[f"{name}, {kind}"] = call
            if labels and "decoder_input_ids" in given:
                shifted = {key: value for key, value in call.items() if not key.startswith("decoder_")}
                found[f"{name}, {kind}, shifted"] = shifted
    return found


def _tokens(config: Any, rows: int, length: int, generator: torch.Generator) -> torch.Tensor:
    labels = torch.randint(0, getattr(config, "vocab_size", 2), (rows, length), generator=generator)
    labels[:, 2:4] = -100
    labels[0, 5] = 0
    return labels


def compared(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    """("same" | "differs" | "unclear", the largest difference of any output, in its deviations, and where)."""
    worst, where = 0.0, ""
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after or before[name].shape != after[name].shape:
            return "differs", f"{name}: only one has it, or another shape"
        old, new = before[name], after[name]
        both = torch.isfinite(old) & torch.isfinite(new)
        if bool((torch.isfinite(old) != torch.isfinite(new)).any()):
            return "differs", f"{name}: finite in one only"
        old, new = old[both], new[both]
        scale = float(old.std()) if old.numel() > 1 else float(old.abs().max()) if old.numel() else 1.0
        error = float((old - new).abs().max()) / (scale or 1.0) if old.numel() else 0.0
        worst, where = max((worst, where), (error, name))
    if worst <= EQUAL:
        return "same", f"{worst:.1e}"
    return ("differs" if worst > DIFFERENT else "unclear"), f"{where}: {worst:.1e}"
