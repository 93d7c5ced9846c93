"""Tensors under names of a wrapper are told by the wrapper, and none of them is one that the library would read."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.weight_files import SINGLE
from modelsurgeon.errors import SourceError
from support import tiny
from support.command import run
from support.draws import drawn

PREFIXES = {  # {prefix: words of the message}
    "_orig_mod.": "a compiled model; save the state dict of model._orig_mod",
    "module.": "DataParallel, DDP or DeepSpeed; save the state dict of model.module",
    "_orig_mod.module.": "a compiled model",
    "module._orig_mod.": "DDP",
    "_fsdp_wrapped_module.": "a model in FSDP",
    "base_model.model.": "a model in peft; merge_and_unload() before saving",
    "net.": "a module around the model",
}
MODELS = {variant.model_type: variant for variant in tiny.variants() if variant.main}.values()


def renamed(source, folder, rename):
    """A copy of a checkpoint whose tensors have other names."""
    folder.mkdir()
    (folder / "config.json").write_text((source / "config.json").read_text())
    tensors = {rename(name): tensor for name, tensor in load_file(source / SINGLE).items()}
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    return folder


@pytest.mark.parametrize(("variant", "prefix"), drawn(MODELS, PREFIXES, "prefixes"), ids=str)
def test_a_prefix_of_all_tensors_is_named(variant, prefix, source, tmp_path):
    folder = renamed(source(variant), tmp_path / "folder", lambda name: prefix + name)
    with pytest.raises(SourceError) as raised:
        open_checkpoint(folder)
    assert f"every tensor begins with '{prefix}'" in str(raised.value) and PREFIXES[prefix] in str(raised.value)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_library_would_invent_what_has_such_a_prefix(prefix, source, tmp_path):
    transformers.logging.set_verbosity_error()
    variant = tiny.named("llama-untied")
    folder = renamed(source(variant), tmp_path / "folder", lambda name: prefix + name)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert set(info["missing_keys"]) == set(model.state_dict())
    for command in (("widen", folder, "-o", tmp_path / "out"), ("verify", source(variant), folder)):
        done = run(*command)
        assert done.code == 2 and f"'{prefix}'" in done.err and done.err.count("\n") == 1 and "lm_head" not in done.err
    assert f"'{prefix}'" in run("inspect", folder).out


def test_a_doubled_prefix_is_named_though_the_library_strips_it(source, tmp_path):
    variant = tiny.named("llama-untied")
    folder = renamed(source(variant), tmp_path / "folder", lambda name: f"model.{name}")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    with pytest.raises(SourceError, match=r"every tensor begins with 'model\.', which is no part of its name"):
        open_checkpoint(folder)
    model.save_pretrained(tmp_path / "saved")
    saved, before = open_checkpoint(tmp_path / "saved"), open_checkpoint(source(variant))
    assert saved.tensors.keys() == before.tensors.keys()


@pytest.mark.parametrize("piece", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"])
def test_a_wrapper_inside_of_a_model_is_named_with_a_tensor(piece, source, tmp_path):
    changed = lambda name: name.replace("layers.1.", f"layers.1.{piece}.")  # noqa: E731
    folder = renamed(source(tiny.named("llama-untied")), tmp_path / "folder", changed)
    with pytest.raises(
        SourceError, match=rf"tensor 'model\.layers\.1\.{piece}\..*' *: '{piece}' is no part of its name"
    ):
        open_checkpoint(folder)


def test_a_wrapper_is_named_of_an_unknown_family_too(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "strange"}))
    save_file({"_orig_mod.a.b": torch.ones(2), "_orig_mod.a.c": torch.ones(2)}, tmp_path / SINGLE)
    with pytest.raises(SourceError, match=r"every tensor begins with '_orig_mod\.'"):
        open_checkpoint(tmp_path)
