"""How a model is run: what it reads, what it computes in, and where.

RunOptions(text="...", samples=2, dtype="bfloat16", device="auto", memory=8 << 30)
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """Options of every run, for verification and diagnosis alike.

    text               what the model reads; None: the sample that comes with the program
    samples            windows of the text, of `length` tokens each
    dtype              what the model computes in: float32, bfloat16 ...
    device             cpu, cuda, cuda:1; auto: over all GPUs, then memory, and from the disk what does not fit
    seed               seed for random ids, and for the positions that a masked language model fills in
    trust_remote_code  run the code that lies in the checkpoint's folder, where config.json names some
    memory             for device auto: bytes of weights in memory beside the GPUs; None: what is free
    """

    text: str | None = None
    samples: int = 4
    length: int = 128
    dtype: str = "float32"
    device: str = "cpu"
    seed: int = 0
    trust_remote_code: bool = False
    memory: int | None = None
