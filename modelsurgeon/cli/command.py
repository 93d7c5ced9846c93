"""Commands made from operations: their fields become arguments, options and --help.

A field `noise: float = option(0.5, "How differently ...")` becomes `--noise FLOAT`, with that help and default, beside
the options that all operations share (`Request`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer import Argument, BadParameter, Option

from modelsurgeon.cli.request import Request
from modelsurgeon.errors import OptionsError
from modelsurgeon.operations.operation import Operation, option_types

OF_CONFIGS = Annotated[str, Argument(metavar="CONFIG", help="A config.json, or a folder or a Hub id that has one.")]
NEEDS_WEIGHTS = ("revision", "stream", "device", "verify", "push_to_hub", "private", "create_pr")
KEYWORD = inspect.Parameter.KEYWORD_ONLY


def command_of(operation: type[Operation]) -> Callable[..., None]:
    """The function that typer makes a command of: it collects the options and carries the operation out."""
    shared = _shared(operation)
    own = [_parameter(one, hint) for one, hint in zip(fields(operation), option_types(operation).values(), strict=True)]
    parameters = [*shared[:2], *own, *shared[2:]]

    def call(**given: Any) -> None:
        request = Request(**{parameter.name: given.pop(parameter.name) for parameter in shared})
        several = {one.name for one in fields(operation) if isinstance(one.default, tuple)}
        options = {name: tuple(value or ()) if name in several else value for name, value in given.items()}
        asked = operation(**options)
        try:
            asked.check()
        except OptionsError as error:
            raise BadParameter(str(error)) from None
        from modelsurgeon.cli.operate import operate

        operate(asked, request)

    call.__doc__ = operation.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _shared(operation: type[Operation]) -> list[inspect.Parameter]:
    """Source, output, and every other shared option that applies to what the operation reads and makes."""
    hints, without = get_type_hints(Request, include_extras=True), set[str]()
    if operation.reads == "config":
        hints["source"], without = OF_CONFIGS, set(NEEDS_WEIGHTS)
    if operation.tells_loss is Operation.tells_loss:
        without.add("measure")
    shared = [one for one in fields(Request) if one.name not in without]
    defaults = [inspect.Parameter.empty, *(one.default for one in shared[1:])]
    return [
        inspect.Parameter(one.name, KEYWORD, annotation=hints[one.name], default=default)
        for one, default in zip(shared, defaults, strict=True)
    ]


def _parameter(one: Field[Any], hint: Any) -> inspect.Parameter:
    """An option, from a field of an operation."""
    flag = one.metadata.get("flag") or f"--{one.name.replace('_', '-')}"
    shown = Option(flag, help=one.metadata["help"], metavar=one.metadata["metavar"])
    default = None if isinstance(one.default, tuple) else one.default
    return inspect.Parameter(one.name, KEYWORD, annotation=Annotated[_typed(hint), shown], default=default)


def _typed(hint: Any) -> Any:
    """The type as typer knows it: several values are a list, and a text or a number is a text."""
    for one in get_args(hint):
        if get_origin(one) is tuple:
            return list[str] | None
    return str | None if {str, NoneType} < set(get_args(hint)) else hint
