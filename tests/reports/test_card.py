"""The model card: what the Hub reads of it, what people read, and what strangers cannot put into it."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.record import Origin
from modelsurgeon.files.file import LocalFolder
from modelsurgeon.operations.transforms.untying import untie_embeddings
from modelsurgeon.operations.widen import NOISE
from modelsurgeon.reports.card import LARGEST, metadata_of, model_card, reproducing_command
from modelsurgeon.reports.markdown import escaped
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.save import save
from modelsurgeon.training.learning_rates import recommended
from modelsurgeon.verification.verify import verify
from support.command import run
from support.grow import widen

COMMIT = "0123456789abcdef" * 2 + "01234567"
ON_HUB = {"id": "org/name", "revision": COMMIT}
COMMAND = f"modelsurgeon widen org/name --factor 2 --revision {COMMIT} -o result"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(the demo widened and untied, what verification says of it)."""
    source = open_checkpoint("demo")
    out = tmp_path_factory.mktemp("card") / "secret-home" / "out"
    result = open_checkpoint(save(untie_embeddings(recommended(source, widen(source, 2, noise=NOISE))), out))
    return result, verify(source, result, RunOptions(samples=1, length=8))


def from_root(result, **changes):
    """The result as if its first step were another one."""
    return replace(result, steps=(replace(result.steps[0], **changes), *result.steps[1:]))


def card_of(result, report, **options):
    return ModelCard(model_card(result, report, command=COMMAND, **options))


def test_the_hub_reads_base_model_relation_library_and_tags(made):
    data = card_of(from_root(made[0], source=ON_HUB), made[1]).data
    assert (data.base_model, data.base_model_relation, data.library_name) == ("org/name", "finetune", "transformers")
    assert data.tags == ["modelsurgeon", "widen", "untie-embeddings"]


@pytest.mark.parametrize(
    "root",
    [
        {"id": "demo", "files": {}},
        {"id": "/home/me/model", "files": {}},
        {"id": "org/name", "files": {}},
        {"id": "org/name", "revision": "main"},
        {"id": "../org/name", "revision": COMMIT},
        {"id": ["org/name"], "revision": COMMIT},
        {},
    ],
    ids=str,
)
def test_only_a_repository_of_the_hub_is_a_base_model(made, root):
    card = card_of(from_root(made[0], source=root), made[1])
    assert card.data.base_model is None
    assert "base_model_relation" not in card.data.to_dict()


def test_paths_of_this_machine_are_not_published(made):
    text = str(card_of(from_root(made[0], source={"id": "/home/me/model", "files": {}}), made[1]))
    assert "/home/me" not in text and "secret-home" not in text
    assert "# model after widen and untie-embeddings" in text


def test_licence_and_language_are_those_of_the_source(made):
    theirs = {
        "license": "other",
        "license_name": "llama3",
        "license_link": "LICENSE",
        "pipeline_tag": "text-generation",
    }
    theirs |= {"language": ["en", False, 7, ["x"]], "datasets": ["org/text"]}
    unwanted = {"base_model": "org/other", "model-index": [], "tags": ["theirs"], "extra_gated_prompt": "agree"}
    data = card_of(*made, source_card=theirs | unwanted).data.to_dict()
    assert {key: data[key] for key in theirs} == theirs | {"language": ["en", "no"]}
    assert data["tags"] == ["modelsurgeon", "widen", "untie-embeddings"]
    assert not {"base_model", "model-index", "extra_gated_prompt"} & set(data)


@pytest.mark.parametrize("value", [7, {"a": "b"}, "x" * 501, [], [7], None, True])
def test_metadata_of_another_kind_is_left_out(made, value):
    assert "license" not in card_of(*made, source_card={"license": value}).data.to_dict()


def test_the_sizes_that_changed_are_shown_before_and_after(made):
    text = card_of(*made).text
    rows = [
        "| hidden\\_size | 128 | 256 |",
        "| intermediate\\_size | 352 | 704 |",
        "| num\\_attention\\_heads | 4 | 8 |",
    ]
    assert all(text.count(row) == 1 for row in rows)
    assert "vocab" not in text and "5,048,576 parameters" in text


