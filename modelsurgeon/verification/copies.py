"""Copies of one coordinate side by side: their weights, and their gradients, in every tensor that has the axis.

A neuron that was copied is two rows of `up_proj` and two columns of `down_proj`. The two neurons are interchangeable
where all of these are equal, and then so are their gradients, and so is every later step of training: the model is the
same with both swapped.

A new coordinate may copy none. Where neither what writes it nor what reads it gets a gradient, it never will.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.proof.coordinates import GrownAxis, Strip, strips

NUMBERS = 1 << 22  # compared at a time: 32 MB of float64
# Copies that the program makes with equal factors are equal to the last bit; training without noise, in float32, keeps
# them so or within some roundings of 2**-24. Noise that breaks a symmetry is larger by orders of magnitude.
WEIGHT_NOISE = 2.0**-18
# Equal copies get gradients that differ by the order of float32 sums alone: by 1e-7 of their length at most in tiny
# models of 46 families. Copies that differ by a thousandth get gradients that differ by as much.
GRADIENT_NOISE = 2e-5

Values = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # {parameter: (weight, gradient)}


@dataclass(frozen=True)
class ComparedCopies:
    """All pairs of an axis, place after place: [pairs] each.

    cosine, weight_cosine  of gradients and of weights; NaN where one is zero
    stuck                  equal weights, equal gradients
    parallel               weights and gradients of one direction but of other lengths: shares that differ
    dead                   how many new coordinates get no gradient
    """

    cosine: np.ndarray
    weight_cosine: np.ndarray
    stuck: np.ndarray
    parallel: np.ndarray
    dead: int


@dataclass(frozen=True)
class Sums:
    """What is added up over tensors.

    pairs   [4, places, pairs] float64: products, products of lengths, squared differences, squared larger lengths
    energy  [places, m] float64: squared lengths of all coordinates
    """

    pairs: torch.Tensor
    energy: torch.Tensor

    @property
    def cosine(self) -> torch.Tensor:
        """1 only where the slices are parallel in every tensor, however long each of them is."""
        return self.pairs[0] / self.pairs[1]


def compare(axis: GrownAxis, table: Architecture, sizes: Mapping[str, int], values: Values) -> ComparedCopies | None:
    """Compare the copies of one axis; None where no parameter has it. Arguments as in `strips`."""
    by_place = strips(axis, table, sizes, values)
    shared = by_place.pop((), [])
    if not (by_place or shared):
        return None
    found = []
    for own in by_place.values() or [[]]:
        weights, gradients = (_added([*own, *shared], axis, values, part) for part in (0, 1))
        found.append(_judged(axis, weights, gradients))
    return ComparedCopies(
        np.concatenate([part.cosine for part in found]),
        np.concatenate([part.weight_cosine for part in found]),
        np.concatenate([part.stuck for part in found]),
        np.concatenate([part.parallel for part in found]),
        sum(part.dead for part in found),
    )


def _judged(axis: GrownAxis, weights: Sums, gradients: Sums) -> ComparedCopies:
    """Judge the pairs of one layer."""
    _, _, difference, larger = gradients.pairs
    floor = float(larger.mean()) if larger.numel() else 0.0  # a small gradient has the noise of large ones
    equal = weights.pairs[2] <= WEIGHT_NOISE**2 * weights.pairs[3]
    stuck = equal & (difference <= GRADIENT_NOISE**2 * larger.clamp_min(floor))
    parallel = (1 - weights.cosine < WEIGHT_NOISE**2) & (1 - gradients.cosine < GRADIENT_NOISE**2) & ~stuck
    usual = gradients.energy[:, torch.from_numpy(axis.source >= 0)].mean()
    dead = gradients.energy[:, torch.from_numpy(axis.new)] <= GRADIENT_NOISE**2 * usual
    cosine, weight_cosine = gradients.cosine.flatten().numpy(), weights.cosine.flatten().numpy()
    return ComparedCopies(cosine, weight_cosine, stuck.flatten().numpy(), parallel.flatten().numpy(), int(dead.sum()))


def _added(strips: list[Strip], axis: GrownAxis, values: Values, part: int) -> Sums:
    """The sums over all tensors of one layer: their weights (0) or their gradients (1)."""
    places = max(strip.places(values[strip.name][0].shape) for strip in strips)
    pairs = torch.zeros(4, places, len(axis.pairs[0]), dtype=torch.float64)
    energy = torch.zeros(places, axis.new_size, dtype=torch.float64)
    for strip in strips:
        own = _sums(strip, values[strip.name][part], axis)
        at = slice(None) if strip.only is None else slice(strip.only, strip.only + 1)
        pairs[:, at] += own.pairs
        energy[at] += own.energy
    return Sums(pairs, energy)


def _sums(strip: Strip, values: torch.Tensor, axis: GrownAxis) -> Sums:
    width = values.numel() // values.shape[strip.dimension] * strip.order[:, :, 0].size
    left, right = axis.pairs
    pairs = [
        _compared(strip.take(values, left[some]), strip.take(values, right[some])) for some in _pieces(len(left), width)
    ]
    every = np.arange(axis.new_size)
    energy = [strip.take(values, every[some]).square().sum((0, 3)) for some in _pieces(len(every), width)]
    return Sums(torch.cat(pairs, 2).cpu(), torch.cat(energy, 1).cpu())


def _pieces(count: int, width: int) -> list[slice]:
    """One slice or more, of at most NUMBERS numbers where a coordinate has `width`."""
    step = max(1, NUMBERS // width)
    return [slice(at, at + step) for at in range(0, max(1, count), step)]


def _compared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`Sums.pairs` of slices [occurrences, places, pairs, numbers]."""
    left, right = a.square().sum(3), b.square().sum(3)
    found = (a * b).sum(3), (left * right).sqrt(), (a - b).square().sum(3), torch.maximum(left, right)
    return torch.stack(found).sum(1)
