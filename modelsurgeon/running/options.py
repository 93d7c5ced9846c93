"""How a model is run: RunOptions(text="...", samples=2, dtype="bfloat16", device="auto", memory=8 << 30)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """Options of every run, for verification and diagnosis alike.

    text               what the model reads; None: the sample that comes with the program
    samples            windows of the text, of `length` tokens each
    dtype              what the model computes in: float32, bfloat16 ...
    device             cpu, cuda, cuda:1; auto: weights fill the GPUs, then memory; the rest stays on disk
    seed               seed for random ids, and for the positions that a masked language model fills in
    trust_remote_code  whether to run the model's own code in the checkpoint's folder, if config.json names some
    memory             for device auto: the most bytes of weights in the CPU's memory; None: what is free
    """

    text: str | None = None
    samples: int = 4
    length: int = 128
    dtype: str = "float32"
    device: str = "cpu"
    seed: int = 0
    trust_remote_code: bool = False
    memory: int | None = None
