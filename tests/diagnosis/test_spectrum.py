"""Spectra and norms of matrices whose answer is known, and of others beside numpy's own decomposition."""

from __future__ import annotations

import ctypes
import gc
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from modelsurgeon.diagnosis.weights import spectral_norm, spectrum
from modelsurgeon.diagnosis.weights.rows import RowBlocks
from modelsurgeon.diagnosis.weights.spectral_norm import ROUNDING, of_spectrum, spectral

TALL, WIDE = (430, 210), (210, 430)


class Held:
    """A tensor in memory that is read as one in a file."""

    def __init__(self, tensor):
        self.tensor, self.shape, self.nbytes = tensor, tuple(tensor.shape), tensor.nbytes

    def read(self, start, stop, empty=None, first=0, last=None):
        return self.tensor[start:stop] if last is None else self.tensor[start:stop, first:last]


def rows(tensor, capacity=1 << 40, stacked=False):
    return RowBlocks(Held(tensor), capacity, stacked)


def orthonormal(n, d):
    return torch.linalg.qr(torch.randn(n, d, dtype=torch.float64))[0]


def with_values(n, d, values):
    """A float64 matrix with these singular values and zeros."""
    values = torch.tensor(values, dtype=torch.float64)
    return orthonormal(n, len(values)) * values @ orthonormal(d, len(values)).T


def exact(tensor):
    return np.linalg.svd(tensor.double().numpy(), compute_uv=False)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(7)


@pytest.fixture
def no_direct(monkeypatch):
    monkeypatch.setattr(spectrum, "DIRECT", 0)


def grown(measure, shape):
    """Bytes by which the process grows at most while a matrix of this shape is measured."""
    held = rows(torch.randn(shape).bfloat16())
    list(held.blocks())

    def resident(field):
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
        return 1024 * int(line.split()[1])

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier tests freed would be used again, and nothing would grow
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    measure(held)
    return resident("VmHWM") - before


# Measures of singular values


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_measures_of_known_values_are_what_their_formulas_say(size):
    equal, one, two = np.full(8, size), np.array([size] + [0.0] * 7), np.array([3 * size, size])
    assert spectrum.entropy(equal) == pytest.approx(0, abs=1e-15)  # two logarithms of 8, a unit of 4e-16 apart or none
    assert spectrum.entropy(one) == pytest.approx(math.log(8), rel=1e-14)
    assert spectrum.effective_rank(equal) == pytest.approx(8) and spectrum.effective_rank(one) == 1
    assert spectrum.participation(equal) == pytest.approx(8) and spectrum.participation(one) == 1
    assert spectrum.largest_share(equal) == 1 / 8 and spectrum.largest_share(one) == 1
    disorder = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert spectrum.entropy(two) == pytest.approx(math.log(2) - disorder, rel=1e-14)
    assert spectrum.effective_rank(two) == pytest.approx(math.exp(disorder), rel=1e-14)
    assert spectrum.participation(two) == pytest.approx(100 / 82, rel=1e-14)
    assert spectrum.largest_share(two) == 0.75


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_measures_of_nothing_and_of_no_numbers_are_nan(values):
    for measure in (spectrum.entropy, spectrum.effective_rank, spectrum.participation, spectrum.largest_share):
        assert math.isnan(measure(values))


@pytest.mark.parametrize("n, d", [(300, 300), (600, 300), (3000, 300), (150, 300)])
def test_the_entropy_of_random_entries_is_that_of_real_random_matrices(n, d):
    found = spectrum.entropy(exact(torch.randn(n, d)))
    # finite sizes move it by some 1/d of itself; an aspect that is a tenth off moves it by more
    assert spectrum.random_entropy(n, d) == pytest.approx(found, rel=0.015)
    off = spectrum.random_entropy(n, int(1.1 * d) if n > d else int(d / 1.1) if n < d else int(0.9 * d))
    assert off != pytest.approx(found, rel=0.015)


def test_the_entropy_of_random_entries_has_its_limits():
    assert spectrum.random_entropy(10**8, 100) == pytest.approx(1e-6 / 8, rel=1e-5)
    # n = d: the quarter circle law on [0, 2], integrated by itself
    s = (np.arange(10**6) + 0.5) * 2e-6
    weight = np.sqrt(4 - s * s) / math.pi * 2e-6
    mean = weight @ s
    assert spectrum.random_entropy(300, 300) == pytest.approx(
        weight @ (s * np.log(s)) / mean - math.log(mean), abs=1e-8
    )


# Spectra


@pytest.mark.parametrize("shape", [TALL, WIDE, (5, 1), (1, 5)])
def test_a_small_matrix_is_decomposed_as_it_is(shape):
    tensor = torch.randn(shape).bfloat16()
    found, known = spectrum.spectrum(rows(tensor)), exact(tensor)
    assert found.shape == shape and "Gram" not in found.method
    np.testing.assert_allclose(found.values, known, rtol=1e-10)
    assert found.rank == min(shape)
    assert found.entropy == pytest.approx(spectrum.entropy(known), abs=1e-10)


