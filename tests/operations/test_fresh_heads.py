"""Fresh heads: the article's formulas through the model itself, the loss that they give, and that nobody takes them for
the source's function."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.diagnosis.loss import predicted
from modelsurgeon.diagnosis.starting import expected
from modelsurgeon.errors import PlanError
from modelsurgeon.operations.transforms.fresh_heads import KINDS, SEEDED, half_swap, shuffle, with_fresh_head
from modelsurgeon.proof.proof import prove
from modelsurgeon.running.environment import environment
from modelsurgeon.running.losses import measured_loss
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.save import save
from modelsurgeon.saving.shards import Shard, Writing, write_shard
from modelsurgeon.tensors.budget import SMALLEST, plan_memory
from modelsurgeon.tensors.random.drawn import uniform
from modelsurgeon.tensors.random.turned import RandomRotation, Turned, times_transpose
from modelsurgeon.verification.report import Report
from support import tiny
from support.command import run
from support.grow import widen

LLAMA, T5 = tiny.named("llama-tied"), tiny.named("t5-tied")
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
VOCAB, WIDTH = 4096, 256


@pytest.fixture(autouse=True)
def _uncollected(monkeypatch):
    """Models are tiny: looking for the one before through all that other tests left costs more than it."""
    monkeypatch.setattr("modelsurgeon.running.reference.gc.collect", lambda: 0)


def swapped(h):
    """The article's S[w] = w[d/2:] o w[:d/2]."""
    half = h.shape[-1] // 2
    return torch.cat([h[..., half:], h[..., :half]], -1)


def shuffled(h):
    """ShuffleNet's reshape, transpose, reshape: 32 channels in 4 groups of 8."""
    return h.reshape(*h.shape[:-1], 4, 8).transpose(-1, -2).reshape(h.shape)


FORMULAS = {
    "half-swap": swapped,
    "shuffle": shuffled,
    "orthogonal": lambda h: h @ RandomRotation(32, f"7/{HEAD}").matrix.to(h.dtype),
}


def final_state(model, norm):
    """What a forward pass hands to the head, and its logits."""
    seen = []
    hook = norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = model(**tiny.inputs(model), use_cache=False).logits
    hook.remove()
    return seen[0], logits


@pytest.mark.parametrize("kind", FORMULAS)
def test_the_logits_are_the_article_s(kind, source, tmp_path):
    out = save(with_fresh_head(open_checkpoint(source(LLAMA)), kind, seed=7), tmp_path / "out")
    model = tiny.load(out, LLAMA.kind)
    h, logits = final_state(model, model.model.norm)
    wanted = FORMULAS[kind](h) @ model.model.embed_tokens.weight.T
    # float32 sums of 32 products in another order; the head left as the embedding is off by more than 1
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-4)
    assert (logits - h @ model.model.embed_tokens.weight.T).abs().max() > 1


def test_a_head_that_is_scaled_and_forced_to_be_tied_gets_its_own_numbers(source, tmp_path):
    before = open_checkpoint(source(T5))
    out = save(with_fresh_head(before, "half-swap"), tmp_path / "out")
    model = tiny.load(out, T5.kind)
    h, logits = final_state(model, model.decoder.final_layer_norm)
    torch.testing.assert_close(logits, swapped(h) @ model.shared.weight.T * 32**-0.5, rtol=0, atol=1e-4)
    assert prove(before, open_checkpoint(out)).summary == "exact"


def test_a_half_swap_is_its_own_inverse_and_a_shuffle_that_of_as_many_groups_as_it_had_channels():
    assert np.array_equal(half_swap(10)[half_swap(10)], np.arange(10))
    order = torch.arange(32.0)
    assert torch.equal(shuffled(order), order[shuffle(32)])
    assert torch.equal(shuffled(order).reshape(8, 4).T.reshape(-1), order)


