"""The Python API: checkpoints as values. Operations on them are lazy; nothing is written before `save`.

    >>> model = open_model("demo")                          # headers only
    >>> wide = model.widen(factor=2).untie_embeddings()     # nothing read, nothing written
    >>> saved = wide.save("wide", verify=True)              # whole or absent
    >>> verify("demo", saved).verdict
    'same function, proven for all inputs'

The command line is a skin over this: the same options under the same names, with the same defaults. Every operation of
the catalogue is a method of `Model`; those that read a config are functions of the package (`modelsurgeon.init`).
"""

from __future__ import annotations

import inspect as introspection
import os
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from modelsurgeon.checkpoints import inspection, integrity
from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.checkpoints.source import locate
from modelsurgeon.delivery import Listener, Saved, Say, Wanted, check_targets, deliver, nothing, planned
from modelsurgeon.diagnosis.diagnose import Diagnosis, diagnose_all
from modelsurgeon.errors import OptionsError, OutputError
from modelsurgeon.growth import overview
from modelsurgeon.operations import catalogue
from modelsurgeon.operations.operation import Operation
from modelsurgeon.operations.transforms.initial import blank
from modelsurgeon.operations.transforms.replay import applied
from modelsurgeon.progress import Tell, silent
from modelsurgeon.reports import console, html, listings, verification_report
from modelsurgeon.reports.card import RESULT
from modelsurgeon.running.assembly import assemble
from modelsurgeon.running.environment import check_place
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.plan import Plan, make_plan
from modelsurgeon.text import parse_size
from modelsurgeon.verification.report import Report
from modelsurgeon.verification.verify import verify as compare


class ShownPlan(Plan):
    """A plan that prints as `--dry-run` shows it."""

    def __str__(self) -> str:
        return console.as_text(listings.of_plan(self), width=160)


@dataclass(frozen=True, eq=False)
class Model:
    """A checkpoint, and what is to be done to it.

    source      as it was opened
    checkpoint  as it will be: config and lazy tensors
    operations  those that lead from `source` to `checkpoint`, in order
    """

    source: Checkpoint
    checkpoint: Checkpoint
    operations: tuple[Operation, ...] = ()

    def __getattr__(self, name: str) -> Callable[..., Model]:
        """An operation as a method: `widen(factor=2)`. `help(model.widen)` lists its options."""
        operation = _operation(name, "checkpoint")
        return _as_function(operation, lambda **given: self.apply(operation(**given)), Model)

    def __dir__(self) -> list[str]:
        operations = [one for one in catalogue.offered() if one.reads == "checkpoint"]
        return [*super().__dir__(), *map(catalogue.method, operations)]

    def __repr__(self) -> str:
        done = "".join(f".{catalogue.method(type(one))}(...)" for one in self.operations)
        return f"Model({self.source.origin.id!r}){done}"

    def apply(self, operation: Operation) -> Model:
        """This model after an operation, lazily.

        Raises PlanError where that does not exist, OptionsError for options that contradict each other, SourceError
        and ArchitectureError where the checkpoint does not fit its table.
        """
        return Model(self.source, applied(operation, self.checkpoint), (*self.operations, operation))

    def plan(self, memory: str | int | None = "1GB", workers: int = 1) -> ShownPlan:
        """What will be done, tensor by tensor: `print` shows it as `--dry-run` does. Reads headers at most.

        Raises PlanError where this memory is too little.
        """
        plan = make_plan(self.source, self.checkpoint, Wanted(memory=memory).memory_bytes, workers)
        return ShownPlan(*(getattr(plan, one.name) for one in fields(plan)))

    def save(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        shard_size: str | int | None = None,
        device: str = "cpu",
        workers: int = 1,
        memory: str | int | None = "1GB",
        overwrite: bool = False,
        verify: bool = False,
        push_to_hub: str | None = None,
        private: bool = False,
        create_pr: bool = False,
        measure: bool = True,
        progress: Tell = silent,
        say: Say = nothing,
    ) -> Saved:
        """Write it to a folder or a URL, whole or not at all; `Wanted` explains the options.

        progress  called with ("writing", bytes so far, bytes in all)
        say       called with a line that a user should read
        Raises OutputError where the output cannot be written, DifferentError where verification finds another
        function, PlanError where the memory is too little, OSError where the machine fails.
        """
        target = None if output is None else os.fspath(output)
        wanted = Wanted(
            target, shard_size, device, workers, memory, overwrite, verify, push_to_hub, private, create_pr, measure
        )
        wanted.check()
        if target is None and not push_to_hub:
            raise OptionsError("no output; name a folder or a URL, or a repository to push to")
        metadata = check_targets(self.source, wanted)
        job = planned(self.source, self.checkpoint, self.operations, wanted, self._command())
        return deliver(job, metadata, Listener(counted(progress, job.plan.bytes[1]), say))

    def load(self, dtype: str | None = None, device: str = "cpu") -> Any:
        """The model of `transformers`, in evaluation mode; nothing is written to a disk.

        Lazy tensors flow into its parameters one by one: beside the model one piece of a tensor is in memory.
        dtype  "float32", "bfloat16" ...; None: the config's
        Raises SourceError where the library cannot build it, or would make up some of its weights.
        """
        check_place(dtype or "float32", device)
        self.checkpoint.fetch()
        return assemble(self.checkpoint, dtype, device)

    def _command(self) -> str:
        """The command line that makes the same result: one command for each operation, in a pipe."""
        last = len(self.operations)
        sources = [self.source.origin.id, *["-"] * last]
        outputs = [*(f"{RESULT}-{number}" for number in range(1, last)), RESULT]
        return " | ".join(map(_spelled, self.operations, sources, outputs))