@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("gathered", [7, 100, 1024])
def test_a_gram_matrix_gives_the_same_values_however_it_is_cut(shape, gathered, monkeypatch, no_direct):
    tensor = torch.randn(shape).bfloat16()
    monkeypatch.setattr(spectrum, "GATHERED", gathered)
    monkeypatch.setattr(spectrum, "PANELS", 1 + gathered % 9)
    monkeypatch.setattr("modelsurgeon.diagnosis.weights.rows.BLOCK", 31 * shape[1])
    told = []
    found = spectrum.spectrum(rows(tensor), tell=lambda *step: told.append(step))
    assert "Gram" in found.method and told[-1][1] == told[-1][2] and told == sorted(told)
    known = exact(tensor)
    np.testing.assert_allclose(found.values, known, rtol=1e-10)
    assert (found.rank, found.shape) == (min(shape), shape)
    for measure in ("entropy", "effective_rank", "participation", "largest_share"):
        assert getattr(found, measure) == pytest.approx(getattr(spectrum, measure)(known), rel=1e-10)


def test_a_missing_block_and_a_missing_root_are_seen(monkeypatch, no_direct):
    tensor = torch.randn(TALL)
    missing = RowBlocks.blocks
    monkeypatch.setattr("modelsurgeon.diagnosis.weights.rows.BLOCK", 31 * TALL[1])
    with monkeypatch.context() as planted:
        planted.setattr(RowBlocks, "blocks", lambda self: [one for one in missing(self) if one[1] != 93])
        assert not np.allclose(spectrum.spectrum(rows(tensor)).values, exact(tensor), rtol=1e-6)
    monkeypatch.setattr(torch.Tensor, "sqrt_", lambda self: self)
    assert not np.allclose(spectrum.spectrum(rows(tensor)).values, exact(tensor), rtol=1e-6)


def test_the_sum_of_products_is_symmetric_and_whole():
    blocks = [torch.randn(r, 45, dtype=torch.float64) for r in (1, 1024, 300, 2100, 0)]
    found, whole = spectrum.gram(blocks, 45), torch.cat(blocks)
    assert torch.equal(found, found.T)
    torch.testing.assert_close(found, whole.T @ whole, rtol=1e-12, atol=1e-12)
    assert not spectrum.gram([], 3).any()


@pytest.mark.parametrize("direct", [True, False])
def test_planted_ranks_and_spikes_are_found(direct, monkeypatch):
    if not direct:
        monkeypatch.setattr(spectrum, "DIRECT", 0)
    low = spectrum.spectrum(rows(with_values(*TALL, [2.0] * 30)))
    assert low.rank == 30 and low.participation == pytest.approx(30, rel=1e-10)
    assert low.effective_rank == pytest.approx(30, rel=1e-10 if direct else 210 * low.resolution)
    equal = spectrum.spectrum(rows(orthonormal(*TALL)))
    assert equal.rank == 210 and equal.effective_rank == pytest.approx(210, rel=1e-10) and equal.entropy < 1e-12
    spiked = spectrum.spectrum(rows(with_values(*WIDE, [70.0] + [1.0] * 209)))
    assert spiked.largest_share == pytest.approx(70 / 279, rel=1e-10) and spiked.values[0] == pytest.approx(70)
    none = spectrum.spectrum(rows(torch.zeros(TALL)))
    assert none.rank == 0 and set(none.values) == {0.0} and math.isnan(none.entropy)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("direct", [True, False])
def test_a_matrix_that_holds_no_numbers_has_no_spectrum_and_no_norm(bad, direct, monkeypatch):
    if not direct:
        monkeypatch.setattr(spectrum, "DIRECT", 0)
    tensor = torch.randn(TALL)
    tensor[3, 5] = bad
    found = spectrum.spectrum(rows(tensor))
    assert len(found.values) == 210 and np.isnan(found.values).all()
    assert math.isnan(found.entropy) and found.rank is None
    assert all(map(math.isnan, vars(spectral(rows(tensor))).values()))


def test_a_stack_of_matrices_has_no_one_spectrum():
    with pytest.raises(AssertionError, match="of one matrix"):
        spectrum.spectrum(rows(torch.zeros(2, 3, 4), stacked=True))


@pytest.mark.parametrize("shape", [(24000, 256), (600, 3000), (8000, 128)])
def test_the_memory_that_a_spectrum_takes_is_what_it_says(shape):
    assert grown(spectrum.spectrum, shape) < spectrum.memory_for(*shape)


def test_a_matrix_that_is_held_whole_is_more_than_is_said(monkeypatch):
    said = spectrum.memory_for(24000, 256)
    monkeypatch.setattr(spectrum, "GATHERED", 24000)
    assert grown(spectrum.spectrum, (24000, 256)) > said


# Norms


