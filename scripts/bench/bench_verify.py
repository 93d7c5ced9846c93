"""How fast results are verified: the proof on the weights beside `dd`, all of `verify` beside two bare forward passes.

    python scripts/bench/bench_verify.py proof --source-gb 1.5 --rounds 5 --readme README.md
    python scripts/bench/bench_verify.py gpu --device cuda --rounds 3

`proof` makes a Llama checkpoint of random bf16 numbers and widens it by 2, with noise. Then, in turns, each round
beginning with another one:

    proof   in a process of its own: wall and CPU seconds without start-up (importing torch), peak of resident memory
    dd      the same bytes, source and result, to /dev/null, at several block sizes

once with all files in the page cache ("warm") and once after the kernel was advised to drop them ("cold":
posix_fadvise DONTNEED; a hypervisor may still have them in its cache). The bound is the memory before the proof plus
`modelsurgeon.proof.fold.folding_memory()`.

`gpu` makes a model as large as Llama 3.2 1B and times, in turns, each in a process of its own:

    widen           the command line, computing on the CPU and on the device
    verify          the command line, in each dtype, with the proof's share
    bare passes     both models loaded by from_pretrained in that dtype, run once on the batches that `verify` asks

`verify` does more than its bare passes: the proof, generation, hidden states, and, asked for float32 of a source in 16
bits, a second pair of visits in the stored dtype. Seconds are medians; GB and MB are powers of ten. Each measure is
printed at once, and written as a line of JSON to $OUT/bench_verify.jsonl where OUT is set.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from bench_widen import BLOCKS, write_source
from turns import (
    LLAMA_1B,
    TINY,
    Measure,
    Rounds,
    Turns,
    medians,
    random_tensors,
    read_by_dd,
    rotated,
    tell,
    timing,
    warm_and_cold,
)

from modelsurgeon.operations.widen import NOISE
from readme import write_block


def main() -> None:
    arguments = parse_arguments()
    if arguments.part == "child":
        print(json.dumps(CHILDREN[arguments.what[0]](*arguments.what[1:])))
        return
    arguments.dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="bench_verify.") as folder:
        measure = measure_proof if arguments.part == "proof" else measure_gpu
        found = measure(Path(folder), arguments)
    text = proof_table(found) if arguments.part == "proof" else gpu_table(found)
    print(text)
    if arguments.readme:
        write_block(arguments.readme, "bench-verify", text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parts = parser.add_subparsers(dest="part", required=True)
    proof, gpu = parts.add_parser("proof"), parts.add_parser("gpu")
    proof.add_argument("--source-gb", type=float, default=1.5, help="size of the source, a quarter of the result's")
    proof.add_argument("--pair", type=Path, nargs=2, help="existing source and result to use instead")
    gpu.add_argument("--device", default="cuda")
    gpu.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    gpu.add_argument("--tiny", action="store_true", help="a tiny model, to try the script")
    for part in (proof, gpu):
        part.add_argument("--rounds", type=int, default=5 if part is proof else 3)
        part.add_argument("--dir", type=Path, default=Path("build"), help="folder for the checkpoints (build/)")
        part.add_argument("--readme", type=Path, help="write the table between its marks in this file")
    parts.add_parser("child").add_argument("what", nargs="+")
    return parser.parse_args()


# --- turns ---


def measure_proof(folder: Path, arguments: argparse.Namespace) -> Rounds:
    """{state of the page cache: {turn: its measure in each round}}."""
    pair = arguments.pair or [folder / f"many-{arguments.source_gb:g}", folder / "wide"]
    if not arguments.pair:
        child("write-source", pair[0])
        child("widen", *pair)
    files = [path for place in pair for path in sorted(place.glob("*.safetensors"))]
    turns: Turns = {"proof": partial(child, "proof", *pair)}
    turns |= {name: partial(read_by_dd, files, block) for name, block in BLOCKS.items()}
    return warm_and_cold(turns, files, arguments.rounds)


def measure_gpu(folder: Path, arguments: argparse.Namespace) -> Rounds:
    source, wide = folder / "source", folder / "wide"
    device = arguments.device
    print(json.dumps(child("write-model", source, device, "tiny" if arguments.tiny else "1B")), file=sys.stderr)
    turns: Turns = {
        f"widen on {kind}": partial(widen_by_command, source, wide, kind) for kind in dict.fromkeys(["cpu", device])
    }
    for dtype in arguments.dtypes:
        turns[f"verify in {dtype}"] = partial(verify_by_command, source, wide, dtype, device)
        turns[f"bare passes in {dtype}"] = partial(child, "bare", source, wide, dtype, device)
    found: Rounds = defaultdict(lambda: defaultdict(list))
    for number in range(arguments.rounds):
        writing = [name for name in turns if name.startswith("widen")]
        reading = [name for name in turns if name not in writing]
        for name in [*rotated(writing, number), *rotated(reading, number)]:
            tell(found, "gpu", name, turns[name]())
    return found


def child(name: str, *arguments: Any) -> Measure:
    """The measure of a fresh process. A child's peak memory begins with its parent's: this one imports no torch."""
    command = [sys.executable, __file__, "child", name, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: Measure = json.loads(done.stdout.splitlines()[-1])
    return found


def widen_by_command(source: Path, wide: Path, device: str) -> Measure:
    shutil.rmtree(wide, ignore_errors=True)
    command = ["widen", str(source), "-o", str(wide), "--noise", str(NOISE), "--device", device, "--quiet"]
    with timing() as found:
        subprocess.run([sys.executable, "-m", "modelsurgeon", *command], check=True, stdout=subprocess.DEVNULL)
    return found


def verify_by_command(source: Path, wide: Path, dtype: str, device: str) -> Measure:
    command = ["verify", str(source), str(wide), "--dtype", dtype, "--device", device, "--json", "--quiet"]
    with timing() as found:
        done = subprocess.run([sys.executable, "-m", "modelsurgeon", *command], stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout)
    if report["proof"] is None or report["proof"]["verdict"] == "wrong":
        raise SystemExit(f"the result is not proven: {report['proof']}")
    levels = {f"{level} seconds": seconds for level, seconds in report["seconds"].items()}
    return {**found, **levels, "same": report["same"]}


# --- what runs in a process of its own ---


def write_proof_source(folder: str) -> Measure:
    return write_source(Path(folder), Path(folder))


def widen_in_process(source: str, wide: str) -> Measure:
    from modelsurgeon.checkpoints.checkpoint import open_checkpoint
    from modelsurgeon.operations.widen import Widen
    from modelsurgeon.saving.save import save

    save(Widen(factor=2, rule="exact", attention="heads").apply(open_checkpoint(source)), Path(wide))
    return {}


def prove_in_process(source: str, wide: str) -> Measure:
    from modelsurgeon.checkpoints.checkpoint import open_checkpoint
    from modelsurgeon.proof.fold import folding_memory
    from modelsurgeon.proof.proof import prove
    from modelsurgeon.tensors.budget import SLACK, resident

    pair = open_checkpoint(source), open_checkpoint(wide)
    bound = resident() + SLACK + folding_memory()
    with timing() as found:
        proof = prove(*pair)
    if proof is None or proof.summary == "wrong":
        raise SystemExit(f"the result is not proven: {proof and proof.wrong[:3]}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = sum(path.stat().st_size for place in (source, wide) for path in Path(place).glob("*.safetensors"))
    return {**found, "bytes": size, "peak": peak, "bound": bound}


def write_model(folder: str, device: str, size: str) -> Measure:
    """Write a Llama of random numbers, made tensor by tensor on the device, in one file."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {**LLAMA_1B, **(TINY if size == "tiny" else {})}
    with timing() as found:
        place = Path(folder)
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        tensors = dict(random_tensors(model, torch, device))
        save_file(tensors, place / "model.safetensors", {"format": "pt"})
    return {**found, "bytes": (place / "model.safetensors").stat().st_size}


