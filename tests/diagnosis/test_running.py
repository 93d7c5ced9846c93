"""What running a checkpoint tells, against brute force, planted answers and computations by hand."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.diagnosis.behaviour import Behaviour, observe
from modelsurgeon.diagnosis.head_cut import BodyReplay
from modelsurgeon.diagnosis.states import describe, final_state, mean_cosine, real_positions
from modelsurgeon.running import batches, reference
from modelsurgeon.running.batches import make_windows
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.reference import load
from modelsurgeon.verification.logits import compare_all
from support import tiny

FEW = RunOptions(samples=2, length=24)
TINY = RunOptions(samples=2, length=9)
EPS = 1.2e-7  # float32's


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    return open_checkpoint("demo")


@pytest.fixture(scope="module")
def ran(demo: Checkpoint) -> Behaviour:
    return observe(demo, FEW)


@pytest.fixture(scope="module")
def model(demo: Checkpoint) -> Any:
    return load(demo, demo.origin.path)[0]


@pytest.fixture
def run_model(demo: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Behaviour]:
    """run_model(model, options): `observe` of a model that is in memory already; a tiny one's text is 61 numbers."""

    def measure(model: Any, options: RunOptions = TINY) -> Behaviour:
        monkeypatch.setattr(reference, "loaded", lambda *given: contextlib.nullcontext((model, ())))
        if getattr(model.config, "vocab_size", 0) == tiny.VOCAB:
            monkeypatch.setattr(batches, "tokenize", lambda folder, text: (None, [*range(3, tiny.VOCAB)], ()))
        return observe(demo, options)

    return measure


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_anisotropy_is_the_mean_cosine_of_all_pairs() -> None:
    vectors = drawn(17, 5) * torch.logspace(-3, 3, 17).unsqueeze(-1) + 0.3
    rows = vectors.double().numpy()
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.permutations(rows, 2)]
    assert mean_cosine(vectors) == pytest.approx(np.mean(cosines), abs=1e-9)


def test_anisotropy_of_known_vectors() -> None:
    one = torch.tensor([[3.0, 4.0]])
    assert mean_cosine(one.repeat(7, 1)) == pytest.approx(1, abs=1e-12)
    assert mean_cosine(torch.eye(6)) == 0
    assert mean_cosine(torch.cat([one, -one, torch.zeros(1, 2)])) == pytest.approx(-1, abs=1e-12)
    assert mean_cosine(one) is None


def test_a_state_of_few_directions_has_their_rank() -> None:
    found = final_state(drawn(40, 3) @ drawn(3, 24, seed=1), EPS)  # rounded to float32 after the product
    assert (found.rank, found.possible) == (3, 24)
    equal = final_state(torch.eye(9), EPS)
    assert (equal.rank, equal.effective_rank, equal.entropy) == (9, pytest.approx(9), pytest.approx(0, abs=1e-12))
    assert final_state(torch.full((4, 3), math.nan), EPS).rank is None


def test_a_state_is_as_numpy_says() -> None:
    vectors = drawn(30, 12)
    wide = vectors.double().numpy()
    found, values = describe("layer 0", 1, "", vectors), np.linalg.svd(wide, compute_uv=False)
    shares, norms = values / values.sum(), np.linalg.norm(wide, axis=1)
    assert found.effective_rank == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-9)
    assert (found.norm_mean, found.norm_max) == pytest.approx((norms.mean(), norms.max()), rel=1e-9)
    assert (found.largest, found.median) == pytest.approx((abs(wide).max(), np.median(abs(wide))), rel=2e-2)


def test_the_loss_is_that_of_verification(demo: Checkpoint, ran: Behaviour) -> None:
    report, _ = compare_all(demo, demo, FEW, in_stored=False)
    assert ran.loss == pytest.approx(report.comparisons[0].loss_before, abs=1e-9)
    assert report.loss_by_position and ran.loss_by_position == pytest.approx(report.loss_by_position.before, abs=1e-9)
    assert ran.text == {"sample": True, "characters": 4993}
    assert (ran.windows, ran.length, ran.tokens) == (2, 24, 48) and not ran.notes


