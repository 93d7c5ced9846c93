"""Measures in turns, with files in the page cache and without; and a model as large as Llama 3.2 1B.

Each round begins with another turn. A measure is printed at once, and written as a line of JSON to
$OUT/bench_verify.jsonl where OUT is set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

LLAMA_1B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}
TINY = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 512, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512}

Measure = dict[str, float]
Turns = dict[str, Callable[[], Measure]]
Rounds = dict[str, dict[str, list[Measure]]]


def warm_and_cold(turns: Turns, files: list[Path], rounds: int) -> Rounds:
    """Run every turn in every round, once with the files in the page cache and once without."""
    found: Rounds = defaultdict(lambda: defaultdict(list))
    os.sync()  # pages that wait to be written cannot be dropped
    for number in range(rounds):
        for cache, prepare in (("warm", warm), ("cold", drop)):
            for name in rotated(turns, number):
                prepare(files)
                tell(found, cache, name, turns[name]())
    return found


def rotated(names: Any, number: int) -> list[str]:
    names = list(names)
    return names[number % len(names) :] + names[: number % len(names)]


def tell(found: Rounds, group: str, name: str, measure: Measure) -> None:
    """Print and write a measure at once, so that a run that is cut short loses nothing."""
    found[group][name].append(measure)
    line = {"group": group, "what": name, "round": len(found[group][name]), **measure}
    print(f"{group}, round {line['round']}, {name}: {measure['seconds']:.2f} s", file=sys.stderr, flush=True)
    if os.environ.get("OUT"):
        with open(Path(os.environ["OUT"]) / "bench_verify.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def warm(files: list[Path]) -> None:
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def drop(files: list[Path]) -> None:
    for path in files:
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_by_dd(files: list[Path], block: int) -> Measure:
    with timing() as found:
        for path in files:
            command = ["dd", f"if={path}", "of=/dev/null", f"bs={block}"]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return found | {"bytes": sum(path.stat().st_size for path in files)}


@contextmanager
def timing() -> Iterator[Measure]:
    """with timing() as found: wall and CPU seconds of a block, those of its child processes included."""
    found: Measure = {}
    begin, cpu = time.monotonic(), sum(os.times()[:4])
    yield found
    found |= {"seconds": time.monotonic() - begin, "cpu": sum(os.times()[:4]) - cpu}


def random_tensors(model: Any, torch: Any, device: str) -> Iterator[tuple[str, Any]]:
    """Yield weights of about the deviation of trained ones, gains around 1; tied tensors once."""
    for name, parameter in model.named_parameters():
        numbers = torch.randn(parameter.shape, device=device, dtype=torch.bfloat16) * 0.02
        yield name, (numbers + 1 if parameter.ndim == 1 else numbers).cpu()


def medians(kinds: dict[str, list[Measure]]) -> dict[str, Measure]:
    return {name: {key: median(m[key] for m in found) for key in found[0]} for name, found in kinds.items()}
