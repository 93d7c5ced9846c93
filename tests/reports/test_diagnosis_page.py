"""A diagnosis as page, plots and table: all that was found, of one model or two, and nothing that a stranger named."""

from __future__ import annotations

import io
import math
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console
from typer.testing import CliRunner

from modelsurgeon.cli.main import program
from modelsurgeon.errors import OutputError
from modelsurgeon.reports import console, diagnosis_charts, diagnosis_report, html, png, svg
from modelsurgeon.reports.blocks import Page, cited
from modelsurgeon.reports.chart import Chart, Limit, Scale, Series
from modelsurgeon.reports.diagnosis_report import page
from modelsurgeon.reports.html import check_target
from support import diagnoses
from support.markup import HOSTILE, Read, fields

SCHEMA = diagnoses.validator()
FORMULA = "$\\frac{1}{$_0"  # matplotlib would read it as mathematics, and fail
WORDS = {"fine", "watch", "act", "unknown", "gain", "bias", "body", "last", "head", "embedding", "encoder", "decoder"}
WORDS |= {"", "nan", "inf"}


def hostile(value: Any) -> Any:
    """The document with every text made hostile; words of the format stay."""
    if isinstance(value, dict):
        return {key: hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    return (
        f"_{value}{HOSTILE}{FORMULA}" if isinstance(value, str) and value not in WORDS | {"", "nan", "inf"} else value
    )


def without_numbers(value: Any) -> Any:
    """The document with every fraction replaced by what is none."""
    if isinstance(value, dict):
        return {key: without_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_numbers(inner) for inner in value]
    return "nan" if isinstance(value, float) else value


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    full, bare, document = diagnoses.full(), diagnoses.bare(), diagnoses.document
    yield "one", document(full)
    yield "two", document(full, diagnoses.full("wide", 1.7))
    yield "bare", document(bare)
    yield "one of two bare", document(full, bare)
    yield "the same twice", document(full, full)
    for part in ("embedding", "initial_loss", "spectrum", "running"):
        yield f"without {part}", document(full | {part: None})
    running = full["running"] | dict.fromkeys(("loss", "loss_by_position", "last", "head_cut")) | {"attention": []}
    states = [state | {"anisotropy": None} for state in running["states"]]
    yield "run without a head", document(full | {"running": running | {"states": states}})
    yield "not finite", document(without_numbers(full), bare)
    yield "hostile", document(hostile(full), hostile(diagnoses.full("wide", 1.7)))
    yield "hostile and not finite", document(hostile(without_numbers(full)))


DOCUMENTS = dict(documents())


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_document_fits_the_schema_and_makes_a_whole_page(document: dict[str, Any]) -> None:
    SCHEMA.validate(document)
    text = html.rendered(page(document))
    read = Read(text)
    assert text.startswith("<!doctype html>") and read.wrong == []
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in read.tags}
    attributes = [name for _, found in read.tags for name in found]
    assert not [name for name in attributes if name.startswith("on") or name in ("src", "xlink:href")]
    links = [found["href"] or "" for _, found in read.tags if "href" in found]
    assert links and all(re.match(r"https://(arxiv\.org/abs|spaces\.ac\.cn/archives)/[\d.]+$", link) for link in links)
    assert not re.search(r"url\(|@import", text)
    assert "\u202e" not in text and "{{" not in text.replace("{{ 7 * 7 }}", "") and ">49<" not in text


def test_the_schema_tells_a_document_with_something_else_in_it_and_describes_every_field() -> None:
    SCHEMA.check_schema(SCHEMA.schema)
    full = diagnoses.full()
    for wrong in (full | {"extra": 1}, full | {"fresh": "no"}, {k: v for k, v in full.items() if k != "verdicts"}):
        with pytest.raises(jsonschema.ValidationError):
            SCHEMA.validate(diagnoses.document(wrong))
    undescribed = {name for name, field in fields(SCHEMA.schema) if "description" not in field}
    assert undescribed <= {"environment"}


