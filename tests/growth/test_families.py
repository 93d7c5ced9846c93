"""What `families` says holds: on tiny models, sizes that its cells allow are planned, and all others refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from math import lcm
from pathlib import Path

import pytest

from modelsurgeon.architectures import alibi, registry
from modelsurgeon.architectures.architecture import Form
from modelsurgeon.architectures.config import lookup
from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.errors import ModelSurgeonError, PlanError
from modelsurgeon.growth.overview import COLUMNS, FamilyRow, Width, as_markdown, families, family, make_row
from modelsurgeon.growth.targets import target_config
from modelsurgeon.operations.transforms.untying import untie_embeddings
from support import tiny
from support.command import ROOT, run
from support.grow import widen

# Heads of other kinds (classifiers, bare bodies) stand on the same widths.
SEVERAL = {row.model_type for row in families() if row.layout}
# A family of one row needs no more than its main forms; of the others, whatever may be another row's.
VARIANTS = [v for v in tiny.variants() if v.main or (v.model_type in SEVERAL and v.has_head and not v.modern)]
EVERY = slice(None)
TIMES = (Fraction(3, 2), Fraction(2), Fraction(3))


def row_of(checkpoint: Checkpoint) -> FamilyRow:
    """What holds for a checkpoint: the row of its form, or where several hold that of all of them."""
    model_type = checkpoint.config["model_type"]
    rows = {row.layout: row for row in family(model_type)}
    layouts = [form.name for form in forms_of(checkpoint) if form.name in rows]
    if len(layouts) > 1:
        return make_row(model_type, checkpoint.architecture, ", ".join(layouts))
    return rows[layouts[0] if layouts else ""]


def forms_of(checkpoint: Checkpoint) -> list[Form]:
    table = registry.find(checkpoint.config["model_type"])
    names = frozenset(map(table.canonical, checkpoint.tensors))
    return [form for form in table.forms if form.when(checkpoint.resolved, names)]


def widths(row: FamilyRow) -> list[tuple[str, Width]]:
    return [(column, width) for column, found in row.widths.items() for width in found]


def allows(checkpoint: Checkpoint, row: FamilyRow, settings: Mapping[str, int], sizes: Mapping[str, int]) -> bool:
    """Whether all cells of a row allow these sizes, {axis: size}."""
    return all(_allows(checkpoint, width, settings, sizes) for _, width in widths(row))


def _allows(checkpoint: Checkpoint, width: Width, settings: Mapping[str, int], sizes: Mapping[str, int]) -> bool:
    old, new = checkpoint.sizes[width.axes[0]], sizes[width.axes[0]]
    active = {key: lookup(checkpoint.resolved, key) for key in width.others if width.key}
    if width.rule == "xk":
        return new % old == 0 and all(settings.get(key, value) == value * (new // old) for key, value in active.items())
    if new != old and width.untied and checkpoint.is_tied:
        return False
    if new == old or width.rule == "any":
        return True
    if width.rule.startswith("x"):
        return new % lookup(checkpoint.resolved, width.rule[1:]) == 0
    rules = width.rule.split()
    if "grouped" in rules and not _groups_fit(checkpoint.sizes, sizes):
        return False
    return "fixed" not in rules and ("slopes" not in rules or _slopes_hold(checkpoint, width, old, new))


def _groups_fit(old: Mapping[str, int], new: Mapping[str, int]) -> bool:
    group, (slots, rest) = old["heads"] // old["kv"], divmod(new["heads"], new["kv"])
    return rest == 0 and -(-group // slots) * old["kv"] <= new["kv"]


def _slopes_hold(checkpoint: Checkpoint, width: Width, old: int, new: int) -> bool:
    slopes = checkpoint.architecture.axes[width.axes[0]].slopes
    assert slopes is not None
    before, after = slopes(checkpoint.resolved, old), slopes(checkpoint.resolved, new)
    return before is not None and after is not None and alibi.placed(before, after) is not None


def candidates(checkpoint: Checkpoint, row: FamilyRow) -> Iterator[dict[str, int]]:
    """Settings that are tried: each width alone, with what goes along, and hidden sizes with their heads."""
    keyed = {width.key: width for _, width in widths(row) if width.key}
    sizes = {key: checkpoint.sizes[width.axes[0]] for key, width in keyed.items()}
    for key, width in keyed.items():
        step = _step(checkpoint, key)
        for size in (sizes[key] + step, *(int(sizes[key] * times) // step * step for times in TIMES)):
            yield {key: size}
            if width.others:
                yield {key: size, **{k: lookup(checkpoint.resolved, k) * size // sizes[key] for k in width.others}}
    heads = [width.key for column, width in widths(row) if column in ("heads", "kv heads") and width.key]
    hidden = str(row.widths["hidden"][0].key)
    for key in heads:
        for size in (sizes[key] + 1, *(int(sizes[key] * times) for times in TIMES)):
            yield {hidden: lcm(size, sizes[hidden]), key: size}
    for times in TIMES:
        yield {hidden: int(sizes[hidden] * times), **{key: int(sizes[key] * times) for key in heads}}
        yield {hidden: int(2 * sizes[hidden] * times), **{key: int(sizes[key] * times) for key in heads}}


def _step(checkpoint: Checkpoint, key: str) -> int:
    """What the library wants a multiple of."""
    of = checkpoint.architecture.multiples.get(key, 1)
    return of if isinstance(of, int) else int(lookup(checkpoint.resolved, of))


def untrue(checkpoint: Checkpoint, row: FamilyRow, some: slice = EVERY) -> dict[str, object]:
    """{settings that are tried: what came of them} where that is not what the cells say."""
    found: dict[str, object] = {}
    tried = {str(sorted(settings.items())): settings for settings in candidates(checkpoint, row)}
    for settings in [*tried.values()][some]:
        try:
            sizes = checkpoint.architecture.sizes(target_config(checkpoint, settings))
        except ModelSurgeonError:  # of no config that the family has
            continue
        if any(sizes[name] < size for name, size in checkpoint.sizes.items()):
            continue
        try:
            planned: object = not widen(checkpoint, settings=settings).lossy
        except PlanError as error:
            planned = error
        if (planned is True) != allows(checkpoint, row, settings, sizes):
            found[str(settings)] = planned
    return found


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_size_is_planned_losslessly_where_the_cells_allow_it_and_refused_elsewhere(variant, source):
    """Where a tie decides nothing, the tied and the untied form share the sizes between them."""
    checkpoint = open_checkpoint(source(variant))
    row = row_of(checkpoint)
    twin = variant.main and variant.table.tie and not any(width.untied for _, width in widths(row))
    assert not untrue(checkpoint, row, slice(variant.tied, None, 2) if twin else EVERY)


@pytest.mark.parametrize(
    ("name", "column", "rule"),
    [
        ("bert-tied", "hidden", "any"),
        ("llama-tied", "hidden", "xk"),
        ("llama-tied", "head size", "any"),
        ("llama-tied", "heads", "any"),
        ("gpt2-tied", "head size", "xk"),
        ("gpt2-tied", "mlp", "fixed"),
        ("mixtral-tied", "experts", "any"),
        ("deepseek_v3-tied", "experts", "any"),
        ("falcon-alibi", "head size", "any"),
        ("opt-post-norm", "hidden", "any"),
    ],
)
def test_a_cell_that_says_too_much_or_too_little_is_noticed(name, column, rule, source):
    checkpoint = open_checkpoint(source(tiny.named(name)))
    row = row_of(checkpoint)
    assert not untrue(checkpoint, row)
    planted = tuple(replace(width, rule=rule, others=()) for width in row.widths[column])
    assert untrue(checkpoint, replace(row, widths={**row.widths, column: planted}))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_checkpoint_of_one_form_has_the_cells_of_its_row(variant, source):
    checkpoint = open_checkpoint(source(variant))
    fitted = make_row(variant.model_type, checkpoint.architecture)
    assert row_of(checkpoint).cells == fitted.cells


def test_every_row_is_that_of_a_checkpoint(source):
    several = [variant for variant in tiny.variants() if len(family(variant.model_type)) > 1]
    shown = {row_of(open_checkpoint(source(variant))).name for variant in several}
    assert {row.name for variant in several for row in family(variant.model_type)} <= shown


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.tied], ids=str)
def test_a_head_is_untied_where_the_cell_says_so(variant, source):
    checkpoint = open_checkpoint(source(variant))
    if not checkpoint.is_tied:  # a discriminator has no output head
        return
    if row_of(checkpoint).untie == "yes":
        assert checkpoint.architecture.tie.head in untie_embeddings(checkpoint).tensors
    else:
        with pytest.raises(PlanError):
            untie_embeddings(checkpoint)


# --- the command and the README --------------------------------------------------------------------------------------


def test_every_family_has_a_row_and_no_two_of_its_rows_are_alike():
    rows = families()
    assert {row.model_type for row in rows} == set(registry.known())
    assert len({(row.model_type, *row.cells.values()) for row in rows}) == len(rows)
    assert {row.name for row in rows} > {"falcon (alibi)", "opt (post-norm)", "llama"}
    assert all(set(row.cells) == {*COLUMNS, "untie"} for row in rows)


def test_the_readme_has_the_table_of_this_version():
    readme = (Path(ROOT) / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- families -->\n")[1].split("\n<!-- /families -->")[0]
    assert shown == as_markdown(families())
    assert run("families", "--markdown").out == shown + "\n"


def test_the_command_shows_all_families_or_one_in_detail():
    every, one = run("families"), run("families", "opt")
    assert (every.code, every.err, one.code, one.err) == (0, "", 0, "")
    assert all(row.name in every.out for row in families())
    assert "fc1.{weight,bias?}" in one.out and "(post-norm)" in one.out
    found = json.loads(run("families", "opt", "--json").out)
    assert found["requires"] == {"_remove_final_layer_norm": [None, False]}
    assert found["tensors"]["lm_head.weight?"] == "vocab <- final"
    assert found["axes"]["heads"] == {"key": "num_attention_heads", "through": "heads"}
    assert set(json.loads(run("families", "--json").out)) == {row.name for row in families()}


def test_an_unknown_family_is_refused_with_the_known_ones():
    done = run("families", "perceiver")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "unknown model_type 'perceiver'; known: albert, " in done.err