Source = str | os.PathLike[str] | Model  # what `save` returns is a path, too


def open_model(source: Source, revision: str | None = None, *, stream: bool = False) -> Model:
    """Open a folder, a Hub id (org/name), a URL or "demo", reading headers only.

    revision  branch, tag or commit of a Hub id
    stream    read a Hub id piece by piece; store none of it
    Raises SourceError where it cannot be read or contradicts itself, ArchitectureError where no table fits it.
    """
    if isinstance(source, Model):
        return source
    checkpoint = open_checkpoint(os.fspath(source), revision, stream=stream)
    return Model(checkpoint, checkpoint)


def verify(
    source: Source,
    result: Source,
    *,
    infer: bool = True,
    ignore_record: bool = False,
    trainable: bool = False,
    report: str | os.PathLike[str] | None = None,
    text: str | os.PathLike[str] | None = None,
    samples: int = 4,
    length: int = 128,
    dtype: str = "float32",
    device: str = "cpu",
    memory: str | int | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    progress: Tell = silent,
) -> Report:
    """Is `result` the same function as `source`? Compares weights, outputs and behaviour; `report.same` is the answer.

    infer          derive the maps from the weights where there is no record
    ignore_record  judge the result as if it had no record
    trainable      examine, by one backward pass, whether training will make the copies differ
    report         a file to write: all findings, with plots, as one page of HTML
    text           the file of the text that both models run on; None: a sample
    memory         for device auto: weights kept in memory; more go to the disk
    progress       called with (what, done, total)
    Raises SourceError, ArchitectureError, OptionsError, as opening and running do.
    """
    check_place(dtype, device, auto=True)
    if report is not None:
        html.check_target(Path(report))
    if memory is not None and device != "auto":
        raise OptionsError("--memory bounds what --device auto keeps in memory; ask for both")
    size = None if memory is None else parse_size(memory, "memory")
    opened = open_model(source, revision).checkpoint, open_model(result).checkpoint
    options = RunOptions(
        read_text(text), samples, length, dtype, device, memory=size, trust_remote_code=trust_remote_code
    )
    answer = compare(
        *opened,
        options,
        infer=infer,
        ignore_record=ignore_record,
        behaviour=True,
        trainable=trainable,
        tell=progress,
    )
    if report is not None:
        html.write(Path(report), verification_report.page(answer.to_json()))
    return answer


def check_files(result: str | os.PathLike[str], revision: str | None = None) -> integrity.Integrity:
    """Are the files of a result still what was written? Raises SourceError where no record holds their hashes."""
    return integrity.check_files(locate(os.fspath(result), revision, weights=False))


def diagnose(
    source: Source,
    *,
    weights: bool = False,
    text: str | os.PathLike[str] | None = None,
    samples: int = 16,
    length: int = 128,
    dtype: str = "float32",
    device: str = "cpu",
    memory: str | int = "1GB",
    stream: bool = False,
    trust_remote_code: bool = False,
    revision: str | None = None,
    progress: Tell = silent,
) -> Diagnosis:
    """Find what a checkpoint needs: bottlenecks, outliers, copies, saturation; `findings` lists what to act on.

    weights  only what the weights show: nothing is run
    text     the file of the text that the model runs on; None: a sample
    memory   what may be resident for the weights
    Raises SourceError, ArchitectureError, PlanError where this memory is too little.
    """
    size = parse_size(memory, "memory")
    options = RunOptions(
        read_text(text), samples, length, dtype, device, memory=size, trust_remote_code=trust_remote_code
    )
    return diagnose_together([source], options, weights, stream, revision, progress)[0]


