"""Ways to plant a mistake in the folder of a result: in its tensors, in its config."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

Change = Callable[[dict[str, torch.Tensor]], None]
S = np.s_  # S[0:8] is slice(0, 8)


def tensors(change: Change) -> Callable[[Path], None]:
    """Make a mutant that changes the weights."""

    def plant(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        before = {name: tensor.clone() for name, tensor in held.items()}
        change(held)
        changed = before.keys() != held.keys() or any(not torch.equal(before[name], held[name]) for name in before)
        assert changed, "the mutant changed nothing"
        save_file(
            {name: tensor.contiguous() for name, tensor in held.items()}, folder / "model.safetensors", {"format": "pt"}
        )

    return plant


def config(**values: object) -> Callable[[Path], None]:
    """Make a mutant that changes the config."""

    def plant(folder: Path) -> None:
        held = json.loads((folder / "config.json").read_text())
        assert any(key not in held or held[key] != value for key, value in values.items()), "the mutant changed nothing"
        (folder / "config.json").write_text(json.dumps({**held, **values}))

    return plant


def inside(key: str, **values: object) -> Callable[[Path], None]:
    """Make a mutant that changes a nested part of the config."""

    def plant(folder: Path) -> None:
        held = json.loads((folder / "config.json").read_text())
        config(**{key: {**held[key], **values}})(folder)

    return plant


def without(key: str) -> Callable[[Path], None]:
    """A key of the config left out."""

    def plant(folder: Path) -> None:
        held = json.loads((folder / "config.json").read_text())
        assert held.pop(key, None) is not None, "the mutant changed nothing"
        (folder / "config.json").write_text(json.dumps(held))

    return plant


def all_of(*plants: Callable[[Path], None]) -> Callable[[Path], None]:
    """Mistakes that go together."""

    def plant(folder: Path) -> None:
        for each in plants:
            each(folder)

    return plant


def times(name: str, factor: float, columns: slice = slice(None)) -> Callable[[Path], None]:
    """One tensor (or some of its last coordinates) times a factor."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name][..., columns] *= factor

    return tensors(change)


def swapped(name: str, dim: int, first: slice, second: slice) -> Callable[[Path], None]:
    """Two slices of one dimension in each other's place."""

    def change(held: dict[str, torch.Tensor]) -> None:
        moved = held[name].transpose(0, dim).clone()
        moved[first], moved[second] = moved[second].clone(), moved[first].clone()
        held[name] = moved.transpose(0, dim)

    return tensors(change)


def repeated_heads(name: str, heads: int) -> Callable[[Path], None]:
    """Rows tiled across heads where whole heads should follow one another."""

    def change(held: dict[str, torch.Tensor]) -> None:
        rows = held[name]
        held[name] = rows.reshape(heads, -1, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)

    return tensors(change)


def continued(name: str, size: int) -> Callable[[Path], None]:
    """Copies in the place of what stands behind the first `size` of the last coordinates."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name][..., size:] = held[name][..., : held[name].shape[-1] - size].clone()

    return tensors(change)


def filled(name: str, rows: slice, value: float) -> Callable[[Path], None]:
    """Some rows of one tensor hold one number."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name][rows] = value

    return tensors(change)


def in_order(name: str, dim: int, order: list[int]) -> Callable[[Path], None]:
    """The equal blocks of one dimension in another order."""

    def change(held: dict[str, torch.Tensor]) -> None:
        blocks = held[name].chunk(len(order), dim)
        held[name] = torch.cat([blocks[place] for place in order], dim)

    return tensors(change)


def exchanged(first: str, second: str) -> Callable[[Path], None]:
    """Two tensors in each other's place."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[first], held[second] = held[second].clone(), held[first].clone()

    return tensors(change)


def halves(name: str, size: int) -> Callable[[Path], None]:
    """The last dimension grown from `size` as if it were two halves, not pairs that alternate."""

    def change(held: dict[str, torch.Tensor]) -> None:
        first, second = held[name][..., :size].chunk(2, -1)
        held[name] = torch.cat([first, first, second, second], -1)

    return tensors(change)


def tiled_experts(layer: str, gate: str, count: int) -> Callable[[Path], None]:
    """Experts, and their rows of the router, tiled where copies should stand side by side."""

    def change(held: dict[str, torch.Tensor]) -> None:
        before = dict(held)
        for j in range(2 * count):
            for name in ("gate_proj", "up_proj", "down_proj"):
                source = f"{layer}.experts.{2 * (j % count)}.{name}.weight"
                held[f"{layer}.experts.{j}.{name}.weight"] = before[source].clone()
        held[gate] = before[gate][::2].repeat(2, 1)

    return tensors(change)


def reordered(name: str, dim: int, first: int) -> Callable[[Path], None]:
    """One dimension, seen as `first` parts of as many numbers, with the numbers first and the parts second."""

    def change(held: dict[str, torch.Tensor]) -> None:
        moved = held[name].transpose(0, dim)
        turned = moved.reshape(first, -1, *moved.shape[1:]).transpose(0, 1).reshape(moved.shape)
        held[name] = turned.transpose(0, dim).contiguous()

    return tensors(change)


def in_heads(name: str, order: list[int]) -> Callable[[Path], None]:
    """The rows of every head in another order."""

    def change(held: dict[str, torch.Tensor]) -> None:
        rows = held[name]
        held[name] = rows.reshape(-1, len(order), *rows.shape[1:])[:, order].reshape(rows.shape)

    return tensors(change)


def transposed(name: str) -> Callable[[Path], None]:
    """A square matrix that is stored the other way round."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name] = held[name].T.clone()

    return tensors(change)


def plus(name: str, value: float, columns: slice) -> Callable[[Path], None]:
    """Something added to some of the last coordinates of one tensor."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name][..., columns] += value

    return tensors(change)


def diverged(embedding: str, head: str) -> Callable[[Path], None]:
    """A head of its own beside a flag that still says that it is the embedding."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[head] = 1.5 * held[embedding]

    return tensors(change)


def zeroed(name: str) -> Callable[[Path], None]:
    return times(name, 0.0)


def rows_times(name: str, factor: float, *rows: int) -> Callable[[Path], None]:
    """Some rows of one tensor times a factor."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name][[*rows]] *= factor

    return tensors(change)


def number(name: str, value: float, place: int = 0) -> Callable[[Path], None]:
    """One number of one tensor, counted in the order of the file."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name].view(-1)[place] = value

    return tensors(change)


def scaled(factors: dict[str, float]) -> Callable[[Path], None]:
    """Whole tensors, each times a factor of its own."""

    def change(held: dict[str, torch.Tensor]) -> None:
        for name, factor in factors.items():
            held[name] = (held[name].double() * factor).to(held[name].dtype)

    return tensors(change)


def together(order: list[int], *places: tuple[str, int]) -> Callable[[Path], None]:
    """The equal blocks of one dimension of several tensors, (name, dimension) each, in another order."""
    return all_of(*(in_order(name, dim, order) for name, dim in places))


def nothing(folder: Path) -> None:
    """The result as it is."""