@pytest.mark.parametrize(("kind", "width"), [("half-swap", 9), ("shuffle", 13)])
def test_widths_that_cannot_be_rearranged_are_refused(kind, width):
    with pytest.raises(PlanError, match=f"{kind}: {width} columns"):
        half_swap(width) if kind == "half-swap" else shuffle(width)


@pytest.mark.parametrize("size", [2, 37, 256])
def test_a_rotation_is_orthogonal_and_keeps_norms(size):
    rotation, rows = RandomRotation(size, "key"), torch.randn(50, size, dtype=torch.float64)
    high, low = rotation.slices
    for p in (rotation.matrix, high + low):  # the second one is what rows are multiplied by
        assert (p @ p.T - torch.eye(size, dtype=p.dtype)).abs().max() < 1e-12
    turned = times_transpose(rows, rotation)
    torch.testing.assert_close(turned.norm(dim=1), rows.norm(dim=1), rtol=1e-11, atol=0)
    torch.testing.assert_close(turned, rows @ rotation.matrix.T, rtol=0, atol=1e-10)


def test_rotations_and_reflections_are_equally_likely():
    """Without their signs, two reflections of a plane are always a rotation."""
    found = [RandomRotation(2, str(key)).matrix for key in range(100)]
    turns = sum(float(torch.linalg.det(p)) > 0 for p in found)
    assert 25 < turns < 75  # five deviations of a fair coin
    assert abs(sum(float(p[0, 0]) for p in found)) < 5 * math.sqrt(100 / 2)


