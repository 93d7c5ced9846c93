"""A verification's findings in few words: the verdict, three questions answered, one row a level, warnings.

    level  what                                          result
    proof  38 tensors and the config, for all inputs     weights: 39 exact
    logits float32, 4 kinds of input, 1,138 positions    max error 5.3e-06 of their deviation, top-1 1.0000

All of it is read off the report's document (schema.json), so that the terminal, the page and a stored report agree.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelsurgeon.architectures.plain_names import plain
from modelsurgeon.text import number

Document = Mapping[str, Any]

PROVEN, NOT_PROVEN, DIFFERENT = (
    "same function, proven for all inputs",
    "same on what was run, not proven",
    "different",
)
GOOD, BAD, WARNING, PLAIN = "good", "bad", "warning", "plain"
STAY = " will stay copies for ever"  # the end of a finding about pairs of copies
NEGLIGIBLE = 1e-6  # of a weight: a rounding that does not show in logits computed in float32
MOST_WARNINGS = 10  # tensors that are listed as wrong
COUNTED = ("different", "only in source", "only in result")  # findings beside the function that --strict counts
NOT_COMPARED = "not compared"
NO_TENSORS = {"config.json", "modelsurgeon.json", "maps"}  # verdicts of these names are not of tensors


@dataclass(frozen=True)
class Level:
    """One level: what it examined, what it found, and whether that is good, bad, a warning or plain."""

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
    """One of three verdicts; and what training would never change."""
    if not document["same"]:
        return DIFFERENT
    findings = [line for axis in _stuck(document) for line in _never(axis)]
    copies = [line.removesuffix(STAY) for line in findings if line.endswith(STAY)]
    listed = [" and ".join(filter(None, [", ".join(copies[:-1]), copies[-1]])) + STAY] if copies else []
    never = "; ".join([*listed, *(line for line in findings if not line.endswith(STAY))])
    same = PROVEN if document["proven"] else NOT_PROVEN
    return f"{same}; but {never}" if never else same


def levels(document: Document) -> list[Level]:
    """The rows of all levels that were run, in order; outputs and copies may have several rows."""
    rows = [_proof(document["proof"], document["inferred"])] if document["proof"] else []
    rows += [_config(document["config"])] if document["config"] else []
    rows += [*_logits(document["logits"]), *_coverage(document["logits"])] if document["logits"] else []
    if report := document["stored"]:
        errors, noise = (number(largest(c["max_rel"] for c in report[key])) for key in ("comparisons", "noise"))
        what, result = f"{report['dtype']}, {_inputs(report)}", f"max error {errors} beside own noise of {noise}"
        rows.append(Level("16 bits", what, result, BAD if report["reasons"] else PLAIN))
    rows += _trainable(document) if document["trainable"] else []
    return rows + ([_beside(document["beside"])] if document["beside"] else [])


def warnings(document: Document) -> list[str]:
    """What is wrong or not lossless, one line each."""
    proof = document["proof"] or {"tensors": [], "approximations": []}
    word = "not by these maps" if document["inferred"] else "wrong"
    failed = [one for one in proof["tensors"] if one["verdict"] == "wrong"]
    if document["inferred"] and document["config"]:  # which names the settings itself
        failed = [one for one in failed if one["name"] != "config.json"]
    wrong = [f"{word}: {one['name']}: {one['detail']}" for one in failed]
    more = [f"and {len(wrong) - MOST_WARNINGS:,} more"] if len(wrong) > MOST_WARNINGS else []
    lossy = [f"not lossless: {reason}" for reason in proof["approximations"]]
    on_record = document["proof"] and not document["inferred"]  # then `wrong` has the settings, too
    settings = [] if on_record or not document["config"] else map(_setting, document["config"]["different"])
    apart = [line for level in ("logits", "stored") for line in _apart(document[level])]
    return [*settings, *wrong[:MOST_WARNINGS], *more, *lossy, *apart, *_rounded(document)]


def _setting(key: Document) -> str:
    return f"different: config.json: {key['key']}: {key['source']!r} -> {key['result']!r}"


def _apart(report: Document | None) -> list[str]:
    """The differences between outputs that rounding does not explain, one line each."""
    if not report:
        return []
    found = [f"different in {report['dtype']}: {line}" for line in report["reasons"]]
    more = [f"and {len(found) - MOST_WARNINGS:,} more in {report['dtype']}"] if len(found) > MOST_WARNINGS else []
    return [*found[:MOST_WARNINGS], *more]


def _rounded(document: Document) -> list[str]:
    """Where a growth that is right was rounded to 16 bits, and outputs differ by no more than that: the way out."""
    proof, outputs = document["proof"], document["logits"]
    if document["same"] or not proof or not outputs or outputs["same"]:
        return []
    if proof["verdict"] != "rounded" or proof["rounding"] <= NEGLIGIBLE:
        return []
    dtypes = [document["checkpoints"][side]["dtype"] for side in ("source", "result")]
    what = f"weights were rounded, by {number(proof['rounding'])} of themselves, and that is why outputs differ"
    steps = (document["maps"] or {"steps": []})["steps"]
    if dtypes[0] != dtypes[1]:
        return [f"{what}: stored as {dtypes[1]}, and the source as {dtypes[0]}; the source's dtype would hold them"]
    if any(step["arguments"].get("rule") == "orthogonal" for step in steps):
        return [f"{what}: {dtypes[1]} does not hold the factors of --rule orthogonal; --rule exact would round nothing"]
    return [what]


def notes(document: Document) -> list[str]:
    """What was not run or not compared, and why, one line each."""
    run = [document[level] for level in ("logits", "stored", "trainable") if document[level]]
    return list(dict.fromkeys(note for part in (document, *run) for note in part["notes"]))


def beside(document: Document) -> list[str]:
    """What differs beside the function, one line each."""
    counted = [row for row in document["beside"] if row["finding"] in COUNTED]
    return [f"beside the function: {row['what']}: {_in_full(row)}" for row in counted]


def answers(document: Document) -> list[Answer]:
    """Is it the same function, does the software agree, and will it learn?"""
    return [_for_all(document), _agrees(document), _learns(document)]


def largest(values: Iterable[Any]) -> float:
    """The largest of numbers of the document; a nan is larger than all, and nothing is 0."""
    return max(map(float, values), key=lambda value: (math.isnan(value), value), default=0.0)


def template(name: str) -> str:
    """The name of a tensor with its counters left open: model.layers.{n}.mlp.up_proj.weight."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "{n}", name)


