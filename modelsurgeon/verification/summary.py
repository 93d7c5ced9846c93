"""What a verification found, in few words: the verdict, three questions answered, one row a level, warnings.

    level  what                                          result
    proof  38 tensors and the config, for all inputs     weights: 39 exact
    logits float32, 4 kinds of input, 1,138 positions    max error 5.3e-06 of their deviation, top-1 1.0000

All of it is read off the report's document (schema.json), so the terminal, the page and a stored report agree.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelsurgeon.text import number

Document = Mapping[str, Any]

GOOD, BAD, WARNING, PLAIN = "good", "bad", "warning", "plain"
STAY = " will stay copies for ever"  # ends what is said of pairs of copies
MOST_WARNINGS = 10  # of one kind, one line each
NO_TENSORS = {"config.json", "modelsurgeon.json", "maps"}  # what a verdict may be of besides


@dataclass(frozen=True)
class Level:
    """One level: what it looked at, what it found, and whether that is good, bad, a warning or plain."""

    name: str
    what: str
    result: str
    mood: str = PLAIN


@dataclass(frozen=True)
class Answer:
    """One of the three questions that verification answers."""

    question: str
    answer: str
    why: str
    mood: str


def verdict(document: Document) -> str:
    """same function, or different; and what training would never change."""
    if not document["same"]:
        return "different"
    said = [line for axis in _stuck(document) for line in _never(axis)]
    copies = [line.removesuffix(STAY) for line in said if line.endswith(STAY)]
    never = [f"{_listed(copies)}{STAY}"] if copies else []
    never += [line for line in said if not line.endswith(STAY)]
    return f"same function; but {'; '.join(never)}" if never else "same function"


def levels(document: Document) -> list[Level]:
    """One a level that was run, in the order of the levels."""
    found = [_proof(document["proof"], document["inferred"])] if document["proof"] else []
    if document["logits"]:
        found += _logits(document["logits"])
    if document["stored"]:
        found.append(_stored(document["stored"]))
    if document["trainable"]:
        found += _trainable(document)
    return found


def warnings(document: Document) -> list[str]:
    """What is wrong or not lossless, one line each."""
    proof = document["proof"]
    if not proof:
        return []
    wrong = [tensor for tensor in proof["tensors"] if tensor["verdict"] == "wrong"]
    said = _few([f"wrong: {tensor['name']}: {tensor['detail']}" for tensor in wrong])
    return said + [f"not lossless: {reason}" for reason in proof["approximations"]]


def notes(document: Document) -> list[str]:
    """What was not run or not compared, and why, one line each."""
    levels = [document[level]["notes"] for level in ("logits", "stored", "trainable") if document[level]]
    return list(dict.fromkeys([*document["notes"], *(note for said in levels for note in said)]))


def answers(document: Document) -> list[Answer]:
    """The three questions."""
    return [_for_all(document), _agrees(document), _learns(document)]


def largest(values: Iterable[Any]) -> float:
    """The largest of numbers of the document; a nan is larger than all, and nothing is 0."""
    return max(map(float, values), key=lambda value: (math.isnan(value), value), default=0.0)


def template(name: str) -> str:
    """The name of a tensor with its counters left open: model.layers.{n}.mlp.up_proj.weight."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "{n}", name)


def _few(lines: list[str]) -> list[str]:
    left = len(lines) - MOST_WARNINGS
    return [*lines[:MOST_WARNINGS], f"and {left:,} more"] if left > 0 else lines


def _listed(items: list[str]) -> str:
    return " and ".join([*([", ".join(items[:-1])] if items[1:] else []), items[-1]])


def _stuck(document: Document) -> list[Any]:
    """The axes with coordinates that training would never change, or never separate."""
    return [axis for axis in (document["trainable"] or {"axes": []})["axes"] if axis["stuck"] or axis["dead"]]


def _never(axis: Document) -> list[str]:
    """The part of its sentence on that: copies come first, coordinates last, reasons behind a colon."""
    said = axis["says"].split("; ")
    told = said[:1] * bool(axis["stuck"]) + said[-1:] * bool(axis["dead"])
    return [line.partition(":")[0] for line in dict.fromkeys(told)]


# --- one row a level -------------------------------------------------------------------------------------------------


def _proof(proof: Document, inferred: Document | None) -> Level:
    counted = Counter(tensor["verdict"] for tensor in proof["tensors"])
    said = ", ".join(f"{counted[word]} {word}" for word in ("exact", "rounded", "wrong") if counted[word])
    rounded = f" (largest rounding {number(proof['rounding'])})" if proof["rounding"] else ""
    tensors = len({tensor["name"] for tensor in proof["tensors"]} - NO_TENSORS)
    by = "maps derived from the weights" if inferred else "maps on record"
    mood = BAD if counted["wrong"] else WARNING if proof["approximations"] else GOOD
    what = f"{tensors:,} {'tensor' if tensors == 1 else 'tensors'} and the config, all inputs, by {by}"
    return Level("proof", what, f"weights: {said}{rounded}", mood)


def _logits(report: Document) -> list[Level]:
    mood = GOOD if report["same"] else BAD
    return [
        Level("logits", f"{report['dtype']}, {_inputs(report)}", _errors(report["comparisons"]), mood),
        *_losses(report),
        *_layers(report["layers"]),
        *_generation(report["generation"]),
    ]


