"""How fast `widen` writes, beside `dd` and beside the way of holding all in memory.

    python scripts/bench_widen.py --gb 1.5 3 --rounds 5

A sharded Llama checkpoint of random bf16 numbers is made for each size. Then, in turns, each in a process of its own:

    modelsurgeon   open_checkpoint -> widen(factor 2, rule exact, attention heads) -> save
    dd             as many bytes as modelsurgeon wrote, from /dev/zero, conv=fdatasync, at several block sizes
    in memory      HyperCloning's way: load every tensor, repeat and halve it, save_pretrained (smallest size only)

Seconds are medians, without start-up (importing torch) but with everything on the disk at their end; the source is in
the page cache. The ratio that counts is taken on the seconds that each further GB of output costs: what does not grow
with the checkpoint drops out. Targets: at most 1.5 x the fastest dd; at most 600 MB resident, the same at every size.
GB and MB are powers of ten.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

FACTOR = 2
SHARD = 500 * 10**6
BLOCKS = {"dd bs=64K": 1 << 16, "dd bs=256K": 1 << 18, "dd bs=1M": 1 << 20, "dd bs=16M": 1 << 24}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "vocab_size": 32000,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}

Shapes = dict[str, tuple[int, ...]]
Measure = dict[str, float]


def main() -> None:
    arguments = parse_arguments()
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child[0]](*map(Path, arguments.child[1:]))))
        return
    arguments.dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="bench_widen.") as folder:
        rounds = measure(Path(folder), sorted(arguments.gb), arguments.rounds)
    report = summarise(rounds)
    print(json.dumps(report, indent=1) if arguments.json else table(report))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gb", type=float, nargs="+", default=[1.5, 3.0], help="sizes of the source, in GB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path("build"), help="where to work, and on which disk (build/)")
    parser.add_argument("--json", action="store_true", help="print every measurement as JSON")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(folder: Path, sizes: list[float], rounds: int) -> dict[float, dict[str, list[Measure]]]:
    """{GB: {what: a measure for each round}}, all kinds in turns; every round begins with another kind."""
    found: dict[float, dict[str, list[Measure]]] = {size: defaultdict(list) for size in sizes}
    for size in sizes:
        child("write-source", source_of(folder, size), folder / "out")
    for number, size in itertools.product(range(rounds), sizes):
        source, output = source_of(folder, size), folder / "out"
        names = ["modelsurgeon", *BLOCKS, *(["in-memory"] if size == sizes[0] else [])]
        for name in names[number % len(names) :] + names[: number % len(names)]:
            settle(source, output)
            if name in BLOCKS:
                taken = dd(output, int(found[size]["modelsurgeon"][0]["bytes"]), name)
            else:
                taken = child(name, source, output)
            found[size][name].append(taken)
            print(f"round {number + 1}, {size:g} GB, {name}: {taken['seconds']:.2f} s", file=sys.stderr)
        settle(source, output)
    return found


def settle(source: Path, output: Path) -> None:
    """Remove what the last turn wrote, wait for the disk, and have the source in the page cache."""
    if output.is_dir():
        shutil.rmtree(output)
    output.unlink(missing_ok=True)
    os.sync()
    for path in source.iterdir():
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def source_of(folder: Path, size: float) -> Path:
    return folder / f"source-{size:g}"


def child(name: str, *paths: Path) -> Measure:
    """What a fresh process measured. This one imports no torch: a child's peak memory begins with its parent's."""
    command = [sys.executable, __file__, "--child", name, *map(str, paths)]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: Measure = json.loads(done.stdout.splitlines()[-1])
    found["startup"] = found.pop("ready", started) - started
    return found


def dd(output: Path, count: int, name: str) -> Measure:
    """Write `count` bytes and have them on the disk."""
    block = BLOCKS[name]
    command = ["dd", "if=/dev/zero", f"of={output}", f"bs={block}", f"count={ceil(count / block)}", "conv=fdatasync"]
    started = time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return {"seconds": time.monotonic() - started, "bytes": count}


def write_source(folder: Path, _: Path) -> Measure:
    """A sharded Llama checkpoint of random numbers, of the size that the folder's name says (GB)."""
    import torch
    from safetensors.torch import save_file

    goal = float(folder.name.rsplit("-", 1)[1]) * 1e9
    layers = ceil((goal - size_of(shapes_of(0))) / (size_of(shapes_of(1)) - size_of(shapes_of(0))))
    folder.mkdir()
    config = {**CONFIG, "num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shards = split(shapes_of(layers))
    weight_map: dict[str, str] = {}
    for number, shapes in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {key: torch.randn(shape).mul_(0.02).bfloat16() for key, shape in shapes.items()}
        save_file(tensors, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(shapes, name)
    index = {"metadata": {"total_size": size_of(shapes_of(layers))}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return {}


def shapes_of(layers: int) -> Shapes:
    hidden, inner, vocab, kv = 2048, 5632, 32000, 1024
    layer: Shapes = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.o_proj.weight": (hidden, hidden),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    shapes: Shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    shapes |= {f"model.layers.{i}.{name}": shape for i in range(layers) for name, shape in layer.items()}
    return {**shapes, "model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}


def size_of(shapes: Shapes) -> int:
    """Bytes in bf16."""
    return sum(2 * shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes.values())


def split(shapes: Shapes) -> list[Shapes]:
    shards: list[Shapes] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and size_of(shards[-1]) + size_of({name: shape}) > SHARD:
            shards.append({})
        shards[-1][name] = shape
    return shards


def widen_by_modelsurgeon(source: Path, output: Path) -> Measure:
    from modelsurgeon.checkpoint import open_checkpoint
    from modelsurgeon.save import save
    from modelsurgeon.widen import widen

    ready = time.monotonic()
    save(widen(open_checkpoint(source), FACTOR, rule="exact", attention="heads"), output)
    return outcome(ready, output)


def widen_in_memory(source: Path, output: Path) -> Measure:
    """As https://github.com/apple/ml-hypercloning does: repeat along both dimensions, halve what reads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.initialization import no_init_weights  # type: ignore[import-not-found,unused-ignore]

    ready = time.monotonic()
    config = LlamaConfig.from_pretrained(source)
    narrow = LlamaForCausalLM.from_pretrained(source, dtype=torch.bfloat16).state_dict()
    for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
        setattr(config, key, FACTOR * getattr(config, key))
    with torch.device("meta"), no_init_weights():
        wide = LlamaForCausalLM(config)
    wide.load_state_dict({name: grow_in_memory(name, tensor) for name, tensor in narrow.items()}, assign=True)
    wide.save_pretrained(output)
    for path in output.iterdir():
        with open(path, "rb") as file:
            os.fdatasync(file.fileno())
    return outcome(ready, output)


def grow_in_memory(name: str, tensor: Any) -> Any:
    if tensor.ndim == 1:
        return tensor.repeat(FACTOR)
    if "embed_tokens" in name:
        return tensor.repeat(1, FACTOR)
    return tensor.repeat(1 if "lm_head" in name else FACTOR, FACTOR) / FACTOR


def outcome(ready: float, output: Path) -> Measure:
    """Seconds since `ready`, bytes of tensors' files written, and the peak of what this process held (bytes)."""
    seconds = time.monotonic() - ready
    written = sum(path.stat().st_size for path in output.iterdir() if path.suffix == ".safetensors")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"ready": ready, "seconds": seconds, "bytes": written, "peak": peak}


CHILDREN = {"write-source": write_source, "modelsurgeon": widen_by_modelsurgeon, "in-memory": widen_in_memory}


def summarise(rounds: dict[float, dict[str, list[Measure]]]) -> dict[str, Any]:
    """Medians of each size, and the seconds that each further GB of output costs."""
    sizes = {
        size: {name: {key: median(m[key] for m in found) for key in found[0]} for name, found in kinds.items()}
        for size, kinds in rounds.items()
    }
    report: dict[str, Any] = {"rounds": rounds, "medians": sizes}
    if len(sizes) > 1:
        small, large = sizes[min(sizes)], sizes[max(sizes)]
        report["further"] = {
            "modelsurgeon": slope(small["modelsurgeon"], large["modelsurgeon"]),
            "fastest dd": slope(fastest(small), fastest(large)),
        }
    return report


def slope(small: Measure, large: Measure) -> float:
    return (large["seconds"] - small["seconds"]) / (large["bytes"] - small["bytes"]) * 1e9


def fastest(kinds: dict[str, Measure]) -> Measure:
    return min((kinds[name] for name in BLOCKS), key=lambda found: found["seconds"])


def table(report: dict[str, Any]) -> str:
    lines = [f"{'':26}{'seconds':>10}{'/ best dd':>11}{'GB/s':>7}{'peak MB':>9}{'start-up s':>12}"]
    for size, kinds in report["medians"].items():
        best = fastest(kinds)["seconds"]
        lines += [row(f"{size:g} GB {name}", found, best) for name, found in kinds.items()]
    if "further" in report:
        ours, best = report["further"]["modelsurgeon"], report["further"]["fastest dd"]
        lines += [f"{'each further GB written':26}{ours:10.2f}{ours / best:11.2f}   (fastest dd {best:.2f} s)"]
    return "\n".join(lines)


def row(name: str, found: Measure, best: float) -> str:
    seconds = found["seconds"]
    line = f"{name:26}{seconds:10.2f}{seconds / best:11.2f}{found['bytes'] / seconds / 1e9:7.2f}"
    if "peak" not in found:
        return line
    return f"{line}{found['peak'] / 1e6:9.0f}{found['startup']:12.2f}"


if __name__ == "__main__":
    main()
