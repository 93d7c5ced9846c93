"""The loss before training: the rule against sums written out, the measure against models without branches."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.architectures import registry
from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.checkpoints.head_path import find_path
from modelsurgeon.diagnosis.loss import (
    HeadInput,
    bigram_loss,
    initial_loss,
    predicted,
    predicted_closely,
    predicted_untied,
)
from modelsurgeon.diagnosis.weights.rows import RowBlocks
from modelsurgeon.operations.transforms.initial import deviation_for_uniform
from support import tiny

# One family for each thing that can stand on the way: RMSNorm, LayerNorm with learned positions, two norms, gains of
# 1 + w with a tanh on the logits, multipliers in the config, an encoder beside and a power of the width, a head's own
# bias, norms without weights; heads of their own.
WAYS = (
    "llama-tied",
    "gpt2-tied",
    "bloom-tied",
    "gemma3_text-softcapped",
    "granite-untied",
    "cohere-tied",
    "t5-tied",
    "phi-untied",
    "olmo-tied",
)


def without_branches(name: str, folder: Path) -> Checkpoint:
    """A saved tiny model whose layers' matrices are zero; all positions are the first one's."""
    variant = tiny.named(name)
    tiny.save(variant, folder)
    table, tensors = registry.find(variant.model_type), load_file(folder / "model.safetensors")
    for tensor, line in [(tensors[name], table.template(name)) for name in tensors]:
        if line and line.placeholders and line.signature.normalises is None:
            tensor.zero_()
        if line and line.signature.text.startswith("positions -> "):
            tensor.copy_(tensor[:1].clone().expand_as(tensor))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return open_checkpoint(folder)


def loss_of_model(name: str, folder: Path) -> float:
    """Mean of -log p(j | i) over all pairs of different tokens, by the library's own model."""
    model = tiny.load(folder, tiny.named(name).kind)
    ids = torch.arange(tiny.VOCAB)[:, None]
    sides = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    chances = model(input_ids=ids, **sides).logits[:, 0].double().log_softmax(-1)
    return -float((chances.sum(1) - chances.diagonal()).mean()) / (tiny.VOCAB - 1)


@pytest.mark.parametrize("name", WAYS)
def test_the_loss_is_that_of_the_librarys_model_without_branches(tmp_path, name):
    found = initial_loss(without_branches(name, tmp_path))
    assert found is not None and found.applies and found.samples == tiny.VOCAB
    assert found.measured == pytest.approx(loss_of_model(name, tmp_path), abs=1e-5)  # float32 logits of up to 30


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bert-tied", "cls.predictions.transform.dense.weight stands between"),
        ("opt-350m", "model.decoder.project_out.weight stands between"),
        ("opt-post-norm", "post-norm: "),
        ("bart-tied", "post-norm: "),
    ],
)
def test_where_more_than_the_final_norm_is_on_the_way_it_says_so_and_measures_nothing(source, name, why):
    found = initial_loss(open_checkpoint(source(tiny.named(name))))
    assert found is not None and not found.applies and found.why.startswith(why)
    assert found.measured is None and found.predicted > found.uniform


def test_a_model_without_a_head_has_none(source):
    assert initial_loss(open_checkpoint(source(tiny.named("vit")))) is None


def test_the_measure_is_the_dense_computation_to_1e_9(source):
    checkpoint = open_checkpoint(source(tiny.named("gptj-untied")))
    found, path = initial_loss(checkpoint, samples=20, memory=0), find_path(checkpoint)
    assert found is not None and path is not None and path.bias and found.samples == 20
    read = {name: load_file(checkpoint.tensors[name].file.path)[name].double().numpy() for name in checkpoint.tensors}
    rows, head, bias = read[path.embedding], read[path.head], read[path.bias]
    ids = torch.randperm(tiny.VOCAB, generator=torch.Generator().manual_seed(0))[:20].sort().values.numpy()
    (norm,) = path.norms
    centred = rows[ids] - rows[ids].mean(1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(1, keepdims=True) + norm.eps)
    own = (unit * read[norm.gain] + read[norm.bias]) @ head.T + bias
    for measured, logits in ((found.measured, own), (found.measured_plain, unit @ head.T)):
        chances = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        others = np.ones_like(chances, dtype=bool)
        others[np.arange(20), ids] = False
        assert measured == pytest.approx(-chances[others].mean(), abs=1e-9)
    assert found.deviation == pytest.approx(head.std(), rel=1e-12)