def _stuck(document: Document) -> list[Any]:
    """The axes with coordinates that training would never change, or never separate."""
    return [axis for axis in (document["trainable"] or {"axes": []})["axes"] if axis["stuck"] or axis["dead"]]


def _never(axis: Document) -> list[str]:
    """The clauses on such coordinates, without reasons: a sentence begins with copies, and ends with dead ones."""
    clauses = axis["says"].split("; ")
    about = clauses[:1] * bool(axis["stuck"]) + clauses[-1:] * bool(axis["dead"])
    return [clause.partition(":")[0] for clause in dict.fromkeys(about)]


# --- one row a level -------------------------------------------------------------------------------------------------


def _proof(proof: Document, inferred: Document | None) -> Level:
    if row := _no_maps(proof):
        return row
    counted = Counter(tensor["verdict"] for tensor in proof["tensors"])
    counts = ", ".join(f"{counted[word]} {word}" for word in ("exact", "rounded", "wrong") if counted[word])
    rounded = f" (largest rounding {number(proof['rounding'])})" if proof["rounding"] else ""
    tensors = len({tensor["name"] for tensor in proof["tensors"]} - NO_TENSORS)
    by = "maps derived from the weights" if inferred else "maps on record"
    mood = BAD if counted["wrong"] else WARNING if proof["approximations"] else GOOD
    what = f"{tensors:,} {'tensor' if tensors == 1 else 'tensors'} and the config, all inputs, by {by}"
    if counted["wrong"] and inferred:
        first = next(tensor for tensor in proof["tensors"] if tensor["verdict"] == "wrong")
        return Level("proof", what, f"not proven: the nearest maps fail at {first['name']}; {counts}", WARNING)
    return Level("proof", what, f"weights: {counts}{rounded}", mood)


