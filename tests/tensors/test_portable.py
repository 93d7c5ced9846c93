"""Random numbers and rotations are the same to the last bit on every machine, and are what they should be: normal, and
uniform among all orthogonal matrices."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from blake3 import blake3

from modelsurgeon.tensors.random import turned
from modelsurgeon.tensors.random.drawn import Drawn
from modelsurgeon.tensors.random.quantile import normal_quantile
from modelsurgeon.tensors.random.turned import RandomRotation, bits, haar, slices, times_transpose

# Seen on an AMD EPYC with torch 2.13; quantiles and rotations on an Intel Xeon with torch 2.11 too
GOLDEN = {
    "rotation 2": "51584636f672f1540e1d6876781f7c8b",
    "rotation 7": "2f107f6ed4af287baca4f2b5fc089f3a",
    "rotation 64": "74c3a8fe8b4512d628b67b6bcc58dd7a",
    "rotation 320": "bc8b18e14c63ae69acd3bad03d4f6faf",
    "turned 2": "c85c43203e14f3107b03a457ab8c633b",
    "turned 7": "00efcfe3a21e8f45f2f0e7d2f0d75860",
    "turned 64": "6c5f75ab456c56df23e44c634a8b7302",
    "turned 320": "f4da00f10f7b9ca3a63ced84e9b91de0",
    "normal": "7c4dab2d893eaadf6b07d07f5912b0f8",
    "truncated": "2cbd7b27d0c7e5a6027f2420ad63ee13",
}
# ATen and MKL take the kernels of a lesser processor; the latter only on one of Intel's
PROCESSORS = {"default": ("SSE4_2", 5), "avx2": ("AVX2", 1)}
HAAR, MANY = 4, 800  # matrices that the moments are taken of


def digests() -> dict[str, str]:
    """{what: the hash of its bytes}"""
    rotations = {size: RandomRotation(size, "key") for size in (2, 7, 64, 320)}
    found = {f"rotation {size}": rotation.matrix for size, rotation in rotations.items()}
    found |= {
        f"turned {size}": times_transpose(Drawn((50, size), "F64", 1.0, "rows").read(0, 50), rotation)
        for size, rotation in rotations.items()
    }
    found["normal"] = Drawn((3, 1 << 17), "F32", 0.02, "key").read(0, 3)
    found["truncated"] = Drawn((3, 1 << 17), "F32", 0.02, "key", cut=2.0).read(0, 3)
    return {what: blake3(tensor.contiguous().numpy().tobytes()).hexdigest()[:32] for what, tensor in found.items()}


def test_the_bytes_are_those_that_were_seen_on_another_machine():
    assert digests() == GOLDEN


@pytest.mark.parametrize("capability", PROCESSORS)
def test_the_bytes_do_not_depend_on_the_processor_or_on_threads(capability):
    kernels, threads = PROCESSORS[capability]
    told = {"ATEN_CPU_CAPABILITY": capability, "MKL_ENABLE_INSTRUCTIONS": kernels, "OMP_NUM_THREADS": str(threads)}
    code = (
        "import json, sys, torch; import test_portable; "
        "print(json.dumps([torch.backends.cpu.get_cpu_capability(), test_portable.digests()]))"
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **told, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    used, found = json.loads(done.stdout)
    assert found == GOLDEN and used in ("DEFAULT", capability.upper())


def test_quantiles_are_those_of_the_normal_distribution_rounded_once():
    places = np.concatenate([np.arange(-(1 << 24) + 1, 1 << 24, 94), np.array([(1 << 24) - 1])])
    uniform = torch.from_numpy((places * 2.0**-24).astype(np.float32))
    wanted = uniform.double().erfinv() * math.sqrt(2)
    found = torch.from_numpy(normal_quantile(uniform.numpy())).double()
    # half a unit of the last of 24 bits; the quantile before it is correct to 1e-15
    assert float((found / wanted - 1).abs().max()) <= 2.0**-24
    assert np.array_equal(normal_quantile(-uniform.numpy()), -normal_quantile(uniform.numpy()))


def off(size: int) -> float:
    """How far the rows of a rotation are from orthonormal, in what `size` roundings add up to as a random walk."""
    p = RandomRotation(size, "key").matrix
    return float((p @ p.T - torch.eye(size, dtype=p.dtype)).abs().max()) / (2.0**-52 * math.sqrt(size))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 129, 320, 700])
def test_rows_of_a_rotation_are_orthonormal_to_a_few_roundings_for_each_reflection(size):
    assert off(size) < 4


def test_two_slices_are_too_few_for_a_rotation(monkeypatch):
    three = turned.scaled_slices
    monkeypatch.setattr(turned, "scaled_slices", lambda *given: three(*given)[:2])
    assert off(320) > 4


def test_a_rotation_is_the_product_of_its_reflections():
    """One after another, on more columns than are reflected together or lie in a strip."""
    normal = Drawn((600, 600), "F64", 1.0, "key").read(0, 600)
    wanted = torch.eye(600, dtype=torch.float64)
    for k in reversed(range(600)):
        x = normal[k:, k].clone()
        sign = torch.sgn(x[0])
        x[0] += sign * x.norm()
        wanted[k, k] = -sign
        wanted[k:, k:] -= torch.outer(x, 2 / (x @ x) * (x @ wanted[k:, k:]))
    torch.testing.assert_close(haar(normal), wanted, rtol=0, atol=1e-13)


# --- uniform among all orthogonal matrices ---


def samples() -> torch.Tensor:
    """[MANY, HAAR, HAAR]: the matrices of so many blocks of normal numbers."""
    normal = Drawn((MANY, HAAR, HAAR), "F64", 1.0, "many").read(0, MANY)
    return torch.stack([haar(numbers.clone()) for numbers in normal])


def deviations(found: torch.Tensor) -> float:
    """How many deviations the means over matrices are from those of Haar's measure, at most.

    Of an entry p: 0, of p**2: 1/d, of p**4: 3/(d (d + 2)), of p**8: 105/(d (d + 2) (d + 4) (d + 6)), of p**4 q**4 of
    one column 9 where that has 105, as for any unit vector. Of the determinant, -1 or 1: 0. Of the trace and its
    square: 0 and 1, its fourth power 3, as for a normal number (Diaconis and Shahshahani, "On the eigenvalues of random
    matrices", 1994).
    """
    d, trace = HAAR, found.diagonal(dim1=1, dim2=2).sum(1)
    square, fourth, eighth = 1 / d, 3 / (d * (d + 2)), 105 / (d * (d + 2) * (d + 4) * (d + 6))
    known = [  # numbers, their mean, the mean of their squares
        (found, 0.0, square),
        (found**2, square, fourth),
        (found**4, fourth, eighth),
        ((found**4).sum(1), d * fourth, d * eighth + d * (d - 1) * eighth * 9 / 105),
        (torch.linalg.det(found), 0.0, 1.0),
        (trace, 0.0, 1.0),
        (trace**2, 1.0, 3.0),
    ]
    return max(float((n.mean(0) - mean).abs().max() * math.sqrt(MANY / (s - mean**2))) for n, mean, s in known)


def no_signs(monkeypatch):
    """The reflections alone: what LAPACK's Q is without the signs of R."""
    whole = turned.reflectors
    monkeypatch.setattr(turned, "reflectors", lambda x: (whole(x)[0], torch.ones(x.shape[1], dtype=x.dtype)))
    return samples()


def first_column_fixed(monkeypatch):
    """One reflection too few."""
    found = torch.eye(HAAR, dtype=torch.float64).repeat(MANY, 1, 1)
    found[:, 1:, 1:] = torch.stack([haar(p[1:, 1:].clone()) for p in samples()])
    return found


def rotations_alone(monkeypatch):
    """The last sign such that there is never a reflection."""
    found = samples()
    found[:, :, -1] *= torch.linalg.det(found).round()[:, None]
    return found


def cubes(monkeypatch):
    """Vectors that fill a cube: uniform numbers, where normal ones belong."""
    monkeypatch.setattr(Drawn, "quantile", staticmethod(lambda uniform: uniform))
    return samples()


def test_rotations_are_uniform_among_all_orthogonal_matrices():
    # 55 means, of which chance puts one beyond 4.5 deviations for one key in 2,000; and the key is fixed
    assert deviations(samples()) < 4.5


@pytest.mark.parametrize("mutant", [no_signs, first_column_fixed, rotations_alone, cubes])
def test_what_is_not_uniform_is_seen(mutant, monkeypatch):
    assert deviations(mutant(monkeypatch)) > 4.5


# --- exact in any order ---


def products_are_exact(size: int, wide: int) -> bool:
    """Whether products of slices of so many bits are what whole numbers give, for numbers as large as there may be."""
    generator = torch.Generator().manual_seed(size)
    ours = torch.full((2, size), 1 - 2.0**-53, dtype=torch.float64)
    ours[1].uniform_(-1, 1, generator=generator)
    ours[0] -= 2.0**-wide  # the largest odd number of high units
    parts = slices(ours, wide, 2)
    whole = [[[round(number * 2.0 ** (wide * k)) for number in row] for row in part.tolist()] for k, part in
             enumerate(parts, 1)]  # fmt: skip
    for i, one in enumerate(whole, 1):
        for j, other in enumerate(whole, 1):
            found = (parts[i - 1] @ parts[j - 1].T * 2.0 ** (wide * (i + j))).tolist()
            wanted = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in other] for x in one]
            if found != wanted:
                return False
    return True


@pytest.mark.parametrize("size", [2, 3, 255, 2048, 2049, 8191, 8192])
def test_products_of_slices_are_exact(size):
    assert products_are_exact(size, bits(size))


def test_one_more_bit_is_one_too_many():
    assert not products_are_exact(8191, bits(8191) + 1)
