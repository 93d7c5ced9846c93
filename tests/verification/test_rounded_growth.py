"""A growth that is right and was rounded to 16 bits: the outputs differ, and the report says why, and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import modelsurgeon as ms
from modelsurgeon.verification import summary
from support import tiny
from support.forging import changed

RUN = {"samples": 1, "length": 8}
WORDS = {  # (source's dtype, rule, dtype): what the report says
    ("bfloat16", "orthogonal", None): "BF16 does not hold the factors of --rule orthogonal; --rule exact would round",
    ("float32", "exact", "bfloat16"): "stored as BF16, and the source as F32; the source's dtype would hold them",
}


@pytest.mark.parametrize("case", WORDS, ids=str)
def test_that_16_bits_rounded_it_is_said_with_the_way_out(
    case: tuple[str, str, Any], source: Any, tmp_path: Path
) -> None:
    stored, rule, dtype = case
    before = source(tiny.named("llama-untied"), stored)
    after = ms.open(before).widen(factor=2, rule=rule, dtype=dtype, attention="heads").save(tmp_path / "out")
    report = ms.verify(before, after, **RUN)
    assert (report.verdict, report.proof.summary) == ("different", "rounded")
    *apart, line = summary.warnings(report.to_json())
    assert apart and all(one.startswith("different in ") for one in apart)
    assert "and that is why outputs differ" in line and WORDS[case] in line


def test_nothing_of_the_kind_is_said_where_something_is_wrong_or_nothing_differs(source: Any, tmp_path: Path) -> None:
    before = source(tiny.named("llama-untied"), "bfloat16")
    after = ms.open(before).widen(factor=2, rule="exact", attention="heads").save(tmp_path / "exact")
    report = ms.verify(before, after, **RUN)
    assert report.same and report.proven and summary.warnings(report.to_json()) == []
    rounded = ms.open(before).widen(factor=2, rule="orthogonal", attention="heads").save(tmp_path / "out")
    changed(tmp_path / "out", lambda tensors: tensors["model.norm.weight"].mul_(1.5))
    said = " ".join(summary.warnings(ms.verify(before, rounded, **RUN).to_json()))
    assert said.startswith("wrong: model.norm.weight") and "why outputs differ" not in said
