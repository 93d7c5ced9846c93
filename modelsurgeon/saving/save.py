"""Saving: a lazy checkpoint becomes a folder, whole or not at all.

Everything is written into a staging folder beside the destination (`staging.py`): shards, several at once on request;
then index, side files, config.json, and the record with the hash of every file. The files are opened again and compared
with the plan; then one rename makes the output appear. After a run that ended early, the next reuses its shards.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from modelsurgeon.checkpoints.checkpoint import INDEX, SINGLE, Checkpoint, read_tensors
from modelsurgeon.checkpoints.record import RECORD, identify, write_record
from modelsurgeon.checkpoints.weight_files import weight_files
from modelsurgeon.errors import OutputError
from modelsurgeon.files.file import NAME_MAX, LocalFile, LocalFolder
from modelsurgeon.files.hashes import ALGORITHM, digest
from modelsurgeon.operations.operation import Companion
from modelsurgeon.saving.shards import Shard, Writing, cores_left, plan_shards, write_shard
from modelsurgeon.saving.staging import Say, Stage, staged
from modelsurgeon.saving.writer import Progress, StoppedError, unheard
from modelsurgeon.tensors.budget import Budget, plan_memory
from modelsurgeon.version import __version__

DEFAULT_SHARD = 5 * 10**9


def save(
    checkpoint: Checkpoint,
    output: str | Path,
    *,
    shard_size: int | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    workers: int = 1,
    memory: int | None = None,
    budget: Budget | None = None,
    progress: Progress | None = None,
    say: Say = lambda line: None,
    companion: Companion | None = None,
    accept: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Write the checkpoint to the folder `output` and return it.

    shard_size  bytes; None: shards stay as they are where they can, else 5 GB
    workers     shards that are written at once
    memory      bytes that this process may have resident, except in `accept`; None: no limit
    budget      the result of `plan_memory`, where the caller has it
    say         called with a line that a user should read
    companion   writes further files into the folder, before its files are hashed
    accept      called with the finished folder before it appears; where it raises, the folder is not published
    Raises OutputError where the output exists or lies inside of the source, PlanError where the memory is too little,
    SourceError where the source changes meanwhile, OSError where the machine fails.
    """
    output = Path(output)
    check_output(checkpoint, output, overwrite)
    shards = plan_shards(checkpoint, shard_size, DEFAULT_SHARD)
    if budget is None:
        budget = plan_memory(checkpoint.tensors.values(), memory, workers, checkpoint.origin.folder.memory)
    request = _request(checkpoint, shards)
    needed = sum(shard.nbytes for shard in shards.values()) + sum(file.size for file in checkpoint.side_files.values())
    needed += companion.nbytes if companion else 0
    with staged(output, request, overwrite=overwrite, needed=needed, shards=len(shards), say=say) as stage:
        checkpoint.fetch()
        source = _later(lambda: identify(checkpoint.origin))
        with cores_left(workers):
            written = _write_shards(stage, shards, workers, Writing(budget, device, progress or unheard))
        if companion:
            companion.write(stage.folder)
        _write_rest(checkpoint, shards, stage.folder, source, written)
        for file in checkpoint.files:
            file.check_unchanged()
        _compare_with_plan(checkpoint, stage.folder)
        for entry in written.values():
            for name, (nans, infinities) in entry["unusual"].items():
                say(f"tensor {name!r} holds {nans} NaN and {infinities} infinities, in the source as in the output")
        accept(stage.folder)
    return output


def check_output(checkpoint: Checkpoint, output: Path, overwrite: bool) -> None:
    """Raise OutputError for an output that may not be written; nothing is read or written before."""
    if len(os.fsencode(output.name)) > NAME_MAX - len(".staging") - 1:
        raise OutputError(f"{output.name[:60]}...: longer than a folder's name can be")
    target, folder = output.resolve(), checkpoint.origin.folder.path
    if any(path.exists() and not path.is_dir() for path in target.parents):
        raise OutputError(f"{output}: lies in a file, expected a folder")
    source = folder.resolve() if folder else None
    if source and (target == source or source in target.parents):
        raise OutputError(f"{output}: lies inside of the source {checkpoint.origin.id}, which is never modified")
    if source and target in source.parents:
        raise OutputError(f"{output}: holds the source {checkpoint.origin.id}, which is never modified")
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise OutputError(f"{output}: exists and is no folder")
    if output.exists() and not overwrite:
        raise OutputError(f"{output}: exists; --overwrite replaces it")
    if output.exists() and any(output.iterdir()) and not (output / "config.json").exists():
        raise OutputError(f"{output}: exists and is no checkpoint; --overwrite replaces only checkpoints")