def test_states_and_attention_of_the_first_layer_are_as_computed_by_hand(
    demo: Checkpoint, ran: Behaviour, model: Any
) -> None:
    ids = make_windows(model, demo.origin.path, FEW).batches[0].arguments["input_ids"]
    stream = model.model.embed_tokens(ids)
    assert ran.states[0] == describe("embedding", 0, "", stream.flatten(0, 1))

    layer, heads, kv, width = model.model.layers[0], demo.sizes["heads"], demo.sizes["kv"], demo.sizes["head"]
    normed = layer.input_layernorm(stream)
    q, k = (
        turned(project(normed).unflatten(-1, (count, width)).double())
        for project, count in ((layer.self_attn.q_proj, heads), (layer.self_attn.k_proj, kv))
    )
    scores = torch.einsum("bthd,bshd->bhts", q, k.repeat_interleave(heads // kv, 2)) / width**0.5
    seen = torch.ones(FEW.length, FEW.length, dtype=torch.bool).tril()
    kept, probabilities = scores[..., seen], scores.masked_fill(~seen, -math.inf).softmax(-1)
    row = ran.attention[0]
    assert (row.name, row.layer, len(ran.attention)) == ("model.layers.0.self_attn", 0, 4)
    # float32's rounding of logits of this size
    assert row.largest == pytest.approx(float(kept.abs().max()), rel=1e-5)
    assert row.deviation == pytest.approx(float(kept.std(correction=0)), rel=1e-5)
    assert row.entropy == pytest.approx(float(torch.special.entr(probabilities).sum(-1).mean()), rel=1e-5)


def turned(value: torch.Tensor, base: float = 10_000.0) -> torch.Tensor:
    """[rows, positions, heads, width], each pair (i, i + width / 2) turned by its angle."""
    half = value.shape[-1] // 2
    angles = torch.arange(value.shape[1]).outer(base ** -(torch.arange(half).double() / half)).unsqueeze(1)
    a, b = value.split(half, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def test_a_head_of_rank_k_loses_nothing_at_k_and_below_it_what_a_truncated_one_loses(
    model: Any, run_model: Callable[..., Behaviour]
) -> None:
    u, s, v = np.linalg.svd(model.lm_head.weight.double().numpy(), full_matrices=False)

    def of_rank(rank: int) -> Behaviour:
        head = torch.from_numpy(((u[:, :rank] * s[:rank]) @ v[:rank]).astype(np.float32))
        other = copy.deepcopy(model)
        other.lm_head.weight = torch.nn.Parameter(head)
        return run_model(other, FEW)

    cut = of_rank(8).head_cut
    assert cut
    losses = {point.rank: point.loss for point in cut.points}
    assert list(losses) == [128, 112, 96, 64, 32, 16, 8, 4]
    # float32 losses round at 1e-6
    assert [losses[rank] for rank in list(losses)[:-1]] == pytest.approx([cut.full] * 7, abs=1e-5)
    assert losses[4] > cut.full + 0.1
    assert losses[4] == pytest.approx(of_rank(4).loss, abs=1e-5)


# An encoder reads the first 4 of 9 tokens, and what the head reads are the decoder's other 5.
@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("llama-tied", 9),
        ("t5-tied", 5),
        ("bart-tied", 5),
        ("bart-causal", 9),  # cannot run with a cache: it makes one of as many layers as the encoder would have
        ("whisper-tied", 9),
        ("bert-tied", 9),
        ("opt-350m", 9),
        ("gemma3_text-softcapped", 9),
    ],
)
def test_the_whole_head_and_the_body_again_change_nothing(
    name: str, written: int, run_model: Callable[..., Behaviour], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.build(tiny.named(name))
    replayed = run_model(model)
    assert replayed.head_cut and replayed.last and not replayed.notes
    points = replayed.head_cut.points
    assert points[0].loss == pytest.approx(replayed.loss, abs=1e-5)  # float32 losses round at 1e-6
    assert len({round(point.loss, 4) for point in points}) >= 6  # every cut is another model
    assert replayed.last.possible == min(points[0].rank, 2 * written)
    monkeypatch.setattr(BodyReplay, "__init__", lambda self, model, head: vars(self).update(_bodies=[], _returned=[]))
    whole = run_model(model).head_cut
    assert whole and [point.rank for point in points] == [point.rank for point in whole.points]
    # the same states, multiplied by the same matrices
    assert [point.loss for point in points] == pytest.approx([point.loss for point in whole.points], abs=1e-5)


def test_the_last_states_are_what_the_decoder_matrix_of_a_masked_model_reads(
    demo: Checkpoint, run_model: Callable[..., Behaviour]
) -> None:
    model = tiny.build(tiny.named("bert-tied"))
    found = run_model(model)
    read = make_windows(model, demo.origin.path, TINY).batches[0].arguments
    states = model.bert(**read).last_hidden_state
    assert found.states[-1].anisotropy == pytest.approx(mean_cosine(states.flatten(0, 1)), rel=1e-5)
    assert vars(found.last) == pytest.approx(
        vars(final_state(model.cls.predictions.transform(states).flatten(0, 1), EPS)), rel=1e-5
    )


def test_padding_is_left_out_and_what_has_other_positions_is_not() -> None:
    value, real = drawn(2, 3, 4), torch.tensor([[True, True, False], [True, False, False]])
    assert torch.equal(real_positions(value, real), torch.stack([value[0, 0], value[0, 1], value[1, 0]]))
    assert torch.equal(real_positions(value, real[:, :2]), value.flatten(0, 1))


def test_a_massive_activation_is_found_in_its_layer_although_a_norm_follows(
    run_model: Callable[..., Behaviour],
) -> None:
    model = tiny.build(tiny.named("llama-tied"))
    model.model.layers[1].mlp.down_proj.weight[7] *= 1e5
    found = run_model(model)
    times = {state.name: state.largest / state.median for state in found.states}
    assert list(times) == ["embedding", "layer 0", "layer 1", "last"]
    assert [state.layer for state in found.states] == [0, 1, 2, 2]
    assert times["layer 0"] < 100 and times["layer 1"] > 1000


@pytest.mark.parametrize(
    ("name", "sides", "softmaxes", "told"),
    [
        ("vit", {"": 3}, 2, "loss not measured: no text"),
        ("bart-question", {"encoder": 3, "decoder": 4}, 2 + 2 * 3, "loss not measured: BartForQuestionAnswering"),
        ("whisper-body", {"encoder": 4, "decoder": 5}, 2 + 2 * 3, "loss not measured: WhisperModel"),
        ("albert-sequence", {"": 25}, 24, "loss not measured: AlbertForSequenceClassification"),
        ("gpt_oss-body", {"": 4}, 2, "counts them from the largest"),  # its router's softmaxes are none of attention
        ("bert-choice", {"": 3}, 2, "loss not measured: BertForMultipleChoice"),
    ],
)
def test_whatever_does_not_apply_is_null_and_said(
    name: str, sides: dict[str, int], softmaxes: int, told: str, run_model: Callable[..., Behaviour]
) -> None:
    found = run_model(tiny.build(tiny.named(name)))
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["loss"] is document["loss_by_position"] is document["head_cut"] is None
    assert {side: sum(state.side == side for state in found.states) for side in sides} == sides
    assert len(found.states) == sum(sides.values()) and len({row.name for row in found.attention}) == softmaxes
    assert all(0 < row.largest < 100 for row in found.attention)
    assert any(told in note for note in found.notes)


def test_without_a_tokenizer_random_ids_are_run(source: Callable[..., Path]) -> None:
    found = observe(open_checkpoint(source(tiny.named("llama-tied"))), TINY)
    assert (found.text, found.tokens) == ({"sample": False, "characters": 0}, 18)
    assert found.loss is None and found.last and found.notes[0].startswith("random ids only: no tokenizer")


def test_batches_add_up(run_model: Callable[..., Behaviour], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.build(tiny.named("t5-tied"))
    together = run_model(model)
    monkeypatch.setattr(batches, "ROWS", 1)
    apart = run_model(model)
    assert apart.loss == pytest.approx(together.loss, abs=1e-5) and apart.tokens == together.tokens == 18
    assert together.last and apart.last and apart.last.entropy == pytest.approx(together.last.entropy, rel=1e-4)
    for one, other in zip((*together.states, *together.attention), (*apart.states, *apart.attention), strict=True):
        pairs = [(vars(one)[key], vars(other)[key]) for key in vars(one)]
        assert all(a == b or a == pytest.approx(b, rel=1e-4) for a, b in pairs), (one, other)
    assert together.head_cut and apart.head_cut
    assert apart.head_cut.points[3].loss == pytest.approx(together.head_cut.points[3].loss, abs=1e-5)


def test_what_is_not_a_number_is_said_and_not_cut(run_model: Callable[..., Behaviour]) -> None:
    model = tiny.build(tiny.named("llama-tied"))
    model.lm_head.weight[0, 0] = math.nan
    found = run_model(model)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (document["loss"], document["head_cut"]) == ("nan", None)
    assert found.notes == ("head not cut: some of its numbers are not finite",)
