"""Chat templates, wherever a version of the library keeps them.

    chat_template.jinja, additional_chat_templates/NAME.jinja   the tokenizer's and the processor's; read first
    tokenizer_config.json: chat_template                        a text, or a list of {name, template}
    chat_template.json                                          the processor's, in older repositories

A template that only moved from one file to another is the same. Templates are compared as texts; none is rendered.
Source: transformers, `PreTrainedTokenizerBase.from_pretrained` and `ProcessorMixin.get_processor_dict`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import SourceError
from modelsurgeon.files.file import LocalFolder
from modelsurgeon.text import shown
from modelsurgeon.verification.side.finding import Beside, Pair, document, listed, present, soft, text, verdict

WHAT = "chat templates"
FILE, DEFAULT, FOLDER = "chat_template.jinja", "default", "additional_chat_templates"
SETTINGS, LEGACY = "tokenizer_config.json", "chat_template.json"
LEGACY_NAME = "default of the processor"
FILES = frozenset({FILE, LEGACY})

Templates = dict[str, tuple[str, str]]  # {name: (template, the file that it is in)}


def compare_chat_templates(pair: Pair) -> Iterator[Beside]:
    """One row, for all templates of both sides."""
    yield soft(WHAT, lambda: _compared(*map(_of, pair.sides)))


def _compared(before: Templates, after: Templates) -> Beside:
    names = listed(sorted(before or after))
    if missing := present(WHAT, before, after, names):
        return missing
    files = [", ".join(dict.fromkeys(file for _, file in side.values())) for side in (before, after)]
    moved = f"; in {files[0]} of the source, in {files[1]} of the result" if files[0] != files[1] else ""
    return verdict(WHAT, _differences(before, after), f"{names}: the same text{moved}")


def _differences(before: Templates, after: Templates) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        if name not in after or name not in before:
            yield f"{name} only in {'source' if name in before else 'result'}"
        elif before[name][0] != after[name][0]:
            yield f"{name} {_where(before[name][0], after[name][0])}"


def _where(before: str, after: str) -> str:
    """The first line in which two texts differ."""
    lines = zip(before.split("\n"), after.split("\n"), strict=False)
    shorter = min(before.count("\n"), after.count("\n")) + 2
    at = next((number for number, (one, other) in enumerate(lines, 1) if one != other), shorter)
    return f"differs from line {at} on"


def _of(side: Checkpoint) -> Templates:
    """The templates of one side. Raises SourceError where a file that may hold some cannot be read."""
    folder, found = side.origin.folder, Templates()
    if folder.holds(FILE):
        found[DEFAULT] = text(folder.file(FILE)), FILE
    if FOLDER in folder.folders():
        found |= _additional(side)
    if not found and folder.holds(SETTINGS):
        found = _in_settings(document(folder.file(SETTINGS)).get("chat_template"))
    if folder.holds(LEGACY):
        template = document(folder.file(LEGACY)).get("chat_template")
        found |= {} if template is None else {LEGACY_NAME: (str(template), LEGACY)}
    return found


def _in_settings(value: Any) -> Templates:
    named = value if isinstance(value, list) else [{"name": DEFAULT, "template": value}] if value else []
    return {shown(str(one["name"])): (str(one["template"]), SETTINGS) for one in named}


def _additional(side: Checkpoint) -> Templates:
    path = side.origin.folder.path
    inner = None if path is None else path / FOLDER
    if path is None or inner is None or not inner.is_dir():
        raise SourceError(f"{side.origin.id}: {FOLDER}/ is not on this disk")
    if inner.resolve().parent != path.resolve():
        raise SourceError(f"{inner}: a link out of its folder")
    folder = LocalFolder(inner)
    names = [name for name in folder.names() if name.endswith(".jinja")]
    return {shown(name.removesuffix(".jinja")): (text(folder.file(name)), f"{FOLDER}/") for name in names}
