"""The versions and the machine that a measured number depends on.

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

DTYPES = ("bfloat16", "float16", "float32", "float64")  # to compute in


def check_place(dtype: str, device: str, *, auto: bool = False) -> None:
    """Raise OptionsError for an unknown dtype, and for a device that this machine does not have.

    auto  whether the device may also be "auto": all devices
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
    device    as the user named it: cpu, cuda:0, auto
    hardware  the name of each device that this means
    threads   how many threads torch uses on the CPU
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
    """This machine's environment, for a device as torch names it, or "auto" for all devices."""
    python, system = platform.python_version(), platform.platform()
    torch_version, transformers, numpy = map(metadata.version, ("torch", "transformers", "numpy"))
    gpus = range(torch.cuda.device_count()) if device == "auto" else [device] if device.startswith("cuda") else []
    names = tuple(torch.cuda.get_device_name(gpu) for gpu in gpus)
    hardware = names if device.startswith("cuda") else (*names, _cpu())
    threads = torch.get_num_threads()
    return Environment(__version__, python, torch_version, transformers, numpy, system, device, hardware, threads)


def _cpu() -> str:
    """The CPU's name from Linux, or else from Python."""
    if (cpus := Path("/proc/cpuinfo")).exists():
        lines = (line.partition(":") for line in cpus.read_text().splitlines())
        return next((name.strip() for key, _, name in lines if key.strip() == "model name"), platform.machine())
    return platform.processor() or platform.machine()