def _request(checkpoint: Checkpoint, shards: Mapping[str, Shard]) -> dict[str, Any]:
    """JSON that identifies the result: equal requests have equal shards."""
    origin = checkpoint.origin
    stamps = {file.name: file.stamp for file in checkpoint.files}
    described = {
        "config": checkpoint.config,
        "steps": [step.to_json() for step in checkpoint.steps],
        "shards": {name: blake3(shard.header).hexdigest() for name, shard in shards.items()},
    }
    text = json.dumps(described, sort_keys=True)
    return {
        "version": __version__,
        "source": {"id": origin.id, "revision": origin.revision, "files": {} if origin.revision else stamps},
        "result": blake3(text.encode()).hexdigest(),
    }


def _write_shards(
    stage: Stage, shards: Mapping[str, Shard], workers: int, writing: Writing
) -> dict[str, dict[str, Any]]:
    """{shard: its entry}. Shards that an earlier run finished are used again."""

    def write(name: str) -> dict[str, Any]:
        if writing.stop.is_set():
            raise StoppedError
        if entry := stage.reusable(name):
            writing.progress(entry["bytes"])
            return entry
        entry = write_shard(stage.folder / name, shards[name], writing)
        stage.finish(name, entry)
        return entry

    with ThreadPoolExecutor(workers, "shard") as pool:
        running = {name: pool.submit(write, name) for name in shards}
        try:
            wait(running.values(), return_when=FIRST_EXCEPTION)
        finally:  # an interruption too
            if not all(future.done() and not future.exception() for future in running.values()):
                writing.stop.set()
                pool.shutdown(cancel_futures=True)
    errors = [error for future in running.values() if not future.cancelled() and (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, StoppedError)):
        raise error
    return {name: future.result() for name, future in running.items()}


def _write_rest(
    checkpoint: Checkpoint,
    shards: Mapping[str, Shard],
    folder: Path,
    source: Future[Any],
    written: Mapping[str, dict[str, Any]],
) -> None:
    """Write all but the shards."""
    if list(shards) != [SINGLE]:
        total = sum(tensor.nbytes for shard in shards.values() for tensor in shard.tensors.values())
        weight_map = {name: file for file, shard in shards.items() for name in shard.tensors}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        _write_json(folder / INDEX, index)
    for name, file in checkpoint.side_files.items():
        (folder / name).write_bytes(file.read())
    _write_json(folder / "config.json", checkpoint.config)
    steps = tuple(step if step.source else replace(step, source=source.result()) for step in checkpoint.steps)
    hashes = {name: {key: entry[key] for key in ("bytes", ALGORITHM)} for name, entry in written.items()}
    for path in sorted(folder.iterdir()):
        if path.name not in shards and path.name != RECORD:
            file = LocalFile(path)
            hashes[path.name] = {"bytes": file.size, ALGORITHM: digest(file)}
    write_record(folder / RECORD, steps, dict(sorted(hashes.items())))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="ascii")


def _compare_with_plan(checkpoint: Checkpoint, folder: Path) -> None:
    """Raise OSError unless the files, read back, have the planned names, dtypes and shapes."""
    opened = LocalFolder(folder)
    found = read_tensors(opened, weight_files(opened))
    written = {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()}
    planned = {name: (tensor.dtype, tensor.shape) for name, tensor in checkpoint.tensors.items()}
    if written != planned:
        raise OSError(f"{folder}: what was written differs from what was planned")


def _later(compute: Callable[[], Any]) -> Future[Any]:
    """A value that a thread computes beside other work. No pool: an interrupted program would wait for it."""
    value: Future[Any] = Future()

    def run() -> None:
        try:
            value.set_result(compute())
        except BaseException as error:
            value.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return value