def _config(found: Document) -> Level:
    """The keys of the config by what became of them; those that count by name."""
    parts = [f"{found['equal']} equal"]
    parts += [f"{len(found['mapped'])} changed as the maps say"] if found["mapped"] else []
    parts += [f"{len(found['inert'])} without an effect"] if found["inert"] else []
    parts += [f"undecided: {', '.join(found['undecided'])}"] if found["undecided"] else []
    parts += [f"different: {', '.join(key['key'] for key in found['different'])}"] if found["different"] else []
    mood = BAD if found["different"] else WARNING if found["undecided"] else GOOD
    return Level("config", "every key, as transformers reads both files", ", ".join(parts), mood)


def _no_maps(proof: Document) -> Level | None:
    """The row of a proof that has no maps to fold by; None where it has some."""
    names = {one["name"] for one in proof["tensors"]}
    if names == {"modelsurgeon.json"}:
        return Level("proof", "the record", f"cannot be right: {proof['tensors'][0]['detail']}", BAD)
    if names == {"maps"}:
        return Level("proof", "maps derived from the weights", f"not proven: {proof['tensors'][0]['detail']}", WARNING)
    return None


def _logits(report: Document) -> list[Level]:
    what, mood = f"{report['dtype']}, {_inputs(report)}", GOOD if report["same"] else BAD
    rows = [Level("logits", what, _errors(report["comparisons"]), mood), *_losses(report)]
    rows += [_layers(report["layers"])] if report["layers"] else []
    return rows + ([_generation(report["generation"])] if report["generation"] else [])


def _coverage(report: Document) -> list[Level]:
    """How much was fed of what the model can look up."""
    if not (found := report["coverage"]):
        return []
    nouns = {"tokens": "tokens", "position_rows": "position rows", "token_types": "token types", "experts": "experts"}
    shares = {noun: found[name] for name, noun in nouns.items() if found[name] and found[name][1]}
    parts = [f"{fed:,} of {every:,} {noun}" for noun, (fed, every) in shares.items()]
    if found["longest"]:
        most = f" (trained on {found['trained']:,})" if found["trained"] else ""
        parts.append(f"longest row {found['longest']:,}{most}")
    return [Level("coverage", "what was run", ", ".join(parts))] if parts else []


def _inputs(report: Document) -> str:
    compared = report["comparisons"]
    kinds, output = dict.fromkeys(c["inputs"] for c in compared), compared[0]["output"] if compared else ""
    positions = sum(c["positions"] for c in compared if c["output"] == output)
    return f"{len(kinds)} {'kind' if len(kinds) == 1 else 'kinds'} of input, {positions:,} positions"


def _errors(compared: list[Any]) -> str:
    if not compared:
        return "nothing was compared"
    errors = [f"max error {number(largest(c['max_rel'] for c in compared))} of their deviation"]
    if broken := sum(c["nonfinite"] for c in compared):
        errors.append(f"{broken:,} numbers finite on one side alone")
    if over_tokens := [c for c in compared if c["kl"] is not None]:
        errors.append(f"KL {number(largest(c['kl'] for c in over_tokens))}")
        errors.append(f"top-1 {number(-largest(-float(c['top1']) for c in over_tokens), '.4f')}")
    return ", ".join(errors)


def _losses(report: Document) -> list[Level]:
    """A row an output with labels; the first has the perplexity, too."""
    rows: list[Level] = []
    for c in report["comparisons"]:
        if c["loss_before"] is None:
            continue
        losses = f"{number(c['loss_before'], '.4f')} -> {number(c['loss_after'], '.4f')}"
        if not rows and (perplexity := report["perplexity"]):
            losses += f", perplexity {number(perplexity['before'], '.2f')} -> {number(perplexity['after'], '.2f')}"
        rows.append(Level("loss", f"{c['output']}, {c['inputs']}, {c['positions']:,} positions", losses))
    return rows


def _layers(layers: Document) -> Level:
    what = f"hidden states at {len(layers['rows'])} places, {layers['inputs']}"
    errors = {row["name"]: row["max_rel"] for row in layers["rows"]}
    if first := layers["first"]:
        return Level("layers", what, f"first: {first} by {number(errors.get(first))}", BAD)
    return Level("layers", what, f"none diverges, max error {number(largest(errors.values()))}", GOOD)