def test_a_page_says_the_worst_first_and_cites_it() -> None:
    read = Read(html.rendered(page(DOCUMENTS["two"])))
    for word in (
        *("demo: 2 to act on, 1 to watch, 3 fine, 1 not measured", "bottleneck: this says what follows"),
        *("modelsurgeon widen demo -o OUT --set hidden_size=1024", "arXiv 2404.07647", "figure 6", "17 and 81"),
        *(
            "a reference number",
            "component 9",
            "-98.5",
            "0 to 98.6",
            "equal rows: 5, 6, 7",
            "4 equal columns",
            "17 and 81",
        ),
        *("model.layers.{n}.mlp.up_proj.weight", "Gram matrix in float64, exact", "largest of a random matrix"),
        *("fused, not measured", "AMD EPYC", "787,552"),
    ):
        assert word in read.text, word
    assert read.text.index("Act") < read.text.index("bottleneck") < read.text.index("numbers: this")
    assert read.count("svg") == read.count("figure") == len(diagnosis_charts.DRAWN)


def test_long_lists_are_cut_and_it_says_so() -> None:
    model = diagnoses.full()
    model["numbers"]["tensors"] *= 1000
    model["copies"] *= 1000
    text = html.rendered(page(diagnoses.document(model)))
    assert len(text) < 150_000 and text.count("960 more are left out here") == 2


def test_layers_of_one_template_are_one_row_from_least_to_largest() -> None:
    text = Read(html.rendered(page(DOCUMENTS["one"]))).text
    assert "1.25 to 1.55" in text and "8.88 to 11" in text  # o_proj: of Xavier's, of 0.0176


@pytest.mark.parametrize(
    ("source", "links"),
    [
        ("<b>arXiv 2404.07647, figure 6", ["https://arxiv.org/abs/2404.07647"]),
        ("https://kexue.fm/archives/8444: so", ["https://kexue.fm/archives/8444"]),
        ("https://evil.example/archives/9 and javascript:alert(1)", []),
        ('"><a href="https://evil.example">', []),
    ],
)
def test_only_papers_and_articles_become_links(source: str, links: list[str]) -> None:
    read = Read(html.rendered(Page("", "", (), ("", ""), "plain", cited(source), (), ())))
    assert [found["href"] for tag, found in read.tags if tag == "a"] == links and source in read.text and not read.wrong


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_verdicts_of_two_models_are_paired_by_theme_and_place() -> None:
    one, two = diagnoses.full(), diagnoses.full("wide")
    one["verdicts"] = [diagnoses.verdict("norms", "fine", 1, {}, None), diagnoses.verdict("norms", "watch", 2, {}, "a")]
    two["verdicts"] = [
        diagnoses.verdict("loss", "unknown", None, {}, None),
        diagnoses.verdict("norms", "act", 3, {}, "b"),
        diagnoses.verdict("norms", "fine", 4, {}, "a"),
    ]
    judged = diagnosis_report.judged([one, two])
    told = [(word, [verdict and verdict["value"] for verdict in pair]) for word, pair in judged]
    assert told == [("act", [1, 3]), ("watch", [2, 4]), ("unknown", [None, None])]
    assert judged[2][1][0] is None  # the first model has none of that theme
    assert diagnosis_report.commands([one, two]) == [("b", "norms"), ("a", "norms")]
    assert (
        diagnosis_report.tally(two) == "1 to act on, 1 fine, 1 not measured" and diagnosis_report.worst([]) == "unknown"
    )


def told(document: dict[str, Any]) -> str:
    terminal = Console(file=io.StringIO(), width=200)
    console.show(diagnosis_report.brief(document), terminal)
    return terminal.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_has_a_column_a_model_and_ends_with_commands_and_counts() -> None:
    lines = told(DOCUMENTS["two"]).splitlines()
    assert re.split(r"\s{2,}", lines[0].strip()) == [*"theme measure verdict demo wide reference says".split()]
    assert re.match(r"bottleneck +what bottleneck measures +act +64 +64 +a reference number", lines[1])
    assert "bottleneck: modelsurgeon widen demo -o OUT --set hidden_size=1024" in lines
    assert lines[-1] == "wide: 2 to act on, 1 to watch, 3 fine, 1 not measured"
    assert [line for line in lines if line.startswith("not measured")] == [
        "not measured, or without a meaning here: what tokens measures"
    ]


def test_nothing_in_the_table_is_markup_or_moves_the_cursor() -> None:
    model = diagnoses.full("[red]\x1b[2Jname")
    model["verdicts"][0] |= {
        "verdict": "act",
        "shown": "[b]1",
        "says": "[link=x]\x1b]0;t\x07",
        "command": "[bold]x\x1b",
    }
    text = told(diagnoses.document(model))
    assert "\x1b" not in text and "\x07" not in text
    assert all(word in text for word in ("[red]", "[b]1", "[link=x]", "[bold]x"))


