"""Compares the copies of one coordinate: their weights and their gradients, in every tensor that has the axis.

A neuron that was copied is two rows of `up_proj` and two columns of `down_proj`. If all of these are equal, the model
is the same with both neurons swapped, so their gradients are equal, and so is every later step of training.

A new coordinate may copy none. If neither its writers nor its readers get a gradient, they never will.
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
    stuck                  whether weights and gradients are equal
    parallel               whether weights and gradients have the same direction and other lengths: shares that differ
    dead                   how many new coordinates get no gradient
    """

    cosine: np.ndarray
    weight_cosine: np.ndarray
    stuck: np.ndarray
    parallel: np.ndarray
    dead: int


@dataclass(frozen=True)
class Sums:
    """Sums over the tensors of one layer.

    pairs   [4, places, pairs] float64: products, products of lengths, squared differences, squared larger lengths
    energy  [places, m] float64: squared lengths of all coordinates
    """

    pairs: torch.Tensor
    energy: torch.Tensor

    @property
    def cosine(self) -> torch.Tensor:
        """[places, pairs]: 1 only where the slices are parallel in every tensor, however long each of them is."""
        return self.pairs[0] / self.pairs[1]


def compare(axis: GrownAxis, table: Architecture, sizes: Mapping[str, int], values: Values) -> ComparedCopies | None:
    """Compare the copies of one axis; None where no parameter has it. Arguments as in `strips`."""
    by_place = strips(axis, table, sizes, values)
    shared = by_place.pop((), [])
    if not (by_place or shared):
        return None
    layers = [
        _judged(axis, *(_added([*own, *shared], axis, values, part) for part in (0, 1)))
        for own in by_place.values() or [[]]
    ]
    every = zip(*(arrays for arrays, _ in layers), strict=True)
    cosine, weight_cosine, stuck, parallel = (np.concatenate(arrays) for arrays in every)
    return ComparedCopies(cosine, weight_cosine, stuck, parallel, sum(dead for _, dead in layers))


def _judged(axis: GrownAxis, weights: Sums, gradients: Sums) -> tuple[tuple[np.ndarray, ...], int]:
    """(cosine, weight_cosine, stuck, parallel), dead: of one layer, as in `ComparedCopies`."""
    _, _, difference, larger = gradients.pairs
    floor = float(larger.mean()) if larger.numel() else 0.0  # a small gradient has the noise of large ones
    equal = weights.pairs[2] <= WEIGHT_NOISE**2 * weights.pairs[3]
    stuck = equal & (difference <= GRADIENT_NOISE**2 * larger.clamp_min(floor))
    parallel = (1 - weights.cosine < WEIGHT_NOISE**2) & (1 - gradients.cosine < GRADIENT_NOISE**2) & ~stuck
    usual = gradients.energy[:, torch.from_numpy(axis.source >= 0)].mean()
    dead = gradients.energy[:, torch.from_numpy(axis.new)] <= GRADIENT_NOISE**2 * usual
    arrays = tuple(found.flatten().numpy() for found in (gradients.cosine, weights.cosine, stuck, parallel))
    return arrays, int(dead.sum())


def _added(strips: list[Strip], axis: GrownAxis, values: Values, part: int) -> Sums:
    """The sums over the weights (part 0) or the gradients (part 1) of one layer, some coordinates at a time."""
    places = max(strip.places(values[strip.name][0].shape) for strip in strips)
    left, right = axis.pairs
    pairs = torch.zeros(4, places, len(left), dtype=torch.float64)
    energy = torch.zeros(places, axis.new_size, dtype=torch.float64)
    for strip in strips:
        tensor = values[strip.name][part]
        own = slice(None) if strip.only is None else slice(strip.only, strip.only + 1)
        step = max(1, NUMBERS // (tensor.numel() // tensor.shape[strip.dimension] * strip.order[:, :, 0].size))
        for some in (slice(start, start + step) for start in range(0, len(left), step)):
            compared = _compared(strip.take(tensor, left[some]), strip.take(tensor, right[some]))
            pairs[:, own, some] += compared.cpu()
        for some in (slice(start, start + step) for start in range(0, axis.new_size, step)):
            slices = strip.take(tensor, np.arange(axis.new_size)[some])
            energy[own, some] += slices.square().sum((0, 3)).cpu()
    return Sums(pairs, energy)


def _compared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`Sums.pairs` of slices [occurrences, places, pairs, numbers]."""
    left, right = a.square().sum(3), b.square().sum(3)
    found = (a * b).sum(3), (left * right).sqrt(), (a - b).square().sum(3), torch.maximum(left, right)
    return torch.stack(found).sum(1)