def _inputs(report: Document) -> str:
    compared = report["comparisons"]
    kinds, output = dict.fromkeys(c["inputs"] for c in compared), compared[0]["output"] if compared else ""
    positions = sum(c["positions"] for c in compared if c["output"] == output)
    return f"{len(kinds)} {'kind' if len(kinds) == 1 else 'kinds'} of input, {positions:,} positions"


def _errors(compared: list[Any]) -> str:
    if not compared:
        return "nothing was compared"
    said = [f"max error {number(largest(c['max_rel'] for c in compared))} of their deviation"]
    over_tokens = [c for c in compared if c["kl"] is not None]
    if over_tokens:
        said.append(f"KL {number(largest(c['kl'] for c in over_tokens))}")
        said.append(f"top-1 {number(-largest(-float(c['top1']) for c in over_tokens), '.4f')}")
    return ", ".join(said)


def _losses(report: Document) -> list[Level]:
    labelled = [c for c in report["comparisons"] if c["loss_before"] is not None]
    found = []
    for c in labelled:
        said = f"{number(c['loss_before'], '.4f')} -> {number(c['loss_after'], '.4f')}"
        told = report["perplexity"] if c is labelled[0] else None
        if told:
            said += f", perplexity {number(told['before'], '.2f')} -> {number(told['after'], '.2f')}"
        found.append(Level("loss", f"{c['output']}, {c['inputs']}, {c['positions']:,} positions", said))
    return found


def _layers(layers: Document | None) -> list[Level]:
    if not layers:
        return []
    what = f"hidden states at {len(layers['rows'])} places, {layers['inputs']}"
    errors = {row["name"]: row["max_rel"] for row in layers["rows"]}
    first = layers["first"]
    if not first:
        return [Level("layers", what, f"none diverges, max error {number(largest(errors.values()))}", GOOD)]
    return [Level("layers", what, f"first: {first} by {number(errors.get(first))}", BAD)]


def _generation(found: Document | None) -> list[Level]:
    if not found:
        return []
    what = f"{found['prompts']} prompts x {found['tokens']} tokens, with the cache"
    first, mood = found["first"], GOOD if found["same"] else BAD
    if first:
        at = f"prompt {first['prompt']}, token {first['at']}: {first['expected']} -> {first['found']}"
        kind = "a tie decided otherwise" if found["tie"] else "first difference"
        return [Level("generation", what, f"{kind} at {at} (margin {number(first['margin'])})", mood)]
    error = number(largest([found["error"], found["cache_error"]]))
    return [
        Level("generation", what, "equal" if found["same"] else f"equal tokens, but logits are off by {error}", mood)
    ]


def _stored(report: Document) -> Level:
    errors, noise = (number(largest(c["max_rel"] for c in report[key])) for key in ("comparisons", "noise"))
    said = f"max error {errors} beside own noise of {noise}"
    return Level("16 bits", f"{report['dtype']}, {_inputs(report)}", said)


def _trainable(document: Document) -> list[Level]:
    stuck, rows = _stuck(document), []
    for axis in document["trainable"]["axes"]:
        what = f"{axis['axis']} {axis['size']:,} -> {axis['new_size']:,}"
        said = "; ".join(_never(axis)) if axis in stuck else axis["says"]
        rows.append(Level("trainable", what, said, WARNING if axis in stuck else GOOD))
    return rows or [Level("trainable", "gradients of copies", "there are no copies")]


# --- the three questions ---------------------------------------------------------------------------------------------


def _for_all(document: Document) -> Answer:
    question, proof = "Is it the same function, for all inputs?", document["proof"]
    if not proof:
        return Answer(question, "not proven", "; ".join(document["notes"]) or "No proof was made.", PLAIN)
    row = _proof(proof, document["inferred"])
    answer = {GOOD: "proven", WARNING: "nearly", BAD: "not by these maps" if document["inferred"] else "no"}[row.mood]
    if row.mood == GOOD and proof["rounding"]:
        answer = "proven, up to rounding"
    return Answer(question, answer, f"{row.result}; {row.what}.", row.mood)


def _agrees(document: Document) -> Answer:
    question, report = "Does the software that will run it agree?", document["logits"]
    if not report:
        return Answer(question, "not run", "; ".join(document["notes"]) or "The models were not run.", PLAIN)
    rest = [row.result for row in _logits(report)[1:] if row.mood == BAD]
    said = "; ".join([f"In transformers, {report['dtype']}: {_errors(report['comparisons'])}", *rest])
    return Answer(question, "yes" if report["same"] else "no", f"{said}.", GOOD if report["same"] else BAD)


def _learns(document: Document) -> Answer:
    question, found = "Will it learn?", document["trainable"]
    if not found:
        return Answer(question, "not examined", "--trainable compares what training would do to copies.", PLAIN)
    pairs, stuck, dead = (sum(axis[key] for axis in found["axes"]) for key in ("pairs", "stuck", "dead"))
    if not (stuck or dead):
        return Answer(question, "yes", f"All of {pairs:,} pairs of copies get gradients of their own.", GOOD)
    said = [f"{stuck:,} of {pairs:,} pairs{STAY}"] if stuck else []
    said += [f"{dead:,} new coordinates get no gradient"] if dead else []
    return Answer(question, "not all of it", f"{', and '.join(said)}.", WARNING)