# --- charts ----------------------------------------------------------------------------------------------------------


def drawn(*models: dict[str, Any]) -> dict[str, Chart]:
    return {chart.name: chart for chart in diagnosis_charts.charts(diagnoses.document(*models))}


def test_only_what_there_is_data_of_is_drawn() -> None:
    assert list(drawn(diagnoses.full())) == list(diagnosis_charts.DRAWN)
    assert list(drawn(diagnoses.full() | {"running": None})) == ["head-spectrum", "row-norms", "gains", "deviations"]
    assert list(drawn(diagnoses.bare())) == ["deviations"]


def test_a_random_matrix_ends_at_its_edge_and_values_that_are_rounding_are_zero() -> None:
    spectrum = {"shape": [400, 100], "values": [3.0] * 50 + [1.0] * 49 + [1e-12], "resolution": 1e-9}
    model = diagnoses.full() | {"spectrum": diagnoses.full()["spectrum"] | spectrum}
    chart = drawn(model)["head-spectrum"]
    size = math.sqrt((50 * 9 + 49) / 100)
    assert chart.series[0].ys[:99:49] == pytest.approx([3 / size, 3 / size, 1 / size])
    assert chart.series[0].ys[99] == 0
    assert chart.series[0].xs[0] == 1 and chart.limits[0].at == pytest.approx(1.5)  # 1 + sqrt(100 / 400)


def test_norms_outside_of_layers_stand_beside_them_by_name() -> None:
    model = diagnoses.full()
    for tensor, place in (("cls.norm.weight", "head"), ("embeddings.norm.weight", "embedding")):
        model["gains"].append(diagnoses.gain(tensor, None, "norm", place, 3.0))
    for chart in (drawn(model)["gains"], drawn(model, diagnoses.full("wide"))["gains"]):
        assert dict(chart.ticks) == {-1: "embedding", 0: "0", 1: "1", 2: "2", 3: "3", 4: "last", 5: "head"}
        placed = {name: round(x) for one in chart.series for x, name in zip(one.xs, one.names, strict=True)}
        assert placed["model.norm.weight"] == 4 and placed["cls.norm.weight"] == 5
        assert placed["embeddings.norm.weight"] == -1 and placed["model.layers.2.input_layernorm.weight"] == 2
    reach = dict(zip(chart.series[0].names, chart.series[0].reach, strict=True))
    assert reach["model.norm.weight"] == (1.2, 4.8)  # least and largest


def test_limits_are_those_of_the_verdicts() -> None:
    limits = {limit.label: limit for limit in drawn(diagnoses.full())["attention-logits"].limits}
    assert (limits["act"].at, limits["act"].bad) == (10_000, True)
    assert (limits["watch"].at, limits["watch"].bad) == (1000, False)


def test_what_the_last_norm_returns_stands_after_the_last_layer() -> None:
    (series,) = drawn(diagnoses.full())["anisotropy"].series
    assert series.xs == (0, 1, 2, 3, 4, 5) and series.names[-2:] == ("layer 3", "last")


def test_models_of_one_name_are_numbered() -> None:
    models = [{"source": "runs/a/"}, {"source": "other/a"}]
    assert diagnosis_charts.names(models) == ["a (1)", "a (2)"] and diagnosis_charts.names(models[:1]) == ["a"]
    assert diagnosis_charts.names([{"source": "/"}, {"source": "x" * 100}]) == ["/", "..." + "x" * 37]


SMALL = Chart(
    "small",
    "Small",
    "x",
    "y",
    (Series("a", (0.0, 1.0, 2.0, 3.0), (1.0, 100.0, math.nan, 0.0)), Series("b", (0.0,), (10.0,), "dots")),
    (Limit(100.0, "most", bad=True), Limit(2.0, "here", vertical=True)),
    y_log=True,
)


