"""Commands made from operations: what an operation says of itself becomes arguments, options and --help.

A field `noise: float = option(0.5, "How differently ...")` becomes `--noise FLOAT`, with that help and default; beside
it stand the options that all operations share (`Request`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from modelsurgeon.cli.request import Request
from modelsurgeon.errors import OptionsError
from modelsurgeon.operations.operation import Operation, option_types

OF_CONFIGS = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A config.json, or a folder or a Hub id that has one.")
]
NEEDS_WEIGHTS = ("revision", "stream", "device", "verify", "push_to_hub", "private", "create_pr")
MEASURES_LOSS = ("measure",)


def command_of(operation: type[Operation], carry_out: Callable[[Operation, Request], None]) -> Callable[..., None]:
    """The function that typer makes a command of: it collects what was asked for and calls `carry_out`."""
    shared = _shared(operation)
    own = [_parameter(one, hint) for one, hint in zip(fields(operation), option_types(operation).values(), strict=True)]
    parameters = [*shared[:2], *own, *shared[2:]]

    def call(**given: Any) -> None:
        request = Request(**{parameter.name: given[parameter.name] for parameter in shared})
        made = operation(**{one.name: _value(one, given[one.name]) for one in fields(operation)})
        try:
            made.check()
        except OptionsError as error:
            raise typer.BadParameter(str(error)) from None
        carry_out(made, request)

    call.__doc__ = operation.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _shared(operation: type[Operation]) -> list[inspect.Parameter]:
    """Source, output, and whatever else makes sense for what the operation reads and makes."""
    hints = get_type_hints(Request, include_extras=True)
    without = NEEDS_WEIGHTS if operation.reads == "config" else ()
    if operation.reads == "config":
        hints["source"] = OF_CONFIGS
    if operation.tells_loss is Operation.tells_loss:
        without = (*without, *MEASURES_LOSS)
    kind, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    return [
        inspect.Parameter(one.name, kind, annotation=hints[one.name], default=one.default if number else empty)
        for number, one in enumerate(fields(Request))
        if one.name not in without
    ]


def _parameter(one: Field[Any], hint: Any) -> inspect.Parameter:
    """An option, from a field of an operation."""
    flags = [one.metadata["flag"]] if one.metadata.get("flag") else [f"--{one.name.replace('_', '-')}"]
    shown = typer.Option(*flags, help=one.metadata["help"], metavar=one.metadata["metavar"])
    default = None if isinstance(one.default, tuple) else one.default
    return inspect.Parameter(
        one.name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[_typed(hint), shown], default=default
    )


def _value(one: Field[Any], given: Any) -> Any:
    """What typer found, as the operation has it."""
    if isinstance(one.default, tuple):
        return tuple(given or ())
    return given


def _typed(hint: Any) -> Any:
    """The type as typer knows it: several values are a list, and what is a text or a number is a text."""
    for one in get_args(hint):
        if get_origin(one) is tuple:
            return list[str] | None
    return str | None if {str, NoneType} < set(get_args(hint)) else hint
