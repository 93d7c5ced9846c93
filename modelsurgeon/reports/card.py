"""The model card of a result: what it is, what was done, what was measured, how to do it again.

    ---
    base_model: org/name
    base_model_relation: finetune
    ---
    # name after widen
    The same function as org/name at commit 0123..., in other sizes ...

All of it comes from the record, the verification's report and the source's own card. A stranger may have written each:
texts are escaped, and of the source's metadata only texts are taken over.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from modelsurgeon.architectures.plain_names import plain
from modelsurgeon.checkpoints.record import Origin, Step
from modelsurgeon.checkpoints.source import HUB_ID
from modelsurgeon.files.file import Folder
from modelsurgeon.reports import markdown
from modelsurgeon.reports.blocks import Block, Bullets, Listing, Paragraph, Phrase, Section, Verbatim, Words, marked
from modelsurgeon.reports.verification_report import comparisons

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint
    from modelsurgeon.verification.report import Report

README = "README.md"
LARGEST = 1 << 19  # bytes of a card that are searched for its metadata; lists of results fill most of it
LONGEST = 500  # characters of one value in the metadata
MOST_NAMES = 20  # names of a list that are shown
RESULT = "result"  # the folder that the commands in the card write
TAKEN_OVER = ("license", "license_name", "license_link", "language", "pipeline_tag", "datasets")
COMMIT = re.compile(r"[0-9a-f]{40}")
TAG = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
MULTIPLIED = ("<<", "!!")  # YAML that merges mappings, of which a few lines expand to billions
PUSHING = ("--private", "--create-pr", "--overwrite", "--quiet", "--json")  # options that do not change the result
NAMED = ("--push-to-hub", "--output", "--revision")  # such options that have a value


def model_card(
    result: Checkpoint,
    report: Report,
    *,
    command: str,
    source_card: Mapping[str, Any] | None = None,
    flagged: Iterable[str] = (),
) -> str:
    """The README.md of a verified result.

    command      the command line that writes the result (`reproducing_command`)
    source_card  metadata of the source's own card (`metadata_of`)
    flagged      names of tensors that hold NaN or Inf
    """
    from huggingface_hub import ModelCardData

    title, summary = _summary(result)
    done = Section("What was done", [Bullets(list(map(_step, result.steps)), numbered=True)])
    measured = _measured(report, list(flagged))
    sections = [summary, _grown(result), done, measured, *_again(result, command), *_training(result.steps)]
    metadata = ModelCardData(**_metadata(result.steps, source_card or {})).to_yaml()
    return f"---\n{metadata}\n---\n\n{markdown.rendered([Section(title, sections)], level=1)}\n"


def metadata_of(folder: Folder) -> dict[str, Any]:
    """The YAML metadata of a folder's card; empty without a readable card. Raises what reading a file raises."""
    if not folder.holds(README):
        return {}
    from huggingface_hub.repocard import REGEX_YAML_BLOCK, RepoCard

    file = folder.file(README)
    text = file.read(0, min(file.size, LARGEST)).decode(errors="replace").removeprefix("\ufeff")
    block = REGEX_YAML_BLOCK.search(text)
    if block is None or any(sign in block[2] for sign in MULTIPLIED):
        return {}
    try:
        return dict(RepoCard(block[0]).data.to_dict())  # type: ignore[no-untyped-call]
    except Exception:  # an invalid card does not make the model invalid
        return {}


def reproducing_command(arguments: list[str], origin: Origin) -> str:
    """The command line that writes the same result anywhere: the source at its commit, the output in `result`.

    arguments  of the present command; options that only decide where the result goes or what is printed are left out
    origin     where the source was read from: its id replaces `-` (a pipe) and org/name@revision
    """
    at = arguments.index("--") if "--" in arguments else len(arguments)
    pinned = ["--revision", origin.revision] if origin.revision else []
    words = [*_without_output(arguments[:at]), *pinned, "-o", RESULT, *arguments[at:]]
    hubs = {word: HUB_ID.fullmatch(word) for word in words if origin.revision}
    sources = {"-", *(word for word, hub in hubs.items() if hub and hub["repo"] == origin.id)}
    return shlex.join(["modelsurgeon", *(origin.id if word in sources else word for word in words)])