def test_every_step_says_what_it_was_given_and_whether_anything_was_lost(made):
    text = card_of(from_root(made[0], lossy=("pairs are repeated",)), made[1]).text
    given = "factor 2, rule exact, attention heads, rope nested, noise 0.5"
    assert f"1. **widen** (modelsurgeon 0.1.0): {given}; not lossless" in text
    assert "pairs are repeated" in text
    assert "2. **untie-embeddings** (modelsurgeon 0.1.0): lossless" in text


def test_the_measured_errors_are_those_of_the_report(made):
    text, report = card_of(*made).text, made[1]
    assert f"{len(report.proof.verdicts)} exact" in text
    for comparison in (*report.logits.comparisons, *report.stored.comparisons):
        start = f"| {comparison.inputs} | {comparison.output} | {comparison.positions} | {comparison.max_abs:.1e} "
        errors = f"{comparison.max_rel:.1e} | {comparison.typical:.1e} | {comparison.kl:.1e} | {comparison.top1:.4f}"
        assert f"{start}| {errors} |" in text
    assert all(f"| {noise.max_rel:.1e} |" in text for noise in report.stored.noise)


def test_the_largest_rounding_of_the_weights_is_told(made):
    result, report = made
    first, *others = report.proof.verdicts
    rounded = replace(report.proof, verdicts=(replace(first, verdict="rounded", rounding=6e-8), *others))
    said = f"{len(others)} exact, 1 rounded (by 6.0e-08 at most)."
    assert said in card_of(result, replace(report, proof=rounded)).text and "at most)" not in card_of(*made).text


def test_what_was_not_compared_is_said(made):
    result, report = made
    text = card_of(result, replace(report, proof=None, stored=None, notes=("proof skipped: no record",))).text
    assert "proof skipped\\: no record" in text and "folded back" not in text and "own noise" not in text


def test_tensors_that_hold_no_numbers_are_named(made):
    text = card_of(*made, flagged=["a.weight|<b>", *(f"t{i}" for i in range(30))]).text
    assert "NaN or Inf stand in the source, and here: a.weight\\|\\<b\\>, t0" in text and "and 11 more" in text
    assert "NaN" not in card_of(*made).text


def test_the_commands_stand_there_as_they_are_typed(made):
    text = card_of(from_root(made[0], source=ON_HUB), made[1]).text
    commands = re.findall(r"^    (modelsurgeon .*)$", text, re.MULTILINE)
    verify = f"modelsurgeon verify org/name result --revision {COMMIT}"
    assert commands == [COMMAND, verify, "modelsurgeon verify --files result"]
    assert f"https://huggingface.co/org/name/tree/{COMMIT}" in text


def test_the_command_makes_the_same_files(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--push-to-hub", "org/wide", "--private", "-q", "--output", "x", "--overwrite", "--json"]
    command = reproducing_command(["widen", "demo", "--factor", "2", *options], open_checkpoint("demo").origin)
    done = run(*shlex.split(command)[1:])
    assert (done.code, done.out) == (0, "result\n"), done.err
    assert open_checkpoint("result").steps[0].to_json() == made[0].steps[0].to_json()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("widen org/name --factor 2 -o out", "widen org/name --factor 2"),
        ("widen org/name@main -oout --like 'my config'", "widen org/name --like 'my config'"),
        ("widen hf://org/name --revision v1 -qo out -q", "widen org/name"),
        ("widen org/name --revision=v1 --output=out --push-to-hub=a/b --create-pr", "widen org/name"),
        ("widen - --set hidden_size=8 --set num_attention_heads=2", "widen org/name --set hidden_size=8 --set num"),
        (
            "untie-embeddings --push-to-hub a/b --private --json --quiet --overwrite org/name",
            "untie-embeddings org/name",
        ),
    ],
)
def test_a_command_keeps_what_it_makes_and_loses_where_it_goes(given, kept, tmp_path):
    command = reproducing_command(shlex.split(given), Origin("org/name", LocalFolder(tmp_path), COMMIT))
    assert command.startswith(f"modelsurgeon {kept}")
    assert command.endswith(f" --revision {COMMIT} -o result")
    assert not re.search("push|pr |out |quiet|-q|main|v1", command)


