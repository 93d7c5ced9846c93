"""Tensors under names that are not the model's: those of a wrapper around it, or of a module that held it.

    _orig_mod.model.norm.weight           a compiled model was saved, not the model in it
    base_model.model.model.norm.weight    a model that peft had wrapped
    model.model.norm.weight               a module that calls its model `model`

`transformers` knows none of these names and would draw every weight anew, but that most classes with a head strip one
doubled "model.". All are refused by the name of the prefix, before any tensor is said to be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.errors import ArchitectureError, SourceError

Fit = Callable[[Iterable[str]], Architecture]

DEEPEST = 4  # pieces of a prefix

# {piece of a name that no model of the library has: (what was saved, the way out)}
WRAPPERS = {
    "_orig_mod": ("a compiled model", "save the state dict of model._orig_mod"),
    "_fsdp_wrapped_module": ("a model in FSDP", "save what accelerator.get_state_dict(model) gathers"),
    "_checkpoint_wrapped_module": ("a model with activation checkpointing", "unwrap its modules before saving"),
    "_forward_module": ("a model in Lightning Fabric", "save the state dict of the module inside"),
    "base_layer": ("a model in peft", "merge_and_unload() before saving"),
}
OUTER = {  # pieces that mean this where names begin
    **WRAPPERS,
    "module": ("a model in DataParallel, DDP or DeepSpeed", "save the state dict of model.module"),
    "base_model": ("a model in peft", "merge_and_unload() before saving"),
}


def refuse_prefix(where: object, names: Iterable[str], fit: Fit | None) -> None:
    """Raise SourceError for tensors under names of a wrapper, or where all begin with what the table's names do not.

    fit  the table of the model type, for tensors of these names; None for an unknown one: then only wrappers are known
    """
    names = list(names)
    if prefix := _prefix(names, fit):
        what, way_out = OUTER.get(prefix.split(".")[0], ("a module around the model", "save the model alone"))
        raise SourceError(
            f"{where}: every tensor begins with {prefix!r}, which is no part of its name: "
            f"saved from {what}; {way_out}, or strip the prefix"
        )
    for piece, (what, way_out) in WRAPPERS.items():
        if found := next((name for name in names if f".{piece}." in f".{name}"), None):
            raise SourceError(
                f"{where}: tensor {found!r}: {piece!r} is no part of its name: saved from {what}; {way_out}"
            )


def _prefix(names: list[str], fit: Fit | None) -> str:
    """The pieces, with a dot behind each, that all names begin with and should not; else an empty text."""
    if not names or (fit and any(_are_known(names, fit))):
        return ""
    modules = sorted(name.split(".")[:-1] for name in names)
    pairs = zip(modules[0], modules[-1], strict=False)  # what the first and the last share, all share
    common = [piece for piece, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)][:DEEPEST]
    if fit is None:
        wrapping = [number for number, piece in enumerate(common, 1) if piece in OUTER]
        return "".join(f"{piece}." for piece in common[: wrapping[-1]]) if wrapping else ""
    for number in range(1, len(common) + 1):
        prefix = "".join(f"{piece}." for piece in common[:number])
        if 2 * sum(_are_known([name.removeprefix(prefix) for name in names], fit)) > len(names):
            return prefix
    return ""


def _are_known(names: list[str], fit: Fit) -> Iterator[bool]:
    """For each name, whether it is one of the table's; the layouts of a family depend on all names together."""
    table = fit(names)
    for name in names:
        try:
            yield table.template(name) is not None  # patterns of what the library recomputes take any prefix
        except ArchitectureError:
            yield False
