"""What can go wrong, as a tree. Every message is one line: what, where, expected, found, way out.

    ModelSurgeonError           a request that cannot be carried out as asked (exit code 2)
    ├── SourceError             the checkpoint cannot be read, or contradicts itself
    ├── ArchitectureError       no table accounts for what the checkpoint holds
    ├── PlanError               the surgery asked for does not exist, or is not lossless
    └── OutputError             the output cannot be written where it was asked for

A machine that fails (disk full, out of memory) raises what Python raises: `OSError`, `MemoryError` (exit code 3).
"""


class ModelSurgeonError(Exception):
    """A request that cannot be carried out as asked."""


class SourceError(ModelSurgeonError):
    """The checkpoint cannot be read, or contradicts itself."""


class ArchitectureError(ModelSurgeonError):
    """No table accounts for what the checkpoint holds."""


class PlanError(ModelSurgeonError):
    """The surgery asked for does not exist, or is not lossless."""


class OutputError(ModelSurgeonError):
    """The output cannot be written where it was asked for."""
