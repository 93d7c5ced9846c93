"""An operation: a checkpoint in, a checkpoint out, lazily. Its options are its fields.

    @register
    @dataclass(frozen=True)
    class Shift(Operation):
        \"\"\"Multiply the embedding by a power of two, and divide what reads it.\"\"\"

        name = "shift"
        by: int = option(1, "The exponent of two.")

        def apply(self, checkpoint):
            ...

That file in this folder is all: the command with its --help, the Python method `model.shift(by=2)`, plan, record,
replay, proof and model card follow from it. --help shows the first line of the docstring.

Nothing heavy is imported here or at the top of an operation's file: --help must not wait for torch.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from modelsurgeon.errors import OptionsError, PlanError
from modelsurgeon.files.fields import Either, Named, Several

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint
    from modelsurgeon.checkpoints.record import Step

T = TypeVar("T")
SEED = "seed"  # an option of this name has a place of its own on record
JSON_TYPES: dict[type, str] = {  # bool before int, which it is, too
    **{bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"},
    **{type(None): "null", list: "array", tuple: "array", Mapping: "object"},
}
WORDS = {
    **{"boolean": "true or false", "integer": "a whole number", "number": "a number", "string": "a text"},
    **{"array": "a list", "object": "names with values", "null": "None"},
}


def option(default: T, help: str, *, flag: str | None = None, metavar: str | None = None, recorded: bool = True) -> T:
    """A field of an operation that the command line, Python and records know.

    help      one sentence for --help
    flag      its name on the command line, where that is not --name-of-the-field
    recorded  whether the result depends on it, so that it belongs on record
    """
    metadata = {"help": help, "flag": flag, "metavar": metavar, "recorded": recorded}
    return field(default=default, metadata=metadata)


class Companion(Protocol):
    """Further files that are written with a checkpoint.

    nbytes  bytes of all of them
    peak    bytes resident at most while they are written
    notes   what a user should know about them, beside the checkpoint's notes
    """

    @property
    def nbytes(self) -> int: ...
    @property
    def peak(self) -> int: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def write(self, folder: Path) -> None:
        """Write them into the folder."""


@dataclass(frozen=True)
class Demand:
    """What the proof requires of a tensor that copies none of the source's.

    zero   whether it must be zero; else it must be finite
    met    what the proof says where it is so
    unmet  what the proof says where it is not
    """

    zero: bool
    met: str
    unmet: str


@dataclass(frozen=True)
class Guess:
    """What an operation may have done to a source, where the result has no record.

    checkpoint  the source after the operation
    step        for the proof; None where nothing was done
    lines       findings, in words
    """

    checkpoint: Checkpoint
    step: Step | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """An operation on a checkpoint, with its options.

    name     on the command line and on record; the Python method has _ for -
    reads    "checkpoint", or "config" where it makes a new checkpoint from one
    offered  whether users can call it; else only records and `verify --infer` use it
    grows    whether its steps are maps of axes, and nothing else
    """

    name: ClassVar[str]
    reads: ClassVar[str] = "checkpoint"
    offered: ClassVar[bool] = True
    grows: ClassVar[bool] = False

    def check(self) -> None:
        """Raise OptionsError for options that contradict each other."""

    def check_types(self) -> None:
        """Raise OptionsError for an option of another type than its field's."""
        for name, hint in option_types(type(self)).items():
            if not _fits(hint, value := getattr(self, name)):
                expected = " or ".join(WORDS[kind] for kind in _kinds(hint))
                raise OptionsError(f"{self.name}: {name} is {value!r:.80}, expected {expected}")

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint after the operation; reads headers at most.

        A result without a new step gets one with the recorded options.
        """
        raise NotImplementedError

    @property
    def lossless(self) -> bool:
        """Whether the result is the same function, up to rounding."""
        return True

    def undo(self) -> Operation | None:
        """The operation that restores the source to the last bit; None where there is none."""
        return None

    @classmethod
    def replay(cls, before: Replayed, step: Step) -> Replayed:
        """Repeat a step on record. Raises PlanError where that is impossible."""
        return before.applied(cls.from_step(step))

    @classmethod
    def recorded(cls) -> Mapping[str, Any]:
        """{argument on record: its type, as in `files/fields.py`}; a name that ends in ? may be absent."""
        hints = option_types(cls)
        names = [one.name for one in fields(cls) if one.metadata.get("recorded", True) and one.name != SEED]
        return {f"{name}?": _field(hints[name]) for name in names}

    @classmethod
    def check_recorded(cls, step: Step, where: str) -> None:
        """Raise FieldError, with the place, for a field of a step on record that cannot be right beside the others."""

    @classmethod
    def demands(
        cls, steps: tuple[Step, ...], expected: Checkpoint, result: Checkpoint, names: Mapping[str, str]
    ) -> Mapping[str, Demand]:
        """{tensor of `expected` that copies none of the source's: what the proof requires of it}.

        steps     the operation's own on record, and those after it
        expected  the source with all steps replayed
        names     {tensor of `expected`: its name in the result}
        """
        return {}

    @classmethod
    def guess(cls, source: Checkpoint, result: Checkpoint) -> Guess:
        """What this operation may have done, judged by a result without a record."""
        return Guess(source)

    def companion(self, before: Checkpoint, after: Checkpoint, memory: int | None, output: Path | None) -> Any:
        """Further files that are written with the result (`Companion`), or None."""
        return None

    def choices(self, after: Checkpoint) -> tuple[str, ...]:
        """Lines to show before the plan: what the operation chose where its options leave a choice."""
        return ()

    @property
    def tells_loss(self) -> bool:
        """Whether the result is a start for training, whose initial loss is predicted, and measured on request."""
        return False

    def arguments(self) -> dict[str, Any]:
        """The options as they are recorded."""
        recorded = [one.name for one in fields(self) if one.metadata.get("recorded", True) and one.name != SEED]
        return {name: getattr(self, name) for name in recorded}

    @classmethod
    def from_step(cls, step: Step) -> Self:
        """The operation of a step on record. Raises PlanError for unknown arguments and wrong types."""
        given = {**step.arguments, **({SEED: step.seed} if step.seed is not None else {})}
        hints = option_types(cls)
        for name, value in given.items():
            if name not in hints or not _fits(hints[name], value):
                raise PlanError(f"a step {cls.name!r} on record with {name} = {value!r:.80}, which it cannot have")
        return cls(**given)


class Replayed(Protocol):
    """A checkpoint during the replay of steps on record (`transforms/replay.py`).

    grown    the checkpoint so far; raises PlanError where the growth does not commute with the model
    onto     after a transform (Checkpoint -> Checkpoint)
    applied  after an operation
    growing  after further growth, {axis: map}, composed with the growth just before; `arguments`: those on record
    beneath  after a transform that commutes with the growth just before, and is applied before that growth
    """

    def grown(self) -> Checkpoint: ...
    def onto(self, transform: Any) -> Replayed: ...
    def applied(self, operation: Operation) -> Replayed: ...
    def growing(self, maps: Mapping[str, Any], arguments: Mapping[str, Any]) -> Replayed: ...
    def beneath(self, transform: Any) -> Replayed: ...


def option_types(operation: type[Operation]) -> dict[str, Any]:
    """{option: its type}, in the order of the fields."""
    hints = get_type_hints(operation)
    return {one.name: hints[one.name] for one in fields(operation)}


def schema(operation: type[Operation]) -> dict[str, Any]:
    """JSON Schema of an operation's options, as a recipe or a record holds them."""
    properties = {}
    for one, hint in zip(fields(operation), option_types(operation).values(), strict=True):
        default = {} if one.default is MISSING or isinstance(one.default, tuple) else {"default": one.default}
        properties[one.name] = {**_schema(hint), **default, "description": one.metadata.get("help", "")}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _schema(hint: Any) -> dict[str, Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return {"anyOf": [_schema(one) for one in get_args(hint)]}
    python = get_origin(hint) or hint
    if python in (tuple, list):
        return {"type": "array", "items": _schema(get_args(hint)[0])}
    return {"type": JSON_TYPES.get(python, "object")}


def _field(hint: Any) -> Any:
    """A type of Python as one of a record's field (`files/fields.py`)."""
    inner = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return reduce(Either, map(_field, inner))
    python = get_origin(hint) or hint
    if python in (tuple, list):
        return Several(_field(inner[0]) if inner else object)
    if python is Mapping:
        return Named(_field(inner[1]))
    return {Path: str, type(None): None, Any: object}.get(python, python)


def _kinds(hint: Any) -> list[str]:
    """The JSON types of a type."""
    return [one["type"] for one in _schema(hint).get("anyOf", [_schema(hint)])]


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a type, in Python or in JSON."""
    kind = next((kind for python, kind in JSON_TYPES.items() if isinstance(value, python)), None)
    return kind in _kinds(hint) or (kind == "integer" and "number" in _kinds(hint))
