"""What is measured of an embedding: tables whose answer is known, and numpy's own numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.diagnosis.weights import embedding_passes
from modelsurgeon.diagnosis.weights.embedding import TokenTable, measure_table
from modelsurgeon.text import printable
from support import tiny

NAME = "model.embed_tokens.weight"
VOCAB, WIDTH = 300, 16
Stored = Callable[..., TokenTable]


@pytest.fixture
def measured(tmp_path: Path) -> Stored:
    """measured(weight, **side files) -> its table, kept in memory or read twice from the file."""

    def measure(weight: torch.Tensor, memory: int = 1 << 20, **files: Any) -> TokenTable:
        return measure_table(stored(tmp_path, weight, files), NAME, memory=memory)

    return measure


def stored(folder: Path, weight: torch.Tensor, files: dict[str, Any]) -> Checkpoint:
    config = json.loads((Path(embedding_passes.__file__).parents[2] / "demo" / "config.json").read_text())
    config |= {"vocab_size": weight.shape[0], "hidden_size": weight.shape[1]}
    (folder / "config.json").write_text(json.dumps(config))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    save_file({NAME: weight}, folder / "model.safetensors")
    return open_checkpoint(folder)


def normal(vocab: int = VOCAB, width: int = WIDTH, mean: float = 0.5) -> torch.Tensor:
    return torch.randn(vocab, width, generator=torch.Generator().manual_seed(7)) * 0.02 + mean


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_mean_deviation_norms_and_columns_are_numpys(measured, monkeypatch, dtype, memory):
    monkeypatch.setattr("modelsurgeon.diagnosis.weights.rows.BLOCK", 7 * WIDTH)  # blocks that do not divide the table
    weight = normal().to(dtype)
    weight[:, 3] *= 20  # an outlier dimension
    found, rows = measured(weight, memory), weight.double().numpy()
    norms = np.linalg.norm(rows, axis=1)
    assert (found.mean, found.deviation) == pytest.approx((rows.mean(), rows.std()), rel=1e-12)
    assert found.norms["quantiles"][::50] == pytest.approx(np.quantile(norms, [0, 0.5, 1], method="nearest"), rel=1e-12)
    columns = rows.std(axis=0)
    assert found.components["columns"]["column"] == 3
    assert found.components["columns"]["max"] == pytest.approx(
        columns[3], rel=1e-9
    )  # from sums of squares: mean 10, 0.4
    spread = np.median(np.abs(rows - np.median(rows)))
    assert found.components["median_deviation"] == pytest.approx(
        1.4826 * spread, rel=1e-3
    )  # of an even count, both middles


def test_the_robust_deviation_of_a_large_table_is_that_of_every_so_many_rows(measured, monkeypatch):
    monkeypatch.setattr("modelsurgeon.diagnosis.weights.rows.BLOCK", 7 * WIDTH)
    monkeypatch.setattr(embedding_passes, "SAMPLE", VOCAB * WIDTH // 4)
    weight = normal()
    weight[8] = 0.0  # a dead row says nothing of the others
    sample = weight[::4][torch.arange(0, VOCAB, 4) != 8].numpy()
    spread = np.median(np.abs(sample - np.median(sample)))
    assert measured(weight).components["median_deviation"] == pytest.approx(1.4826 * spread, rel=1e-6)


def test_rows_and_components_far_off_are_named_with_their_tokens(measured, monkeypatch):
    monkeypatch.setattr("modelsurgeon.diagnosis.weights.rows.BLOCK", 7 * WIDTH)
    weight = normal(mean=0.0)
    weight[17, 5], weight[17, 6], weight[40, 2] = 100.0, -99.0, -50.0  # what Lion and Tiger leave
    weight[60] *= 0.05
    vocab = {f"t{row}": row for row in range(VOCAB)}
    found = measured(weight, tokenizer={"model": {"vocab": vocab}})
    far = found.far_components
    assert [(one["row"], one["column"], one["value"], one["token"]) for one in far["examples"]] == [
        (17, 5, 100.0, "t17"),
        (17, 6, -99.0, "t17"),
        (40, 2, -50.0, "t40"),
    ]
    assert far["count"] == 3
    assert found.components["median_deviation"] == pytest.approx(0.02, rel=0.05)
    assert far["largest"] == far["examples"][0]["times"] == 100.0 / found.components["median_deviation"]
    assert [one["row"] for one in found.far_rows["examples"]] == [17, 40, 60]
    assert found.far_rows["examples"][2]["times"] < 0.1


def test_dead_and_duplicate_rows_and_rows_at_the_mean_are_counted_once_each(measured):
    weight = normal()
    weight[[11, 12]] = 0.0
    weight[[90, 200, 299]] = weight[5].clone()
    weight[[31, 30]] = weight[7:9].clone()
    usual = [row for row in range(VOCAB) if row not in (11, 12, 20, 21)]
    weight[[20, 21]] = weight[usual].mean(0) + torch.randn(2, WIDTH) * 1e-5
    weight[250, 0] = 1000.0  # moves the mean of all, not that of the usual rows
    vocab = {f"t{row}": row for row in range(VOCAB)}
    found = measured(weight, tokenizer={"model": {"vocab": vocab}, "added_tokens": [{"id": 299, "content": "<x>"}]})
    assert found.dead == {"count": 2, "examples": [11, 12]}
    assert found.duplicates == {"groups": 3, "rows": 5, "examples": [[5, 90, 200, 299], [7, 31], [8, 30]]}
    why = {one["row"]: one["why"] for one in found.untrained["examples"]}
    assert found.untrained["count"] == 9
    assert (why[11], why[20], why[90]) == ("zero", "at the mean of all rows", "equal to row 5")
    assert (found.untrained["added"], found.untrained["beyond"]) == (1, 0)
    assert found.untrained["examples"][0] == {"row": 299, "token": "<x>", "why": "equal to row 5"}  # added ones first


def test_a_row_that_is_not_finite_is_no_part_of_any_mean(measured):
    weight = normal()
    expected = printable(measured(weight[1:]))
    weight[0, 3] = torch.nan
    found = measured(weight)
    assert found.norms["max"] == float("inf")
    assert (found.mean, found.deviation) == pytest.approx((expected["mean"], expected["deviation"]), rel=1e-12)
    assert found.far_rows["count"] == 1 and found.far_components["count"] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resizing_by_the_library_leaves_exactly_the_added_rows(tmp_path, dtype):
    model, more = tiny.build(tiny.named("llama-tied")), 5
    torch.manual_seed(0)
    model.resize_token_embeddings(tiny.VOCAB + more, pad_to_multiple_of=4)  # 61 + 5 rows, and two of padding
    model.to(dtype).save_pretrained(tmp_path)
    added = [{"id": tiny.VOCAB + at, "content": f"<{at}>"} for at in range(more)]
    vocab = {f"t{row}": row for row in range(tiny.VOCAB)}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": added}))
    found = measure_table(open_checkpoint(tmp_path), NAME, memory=1 << 20)
    untrained = found.untrained
    assert (untrained["count"], untrained["added"], untrained["beyond"]) == (7, 5, 2)
    assert [one["token"] for one in untrained["examples"]] == ["<0>", "<1>", "<2>", "<3>", "<4>", None, None]
    assert {one["why"] for one in untrained["examples"]} == {"at the mean of all rows"}
    assert found.tokenizer == {"tokens": tiny.VOCAB + more, "added": more}


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer": "{"},
        {"tokenizer": []},
        {"tokenizer": {"model": [3], "added_tokens": 3}},
        {"tokenizer": {"model": {"vocab": 3}}},
        {"tokenizer": {"model": {"vocab": {"a": "b", "c": None}}}},
        {"tokenizer_config": {"added_tokens_decoder": {"x": 1}}},
        {},
    ],
)
def test_a_tokenizer_that_is_broken_or_absent_is_none(measured, files):
    assert measured(normal(), **files).tokenizer is None


def test_tokens_come_from_every_layout_of_a_tokenizers_files(measured):
    pieces = [["<unk>", 0.0], ["a", -1.0], ["b", -2.0]]
    extra = {"added_tokens_decoder": {"4": {"content": "<x>"}}}
    found = measured(normal(6), tokenizer={"model": {"vocab": pieces}}, tokenizer_config=extra, added_tokens={"<y>": 5})
    assert found.tokenizer == {"tokens": 5, "added": 2}
    assert found.untrained["examples"] == [{"row": 3, "token": None, "why": "no token has this row"}]
    assert found.untrained["beyond"] == 1


def test_a_bare_vocabulary_serves_where_there_is_no_tokenizer_json(measured):
    assert measured(normal(), vocab={"a": 0, "b": 1}).tokenizer == {"tokens": 2, "added": 0}
