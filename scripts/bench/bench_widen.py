"""How fast and in how much memory checkpoints are written, beside `dd`, `cp` and other tools.

    python scripts/bench/bench_widen.py --gb 1.5 6 --rounds 5 --mergekit mergekit-yaml --readme README.md

It makes Llama checkpoints of random bf16 numbers, in one file and in files of 0.5 GB. Then, in turns, each in a process
of its own, each round beginning with another one:

    widen          open_checkpoint -> widen(factor 2, rule exact, attention heads) -> save, in the default memory
    plain          `widen` without noise
    dd             as many bytes as `widen` wrote, from /dev/zero, conv=fdatasync, at several block sizes
    in memory      HyperCloning's way: load every tensor, repeat and halve it, save_pretrained (smallest size only)
    untie          untie-embeddings of a tied checkpoint of 3 GB, whose other shards stay as they are
    cp             cp -r --reflink=auto of the same folder, and sync
    mergekit       its passthrough of the same folder, where --mergekit names its program

Seconds are medians, without start-up (importing torch), until everything is on the disk; the source is in the page
cache. The ratio that counts compares the seconds for each further GB of output, without costs that do not grow with the
checkpoint. CPU is user and system time of the process, start-up left out. GB and MB are powers of
ten. Targets: at most 1.15 x the fastest dd; no more resident than the plan states, at every size.
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
from collections.abc import Callable
from functools import partial
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from modelsurgeon.operations.widen import NOISE
from readme import write_block

FACTOR = 2
SHARD = 500 * 10**6
TIED = 3.0  # GB of the checkpoint that is untied
BLOCKS = {"dd bs=64K": 1 << 16, "dd bs=1M": 1 << 20, "dd bs=16M": 1 << 24}
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
}
MERGEKIT = "merge_method: passthrough\ndtype: bfloat16\nmodels:\n  - model: {}\n"

Shapes = dict[str, tuple[int, ...]]
Measure = dict[str, float]
Turns = dict[str, Callable[[], Measure]]
Rounds = dict[str, dict[str, list[Measure]]]


def main() -> None:
    arguments = parse_arguments()
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child[0]](*map(Path, arguments.child[1:]))))
        return
    arguments.dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="bench_widen.") as folder:
        found = measure(Path(folder), arguments)
    report = {"rounds": found, "medians": medians(found)}
    print(json.dumps(report, indent=1) if arguments.json else table(report["medians"]))
    if arguments.readme:
        write_block(arguments.readme, "bench", table(report["medians"]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gb", type=float, nargs="+", default=[1.5, 6.0], help="sizes of the source, in GB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path("build"), help="folder for the checkpoints (build/)")
    parser.add_argument("--mergekit", help="path of mergekit-yaml, in its own environment")
    parser.add_argument("--skip", nargs="*", default=[], help="what to leave out: one, many, copies, memory")
    parser.add_argument("--json", action="store_true", help="print every measurement as JSON")
    parser.add_argument("--readme", type=Path, help="write the table between its marks in this file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- turns ---


def measure(folder: Path, arguments: argparse.Namespace) -> Rounds:
    """{group: {turn: its measure in each round}}."""
    found: Rounds = defaultdict(lambda: defaultdict(list))
    for kind, size in itertools.product(("many", "one"), sorted(arguments.gb)):
        if kind not in arguments.skip:
            source = make_source(folder, f"{kind}-{size:g}")
            group = f"{size:g} GB in {kind}"
            small = size == min(arguments.gb) and kind == "many" and "memory" not in arguments.skip
            for number in range(arguments.rounds):
                take_turns(found[group], widening(source, folder / "out", found[group], small), number, source, group)
            shutil.rmtree(source)
    if "copies" not in arguments.skip:
        source = make_source(folder, f"tied-{TIED:g}")
        for number in range(arguments.rounds):
            turns = copying(source, folder / "out", arguments.mergekit)
            take_turns(found["copies"], turns, number, source, "copies")
    return found


def make_source(folder: Path, name: str) -> Path:
    child("write-source", folder / name, folder / "out")
    return folder / name


def widening(source: Path, output: Path, found: dict[str, list[Measure]], with_peer: bool) -> Turns:
    def write_zeros(block: int) -> Measure:
        return dd(output, int(found["widen"][0]["bytes"]), block)

    turns: Turns = {name: partial(child, name, source, output) for name in ("widen", "plain")}
    turns |= {name: partial(write_zeros, block) for name, block in BLOCKS.items()}
    return turns | ({"in memory": partial(child, "in-memory", source, output)} if with_peer else {})


def copying(source: Path, output: Path, mergekit: str | None) -> Turns:
    turns: Turns = {
        "untie": partial(child, "untie", source, output),
        "cp": partial(timed, ["cp", "-r", "--reflink=auto", str(source), str(output)], output),
    }
    if mergekit:
        recipe = source.parent / "mergekit.yml"
        recipe.write_text(MERGEKIT.format(source), encoding="utf-8")
        turns["mergekit"] = partial(timed, [mergekit, str(recipe), str(output)], output)
    return turns


def take_turns(found: dict[str, list[Measure]], turns: Turns, number: int, source: Path, group: str) -> None:
    """Run one round; each begins with another turn, but the very first with `widen`, whose output `dd` imitates."""
    names = list(turns)
    for name in names[number % len(names) :] + names[: number % len(names)]:
        output = source.parent / "out"
        settle(source, output)
        found[name].append(turns[name]())
        print(f"{group}, round {number + 1}, {name}: {found[name][-1]['seconds']:.2f} s", file=sys.stderr)
    settle(source, source.parent / "out")


def settle(source: Path, output: Path) -> None:
    """Remove the last turn's output, wait for the disk, and read the source into the page cache."""
    if output.is_dir():
        shutil.rmtree(output)
    output.unlink(missing_ok=True)
    os.sync()
    for path in source.iterdir():
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def child(name: str, *paths: Path) -> Measure:
    """The measure of a fresh process. A child's peak memory begins with its parent's: this one imports no torch."""
    command = [sys.executable, __file__, "--child", name, *map(str, paths)]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: Measure = json.loads(done.stdout.splitlines()[-1])
    found["startup"] = found.pop("ready", started) - started
    return found