def diagnose_together(
    sources: Sequence[Source],
    options: RunOptions,
    weights: bool = False,
    stream: bool = False,
    revision: str | None = None,
    progress: Tell = silent,
) -> list[Diagnosis]:
    """`diagnose` several checkpoints: the weights of all are measured before any model is run.

    revision  branch, tag or commit of the first one
    Raises what `diagnose` raises.
    """
    check_place(options.dtype, options.device, auto=True)
    if stream and not weights:
        raise OptionsError("--stream stores nothing, and what is not stored cannot be run; ask for --weights too")
    revisions = [revision, *[None] * len(sources)]
    opened = [open_model(one, of, stream=stream).checkpoint for one, of in zip(sources, revisions, strict=False)]
    return diagnose_all(opened, options, weights_only=weights, tell=progress)


def inspect(source: str | os.PathLike[str], revision: str | None = None) -> inspection.Inspection:
    """What any checkpoint's headers show: sizes, tensors, what is refused. Raises SourceError without a config."""
    return inspection.inspect(os.fspath(source), revision)


def families(model_type: str | None = None) -> tuple[overview.FamilyRow, ...]:
    """Which widths of one family or of all can grow, and to which sizes. Raises ArchitectureError for no family."""
    return overview.family(model_type) if model_type else overview.families()


def read_text(file: str | os.PathLike[str] | None) -> str | None:
    """The text of a file; None without one. Raises OptionsError for a file that holds no text."""
    if file is None:
        return None
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionsError(f"--text {os.fspath(file)}: cannot be read as UTF-8 text ({error})") from None


# --- operations as functions -----------------------------------------------------------------------------------------


def of_config(name: str) -> Callable[..., Saved]:
    """An operation that reads a config, as a function: `init(config, "fresh", seed=1)` writes a new checkpoint.

    Its options and those of `Model.save` are taken alike. Raises AttributeError where there is none of this name.
    """
    operation = _operation(name, "config")

    def make(config: str | os.PathLike[str] | Mapping[str, Any], output: Any = None, **given: Any) -> Saved:
        own = {one.name: given.pop(one.name) for one in fields(operation) if one.name in given}
        empty = blank(config if isinstance(config, Mapping) else os.fspath(config))
        folder = Wanted(None if output is None else os.fspath(output)).folder
        if folder and not isinstance(config, Mapping):
            check_output_of_config(config, folder)
        return Model(empty, empty).apply(operation(**own)).save(output, **given)

    return _as_function(operation, make, Saved)


def check_output_of_config(config: str | os.PathLike[str], folder: Path) -> None:
    """Raise OutputError for an output in whose place the config lies."""
    source = Path(config)
    home = source.parent if source.is_file() else source
    if home.exists() and folder.resolve() == home.resolve():
        raise OutputError(f"{folder}: holds the config {config}, which is never replaced")


def _operation(name: str, reads: str) -> type[Operation]:
    offered = {catalogue.method(one): one for one in catalogue.offered() if one.reads == reads}
    if name not in offered:
        raise AttributeError(f"no operation {name!r} on a {reads}; there are: {', '.join(catalogue.all_operations())}")
    return offered[name]


def _as_function(operation: type[Operation], call: Callable[..., Any], returns: Any) -> Callable[..., Any]:
    """The call, with the options and the help of an operation."""
    own = [p for p in introspection.signature(call).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    options = [p.replace(kind=p.KEYWORD_ONLY) for p in introspection.signature(operation).parameters.values()]
    helps = (f"    {one.name}  {one.metadata.get('help', '')}" for one in fields(operation))
    call.__signature__ = introspection.Signature([*own, *options], return_annotation=returns)  # type: ignore[attr-defined]
    call.__name__ = catalogue.method(operation)
    call.__doc__ = "\n".join([introspection.getdoc(operation) or "", "", *helps])
    return call


def _spelled(operation: Operation, source: str, output: str) -> str:
    """The command line of an operation, with all options that are not defaults."""
    words = ["modelsurgeon", operation.name, source]
    for one in fields(operation):
        value = getattr(operation, one.name)
        if value != one.default:
            flag = one.metadata.get("flag") or f"--{one.name.replace('_', '-')}"
            pairs = [f"{k}={v}" for k, v in value.items()] if isinstance(value, Mapping) else None
            values = pairs or (list(value) if isinstance(value, tuple) else [value])
            words += [flag] if value is True else [word for each in values for word in (flag, str(each))]
    return shlex.join([*words, "-o", output])


def counted(progress: Tell, total: int) -> Callable[[int], None]:
    """Add up the bytes of all calls: shards are written by several threads."""
    lock, done = threading.Lock(), [0]

    def advance(count: int) -> None:
        with lock:
            done[0] += count
            progress("writing", min(done[0], total), total)  # headers are written, too

    return advance
