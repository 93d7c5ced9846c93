"""New checkpoints from a config: the library's own start for every family, and what is asked for in its place."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file

from modelsurgeon.architectures import registry
from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.errors import PlanError, SourceError
from modelsurgeon.operations.transforms import library
from modelsurgeon.operations.transforms.initial import Choices, begin, blank
from modelsurgeon.saving.save import _request, save
from modelsurgeon.saving.shards import Shard, Writing, plan_shards, write_shard
from modelsurgeon.tensors.budget import plan_memory
from modelsurgeon.tensors.random.drawn import BLOCK, Drawn, Formula, left, standard
from support import tiny
from support.command import run

FAMILIES = [next(v for v in tiny.variants() if v.main and v.model_type == name) for name in registry.known()]
LOADED = ("gpt2", "t5", "whisper", "deepseek_v3", "gemma2")  # odd names, ties, sines, buffers, gains of 1 + w


def config_of(variant, folder, **more):
    """A config.json as the library writes it."""
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    kind = transformers.CONFIG_MAPPING[variant.model_type]
    config = kind(**{**tokens, **tiny.sizes(variant.model_type), **variant.config, **more}).to_diff_dict()
    path = folder / f"{variant.name}.json"
    path.write_text(json.dumps({**config, "architectures": [variant.kind]}))
    return path


def held(model):
    """{name: tensor} that the library would save of a model: each tied one once."""
    tied = set(model.all_tied_weights_keys)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_every_family_begins_as_the_library_begins_it(variant, tmp_path):
    """Names, shapes, constants, padding rows and sines are equal; deviations to five of their own errors."""
    path = config_of(variant, tmp_path)
    checkpoint = begin(blank(path), Choices())
    kind = getattr(transformers, variant.kind)
    torch.manual_seed(0)
    wanted = held(kind(kind.config_class.from_dict(json.loads(path.read_text()))))
    table = checkpoint.architecture
    wanted = {name: tensor for name, tensor in wanted.items() if not table.is_recomputed(name)}
    assert {n: t.shape for n, t in checkpoint.tensors.items()} == {n: tuple(t.shape) for n, t in wanted.items()}
    for name, tensor in checkpoint.tensors.items():
        found, theirs = tensor.read(0, tensor.shape[0]), wanted[name]
        if isinstance(tensor, Formula) or not tensor.deviation:
            assert torch.equal(found, theirs), name
            continue
        assert torch.equal((found == 0).all(-1), (theirs == 0).all(-1)), name
        off = abs(float(found.square().mean() / theirs.square().mean()) - 1)
        assert off < 5 * math.sqrt(4 / found.numel()), name  # each of both is off by sqrt(2 / n)
    if variant.model_type in LOADED:
        tiny.load(save(checkpoint, tmp_path / "out"), variant.kind)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("configs")


def numbers(checkpoint, name):
    return checkpoint.tensors[name].read(0, checkpoint.tensors[name].shape[0])


def test_choices_take_the_place_of_the_library_s(folder):
    """Of GPT-2 with 2 layers, whose projections the library divides by sqrt(2 L) = 2."""
    gpt2 = tiny.named("gpt2-tied")
    fresh = blank(config_of(gpt2, folder))

    def deviations(**choices):
        tensors = begin(fresh, Choices(**choices)).tensors
        names = ("transformer.wte.weight", "transformer.h.1.mlp.c_fc.weight", "transformer.h.1.mlp.c_proj.weight")
        return [(tensors[name].deviation, tensors[name].cut) for name in names]

    gain, even = 0.02 / math.sqrt(2 * 2), math.log(tiny.VOCAB) / 32
    assert deviations() == [(0.02, None), (0.02, None), (gain, None)]
    assert deviations(std="0.1") == [(0.1, None)] * 3
    assert deviations(std="0.1", residual="gpt2") == [(0.1, None), (0.1, None), (0.1 / 2, None)]
    assert deviations(residual="none", distribution="truncated") == [(0.02, 2.0)] * 3
    assert deviations(residual="wang")[2] == (2 / (2 * math.sqrt(32)), None)
    assert deviations(std="log-n-over-d") == [(pytest.approx(even), None), (0.02, None), (gain, None)]


def test_the_deviation_for_a_scaled_head_counts_the_scale(folder):
    """T5 multiplies what its tied head reads by d^-1/2."""
    t5 = begin(blank(config_of(tiny.named("t5-tied"), folder)), Choices(std="log-n-over-d"))
    assert t5.tensors["shared.weight"].deviation == pytest.approx(math.log(tiny.VOCAB) / 32**0.5)


def test_with_log_n_over_d_the_loss_is_that_of_the_article(folder, tmp_path):
    more = {"hidden_size": 256, "vocab_size": 4096, "max_position_embeddings": 128}
    more |= {"initializer_range": 1e-4, "rms_norm_eps": 1e-6}  # branches near zero; rows are larger than the eps
    config = config_of(tiny.named("llama-tied"), folder, **more)
    done = run("init", config, "-o", tmp_path / "out", "--std", "log-n-over-d", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)["initial_loss"]
    assert list(told) == ["after"] and told["after"]["exponent"] == pytest.approx(math.log(4096), rel=5e-3)
    # the token itself has e^log n = n, all others together n - 1 times half the variance of logits, (log n)^2 / d
    wanted = math.log(4096 + 4095 * math.exp(math.log(4096) ** 2 / 256 / 2))
    assert told["after"]["run"]["loss"] == pytest.approx(wanted, abs=0.1)
    assert f"initial loss: {told['after']['run']['loss']:.4g} measured (random ids, 508 tokens)" in done.err
    assert "no tokenizer is written" in done.err


def test_numbers_are_normal_and_those_of_bert_have_0_0176():
    normal = Drawn((4, BLOCK), "F32", 0.02, "key").read(0, 4).double() / 0.02
    count = normal.numel()
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        wide = math.sqrt(math.prod(range(1, 4 * power, 2)) / count)  # E x^(2 p) = (2 p - 1)!! of each term's square
        assert abs(float((normal**power).mean()) - moment) < 5 * wide, power
    edges = torch.linspace(-4, 4, 81, dtype=torch.float64)
    steps = torch.tensor([float((normal < edge).double().mean()) for edge in edges], dtype=torch.float64)
    assert (steps - torch.special.ndtr(edges)).abs().max() < 2 / math.sqrt(count)  # Kolmogorov: 1.95 at 1e-3
    cut = Drawn((4, BLOCK), "F32", 0.02, "key", cut=2.0).read(0, 4)
    assert float(cut.abs().max()) <= 0.04 < float(Drawn((4, BLOCK), "F32", 0.02, "key").read(0, 4).abs().max())
    assert float(cut.std()) == pytest.approx(0.02 / 1.1368472, rel=5 / math.sqrt(2 * count))
    assert left(2.0) == pytest.approx(1 / 1.1368472, rel=1e-6)
    streams = torch.stack([standard(key, block) for key in ("0/a", "0/b", "1/a") for block in (0, 1)]).double()
    assert (torch.corrcoef(streams) - torch.eye(6)).abs().max() < 5 / math.sqrt(BLOCK)


def test_numbers_do_not_depend_on_how_a_tensor_is_cut_or_stored(tmp_path):
    shape = (3, BLOCK // 2 + 77)  # blocks end inside of rows
    whole = Drawn(shape, "F32", 0.02, "key", zeros=(1,))
    every = whole.read(0, 3)
    assert not every[1].any() and every[0].all()
    assert torch.equal(whole.read(1, 3, first=5, last=BLOCK // 3), every[1:, 5 : BLOCK // 3])
    for dtype in ("BF16", "F64"):
        assert torch.equal(
            replace(whole, dtype=dtype).read(0, 3), every.to(replace(whole, dtype=dtype).read(0, 1).dtype)
        )
    budget = replace(plan_memory([whole]), piece=1000)
    write_shard(tmp_path / "pieces.safetensors", Shard({"a": whole}), Writing(budget))
    assert torch.equal(load_file(tmp_path / "pieces.safetensors")["a"], every)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(whole.read(0, 3), every)
    finally:
        torch.set_num_threads(before)


def test_a_checkpoint_is_the_same_in_shards_and_another_seed_is_another_request(folder, tmp_path):
    fresh = blank(config_of(tiny.named("llama-tied"), folder))
    one, other = (begin(fresh, Choices(dtype="bfloat16", seed=seed)) for seed in (0, 1))
    whole = load_file(save(one, tmp_path / "whole") / "model.safetensors")
    out = save(one, tmp_path / "shards", shard_size=20_000, workers=2)
    parts = {name: tensor for path in out.glob("*.safetensors") for name, tensor in load_file(path).items()}
    assert parts.keys() == whole.keys() and all(torch.equal(parts[name], whole[name]) for name in whole)
    assert {tensor.dtype for tensor in whole.values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    requests = [_request(checkpoint, plan_shards(checkpoint, None, 10**9)) for checkpoint in (one, one, other)]
    assert requests[0] == requests[1] != requests[2]  # what an interrupted run is taken up by
    assert open_checkpoint(out).steps[-1].seed == 0


def test_a_config_needs_no_more_than_its_sizes(tmp_path):
    (tmp_path / "few.json").write_text(
        '{"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": 61}'
    )
    checkpoint = begin(blank(tmp_path / "few.json"), Choices())
    assert checkpoint.config["architectures"] == ["GPT2LMHeadModel"] and checkpoint.config["dtype"] == "float32"
    assert checkpoint.sizes["hidden"] == 32 and "transformer.wpe.weight" in checkpoint.tensors


REFUSED = {
    "an unknown std": (("--std", "wide"), "std 'wide', expected a number above 0, or log-n-over-d"),
    "an unknown distribution": (("--distribution", "even"), "distribution 'even', expected one of normal, truncated"),
    "no tie": (("--std", "log-n-over-d"), "is for an embedding that is the head too; this config ties none"),
    "heads that do not fit": ((), "transformers cannot build"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_made_is_refused_in_one_line(options, said, folder, tmp_path):
    more = {"hidden_act": "none of it"} if not options else {}
    done = run("init", config_of(tiny.named("llama-untied"), tmp_path, **more), "-o", tmp_path / "out", *options)
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_folder_of_the_config_is_never_replaced(source):
    folder = source(tiny.named("llama-tied"))
    done = run("init", folder, "-o", folder, "--overwrite")
    assert done.code == 2 and "holds the config" in done.err


def test_a_table_that_has_other_tensors_than_the_library_is_refused(folder, monkeypatch):
    fresh, found = blank(config_of(tiny.named("llama-tied"), folder)), library.starts

    def narrower(checkpoint):
        name = "model.layers.0.mlp.up_proj.weight"
        return {**found(checkpoint), name: library.Start((40, 31), deviation=0.02)}

    monkeypatch.setattr("modelsurgeon.operations.transforms.initial.starts", narrower)
    with pytest.raises(SourceError, match="up_proj"):
        begin(fresh, Choices())


def test_a_start_that_nobody_knows_is_refused(folder, monkeypatch):
    fresh = blank(config_of(tiny.named("llama-tied"), folder))
    monkeypatch.delitem(library.RULES, "normal_")
    with pytest.raises(SourceError, match="begins a tensor by normal_, which init does not know"):
        begin(fresh, Choices())


def test_a_dry_run_writes_nothing_and_says_what_is_new(folder, tmp_path):
    done = run("init", config_of(tiny.named("bert-tied"), folder), "--dry-run", "--distribution", "truncated", "--json")
    plan = json.loads(done.out)["plan"]
    said = {row["template"]: row["precision"] for row in plan["rows"]}
    assert said["bert.embeddings.word_embeddings.weight"] == "new: normal cut at 2 deviations, deviation 0.01759"
    assert said["bert.embeddings.LayerNorm.weight"] == "new: 1 everywhere" and plan["parameters"][0] == 0


def test_choices_are_checked():
    with pytest.raises(PlanError, match="residual"):
        Choices(residual="deepnorm").check()