def test_the_measure_depends_on_the_seed_alone(source, monkeypatch):
    checkpoint = open_checkpoint(source(tiny.named("gpt2-tied")))
    first = initial_loss(checkpoint, samples=10)
    assert first != initial_loss(checkpoint, samples=10, seed=1)
    monkeypatch.setattr("modelsurgeon.diagnosis.weights.rows.BLOCK", 200)  # the sums of other blocks: rounded elsewhere
    again = initial_loss(checkpoint, samples=10, memory=0)
    assert first is not None and again is not None
    assert again.measured == pytest.approx(first.measured, rel=1e-12)


@pytest.mark.parametrize(
    ("vocab", "width", "deviation"), [(1000, 64, 0.02), (50, 768, 0.02), (32000, 4, 3.0), (2, 1, 0.0)]
)
def test_the_rule_is_its_sum_written_out(vocab, width, deviation):
    exponents = np.zeros(vocab)
    exponents[0] = 0.5 * width * deviation
    assert predicted(vocab, width, deviation, 0.5) == pytest.approx(np.log(np.exp(exponents).sum()), abs=1e-12)


def test_the_rule_is_d_sigma_when_that_is_large_and_log_n_when_it_is_small():
    assert predicted(32000, 4096, 1.0) == 4096.0  # e^4096 is no float64
    assert predicted(32000, 64, 1e-9) == pytest.approx(math.log(32000), abs=1e-9)
    sigma = deviation_for_uniform(32000, 768, 0.5)
    assert predicted(32000, 768, sigma, 0.5) == pytest.approx(math.log(32000) + math.log(2), abs=1e-4)  # n + n - 1


@pytest.mark.parametrize(("width", "deviation"), [(64, 0.02), (256, 0.02), (256, 1 / 16), (768, 0.02)])
def test_fresh_tables_start_where_the_rule_says(width, deviation):
    """The law: tied, log(e^(d sigma) + n - 1); with another table as head, log n; both within the rule's own terms."""
    vocab, generator = 2000, torch.Generator().manual_seed(3)
    tables = torch.randn(2, vocab, width, generator=generator, dtype=torch.float64) * deviation
    states = tables[0][:200] / tables[0][:200].square().mean(1, keepdim=True).sqrt()
    tied, untied = (
        bigram_loss(RowBlocks(Held(one), 1 << 30), torch.arange(200), [HeadInput(states)])[0][0] for one in tables
    )
    assert tied == pytest.approx(predicted_closely(vocab, width, deviation), rel=0.01)
    assert tied == pytest.approx(predicted(vocab, width, deviation), abs=0.1 + width * deviation**2 / 2)
    assert untied == pytest.approx(predicted_untied(vocab, width, deviation), abs=0.05)


class Held:
    """A table in memory that reads as a lazy tensor does."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows, self.shape, self.nbytes = rows, tuple(rows.shape), rows.nbytes

    def read(self, start: int, stop: int) -> torch.Tensor:
        return self.rows[start:stop]


def test_what_tables_multiply_and_bound_is_in_them():
    """Every key that multiplies is known to its table, and so is what its absence means."""
    tables = [registry.find(name) for name in registry.known()]
    found = {key for table in tables for key in table.factors}
    assert found == {"embedding_multiplier", "logits_scaling", "logit_scale"}
    for table in tables:
        assert set(table.factors) <= set(table.keys.split()) & set(table.defaults)
        assert {name for name, _ in table.factors.values()} <= {template.name for template in table.templates}
        assert table.softcap is None or table.softcap[0] in table.keys
