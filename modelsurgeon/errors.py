"""What can go wrong, as a tree. Every message is one line: what, where, expected, found, way out.

    ModelSurgeonError           a request that cannot be carried out as asked (exit code 2)
    ├── SourceError             the checkpoint cannot be read, or contradicts itself
    │   ├── AmbiguousError      its files are two models, and tools disagree on which is meant
    │   └── FieldError          a field of a record cannot be what it is
    ├── ArchitectureError       no table accounts for what the checkpoint holds
    ├── PlanError               the surgery asked for does not exist, or is not lossless
    │   └── OptionsError        options contradict each other
    ├── OutputError             the output cannot be written where it was asked for
    └── DifferentError          the result is not the same function, so it was not written (exit code 1)

A machine that fails (disk full, out of memory) raises what Python raises: `OSError`, `MemoryError` (exit code 3).
"""

from typing import Any


class ModelSurgeonError(Exception):
    """A request that cannot be carried out as asked."""


class SourceError(ModelSurgeonError):
    """The checkpoint cannot be read, or contradicts itself."""


class AmbiguousError(SourceError):
    """A checkpoint's files are two models, and tools disagree on which is meant."""


class FieldError(SourceError):
    """A field of a record cannot be what it is."""


class ArchitectureError(ModelSurgeonError):
    """No table accounts for what the checkpoint holds."""


class PlanError(ModelSurgeonError):
    """The surgery asked for does not exist, or is not lossless."""


class OptionsError(PlanError):
    """Options contradict each other, or lack what the request needs."""


class OutputError(ModelSurgeonError):
    """The output cannot be written where it was asked for."""


class DifferentError(ModelSurgeonError):
    """The result is not the same function, so it was not written. That is an answer: exit code 1.

    saved  what the job has done so far, with the verification's report (`delivery.Saved`)
    """

    def __init__(self, message: str, saved: Any = None) -> None:
        super().__init__(message)
        self.saved = saved


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its class where it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
