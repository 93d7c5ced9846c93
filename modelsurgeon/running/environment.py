"""Where something was measured: the versions and the machine that a number depends on.

>>> environment("cpu")["modelsurgeon"]
'0.1.0'
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from modelsurgeon.errors import OptionsError
from modelsurgeon.version import __version__

CPUS = Path("/proc/cpuinfo")
DTYPES = ("bfloat16", "float16", "float32", "float64")  # to compute in


def check_place(dtype: str, device: str, *, auto: bool = False) -> None:
    """Raise OptionsError for an unknown dtype, and for a device that this machine has not.

    auto  whether the device may be "auto", too: all devices
    """
    if dtype not in DTYPES:
        raise OptionsError(f"dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
    if device == "cpu" or (auto and device == "auto"):
        return
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise OptionsError(f"device {device!r}, expected cpu, {'auto, ' * auto}cuda or cuda:0, cuda:1 ...")
    if int(number or 0) >= torch.cuda.device_count():
        raise OptionsError(f"device {device!r}: torch can use {torch.cuda.device_count()} GPUs here")


@dataclass(frozen=True)
class Environment:
    """Versions as installed, and the machine.

    platform  system, kernel and architecture
    device    as asked for: cpu, cuda:0, auto
    hardware  the name of each device that it means
    threads   how many of the CPU's torch computes with
    """

    modelsurgeon: str
    python: str
    torch: str
    transformers: str
    numpy: str
    platform: str
    device: str
    hardware: tuple[str, ...]
    threads: int


def environment(device: str) -> Environment:
    """What runs here, on a device as torch names it, or "auto" for all that there are."""
    return Environment(
        __version__,
        platform.python_version(),
        metadata.version("torch"),
        metadata.version("transformers"),
        metadata.version("numpy"),
        platform.platform(),
        device,
        _hardware(device),
        torch.get_num_threads(),
    )


def _hardware(device: str) -> tuple[str, ...]:
    if device == "auto":
        return (*map(torch.cuda.get_device_name, range(torch.cuda.device_count())), _cpu())
    return (torch.cuda.get_device_name(device),) if device.startswith("cuda") else (_cpu(),)


def _cpu() -> str:
    """The CPU's name from Linux, or else from Python."""
    if CPUS.exists():
        lines = (line.partition(":") for line in CPUS.read_text().splitlines())
        return next((name.strip() for key, _, name in lines if key.strip() == "model name"), platform.machine())
    return platform.processor() or platform.machine()
