"""The steps on record are claims: each must be one that its operation can have made.

    check_steps((Step("insert-layers", {"layers": 5}),))
    FieldError: modelsurgeon.json: steps[0].arguments.layers: expected an object of lists of ..., found 5

Types of a record's own fields were checked when it was read (`checkpoints/record.py`); only operations know arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from modelsurgeon.checkpoints.check import WITHOUT_RECORD, check_record
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import RECORD, Step
from modelsurgeon.errors import FieldError
from modelsurgeon.files.fields import expect, refuse
from modelsurgeon.operations import catalogue


def check_claims(checkpoint: Checkpoint) -> None:
    """Raise FieldError, with the way out, where something on a checkpoint's record cannot be right."""
    check_record(checkpoint)
    try:
        check_steps(checkpoint.steps)
    except FieldError as error:
        raise FieldError(f"{checkpoint.origin.id}: {error}; {WITHOUT_RECORD}") from None


def check_steps(steps: Iterable[Step]) -> None:
    """Raise FieldError, with the field's place, for the first step that no operation can have made."""
    try:
        for at, step in enumerate(steps):
            check_step(step, f"steps[{at}]")
    except FieldError as error:
        raise FieldError(f"{RECORD}: {error}") from None


def check_step(step: Step, where: str) -> None:
    """Raise FieldError for a step that no operation can have made."""
    known = catalogue.all_operations()
    if step.operation not in known:
        refuse(f"{where}.operation", f"one of {', '.join(known)}", step.operation)
    operation = known[step.operation]
    try:
        arguments = json.loads(json.dumps(dict(step.arguments)))  # as they are on record: a tuple is a list
    except RecursionError:
        refuse(f"{where}.arguments", "fewer levels", step.arguments)
    expect(arguments, dict(operation.recorded()), f"{where}.arguments")
    if step.maps and not operation.grows:
        refuse(f"{where}.maps", f"none, since {step.operation} grows no axis", list(step.maps))
    operation.check_recorded(step, f"{where}.arguments")
