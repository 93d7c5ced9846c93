"""How long planning takes for a checkpoint of 1.3 TB: DeepSeek-V3's headers, with holes in place of the weights.

    python scripts/bench/bench_plan.py                  seconds, beside reading the headers
    python scripts/bench/bench_plan.py --other TREE     also beside another tree of this program, in turns

    headers   every header is read and checked: the yardstick
    dry run   open, widen to twice the width, add up: what `widen --dry-run` does
    begin     the dry run, then everything that `save` does before it writes the first shard

`--dtype F32` makes numbers of 32 bits, for which the first choice of rule and attention is a trial.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

TREE = Path(__file__).parents[2]
LAYERS, DENSE, HIDDEN, EXPERTS, SHARDS = 61, 3, 7168, 256, 163
CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "hidden_size": HIDDEN,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": LAYERS,
    "first_k_dense_replace": DENSE,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
# One program for both trees, which uses only what they have in common.
PROGRAM = """
import sys, time
begin = time.perf_counter()
try:
    from modelsurgeon.checkpoints.checkpoint import open_checkpoint
    from modelsurgeon.operations.widen import Widen
    from modelsurgeon.saving import plan, save
    grown = lambda source: Widen(factor=2).apply(source)
except ImportError:
    from modelsurgeon import plan, save
    from modelsurgeon.checkpoint import open_checkpoint
    from modelsurgeon.training.learning_rates import recommended
    from modelsurgeon.widen import widen
    grown = lambda source: recommended(source, widen(source, 2, noise=0.5))
loaded = time.perf_counter()
source = open_checkpoint(sys.argv[1])
opened = time.perf_counter()
result = grown(source)
made = plan.make_plan(source, result, 10**10, 1)
planned = time.perf_counter()

class Begun(Exception):
    pass

def stop(*args, **how):
    raise Begun

save._write_shards = stop
save.staged.__wrapped__.__globals__["_check_space"] = lambda *args: None
budget = {"budget": made.budget} if hasattr(made, "budget") else {"memory": 10**10}
try:
    save.save(result, sys.argv[2], **budget)
except Begun:
    pass
print(opened - loaded, planned - loaded, time.perf_counter() - loaded)
"""


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every tensor."""
    yield "model.embed_tokens.weight", (129280, HIDDEN)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        yield f"{at}input_layernorm.weight", (HIDDEN,)
        yield f"{at}post_attention_layernorm.weight", (HIDDEN,)
        yield f"{at}self_attn.q_a_proj.weight", (1536, HIDDEN)
        yield f"{at}self_attn.q_a_layernorm.weight", (1536,)
        yield f"{at}self_attn.q_b_proj.weight", (128 * 192, 1536)
        yield f"{at}self_attn.kv_a_proj_with_mqa.weight", (512 + 64, HIDDEN)
        yield f"{at}self_attn.kv_a_layernorm.weight", (512,)
        yield f"{at}self_attn.kv_b_proj.weight", (128 * 256, 512)
        yield f"{at}self_attn.o_proj.weight", (HIDDEN, 128 * 128)
        if layer < DENSE:
            yield from mlp(f"{at}mlp.", 18432)
            continue
        yield f"{at}mlp.gate.weight", (EXPERTS, HIDDEN)
        yield f"{at}mlp.gate.e_score_correction_bias", (EXPERTS,)
        yield from mlp(f"{at}mlp.shared_experts.", 2048)
        for expert in range(EXPERTS):
            yield from mlp(f"{at}mlp.experts.{expert}.", 2048)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (129280, HIDDEN)


def mlp(at: str, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{at}gate_proj.weight", (inner, HIDDEN)
    yield f"{at}up_proj.weight", (inner, HIDDEN)
    yield f"{at}down_proj.weight", (HIDDEN, inner)


def write(folder: Path, dtype: str) -> tuple[int, int]:
    """(tensors, bytes) of a checkpoint whose files are headers and holes."""
    every, size = list(shapes()), {"BF16": 2, "F32": 4}[dtype]
    names, total = {}, 0
    for number in range(SHARDS):
        file, header, at = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors", {}, 0
        for name, shape in every[number::SHARDS]:
            end = at + size * math.prod(shape)
            header[name], names[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}, file
            at = end
        text = json.dumps(header).encode()
        with open(folder / file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + at)
        total += at
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / "config.json").write_text(json.dumps(CONFIG | {"dtype": {"BF16": "bfloat16", "F32": "float32"}[dtype]}))
    return len(every), total


def measured(tree: Path, source: Path, output: Path) -> list[float]:
    """Seconds until headers are read, until the plan is complete, until the first shard would be written."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(source), str(output)],
        cwd=source,  # else Python would find the tree of this script first
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--other", type=Path, help="another tree of this program")
    parser.add_argument("--dtype", choices=("BF16", "F32"), default="BF16")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    trees = {"this tree": TREE, **({"the other": asked.other.resolve()} if asked.other else {})}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "source"
        folder.mkdir()
        tensors, total = write(folder, asked.dtype)
        print(f"{tensors:,} tensors of {asked.dtype}, {total / 1e12:.2f} TB in {SHARDS} files, {asked.rounds} rounds")
        found: dict[str, list[list[float]]] = {tree: [] for tree in trees}
        for _ in range(asked.rounds):
            for tree, path in trees.items():
                found[tree].append(measured(path, folder, Path(name) / "out"))
        medians = {tree: [median(column) for column in zip(*rows, strict=True)] for tree, rows in found.items()}
        for tree, (headers, planned, begun) in medians.items():
            print(f"{tree}: headers {headers:.2f} s, dry run {planned:.2f} s ({planned / headers:.2f} x), ", end="")
            print(f"begin {begun:.2f} s ({begun / headers:.2f} x)")


if __name__ == "__main__":
    main()