def test_a_command_for_a_folder_pins_nothing_and_heeds_the_double_dash(tmp_path):
    origin = Origin("-odd", LocalFolder(tmp_path))
    assert reproducing_command(["widen", "-o", "x", "--", "-odd"], origin) == "modelsurgeon widen -o result -- -odd"


def test_strangers_write_no_markup(made):
    arguments = {"settings": {"a|b\n# c": "<script>"}, "rule": "[x](http://evil)"}
    hostile = from_root(made[0], operation="*bold*\u202e", version="`1`", arguments=arguments, source={"id": "<b>|x"})
    card = card_of(hostile, made[1])
    assert not re.search(r"(?<!\\)[<|]script|(?<!\\)<b>|^# c|\]\(http|\u202e", card.text, re.MULTILINE)
    assert card.data.tags == ["modelsurgeon", "untie-embeddings"]


def test_a_line_break_in_the_command_does_not_end_the_block(made):
    text = model_card(*made, command="modelsurgeon widen 'a\n# b\n```'")
    assert "\n    # b\n    ```'\n" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|*b*", r"a\|\*b\*"),
        ("<a>&lt;", r"\<a\>\&lt;"),
        ("# a", r"\# a"),
        ("![a](b)", r"\!\[a\]\(b\)"),
        ("`a_b`", r"\`a\_b\`"),
        ("https://a", r"https\://a"),
        ("me@a ~b~ $c$", r"me\@a \~b\~ \$c\$"),
        ("a\\", r"a\\"),
        ("a\n# b", r"'a\\n\# b'"),
        ("model.layers.0-1", "model.layers.0-1"),
    ],
)
def test_every_sign_of_markdown_is_escaped(text, shown):
    assert escaped(text) == shown


@pytest.mark.parametrize(
    ("card", "found"),
    [
        (b"---\nlicense: mit\nlanguage: [en]\n---\n# name", {"license": "mit", "language": ["en"]}),
        (b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        (b"---\nlicense: mit\nmodel-index: 7\nself: 1\n---\n", None),
        (b"# no metadata", {}),
        (b"", {}),
        (b"---\nlicense: mit", {}),
        (b"---\n- a\n- b\n---\n", {}),
        (b"---\na: [\n---\n", {}),
        (b"---\n7: 8\n---\n", {}),
        (b"---\na: !!python/object/apply:os.system ['echo']\n---\n", {}),
        (b"---\na: !x b\n---\n", {}),
        (b"---\na: " + b"[" * 600 + b"\n---\n", {}),
        (b"---\n\xff\xfe: \x00\n---\n", {}),
        (b"---\nlicense: mit\n" + b"# " + b"x" * LARGEST + b"\n---\n", {}),
    ],
    ids=range(14),
)
def test_only_plain_metadata_is_read_of_a_card(card, found, tmp_path):
    (tmp_path / "README.md").write_bytes(card)
    metadata = metadata_of(LocalFolder(tmp_path))
    assert metadata == found if found is not None else metadata.get("license") in (None, "mit")


def test_a_folder_without_a_card_has_no_metadata(tmp_path):
    assert metadata_of(LocalFolder(tmp_path)) == {}


def test_yaml_that_multiplies_itself_is_not_expanded(made, tmp_path):
    merged = [
        "a0: &a0 {license: mit}",
        *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)),
    ]
    nested = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))]
    for lines in (merged, [*nested, "language: *a39"], ["language: &a [*a]"]):
        (tmp_path / "README.md").write_text("\n".join(["---", *lines, "---", ""]))
        found = metadata_of(LocalFolder(tmp_path))
        assert "language" not in card_of(*made, source_card=found).data.to_dict()