@pytest.fixture(scope="module")
def blown(tmp_path_factory):
    """A tied Llama as it is made, whose branches are near zero and whose embedding has the deviation 1."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, tie_word_embeddings=True, initializer_range=1e-4,
    )  # fmt: skip
    model, folders = transformers.LlamaForCausalLM(config), {}
    for deviation in (1.0, 0.02):
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=deviation)
        folders[deviation] = tmp_path_factory.mktemp("blown")
        model.save_pretrained(folders[deviation])
    return folders


@pytest.mark.parametrize("deviation", [1.0, 0.02])
def test_a_tied_head_starts_where_the_article_says_and_each_cure_where_independent_logits_do(
    deviation, blown, tmp_path
):
    tied = open_checkpoint(blown[deviation])
    before = measured_loss(tied)
    assert (before.inputs, before.tokens) == ("random ids", 508)
    spread = math.sqrt(WIDTH) * deviation
    # the label's logit is as random as the others': the mean of 508 of them; and rows' norms, sums of 256 squares
    noise = 4 * spread / math.sqrt(508)
    assert before.loss == pytest.approx(expected(VOCAB, spread, WIDTH * deviation), abs=noise)
    assert predicted(VOCAB, WIDTH, deviation) == pytest.approx(before.loss, abs=noise + spread**2 / 2)
    for kind in KINDS if deviation == 1.0 else ("half-swap",):
        head = with_fresh_head(tied, kind, deviation if kind == "normal" else None)
        after = measured_loss(open_checkpoint(save(head, tmp_path / kind)))
        # REM's maximum fluctuates too; 58 against the 256 of a tied head
        assert after.loss == pytest.approx(expected(VOCAB, spread), abs=2 * noise), kind


@pytest.mark.parametrize("spread, own", [(0.3, None), (4.0, None), (16.0, None), (4.0, 20.0)])
def test_the_loss_of_independent_logits_is_their_mean(spread, own):
    logits = spread * torch.randn(2000, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if own is not None:
        logits[:, 0] = own
    sums = logits.logsumexp(1)
    assert expected(500, spread, own) == pytest.approx(float(sums.mean()), abs=5 * float(sums.std()) / math.sqrt(2000))


@pytest.mark.parametrize("kind", ["orthogonal", "normal", "shuffle"])
def test_the_bytes_do_not_depend_on_pieces_shards_workers_or_threads(kind, source, tmp_path):
    before = open_checkpoint(source(LLAMA, "bfloat16"))
    head = with_fresh_head(before, kind, seed=3)
    wanted = load_file(save(head, tmp_path / "whole") / "model.safetensors")[HEAD]
    shards = save(head, tmp_path / "shards", shard_size=SMALLEST, workers=2)
    index = json.loads((shards / "model.safetensors.index.json").read_text())["weight_map"]
    assert torch.equal(load_file(shards / index[HEAD])[HEAD], wanted)
    budget = replace(plan_memory(head.tensors.values()), piece=40)  # parts of a row of 32 columns
    write_shard(tmp_path / "pieces.safetensors", Shard({HEAD: head.tensors[HEAD]}), Writing(budget))
    assert torch.equal(load_file(tmp_path / "pieces.safetensors")[HEAD], wanted)
    if kind != "shuffle":
        other = with_fresh_head(before, kind, seed=4).tensors[HEAD]
        assert not torch.equal(other.read(0, other.shape[0]), wanted)


def test_rows_are_turned_alike_whatever_the_block_and_in_every_dtype():
    rows = torch.randn(300, 48, dtype=torch.float64)
    rotation = RandomRotation(48, "key")
    every = times_transpose(rows, rotation)
    parts = [times_transpose(rows[at : at + size], rotation) for at, size in ((0, 1), (1, 16), (17, 283))]
    assert torch.equal(torch.cat(parts), every)
    plain = rows.float() @ rotation.matrix.T.float()
    pieces = [rows[at : at + size].float() @ rotation.matrix.T.float() for at, size in ((0, 1), (1, 16), (17, 283))]
    assert plain.shape == torch.cat(pieces).shape  # which as a rule differ in their last bits
    rows[5, 3], rows[6, 0] = torch.nan, torch.inf
    turned = times_transpose(rows, rotation)
    assert turned[5:7].isnan().all() and torch.equal(turned[7:], every[7:])


def test_the_matrix_that_turns_rows_is_counted_in_the_memory(source):
    checkpoint = open_checkpoint(source(LLAMA))
    tensors = with_fresh_head(checkpoint, "orthogonal").tensors
    rest = [tensor for name, tensor in tensors.items() if name != HEAD]
    assert plan_memory(tensors.values()).peak - plan_memory(rest).peak > 5 * 8 * 32**2


def test_verify_says_different_and_why_and_publishes_nothing(source, tmp_path):
    folder, out = source(LLAMA), tmp_path / "out"
    done = run("untie-embeddings", folder, "-o", out, "--head", "orthogonal", "--seed", "5", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (
        "random orthogonal matrix (seed 5)" in told["plan"]["lossy"][0] and "not lossless: lm_head.weight" in done.err
    )
    losses = told["initial_loss"]
    assert losses["before"]["tied"] and not losses["after"]["tied"]
    assert losses["after"]["run"]["loss"] != losses["before"]["run"]["loss"]
    assert f"initial loss after: {losses['after']['run']['loss']:.4g} measured" in done.err
    assert prove(open_checkpoint(folder), open_checkpoint(out)).summary == "exact"  # it is the head that was asked for
    assert open_checkpoint(out).steps[-1].lossy == tuple(told["plan"]["lossy"])
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    verified = run("verify", folder, out, "--samples", "1", "--length", "4", "--quiet", "--json")
    found = json.loads(verified.out)
    assert verified.code == 1 and found["verdict"] == "different"
    assert found["proof"]["approximations"] == told["plan"]["lossy"]


def test_verify_publishes_no_fresh_head(source, tmp_path, monkeypatch):
    monkeypatch.setattr("modelsurgeon.delivery._verified", lambda job, staged, name: _proof_alone(job.source, staged))
    done = run("untie-embeddings", source(LLAMA), "-o", tmp_path / "no", "--head", "half-swap", "--verify")
    assert done.code == 1 and not (tmp_path / "no").exists()


def _proof_alone(before, staged):
    """What verification says where models are not run: an exact proof of another function does not pass."""
    after = open_checkpoint(staged)
    return Report(before, after, RunOptions(), environment("cpu"), proof=prove(before, after), by_proof_alone=True)


def test_a_fresh_head_comes_in_its_turn_when_steps_are_replayed(source, tmp_path):
    before = open_checkpoint(source(LLAMA))
    grown = with_fresh_head(widen(with_fresh_head(before, "orthogonal", seed=2), 2), "half-swap")
    proof = prove(before, open_checkpoint(save(grown, tmp_path / "out")))
    assert proof.summary != "wrong" and len(proof.lossy) == 2
    assert isinstance(with_fresh_head(before, "orthogonal").tensors[HEAD], Turned)


@pytest.mark.parametrize("kind", SEEDED)
def test_a_record_from_before_there_were_portable_numbers_is_replayed_with_those_it_was_written_with(
    kind, source, tmp_path
):
    before = open_checkpoint(source(LLAMA))
    out = save(with_fresh_head(before, kind, seed=3, numbers=None), tmp_path / "out")
    arguments = open_checkpoint(out).steps[-1].arguments
    assert arguments == ({"head": kind, "std": 0.02} if kind == "normal" else {"head": kind})  # as it was recorded
    tensors = load_file(out / "model.safetensors")
    assert torch.equal(tensors[HEAD], earlier(kind, tensors[EMBEDDING]))
    proof = prove(before, open_checkpoint(out))
    assert proof.summary == "exact" and "last bits follow the processor" in proof.lossy[0]

    record = json.loads((out / "modelsurgeon.json").read_text())
    for numbers, said in (
        ("portable", HEAD),
        ("later", "steps[0].arguments.numbers: expected portable, of a random head, found 'later'"),
    ):
        record["steps"][-1]["arguments"]["numbers"] = numbers
        (out / "modelsurgeon.json").write_text(json.dumps(record))
        wrong = prove(before, open_checkpoint(out)).wrong
        assert len(wrong) == 1 and said in wrong[0].name + wrong[0].detail


def earlier(kind, embedding):
    """The numbers of old: torch's quantiles, and the Q of LAPACK's QR with the signs of R."""
    shape = embedding.shape if kind == "normal" else (32, 32)
    numbers = uniform(f"3/{HEAD}", 0)[: math.prod(shape)].reshape(shape).erfinv().mul_(math.sqrt(2))
    if kind == "normal":
        return numbers * 0.02
    q, r = torch.linalg.qr(numbers.double())
    return (embedding.double() @ (q * torch.sgn(r.diagonal())).T).float()


def test_copy_is_what_it_was(source, tmp_path):
    for out, options in (("old", ()), ("copy", ("--head", "copy"))):
        done = run("untie-embeddings", source(LLAMA), "-o", tmp_path / out, *options)
        assert done.code == 0 and done.err.count("initial loss") == len(options)  # asked for: before and after
    old, new = ((tmp_path / out / "modelsurgeon.json").read_text() for out in ("old", "copy"))
    assert old == new and json.loads(old)["steps"][-1]["arguments"] == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--std", "0.1"), "--std is for --head normal, and the head is copy"),
        (("--head", "half-swap", "--seed", "1"), "--seed is for --head orthogonal and normal"),
        (("--head", "normal", "--std", "0"), "std 0.0, expected a number above 0"),
        (("--head", "fresh"), "head 'fresh', expected copy, half-swap"),
    ],
)
def test_what_says_nothing_of_a_head_is_refused_in_one_line(options, said, source, tmp_path):
    done = run("untie-embeddings", source(LLAMA), "-o", tmp_path / "out", *options)
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1


def test_a_model_without_a_head_is_refused(source):
    with pytest.raises(PlanError, match="no output head"):
        with_fresh_head(open_checkpoint(source(tiny.named("vit"))), "normal")