def bare_passes(source: str, wide: str, dtype: str, device: str) -> Measure:
    """Load both models and run them once on the batches of `verify`; nothing is compared or stored."""
    import torch
    from transformers import AutoModelForCausalLM

    from modelsurgeon.running.batches import make_inputs
    from modelsurgeon.running.options import RunOptions

    loading = passing = 0.0
    with timing() as found, torch.no_grad():
        for folder in (source, wide):
            begin = time.monotonic()
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
            batches = make_inputs(model, Path(source), RunOptions(), behaviour=True).batches
            loaded = time.monotonic()
            for batch in batches:
                model(**{name: value.to(device) for name, value in batch.arguments.items()})
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            loading, passing = loading + loaded - begin, passing + time.monotonic() - loaded
            del model
    return {**found, "loading seconds": loading, "passes seconds": passing}


CHILDREN: dict[str, Callable[..., Measure]] = {
    "write-source": write_proof_source,
    "widen": widen_in_process,
    "proof": prove_in_process,
    "write-model": write_model,
    "bare": bare_passes,
}


# --- what is shown ---


def proof_table(rounds: Rounds) -> str:
    lines = ["| page cache | | seconds | ratio | GB/s | CPU s | peak MB | bound MB |", "|" + "---|" * 8]
    for cache, kinds in rounds.items():
        found = medians(kinds)
        fastest = min(found[name]["seconds"] for name in BLOCKS)
        for name, one in found.items():
            cells = [cache, name, f"{one['seconds']:.2f}", f"{one['seconds'] / fastest:.2f}"]
            cells += [f"{one['bytes'] / one['seconds'] / 1e9:.2f}", f"{one['cpu']:.1f}"]
            cells += [f"{one[key] / 1e6:.0f}" if key in one else "" for key in ("peak", "bound")]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gpu_table(rounds: Rounds) -> str:
    lines = ["| | seconds | over bare passes | of it | CPU s |", "|" + "---|" * 5]
    found = medians(rounds["gpu"])
    for name, one in found.items():
        bare = found.get(name.replace("verify", "bare passes")) if name.startswith("verify") else None
        ratio = f"{one['seconds'] / bare['seconds']:.2f}" if bare else ""
        parts = [f"{key.removesuffix(' seconds')} {one[key]:.1f}" for key in one if key.endswith(" seconds")]
        lines.append(f"| {name} | {one['seconds']:.1f} | {ratio} | {', '.join(parts)} | {one['cpu']:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