KNOWN = {
    "random": lambda: torch.randn(600, 300),
    "wide, 16 bits": lambda: 0.02 * torch.randn(300, 600).bfloat16(),
    "orthogonal": lambda: orthonormal(600, 300),
    "orthogonal rows": lambda: orthonormal(600, 300).T.contiguous(),
    "rank 1": lambda: torch.outer(torch.randn(600), torch.randn(300)),
    "rank 30": lambda: with_values(600, 300, [2.0] * 30),
    "spike": lambda: with_values(600, 300, [9.0] + [1.0] * 299),
    "two equal": lambda: with_values(600, 300, [3.0, 3.0] + [1.0] * 298),
    "near": lambda: with_values(600, 300, [1.0, 0.999] + [0.5] * 298),
    "decaying": lambda: with_values(300, 600, [k**-0.5 for k in range(1, 301)]),
    "flat": lambda: with_values(600, 300, np.linspace(1, 0.99, 300)),
    "outlying column": lambda: torch.randn(600, 300) + 10 * (torch.arange(300) == 5),
    "few columns": lambda: torch.randn(600, 300) * (torch.arange(300) < 20),
    "huge": lambda: 1e200 * torch.randn(600, 300).double(),
    "tiny": lambda: 1e-30 * orthonormal(600, 300),
    "subnormal": lambda: 1e-39 * torch.randn(600, 300),
    "few rows": lambda: torch.randn(100, 700),
    "one row": lambda: torch.randn(1, 700),
    "one column": lambda: torch.randn(700, 1),
}
UNSURE = {"random", "wide, 16 bits", "huge", "subnormal", "flat"}  # nothing stands out: the passes end before the goal


@pytest.mark.parametrize("name", KNOWN)
def test_the_norm_lies_where_it_is_said_to_lie(name):
    tensor = KNOWN[name]()
    before = tensor.clone()
    found, known = spectral(rows(tensor)), exact(tensor)
    assert torch.equal(tensor, before)
    largest = float(known[0])
    assert largest - found.error <= found.norm <= (1 + ROUNDING) * largest
    if name in UNSURE:
        assert found.norm == pytest.approx(largest, rel=5e-3) and found.error < 0.05 * largest
    else:
        assert found.norm == pytest.approx(largest, rel=1e-6) and found.error < 1e-3 * largest
    energy = float(((known / largest) ** 2).sum())
    assert found.frobenius == pytest.approx(math.sqrt(energy) * largest, rel=1e-7)  # of rows in float32
    assert found.stable_rank == pytest.approx(energy, rel=1e-6 if name not in UNSURE else 1e-2)


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_the_bound_holds_after_any_number_of_passes_and_one_without_it_does_not(passes, monkeypatch):
    monkeypatch.setattr(spectral_norm, "PASSES", passes)
    tensors = [KNOWN[name]() for name in ("random", "near", "spike", "flat")]
    largest = [exact(tensor)[0] for tensor in tensors]

    def holds():
        found = [spectral(rows(tensor)) for tensor in tensors]
        return all(
            one.norm <= (1 + ROUNDING) * true and true <= one.norm + one.error
            for one, true in zip(found, largest, strict=True)
        )

    assert holds()
    monkeypatch.setattr(spectral_norm, "_probable", lambda within, *_: float(torch.linalg.eigvalsh(within)[-1]))
    assert not holds()


def test_a_stack_has_the_largest_norm_and_the_least_stable_rank_however_it_is_read(monkeypatch):
    values = [[5.0, 1.0, 1.0], [3.0, 0.0, 0.0], [1.0] * 250, [0.0]]
    stack = torch.stack([with_values(300, 260, each) for each in values])
    monkeypatch.setattr("modelsurgeon.diagnosis.weights.rows.BLOCK", 70 * 260)
    found = spectral(rows(stack, stacked=True))
    assert found.norm == pytest.approx(5, rel=1e-6) and found.stable_rank == pytest.approx(1, rel=1e-6)
    assert found.frobenius == pytest.approx(math.sqrt(27 + 9 + 250), rel=1e-7)
    for capacity in (0, stack.nbytes // 4, stack.nbytes - 1):
        assert spectral(rows(stack, capacity, stacked=True)) == found
    stack[2, 1, 1] = math.nan
    assert math.isnan(spectral(rows(stack, stacked=True)).norm)


def test_a_spectrum_tells_the_norm_that_need_not_be_computed_again():
    tall = with_values(700, 600, 2.0 ** -np.arange(600.0))
    known, found = of_spectrum(spectrum.spectrum(rows(tall))), spectral(rows(tall))
    assert abs(known.norm - found.norm) <= found.error + known.error + ROUNDING
    assert known.stable_rank == pytest.approx(4 / 3, rel=1e-6)  # 1 + 1/4 + 1/16 ...
    assert known.frobenius == pytest.approx(found.frobenius, rel=1e-6)
    assert math.isnan(of_spectrum(spectrum.spectrum(rows(torch.zeros(4, 3)))).stable_rank)


def test_nothing_has_no_size():
    nothing = spectral(rows(torch.zeros(300, 400)))
    assert (nothing.norm, nothing.error, nothing.frobenius) == (0, 0, 0) and math.isnan(nothing.stable_rank)
    assert spectral(rows(torch.zeros(0, 4))).norm == 0
