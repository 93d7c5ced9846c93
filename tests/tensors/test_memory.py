"""The bound on memory: what a process of its own has resident at most is what the plan states, and that is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from modelsurgeon.errors import PlanError
from modelsurgeon.tensors import budget
from modelsurgeon.tensors.budget import plan_memory
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.text import parse_size
from support.command import ROOT

HIDDEN, INNER, VOCAB = 1024, 2816, 32000
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "vocab_size": VOCAB,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
PROGRAM = """
from pathlib import Path
from modelsurgeon.cli import main as cli
from modelsurgeon.tensors import remapped as tensor
{}
try:
    cli.main()
finally:
    (peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(1024 * int(peak.split()[1]))
"""
WHOLE = "tensor.Remapped.pieces = lambda self, most, pieces=tensor.Remapped.pieces: pieces(self, 1 << 40)"


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A Llama of 0.1 GB, whose embedding alone is more than is left beside the libraries."""
    folder = tmp_path_factory.mktemp("large")
    layer = {f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"}
    layer |= {"mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
    layer |= {"input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,)}
    shapes = {f"model.layers.0.{name}.weight": shape for name, shape in layer.items()}
    shapes |= {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
    tensors = {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def widened(large, out, *options, program=""):
    """(what the plan states, what was resident at most) of a process of its own, in bytes."""
    command = ["widen", large, "-o", out, "--json", "--attention", "heads", *options]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(program), *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    document, peak = done.stdout.splitlines()
    return json.loads(document)["plan"]["peak_memory"], int(peak)


def tight(large, out, *options):
    """40 MB less than it would take by itself: how large the libraries are is another number on every machine."""
    stated, _ = widened(large, out, "--dry-run", *options)
    return f"{stated // 10**6 - 40}MB"


SHARDS = ("--rule", "exact", "--workers", 2, "--shard-size", "150MB")


@pytest.mark.parametrize("options", [SHARDS, ("--dtype", "float32")], ids=["two at once", "rounded"])
def test_no_more_is_resident_than_is_stated_and_no_more_is_stated_than_was_asked_for(options, large, tmp_path):
    asked = tight(large, tmp_path / "out", *options)
    stated, peak = widened(large, tmp_path / "out", "--memory", asked, *options)
    assert peak <= stated <= parse_size(asked)


def test_tensors_that_are_held_whole_would_be_more_than_is_stated(large, tmp_path):
    asked = tight(large, tmp_path / "out", "--dtype", "float32")
    stated, peak = widened(large, tmp_path / "out", "--memory", asked, "--dtype", "float32", program=WHOLE)
    assert peak > stated


def test_pieces_are_as_large_as_the_memory_allows(monkeypatch):
    class Thrice(Remapped):
        """Takes three times its pieces."""

        held = 0

        def __init__(self):
            pass

        def working_set(self, most):
            return 3 * most

    monkeypatch.setattr(budget, "resident", lambda: 300_000_000)
    base = 300_000_000 + budget.SLACK + budget.WORKER
    ample = plan_memory([Thrice()], 10**9)
    assert ample.piece == budget.LARGEST and ample.peak == base + 9 * budget.LARGEST
    tight = plan_memory([Thrice()], base + 5 * budget.LARGEST)
    assert tight.piece == budget.LARGEST // 2 and tight.peak <= base + 5 * budget.LARGEST
    assert plan_memory([Thrice()], 10**9, workers=4).peak == base + 3 * budget.WORKER + 36 * budget.LARGEST
    with pytest.raises(PlanError, match=r"memory 300.0 MB: this takes 3\d\d.\d MB at least"):
        plan_memory([Thrice()], 300_000_000)
    assert plan_memory([Thrice()]).piece == budget.LARGEST
    assert plan_memory([], 10**9, other=10**8).peak == base + 10**8