def test_the_svg_draws_decades_evenly_and_what_is_no_number_as_a_cross() -> None:
    text = str(svg.draw(SMALL))
    points = re.search(r'<polyline class="line c0" points="([^"]*)"', text)
    assert points
    (_, low), (_, high), (_, zero) = [map(float, place.split(",")) for place in points[1].split()]
    dot = re.search(r'<circle class="dot c1" cx="[\d.]+" cy="([\d.]+)"', text)
    assert dot and float(dot[1]) == pytest.approx((low + high) / 2, abs=0.2)
    assert zero == svg.HEIGHT - svg.BOTTOM and text.count('class="cross"') == 1
    limit = re.search(r'<line class="limit" x1="[\d.]+" y1="([\d.]+)"', text)
    assert limit and float(limit[1]) == high
    assert Read(text).wrong == [] and "<title>Small</title>" in text


def test_long_lines_are_drawn_without_points_that_nobody_sees() -> None:
    count = 50_000
    steps = tuple(map(float, range(count)))
    text = str(svg.draw(Chart("long", "Long", "x", "y", (Series("a", steps, steps),))))
    assert len(text) < 30_000 and "<circle" not in text


def test_a_chart_that_contradicts_itself_cannot_be() -> None:
    for wrong in ({"ys": (1.0,)}, {"names": ("a",)}, {"xs": (0.0, math.inf)}):
        with pytest.raises(ValueError, match="xs"):
            Series(**{"label": "a", "xs": (0.0, 1.0), "ys": (0.0, 1.0), **wrong})
    with pytest.raises(ValueError, match="name"):
        Chart("../up", "", "", "", ())


def test_logarithmic_ticks_are_few_and_never_less_than_two() -> None:
    for low, high in ((0.9, 1.1), (0.5, 30.0), (1e-9, 1e12), (1.0, 128.0)):
        assert 2 <= len(Scale(low, high, 0, 1, True).ticks) <= 12
    assert [said for _, said in Scale(0.05, 3000.0, 0, 1, True).ticks] == ["0.1", "1", "10", "100", "1,000"]


# --- PNG -------------------------------------------------------------------------------------------------------------


def test_every_hostile_chart_is_a_picture_and_one_that_is_left_over_goes(tmp_path: Path) -> None:
    folder, wanted = tmp_path / "plots", list(diagnosis_charts.DRAWN)
    found = diagnosis_charts.charts(DOCUMENTS["hostile and not finite"])[:1]
    png.check_folder(folder, wanted)
    png.write_charts(folder, [SMALL, *found], wanted)
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{c.name}.png" for c in (SMALL, *found))
    for path in folder.iterdir():
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        assert path.read_bytes().startswith(b"\x89PNG") and (width, height) == (1200, 630)
    png.check_folder(folder, [*wanted, "small"])
    png.write_charts(folder, [SMALL], wanted)
    assert [path.name for path in folder.iterdir()] == ["small.png"]
    assert "matplotlib.pyplot" not in sys.modules


def test_what_is_no_plot_of_ours_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "gains.png").write_bytes(b"\x89PNG mine")
    (tmp_path / "file").touch()
    for folder, said in (("", "no plot of ours"), ("file", "exists and is no folder"), ("no/where", "no folder")):
        with pytest.raises(OutputError, match=said):
            png.check_folder(tmp_path / folder, diagnosis_charts.DRAWN)
    png.write_charts(tmp_path, [], diagnosis_charts.DRAWN)
    assert (tmp_path / "gains.png").exists()


# --- command line ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--stream", "ask for --weights too"),
        ("--weights --samples 4", "--samples is for running the model"),
        ("--weights --trust-remote-code", "--trust-remote-code is for running the model"),
        ("--report nowhere/out.html", "no folder nowhere"),
        ("--plots nowhere/plots", "no folder nowhere"),
        ("--dtype int3", "expected one of"),
        ("--memory none", "expected a number of bytes"),
        ("--text nowhere.txt", "cannot be read as UTF-8"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_read(options: str, said: str) -> None:
    result = CliRunner().invoke(program(), ["diagnose", "no/such/checkpoint", *options.split()])
    assert said in f"{result.output}{result.exception}" and result.exit_code


def test_plots_without_matplotlib_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = CliRunner().invoke(program(), ["diagnose", "no/such/checkpoint", "--plots", str(tmp_path)])
    assert isinstance(result.exception, OutputError)
    assert "pip install 'modelsurgeon[plots]'" in str(result.exception)


def test_a_page_replaces_a_page_alone(tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    for document in (DOCUMENTS["bare"], DOCUMENTS["two"]):
        check_target(target)
        html.write(target, page(document))
    assert target.read_bytes().isascii() and [path.name for path in tmp_path.iterdir()] == ["out.html"]
