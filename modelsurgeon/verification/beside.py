"""Beside the function: what else two folders hold, and whether it is the same.

    tokenizer.json     same            the same bytes
    chat templates     only in source  default
    special token ids  different       eos_token_id (2 -> 3)
    sub-folders        not compared    onnx/ (source)

A result can be the same function and still be of no use with other tokens, another template or without its code.
Nothing here changes the verdict on the function; `--strict` makes exit code 1 of every row that `differs`. What was not
compared is said, in a row of its own. No code is run, no template rendered, and what cannot be read is a finding, never
an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.verification.side.chat_templates import compare_chat_templates
from modelsurgeon.verification.side.config_facts import compare_config
from modelsurgeon.verification.side.finding import NOT_COMPARED, UNREADABLE, Beside, Pair, why
from modelsurgeon.verification.side.other_files import compare_other_files
from modelsurgeon.verification.side.settings_files import compare_settings
from modelsurgeon.verification.side.vocabularies import compare_tokenizers

__all__ = ["Beside", "compare_beside"]

PARTS: tuple[Callable[[Pair], Iterator[Beside]], ...] = (
    compare_tokenizers,
    compare_settings,
    compare_chat_templates,
    compare_config,
    compare_other_files,
)


def compare_beside(source: Checkpoint, result: Checkpoint) -> tuple[Beside, ...]:
    """All rows. Files behind a network are read only where they are small."""
    pair, rows = Pair(source, result), list[Beside]()
    try:
        for part in PARTS:
            rows += part(pair)
    except UNREADABLE as error:  # a folder that cannot be listed any more
        rows.append(Beside("files", NOT_COMPARED, f"cannot be read: {why(error)}"))
    return tuple(rows)