def _without_output(arguments: list[str]) -> Iterable[str]:
    words = iter(arguments)
    for word in words:
        short = re.fullmatch(r"-(q*)(?:o(.*))?", word) if word != "-" else None
        if word in NAMED or (short and short[2] == ""):
            next(words, None)
        elif not (short or word in PUSHING or word.startswith(tuple(f"{name}=" for name in NAMED))):
            yield word


# --- metadata --------------------------------------------------------------------------------------------------------


def _metadata(steps: tuple[Step, ...], source_card: Mapping[str, Any]) -> dict[str, Any]:
    """What the Hub reads.

    Of the relations that it knows (adapter, merge, quantized, finetune) only the last fits a whole set of weights that
    comes from one other model. The text of the card says that there was no training.
    """
    base = _base(steps)
    relation = {"base_model": base[0], "base_model_relation": "finetune"} if base else {}
    operations = dict.fromkeys(step.operation for step in steps if TAG.fullmatch(step.operation))
    taken = {key: value for key in TAKEN_OVER if (value := _texts(source_card.get(key)))}
    return {"library_name": "transformers", **relation, "tags": ["modelsurgeon", *operations], **taken}


def _base(steps: tuple[Step, ...]) -> tuple[str, str] | None:
    """(Hub id, commit) of the checkpoint that the first step read, if it is on the Hub."""
    root = steps[0].source if steps else {}
    name, commit = str(root.get("id")), str(root.get("revision"))
    return (name, commit) if HUB_ID.fullmatch(name) and COMMIT.fullmatch(commit) else None


def _texts(value: Any) -> str | list[str] | None:
    """A text or a list of texts; None for any other value."""
    return [text for text in map(_text, value[:MOST_NAMES]) if text] if isinstance(value, list) else _text(value)


def _text(value: Any) -> str | None:
    if value is False:
        return "no"  # Norwegian, as YAML 1.1 reads it
    return value if isinstance(value, str) and len(value) <= LONGEST else None


# --- sections --------------------------------------------------------------------------------------------------------


def _summary(result: Checkpoint) -> tuple[str, Paragraph]:
    """(title, what the result is)."""
    steps, base = result.steps, _base(result.steps)
    source = str(steps[0].source.get("id", "the source")) if steps else "the source"
    title = PurePath(source).name or source
    where: tuple[str | Phrase, ...] = (Phrase(source, "code") if source == "demo" else title,)
    if base:
        link = f"https://huggingface.co/{base[0]}/tree/{base[1]}"
        where = Phrase(base[0], link=link), " at commit ", Phrase(base[1], "code")
    other = "in other sizes" if _sizes(steps) else "in other tensors"
    promise = "whatever goes in, what comes out differs by rounding alone"
    if any(step.lossy for step in steps):
        promise = "what it returns was measured to be the same, within what is listed below"
    operations = " and ".join(dict.fromkeys(step.operation for step in steps)) or "modelsurgeon"
    loads = "It was made with `modelsurgeon`, and `transformers` loads it with no code of its own."
    text = marked(f", {other}: {promise}. Nothing was trained. {loads}")
    return f"{title} after {operations}", Paragraph(("The same function as ", *where, *text))


def _sizes(steps: tuple[Step, ...]) -> dict[str, tuple[int, int]]:
    """{axis: (size before all steps, size after)} of the axes that changed."""
    sizes: dict[str, tuple[int, int]] = {}
    for step in steps:
        for name, axis_map in step.maps.items():
            sizes[name] = (sizes.get(name, (axis_map.size,))[0], axis_map.new_size)
    return {name: (before, after) for name, (before, after) in sizes.items() if before != after}


