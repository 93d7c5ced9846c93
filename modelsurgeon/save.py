"""Saving: a lazy checkpoint becomes a folder, whole or not at all.

Everything is written into a staging folder beside the destination: shards block by block (`shards.py`), config.json,
side files, the record. What was written is opened again and compared with the plan; then one rename makes it appear.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelsurgeon.checkpoint import INDEX, SINGLE, Checkpoint, read_tensors
from modelsurgeon.errors import OutputError
from modelsurgeon.files import LocalFolder
from modelsurgeon.history import RECORD, write_record
from modelsurgeon.shards import Progress, plan_shards, write_shard

DEFAULT_SHARD = 5 * 10**9


def save(
    checkpoint: Checkpoint,
    output: str | Path,
    *,
    shard_size: int | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
    accept: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Write the checkpoint to the folder `output` and return it.

    shard_size  bytes; None: shards stay as they are where they can, else 5 GB
    accept      called with the finished folder before it appears: what it raises, is not published
    Raises OutputError where the output exists or lies inside of the source, OSError where the machine fails.
    """
    output = Path(output)
    check_output(checkpoint, output, overwrite)
    with staging(output, overwrite) as folder:
        source = _Later(checkpoint.origin.to_json)
        shards = plan_shards(checkpoint, shard_size, DEFAULT_SHARD)
        for name, tensors in shards.items():
            write_shard(folder / name, tensors, device=device, progress=progress)
        if list(shards) != [SINGLE]:
            _write_json(folder / INDEX, _index(shards))
        for name, path in checkpoint.side_files.items():
            (folder / name).write_bytes(path.read())
        _write_json(folder / "config.json", checkpoint.config)
        steps = checkpoint.steps
        if steps:
            steps = tuple(step if step.source else replace(step, source=source.value()) for step in steps)
            write_record(folder / RECORD, steps)
        _compare_with_plan(checkpoint, folder)
        accept(folder)
    return output


def check_output(checkpoint: Checkpoint, output: Path, overwrite: bool) -> None:
    """Raise OutputError, before anything is read or written, for an output that may not be written."""
    target, source = output.resolve(), checkpoint.origin.path.resolve()
    if target == source or source in target.parents:
        raise OutputError(f"{output}: lies inside of the source {checkpoint.origin.id}, which is never modified")
    if target in source.parents:
        raise OutputError(f"{output}: holds the source {checkpoint.origin.id}, which is never modified")
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise OutputError(f"{output}: exists and is no folder")
    if output.exists() and not overwrite:
        raise OutputError(f"{output}: exists; --overwrite replaces it")
    if output.exists() and any(output.iterdir()) and not (output / "config.json").exists():
        raise OutputError(f"{output}: exists and is no checkpoint; --overwrite replaces only checkpoints")


@contextmanager
def staging(output: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `output` that becomes it when the block ends well, and vanishes when it does not."""
    parent = output.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f".{output.resolve().name}.staging"
    try:
        folder.mkdir()
    except FileExistsError:
        raise OutputError(f"{folder}: exists; another run writes it, or one was killed: remove it then") from None
    try:
        yield folder
        if output.exists() and not overwrite:
            raise OutputError(f"{output}: appeared in the meantime")
        _replace(output.resolve(), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(target: Path, folder: Path) -> None:
    """Put the folder where the target is; where that fails, the old one stays."""
    old = target.with_name(f".{target.name}.replaced")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)  # of a run that was killed
        os.rename(target, old)
    try:
        os.rename(folder, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _index(shards: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    total = sum(tensor.nbytes for tensors in shards.values() for tensor in tensors.values())
    weight_map = {name: shard for shard, tensors in shards.items() for name in tensors}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="ascii")


def _compare_with_plan(checkpoint: Checkpoint, folder: Path) -> None:
    """What lies on disk is what was planned: names, dtypes and shapes, read back."""
    written = {name: (tensor.dtype, tensor.shape) for name, tensor in read_tensors(LocalFolder(folder)).items()}
    planned = {name: (tensor.dtype, tensor.shape) for name, tensor in checkpoint.tensors.items()}
    if written != planned:
        raise OSError(f"{folder}: what was written differs from what was planned")


class _Later:
    """A value computed beside other work; what went wrong there is raised when it is asked for."""

    def __init__(self, compute: Callable[[], Any]) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(compute,), daemon=True)
        self._thread.start()

    def _run(self, compute: Callable[[], Any]) -> None:
        try:
            self._result = compute()
        except BaseException as error:
            self._error = error

    def value(self) -> Any:
        self._thread.join()
        if self._error:
            raise self._error
        return self._result
