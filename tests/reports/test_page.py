"""The page of a report: all that was found, readable anywhere, and nothing that a stranger put into a name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from modelsurgeon.errors import OutputError
from modelsurgeon.reports import html, svg
from modelsurgeon.reports.blocks import explained, filled
from modelsurgeon.reports.chart import Scale
from modelsurgeon.reports.html import check_target
from modelsurgeon.reports.verification_charts import against, by_layer, by_position
from modelsurgeon.reports.verification_report import page
from modelsurgeon.verification import summary
from modelsurgeon.verification.side.finding import FINDINGS
from support import reports
from support.markup import HOSTILE, Read, fields

SCHEMA = reports.validator()


def hostile(value: Any) -> Any:
    """The document with every text, and every key that comes from a file, made hostile; words of the format stay."""
    kept = {"exact", "rounded", "wrong", "record", "weights", "float32", "bfloat16", "nan", "inf", *FINDINGS}
    if isinstance(value, dict):
        named = {"sizes", "arguments"}
        return {
            k: {HOSTILE + i: hostile(v) for i, v in inner.items()} if k in named else hostile(inner)
            for k, inner in value.items()
        }
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    return value + HOSTILE if isinstance(value, str) and value not in kept else value


def every() -> Iterator[tuple[str, dict[str, Any]]]:
    full = reports.full()
    yield "full", full
    yield "bare", reports.bare()
    lines = {
        "lines": ["stream: copies in tiles"],
        "steps": [{"operation": "widen"}],
        "fits": True,
        "reordered": ["mlp"],
    }
    yield "inferred", full | {"inferred": lines, "maps": full["maps"] | {"from": "weights"}}
    for level in ("proof", "logits", "stored", "trainable", "maps", "settings", "command"):
        yield f"without {level}", full | {level: None}
    yield "without a text", full | {"logits": full["logits"] | reports.absent(), "stored": None}
    unknown = dict.fromkeys(("kl", "top1", "loss_before", "loss_after"), "nan")
    odd = [{**c, "max_rel": "inf", "max_abs": "nan", **unknown} for c in full["logits"]["comparisons"]]
    rows = [row | {"max_rel": "nan"} for row in full["logits"]["layers"]["rows"]]
    curve = {"before": [None, 1.0, "inf"], "after": [None, "nan", 2.0]}
    logits = full["logits"] | {"comparisons": odd, "loss_by_position": curve, "scatter": curve_without_none(curve)}
    unfinite = full | {"logits": logits | {"layers": full["logits"]["layers"] | {"rows": rows}}}
    yield "not finite", unfinite
    yield "hostile", hostile(full)
    yield "hostile and not finite", hostile(unfinite)


def curve_without_none(curve: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {side: values[1:] for side, values in curve.items()}


DOCUMENTS = dict(every())


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_document_fits_the_schema_and_makes_a_whole_page(document: dict[str, Any]) -> None:
    SCHEMA.validate(document)
    text = html.rendered(page(document))
    read = Read(text)
    assert text.startswith("<!doctype html>") and read.wrong == []
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in read.tags}
    attributes = [name for _, found in read.tags for name in found]
    assert not [name for name in attributes if name.startswith("on") or name in ("src", "href", "xlink:href")]
    assert not re.search(r"https?:|url\(|@import", text)
    assert "\u202e" not in text and "{{" not in text.replace("{{ 7 * 7 }}", "") and ">49<" not in text


def test_the_schema_tells_a_document_with_something_else_in_it() -> None:
    SCHEMA.check_schema(SCHEMA.schema)
    full = reports.full()
    for wrong in (full | {"extra": 1}, full | {"same": "yes"}, {k: v for k, v in full.items() if k != "proof"}):
        with pytest.raises(jsonschema.ValidationError):
            SCHEMA.validate(wrong)


def test_every_field_is_described() -> None:
    found, parts = list(fields(SCHEMA.schema)), SCHEMA.schema["$defs"]
    assert len(found) > 100
    whole = {name: parts.get(field.get("$ref", "").rpartition("/")[2], {}) for name, field in found}
    said = [name for name, field in found if "description" in field or "description" in whole[name]]
    assert {name for name, _ in found} - set(said) <= {"checkpoints", "environment", "text"}


def test_a_full_page_holds_every_plot_and_table_with_its_words() -> None:
    read = Read(html.rendered(page(reports.full())))
    assert read.count("svg") == read.count("figure") == read.count("figcaption") == 4
    assert read.count("title") >= 5  # the page's, and one a drawing
    for word in (
        *("Same function", "64 of 128 pairs of MLP neurons will stay copies for ever", "tolerance", "position, tokens"),
        *("error, of the deviation", "loss, nats", "model.layers.{n}.mlp.up_proj.weight", "modelsurgeon verify demo"),
        *("AMD EPYC", "LlamaForCausalLM", "perplexity 110.17", "a tie", "4.7020", "widen", "cosine of two copies"),
    ):
        assert word in read.text, word


def test_a_different_function_is_called_so_first_and_says_where() -> None:
    read = Read(html.rendered(page(reports.bare())))
    assert "Different" in read.text and "Same" not in read.text
    assert "model.norm.weight: at [3] (folded): expected 1, found nan" in read.text


def test_ten_thousand_tensors_are_grouped_and_the_worst_are_listed_first() -> None:
    document = reports.full()
    tensors = [reports.tensor(f"model.layers.{i}.w", "rounded", i * 1e-9) for i in range(10_000)]
    document["proof"]["tensors"] = [*tensors, reports.tensor("odd", "wrong", 0.5, "at [0]: expected 1, found 2")]
    text = html.rendered(page(document))
    assert len(text) < 100_000
    listed = re.findall(r"<code>(model\.layers\.\d+\.w|odd)</code>", text.partition("Not exact")[2])
    assert listed[:3] == ["odd", "model.layers.9999.w", "model.layers.9998.w"] and len(listed) == 50
    assert "9,951 more are left out" in text and "10,000" in text and "{n}" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [("model.layers.12.up.weight", "model.layers.{n}.up.weight"), ("h.0.1.b", "h.{n}.{n}.b"), ("fc1.w2", "fc1.w2")],
)
def test_the_counters_of_a_name_are_left_open(name: str, shown: str) -> None:
    assert summary.template(name) == shown


def test_the_verdict_names_all_that_training_would_never_change() -> None:
    document = reports.full()
    mlp, heads = document["trainable"]["axes"]
    never = "64 of 128 pairs of MLP neurons"
    assert summary.verdict(document) == f"same function, proven for all inputs; but {never} will stay copies for ever"
    heads |= {
        "stuck": 2,
        "says": "2 of 8 pairs of heads will stay copies for ever: equal weights; the other 6 will part",
    }
    assert (
        summary.verdict(document)
        == f"same function, proven for all inputs; but {never} and 2 of 8 pairs of heads will stay copies for ever"
    )
    mlp |= {"stuck": 0, "dead": 3, "says": "all 128 pairs will part; 3 new neurons get no gradient: nothing reads them"}
    said = "2 of 8 pairs of heads will stay copies for ever; 3 new neurons get no gradient"
    assert summary.verdict(document) == f"same function, proven for all inputs; but {said}"
    assert [level.mood for level in summary.levels(document)][-2:] == ["warning", "warning"]
    assert [answer.answer for answer in summary.answers(document)] == ["proven, up to rounding", "yes", "not all of it"]
    assert summary.verdict(document | {"same": False}) == "different"
    for axis in (mlp, heads):
        axis |= {"stuck": 0, "dead": 0}
    assert summary.verdict(document) == summary.PROVEN and summary.answers(document)[2].answer == "yes"


# Plots


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 7.7), (1e-9, 1.1e-9), (1e6, 4e7)])
def test_ticks_are_round_inside_of_the_range_and_few(low: float, high: float) -> None:
    ticks = [value for value, _ in Scale(low, high, 0, 100).ticks]
    assert 2 <= len(ticks) <= 13 and all(low - 1e-12 <= value <= high * (1 + 1e-9) for value in ticks)


def test_a_scale_halves_its_range_or_its_decades_in_the_middle() -> None:
    assert [Scale(-1, 3, 10, 110)(value) for value in (-1, 1, 3, 9, float("nan"))] == [10, 60, 110, 110, 110]
    decades = [Scale(1e-4, 1, 200, 0, True)(value) for value in (0, 1e-4, 1e-2, 1)]
    assert decades == pytest.approx([200, 200, 100, 0])  # logarithms are rounded


def test_errors_are_drawn_by_their_decades() -> None:
    rows = [{"name": f"l.{i}", "layer": i, "part": "", "max_abs": 1.0, "max_rel": 10.0**-i} for i in range(3, 6)]
    text = str(svg.draw(by_layer({"inputs": "text", "rows": rows, "first": None, "tolerance": 1e-3})))
    heights = [float(y) for y in re.findall(r'<circle class="dot c\d" cx="[\d.]+" cy="([\d.]+)"', text)]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2) and heights[0] < heights[2]
    limit = re.search(r'<line class="limit" x1="[\d.]+" y1="([\d.]+)"', text)
    assert limit and float(limit[1]) == heights[0]  # the first error is as large as the tolerance


def test_what_is_no_number_is_crossed_out_and_zero_lies_on_the_edge() -> None:
    errors = [0.0, "nan", "inf", 1e-6]
    rows = [{"name": "l", "layer": 0, "part": "", "max_abs": 1.0, "max_rel": error} for error in errors]
    text = str(svg.draw(by_layer({"inputs": "text", "rows": rows, "first": "l", "tolerance": 1e-3})))
    assert text.count('class="cross"') == 2 and text.count("<circle") == 2
    for chart in (
        by_position({"before": [None, 1.0, "nan"], "after": [None, 1.0, 1.0]}),
        against({"before": [1.0, 2.0], "after": [1.0, "inf"]}),
        against({"before": [1.0, "nan"], "after": [1.0, 2.0]}),
    ):
        assert str(svg.draw(chart)).count('class="cross"') == 1


# Writing


def test_a_page_replaces_a_page_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    for document in (reports.bare(), reports.full()):
        check_target(target)
        html.write(target, page(document))
    assert target.read_bytes().isascii() and "Same function" in target.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


def test_a_page_that_cannot_be_made_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.html"
    html.write(target, page(reports.full()))

    def fails(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr("modelsurgeon.reports.html.os.replace", fails)
    with pytest.raises(OSError, match="full"):
        html.write(target, page(reports.bare()))
    assert "Same function" in target.read_text() and [path.name for path in tmp_path.iterdir()] == ["out.html"]


def test_what_is_no_place_for_a_page_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x00\xff" * 9000)
    (tmp_path / "link").symlink_to(tmp_path)
    places = {
        "": "exists and is no file",
        "link": "exists and is no file",
        "nowhere/out.html": "no folder",
        "model.safetensors/out.html": "no folder",
        "model.safetensors": "exists and is no report",
        "x" * 300: "cannot be written",
    }
    before = sorted(path.name for path in tmp_path.iterdir())
    for name, said in places.items():
        with pytest.raises(OutputError, match=said):
            check_target(tmp_path / name)
    for device in ("/dev/null", "/proc/out.html"):
        with pytest.raises(OutputError):
            check_target(Path(device))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# Words


def test_fields_of_a_document_are_never_marked_and_never_templates() -> None:
    hostile = {"name": "*em* `code` {other} arXiv 2404.07647 |", "none": None, "other": 3}
    (paragraph,) = [explained("*Ours*: {name}, {other:,}; {none:yes|no: {name}}", hostile)]
    assert "".join(phrase.text for phrase in paragraph.words) == f"Ours: {hostile['name']}, 3; no: {hostile['name']}"
    assert [phrase.style for phrase in paragraph.words if phrase.style] == ["em"]
    assert not any(phrase.link or phrase.ours for phrase in paragraph.words)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{a:.3g} to {b.c:,}", "0.123 to 1,234"),
        ("{none:,}", ""),
        ("{none:,} of {b.c:,}", "unknown of 1,234"),
        ("{none.deep:,} and {none}", ""),
        ("{odd:.3g}", "nan"),
        ("{shape}, {sizes}", "2x3, mlp 1,000, heads 4"),
        ("{size:bytes}", "2.5 MB"),
        ("{none:a|b: {a:.1f}}", "b: 0.1"),
        ("no field", "no field"),
    ],
)
def test_a_template_is_filled_from_a_document(template: str, text: str) -> None:
    document = {"a": 0.12345, "b": {"c": 1234}, "none": None, "odd": "nan", "shape": [2, 3], "size": 2_500_000}
    assert filled(template, document | {"sizes": {"mlp": 1000, "heads": 4}}) == text and filled("{a}", None) == ""