def _grown(result: Checkpoint) -> Section:
    """Every size that changed, by its config key if it has one; the number of parameters."""
    axes, sizes = result.architecture.axes, _sizes(result.steps)
    keys = {name: axes[name].key if name in axes else None for name in sizes}
    rows = list(dict.fromkeys((keys[name] or plain(name), *map(str, ends)) for name, ends in sizes.items()))
    total = Paragraph(marked(f"{result.parameters:,} parameters, the narrowest stored as {result.dtype}."))
    return Section("Sizes", [*([Listing(("size", "before", "after"), rows)] if rows else []), total])


def _step(step: Step) -> Words:
    arguments = ", ".join(f"{key} {_argument(value)}" for key, value in step.arguments.items() if value)
    lossy = "not lossless: " + "; ".join(step.lossy) if step.lossy else "lossless"
    begin, end = marked(" (modelsurgeon "), marked("): ")
    return Phrase(step.operation, "strong"), *begin, step.version, *end, f"{arguments}; " * bool(arguments), lossy


def _argument(value: Any) -> str:
    return " ".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, Mapping) else str(value)


def _measured(report: Report, flagged: list[str]) -> Section:
    """What each level of verification found."""
    blocks: list[Block] = list(map(Paragraph, report.notes))
    if proof := report.proof:
        counts = {word: sum(v.verdict == word for v in proof.verdicts) for word in ("exact", "rounded", "wrong")}
        verdicts = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        rounded = f" (by {proof.rounding:.1e} at most)" if proof.rounding else ""
        folded = "Weights and config, folded back to the source's by the maps in `modelsurgeon.json`"
        blocks.append(Paragraph(marked(f"{folded}: {verdicts}{rounded}.")))
    if report.logits:
        relative = "(relative: over the deviation of what the source returns; KL and losses in nats):"
        begin, end = marked("Both models in `transformers`, in "), marked(f", on the same inputs {relative}")
        blocks.append(Paragraph((*begin, report.logits.dtype, *end)))
        blocks += [comparisons(report.logits.to_json()), *map(Paragraph, report.logits.notes)]
    if report.stored:
        beside = ", as the source is stored, beside its own noise: the source in 16 bits against itself in float32."
        blocks.append(Paragraph((*marked("The same in "), report.stored.dtype, *marked(beside))))
        blocks.append(comparisons(report.stored.to_json()))
    if flagged:
        more = f" and {len(flagged) - MOST_NAMES} more" if len(flagged) > MOST_NAMES else ""
        names = ", ".join(flagged[:MOST_NAMES])
        blocks.append(Paragraph((*marked("NaN or Inf stand in the source, and here: "), names, *marked(f"{more}."))))
    return Section("Measured", blocks)


def _again(result: Checkpoint, command: str) -> list[Block]:
    """How to make the result again, and how to check it."""
    steps, base = result.steps, _base(result.steps)
    source = ["demo"] if steps and steps[0].source.get("id") == "demo" else ["SOURCE"]
    source = [base[0], "--revision", base[1]] if base else source
    last = [Paragraph("The last step; those before it are listed above.")] if len(steps) > 1 else []
    verify = shlex.join(["modelsurgeon", "verify", source[0], RESULT, *source[1:]])
    files = "The first compares it with its source, the second its files with the hashes in `modelsurgeon.json`"
    text = marked(f"{files}; `{RESULT}` is a folder, or the id of this repository.")
    checks = Verbatim(f"{verify}\nmodelsurgeon verify --files {RESULT}")
    again = Section("How to make it again", [*last, Verbatim(command)])
    return [again, Section("How to check it", [Paragraph(text), checks])]


def _training(steps: tuple[Step, ...]) -> list[Block]:
    """What training does to the copies, if there are any."""
    grown = [step for step in steps if step.maps]
    text = "What reads copies differs among them, by noise that leaves their sums as they are: training parts them."
    if not all(step.arguments.get("noise") for step in grown):
        text = "Plain copies get equal gradients and stay copies in training until something, as dropout, parts them."
    verify = "`modelsurgeon verify SOURCE RESULT --trainable` tells what would stay a copy."
    return [Section("Before training it on", [Paragraph(marked(f"{text} {verify}"))])] if grown else []
