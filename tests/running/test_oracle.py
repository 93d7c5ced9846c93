"""The float64 oracle sees nothing below float64, and would say so if it did."""

from __future__ import annotations

import json
import math

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.gpt2 import modeling_gpt2

from support import tiny
from support.oracle import in_float64, narrow

# Float64 passes that sum in another order, in units of the outputs' deviation: 450 times float64's eps, for sums of up
# to 64 terms in some dozen steps after one another.
ROUNDING = 450 * 2.0**-52
FLOAT32 = 1e-9  # one rounding to float32 anywhere moves the outputs by 5e-8 or more

LLAMA = tiny.named("llama-untied")
# Every form that computes otherwise: not the untied twins of tied models, nor bodies and classifiers.
FORMS = [v for v in tiny.variants() if (v.has_head or v.main) and not v.name.endswith("-untied")]


@pytest.fixture
def llama(source):
    return source(LLAMA, "float64")


@pytest.mark.parametrize("variant", FORMS, ids=str)
def test_a_model_is_loaded_and_run_in_float64_alone(variant, source):
    folder = source(variant, "float64")
    with narrow() as found, in_float64():
        tiny.outputs(tiny.load64(folder, variant.kind))  # `tiny.run64` may know them from before
    assert found == []


def test_a_table_that_is_made_inside_is_not_rounded_to_float32():
    """RoFormer's sines go through a type's constructor, which no mode reaches (`narrow` would change that)."""
    config = transformers.RoFormerConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=1)
    with in_float64():
        model = transformers.RoFormerModel(config)
    assert abs(model.encoder.embed_positions.weight[1, 0].item() - math.sin(1)) <= 1e-15


def test_an_attention_that_insists_on_float32_gets_float64(source, monkeypatch):
    variant = tiny.named("gpt2-tied")
    model = tiny.load64(source(variant, "float64"), variant.kind)
    upcast, ran = modeling_gpt2.GPT2Attention._upcast_and_reordered_attn, []

    def recorded(attention, *arguments):
        output, weights = upcast(attention, *arguments)
        ran.append((attention.layer_idx, output.dtype, weights.dtype))
        return output, weights

    monkeypatch.setattr(modeling_gpt2.GPT2Attention, "_upcast_and_reordered_attn", recorded)
    with in_float64(), narrow() as found:
        before = tiny.outputs(model)
        assert ran == []
        for block in model.transformer.h:
            block.attn.reorder_and_upcast_attn = True
        after = tiny.outputs(model)
    assert ran == [(layer, torch.float64, torch.float64) for layer in range(model.config.n_layer)]
    assert found == []
    assert tiny.error(before, after, variant) <= ROUNDING


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_files_of_narrower_types_are_read_as_they_are(dtype, tmp_path):
    written = torch.arange(12).reshape(3, 4).to(dtype) / 7
    save_file({"a": written}, tmp_path / "a.safetensors")
    with in_float64():
        read = load_file(tmp_path / "a.safetensors")["a"]
    assert read.dtype == dtype
    assert torch.equal(read, written)


def test_everything_is_as_before_afterwards():
    with pytest.raises(ZeroDivisionError), in_float64(), in_float64():
        assert torch.zeros(1).float().dtype == torch.float64
        _ = 1 / 0
    assert torch.zeros(1).dtype == torch.float32
    assert torch.zeros(1).double().float().dtype == torch.float32
    assert torch.FloatTensor is not torch.DoubleTensor
    assert transformers.models.gpt2.modeling_gpt2.torch is torch


# --- planted casts ---------------------------------------------------------------------------------------------------


def rounded(module, arguments, output):
    """By way of numpy, where no mode of torch's can follow."""
    return torch.from_numpy(output.numpy().astype("float32")).double()


def test_a_planted_cast_is_seen(llama):
    model = tiny.load64(llama, LLAMA.kind)
    with in_float64():
        before = tiny.outputs(model)
        model.model.layers[0].mlp.register_forward_hook(rounded)
        with narrow() as found:
            after = tiny.outputs(model)
    assert found
    assert all("torch.float32 test_oracle.py" in line for line in found)
    assert tiny.error(before, after, LLAMA) > FLOAT32


def test_without_the_mode_the_models_own_casts_are_seen(llama):
    with narrow() as found:
        outside = tiny.outputs(tiny.load64(llama, LLAMA.kind))
    assert any("torch.float32 modeling_llama.py" in line for line in found)
    assert tiny.error(tiny.run64(llama, LLAMA.kind), outside, LLAMA) > FLOAT32


# --- a surgery by hand -----------------------------------------------------------------------------------------------


def tripled(folder, wide):
    """Three copies of every hidden coordinate, a third of each to every reader: no number is a power of two."""
    config = json.loads((folder / "config.json").read_text())
    wide.mkdir()
    (wide / "config.json").write_text(json.dumps({**config, "hidden_size": 3 * config["hidden_size"], "head_dim": 8}))
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if "norm" in name or "o_proj" in name or "down_proj" in name:
            tensors[name] = torch.cat([tensor] * 3)
        else:
            share = 1 if "embed" in name else 3
            tensors[name] = torch.cat([tensor / share] * 3, dim=1)
    save_file(tensors, wide / "model.safetensors", {"format": "pt"})
    return wide


def test_three_copies_of_llama_compute_the_same_to_the_rounding_of_float64(llama, tmp_path):
    wide = tripled(llama, tmp_path / "wide")
    inside = [tiny.run64(folder, LLAMA.kind) for folder in (llama, wide)]
    assert tiny.error(*inside, LLAMA) <= ROUNDING
    outside = [tiny.outputs(tiny.load64(folder, LLAMA.kind)) for folder in (llama, wide)]
    assert tiny.error(*outside, LLAMA) > FLOAT32
