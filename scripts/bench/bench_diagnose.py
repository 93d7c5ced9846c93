"""How fast weights are diagnosed: `modelsurgeon diagnose --weights` beside reading the same bytes with `dd`.

    python scripts/bench/bench_diagnose.py --size 3B --rounds 3 --write docs/diagnosis.md

It makes a Llama checkpoint of random bf16 numbers in the shape of Llama 3.2 (1B: 2.5 GB, 3B: 6.4 GB) and then measures,
in turns, each round beginning with another one, once with the files in the page cache ("warm") and once after the
kernel was advised to drop them ("cold"):

    diagnose   the command line in a process of its own: seconds of the pass over the weights, and those of the whole
               command; the peak of resident memory, beside its bound
    dd         the same bytes to /dev/null, at several block sizes

Seconds are medians; GB and MB are powers of ten. On a GPU: --device cuda.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from bench_widen import BLOCKS
from turns import (
    LLAMA_1B,
    TINY,
    Measure,
    Rounds,
    Turns,
    medians,
    random_tensors,
    read_by_dd,
    timing,
    warm_and_cold,
)

from readme import write_block

SIZES = {
    "1B": LLAMA_1B,
    "3B": {**LLAMA_1B, "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "head_dim": 128},
    "tiny": {**LLAMA_1B, **TINY},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", choices=SIZES, default="3B")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="1GB", help="memory that diagnose may use")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dir", type=Path, default=Path("build"), help="folder for the checkpoints (build/)")
    parser.add_argument("--write", type=Path, help="write the table between its marks in this file")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)  # a process of its own: its memory goes with it
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.make, arguments.size, arguments.device)
        return
    arguments.dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="bench_diagnose.") as folder:
        text = table(measure(Path(folder) / arguments.size, arguments))
    print(text)
    if arguments.write:
        write_block(arguments.write, "bench-diagnose", text)


def measure(source: Path, arguments: argparse.Namespace) -> Rounds:
    """{state of the page cache: {turn: its measure in each round}}."""
    making = ["--make", str(source), "--size", arguments.size, "--device", arguments.device]
    subprocess.run([sys.executable, __file__, *making], check=True)
    files = sorted(source.glob("*.safetensors"))
    turns: Turns = {"diagnose": partial(diagnose, source, arguments.memory, arguments.device)}
    turns |= {name: partial(read_by_dd, files, block) for name, block in BLOCKS.items()}
    return warm_and_cold(turns, files, arguments.rounds)


def make(source: Path, size: str, device: str) -> None:
    """Write a Llama of random numbers, in one file."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    source.mkdir(parents=True)
    (source / "config.json").write_text(json.dumps(SIZES[size]), encoding="utf-8")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source))
    save_file(dict(random_tensors(model, torch, device)), source / "model.safetensors", {"format": "pt"})


def diagnose(source: Path, memory: str, device: str) -> Measure:
    command = ["diagnose", str(source), "--weights", "--json", "--quiet", "--memory", memory, "--device", device]
    with timing() as found:
        done = subprocess.run([sys.executable, "-m", "modelsurgeon", *command], stdout=subprocess.PIPE, check=True)
    model = json.loads(done.stdout)["models"][0]
    told = {"whole": found["seconds"], "seconds": model["seconds"]["weights"], "bytes": model["bytes"]}
    return {**found, **told, **model["memory"]}


def table(rounds: Rounds) -> str:
    headings = ("page cache", "", "seconds", "ratio", "GB/s", "CPU s", "whole command s", "peak MB", "bound MB")
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for cache, kinds in rounds.items():
        found = medians(kinds)
        fastest = min(found[name]["seconds"] for name in BLOCKS)
        for name, one in found.items():
            cells = [cache, name, f"{one['seconds']:.2f}", f"{one['seconds'] / fastest:.2f}"]
            cells += [f"{one['bytes'] / one['seconds'] / 1e9:.2f}", f"{one['cpu']:.1f}"]
            cells += [f"{one['whole']:.2f}" if "whole" in one else ""]
            cells += [f"{one[key] / 1e6:.0f}" if key in one else "" for key in ("peak", "bound")]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