def timed(command: list[str], output: Path) -> Measure:
    """Time another program until all its output is on the disk."""
    started, before = time.monotonic(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sync(output)
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return {"seconds": time.monotonic() - started, "bytes": written(output), "cpu": used}


def dd(output: Path, count: int, block: int) -> Measure:
    """Time `dd` until `count` bytes are on the disk."""
    return timed(
        ["dd", "if=/dev/zero", f"of={output}", f"bs={block}", f"count={ceil(count / block)}", "conv=fdatasync"], output
    ) | {"bytes": count}


def sync(output: Path) -> None:
    for path in output.iterdir() if output.is_dir() else [output]:
        with open(path, "rb") as file:
            os.fdatasync(file.fileno())


def written(output: Path) -> int:
    return sum(path.stat().st_size for path in (output.iterdir() if output.is_dir() else [output]))


# --- what runs in a process of its own ---


def write_source(folder: Path, _: Path) -> Measure:
    """A Llama checkpoint of random numbers: kind and size (GB) are the folder's name."""
    import torch
    from safetensors.torch import save_file

    kind, size = folder.name.split("-")
    tied = kind == "tied"
    goal = float(size) * 1e9
    layers = ceil((goal - size_of(shapes_of(0, tied))) / (size_of(shapes_of(1, tied)) - size_of(shapes_of(0, tied))))
    folder.mkdir()
    config = {**CONFIG, "num_hidden_layers": layers, "tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shards = [shapes_of(layers, tied)] if kind == "one" else split(shapes_of(layers, tied))
    weight_map: dict[str, str] = {}
    for number, shapes in enumerate(shards, 1):
        name = "model.safetensors" if kind == "one" else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {key: torch.randn(shape).mul_(0.02).bfloat16() for key, shape in shapes.items()}
        save_file(tensors, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(shapes, name)
    if kind != "one":
        index = {"metadata": {"total_size": size_of(shapes_of(layers, tied))}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return {}


def shapes_of(layers: int, tied: bool = False) -> Shapes:
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
    return {**shapes, "model.norm.weight": (hidden,), **({} if tied else {"lm_head.weight": (vocab, hidden)})}


def size_of(shapes: Shapes) -> int:
    """The bytes of such a model in bf16."""
    return sum(2 * shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes.values())


def split(shapes: Shapes) -> list[Shapes]:
    shards: list[Shapes] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and size_of(shards[-1]) + size_of({name: shape}) > SHARD:
            shards.append({})
        shards[-1][name] = shape
    return shards


def widen_by_modelsurgeon(source: Path, output: Path, noise: float = NOISE) -> Measure:
    from modelsurgeon.checkpoints.checkpoint import open_checkpoint
    from modelsurgeon.operations.widen import Widen
    from modelsurgeon.saving.plan import make_plan
    from modelsurgeon.saving.save import save

    ready = now()
    before = open_checkpoint(source)
    after = Widen(factor=FACTOR, rule="exact", attention="heads", noise=noise).apply(before)
    stated = make_plan(before, after).peak_memory
    save(after, output)
    return outcome(ready, output) | {"stated": stated}


def untie_by_modelsurgeon(source: Path, output: Path) -> Measure:
    from modelsurgeon.checkpoints.checkpoint import open_checkpoint
    from modelsurgeon.operations.transforms.untying import untie_embeddings
    from modelsurgeon.saving.plan import make_plan
    from modelsurgeon.saving.save import save

    ready = now()
    before = open_checkpoint(source)
    after = untie_embeddings(before)
    stated = make_plan(before, after).peak_memory
    save(after, output)
    return outcome(ready, output) | {"stated": stated}


def widen_in_memory(source: Path, output: Path) -> Measure:
    """Widen as https://github.com/apple/ml-hypercloning does: repeat along both dimensions, halve the readers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.initialization import no_init_weights  # type: ignore[import-not-found,unused-ignore]

    ready = now()
    config = LlamaConfig.from_pretrained(source)
    narrow = LlamaForCausalLM.from_pretrained(source, dtype=torch.bfloat16).state_dict()
    for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
        setattr(config, key, FACTOR * getattr(config, key))
    with torch.device("meta"), no_init_weights():
        wide = LlamaForCausalLM(config)
    wide.load_state_dict({name: grow_in_memory(name, tensor) for name, tensor in narrow.items()}, assign=True)
    wide.save_pretrained(output)
    sync(output)
    return outcome(ready, output)


def grow_in_memory(name: str, tensor: Any) -> Any:
    if tensor.ndim == 1:
        return tensor.repeat(FACTOR)
    if "embed_tokens" in name:
        return tensor.repeat(1, FACTOR)
    return tensor.repeat(1 if "lm_head" in name else FACTOR, FACTOR) / FACTOR


def now() -> tuple[float, float]:
    """(the clock, CPU seconds of this process)."""
    return time.monotonic(), time.process_time()


def outcome(ready: tuple[float, float], output: Path) -> Measure:
    """Seconds and CPU seconds since `ready`; bytes written; peak bytes of this process."""
    clock, cpu = now()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"ready": ready[0], "seconds": clock - ready[0], "cpu": cpu - ready[1]}
    return found | {"bytes": written(output), "peak": peak}


CHILDREN = {
    "write-source": write_source,
    "widen": widen_by_modelsurgeon,
    "plain": partial(widen_by_modelsurgeon, noise=0.0),
    "untie": untie_by_modelsurgeon,
    "in-memory": widen_in_memory,
}


# --- what is shown ---


def medians(rounds: Rounds) -> dict[str, dict[str, Measure]]:
    return {
        group: {name: {key: median(m[key] for m in found) for key in found[0]} for name, found in kinds.items()}
        for group, kinds in rounds.items()
    }


def table(groups: dict[str, dict[str, Measure]]) -> str:
    headings = ("source", "", "seconds", "ratio", "GB/s", "CPU s", "peak MB", "stated MB", "start-up s")
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for group, kinds in groups.items():
        yardstick = kinds["cp"] if "cp" in kinds else fastest(kinds)
        lines += [row(group, name, found, yardstick) for name, found in kinds.items()]
    for kind in ("many", "one"):
        sizes = [group for group in groups if group.endswith(f" in {kind}")]
        if len(sizes) > 1:
            small, large = groups[sizes[0]], groups[sizes[-1]]
            ours, best = slope(small["widen"], large["widen"]), slope(fastest(small), fastest(large))
            more = f"each further GB written, in {kind}"
            lines.append(f"| {more} | widen | {ours:.2f} | {ours / best:.2f} | {1 / ours:.2f} | | | | |")
            lines.append(f"| {more} | fastest dd | {best:.2f} | 1.00 | {1 / best:.2f} | | | | |")
    return "\n".join(lines)


def row(group: str, name: str, found: Measure, yardstick: Measure) -> str:
    seconds = found["seconds"]
    cells = [group, name, f"{seconds:.2f}", f"{seconds / yardstick['seconds']:.2f}"]
    cells += [f"{found['bytes'] / seconds / 1e9:.2f}", f"{found['cpu']:.1f}"]
    cells += [f"{found[key] / 1e6:.0f}" if key in found else "" for key in ("peak", "stated")]
    return "| " + " | ".join([*cells, f"{found['startup']:.1f}" if "startup" in found else ""]) + " |"


def slope(small: Measure, large: Measure) -> float:
    """Seconds for each further GB."""
    return (large["seconds"] - small["seconds"]) / (large["bytes"] - small["bytes"]) * 1e9


def fastest(kinds: dict[str, Measure]) -> Measure:
    return min((kinds[name] for name in BLOCKS), key=lambda found: found["seconds"])


if __name__ == "__main__":
    main()