def _generation(found: Document) -> Level:
    what = f"{found['prompts']} prompts x {found['tokens']} tokens, with the cache"
    if first := found["first"]:
        kinds = {"a tie decided otherwise": found["tie"], "not decided in 16 bits": found["undecided"]}
        kind = next((kind for kind, holds in kinds.items() if holds), "first difference")
        at = f"prompt {first['prompt']}, token {first['at']}: {first['expected']} -> {first['found']}"
        result = f"{kind} at {at} (margin {number(first['margin'])}, {number(first['share'])} of the deviation)"
    else:
        error = number(largest([found["error"], found["cache_error"]]))
        result = "equal" if found["same"] else f"equal tokens, but logits are off by {error}"
    return Level("generation", what, result, GOOD if found["same"] else BAD)


def _trainable(document: Document) -> list[Level]:
    stuck, rows = _stuck(document), []
    for axis in document["trainable"]["axes"]:
        what = f"{plain(axis['axis'])} {axis['size']:,} -> {axis['new_size']:,}"
        result, mood = ("; ".join(_never(axis)), WARNING) if axis in stuck else (axis["says"], GOOD)
        rows.append(Level("trainable", what, result, mood))
    return rows or [Level("trainable", "gradients of copies", "there are no copies")]


def _beside(rows: list[Any]) -> Level:
    """All rows in one: the names of those that are not the same, by finding."""
    kinds = {kind: [row["what"] for row in rows if row["finding"] == kind] for kind in (*COUNTED, NOT_COMPARED)}
    parts = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
    differs = any(kinds[kind] for kind in COUNTED)
    what = "tokenizer, templates, ids, labels, dropout, dtype, code"
    return Level("beside", what, "; ".join([*["same"][differs:], *parts]), WARNING if differs else GOOD)


def _in_full(row: Document) -> str:
    return ": ".join(filter(None, [row["finding"], row["detail"]]))


# --- the three questions ---------------------------------------------------------------------------------------------


def _for_all(document: Document) -> Answer:
    question, proof = "Is it the same function, for all inputs?", document["proof"]
    if not proof:
        return Answer(question, "not proven", "; ".join(document["notes"]) or "No proof was made.", PLAIN)
    row = _proof(proof, document["inferred"])
    proven = "proven, up to rounding" if proof["rounding"] else "proven"
    answer = {GOOD: proven, WARNING: "nearly" if proof["verdict"] != "wrong" else "not proven", BAD: "no"}[row.mood]
    told = _no_maps(proof) is not None
    why = f"{row.what[:1].upper()}{row.what[1:]} {row.result}." if told else f"{row.result}; {row.what}."
    return Answer(question, answer, why, row.mood)


def _agrees(document: Document) -> Answer:
    question, report = "Does the software that will run it agree?", document["logits"]
    if not report:
        return Answer(question, "not run", "; ".join(document["notes"]) or "The models were not run.", PLAIN)
    rest = [row.result for row in _logits(report)[1:] if row.mood == BAD]
    why = "; ".join([f"In transformers, {report['dtype']}: {_errors(report['comparisons'])}", *rest])
    return Answer(question, "yes" if report["same"] else "no", f"{why}.", GOOD if report["same"] else BAD)


def _learns(document: Document) -> Answer:
    question, found = "Will it learn?", document["trainable"]
    if not found:
        return Answer(question, "not examined", "--trainable compares what training would do to copies.", PLAIN)
    pairs, stuck, dead = (sum(axis[key] for axis in found["axes"]) for key in ("pairs", "stuck", "dead"))
    if not (stuck or dead):
        return Answer(question, "yes", f"All of {pairs:,} pairs of copies get gradients of their own.", GOOD)
    why = [f"{stuck:,} of {pairs:,} pairs{STAY}"] if stuck else []
    why += [f"{dead:,} new coordinates get no gradient"] if dead else []
    return Answer(question, "not all of it", f"{', and '.join(why)}.", WARNING)
