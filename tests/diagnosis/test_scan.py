"""One pass over a checkpoint's weights: numbers, gains, matrices and copies are counted as they were planted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from modelsurgeon.architectures import registry
from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.diagnosis.weights import rows as rows_module
from modelsurgeon.diagnosis.weights import scan as scan_module
from modelsurgeon.diagnosis.weights.equal_rows import Equal, Sketch
from modelsurgeon.diagnosis.weights.gains import places
from modelsurgeon.diagnosis.weights.numbers import Census, Lost
from modelsurgeon.diagnosis.weights.rows import RowBlocks
from modelsurgeon.diagnosis.weights.scan import Scan, scan
from modelsurgeon.diagnosis.weights.spectral_norm import Spectral
from modelsurgeon.files.file import LocalFolder
from modelsurgeon.saving.save import save
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.stored import Stored, read_header
from support import tiny
from support.counted import threads
from support.grow import widen

PLENTY = 10**9


@pytest.fixture
def without_norms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Spectral norms have tests of their own, and take most of a scan's time."""
    monkeypatch.setattr(scan_module, "spectral", lambda rows, device: Spectral(1.0, 0.0, 1.0, 1.0))
    yield


# --- numbers ---


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_unusual_numbers_are_counted_whatever_the_blocks(dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(5000, generator=generator, dtype=torch.float64)
    wide[:600] = 10.0 ** (torch.rand(600, generator=generator, dtype=torch.float64) * 90 - 50)  # all that dtypes lose
    values = wide.to(DTYPES[dtype])
    values[700:704] = torch.tensor([np.nan, np.inf, -np.inf, -0.0], dtype=torch.float64).to(values.dtype)
    edges = [65519.0, 65520.0, 2.0**-25, 2.0**-25 * 1.01]  # just stored, just not, twice
    values[704:708] = torch.tensor(edges, dtype=torch.float64).to(values.dtype)
    census = Census(dtype)
    for block in values.split([1, 702, 4297]):
        census.add(block.reshape(1, -1))
    found, finite = census.numbers, values[values.isfinite()]
    sizes = finite.double().abs().numpy()
    assert (found.count, found.nan) == (5000, int(values.isnan().sum()))
    assert (found.inf, found.zero) == (int(values.isinf().sum()), int((values == 0).sum()))
    assert found.subnormal == int(((sizes > 0) & (sizes < torch.finfo(values.dtype).smallest_normal)).sum())
    assert found.largest == sizes.max()
    for narrow, lost in ((torch.float16, found.float16), (torch.bfloat16, found.bfloat16)):
        stored = finite.to(narrow)
        assert lost == Lost(int(stored.isinf().sum()), int(((stored == 0) & (finite != 0)).sum()))
    assert found.float16.overflow or dtype == "F16"  # otherwise nothing was tried
    assert found.float16.underflow > 100 or dtype == "F16"
    assert census.moments.mean == pytest.approx(finite.double().numpy().mean(), rel=1e-12)
    assert census.moments.deviation == pytest.approx(finite.double().numpy().std(), rel=1e-9)


def test_a_mean_far_above_the_deviation_costs_no_digits() -> None:
    values = (1e4 + torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 0.01).float()
    census = Census("F32")
    for block in values.split(1000):
        census.add(block)
    assert census.moments.deviation == pytest.approx(values.double().numpy().std(), rel=1e-9)


# --- rows and columns ---


def stored(folder: Path, tensor: torch.Tensor) -> Stored:
    save_file({"x": tensor}, folder / "model.safetensors")
    return read_header(LocalFolder(folder).file("model.safetensors"))["x"]


def settled(rows: RowBlocks) -> Equal:
    sketch = Sketch(rows)
    for index, first, block in rows.blocks():
        sketch.add(index, first, block)
    return sketch.settle()


@pytest.mark.parametrize("capacity", [0, PLENTY])
def test_equal_rows_and_columns_are_found_and_nearly_equal_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capacity: int
) -> None:
    monkeypatch.setattr(rows_module, "BLOCK", 1000)  # several rows; many blocks
    values = torch.randn(2, 150, 120, generator=torch.Generator().manual_seed(0)).bfloat16()
    matrix = values[0]
    for number in range(100):  # decoys: each differs from row 0 in one number, most of them in none of the sample
        matrix[10 + number] = matrix[0]
        matrix[10 + number, number] += 1
    matrix[[120, 130]] = matrix[5].clone()
    matrix[:, 110] = matrix[:, 7].clone()
    for number in range(9):  # and decoys of zero rows
        matrix[110 + number] = 0
        matrix[110 + number, 20 + 9 * number] = 1
    matrix[[1, 2, 140]] = 0
    matrix[:, 111] = -0.0
    values[1, 149] = values[1, 0].clone()
    values[1, :, 0] = 0
    values[1, 9, 0] = 1e-30  # so it is not zero
    found = settled(RowBlocks(stored(tmp_path, values), capacity, stacked=True))
    expected = np.arange(150)
    expected[[120, 130, 2, 140]] = 5, 5, 1, 1
    assert found.rows.first[0].tolist() == expected.tolist()
    assert np.flatnonzero(found.rows.zero[0]).tolist() == [1, 2, 140]
    assert (found.rows.repeats, found.rows.zeros) == (2 + 1, 3)
    assert np.flatnonzero(found.columns.first[0] != np.arange(120)).tolist() == [110]
    assert (found.columns.repeats, found.columns.zeros) == (1, 1)
    assert found.matrices.repeats == 0


def test_equal_matrices_of_a_stack_are_found(tmp_path: Path) -> None:
    values = torch.randn(5, 40, 50, generator=torch.Generator().manual_seed(0))
    values[3] = values[1].clone()
    values[4] = values[1].clone()
    values[4, 17, 23] += 1  # where no sample looks, or not
    found = settled(RowBlocks(stored(tmp_path, values), PLENTY, stacked=True))
    assert found.matrices.first.tolist() == [[0, 1, 2, 1, 4]]


# --- gains ---

UNTIED = {v.model_type: v for v in tiny.variants() if v.main and not v.tied}


def norms_as_they_run(model: Any) -> list[str]:
    """The names of all modules that are norms, in the order in which a forward pass comes to them."""
    ran: list[str] = []
    for path, module in model.named_modules():
        if type(module).__name__.endswith("Norm"):
            module.register_forward_hook(lambda *_, path=path: ran.append(path))
    tiny.outputs(model)
    return ran


@pytest.mark.parametrize("model_type", registry.known())
def test_every_family_has_its_norms_in_their_places(model_type: str, source: Callable[..., Path]) -> None:
    variant = UNTIED[model_type]
    checkpoint = open_checkpoint(source(variant))
    table = checkpoint.architecture
    found: dict[str, set[str]] = {"body": set(), "last": set(), "head": set(), "embedding": set()}
    for name, place in places(table, checkpoint.tensors).items():
        if name.endswith(".weight"):
            found[place].add(table.canonical(name).removesuffix(".weight"))
    if not table.norms or table.weightless:
        assert not any(found.values())
        return
    model = tiny.load(source(variant), variant.kind)
    ran = norms_as_they_run(model)
    named = {path: table.canonical(f"{path}.weight").removesuffix(".weight") for path in ran}
    inside = {id(module) for module in model.base_model.modules()}
    body = [path for path in ran if id(model.get_submodule(path)) in inside]
    assert found["last"] == {named[body[-1]]}
    assert found["head"] == {named[path] for path in set(ran) - set(body)}
    assert bool(found["embedding"]) == (not re.search(r"\.\d+\.", body[0]))
    assert len(found["body"]) >= len(table.counters)


@pytest.mark.parametrize("name", ["gemma2-tied", "bert-tied", "cohere-normed-heads"])
def test_gains_are_those_that_the_model_multiplies_by(
    name: str, source: Callable[..., Path], without_norms: None
) -> None:
    variant = tiny.named(name)
    folder = source(variant)
    model = tiny.load(folder, variant.kind)
    scanned = scan(open_checkpoint(folder), PLENTY)
    assert not scanned.copies and not scanned.fresh
    found = {one.tensor: one for one in scanned.gains}
    added = 1.0 if name.startswith("gemma") else 0.0
    modules = {path: module for path, module in model.named_modules() if type(module).__name__.endswith("Norm")}
    assert {path.rsplit(".", 1)[0] for path in found} == modules.keys()
    for path, module in modules.items():
        gain, values = found[f"{path}.weight"], module.weight.double().numpy() + added
        assert (gain.kind, gain.size, gain.layer is not None) == ("gain", values.size, ".layer" in path)
        assert [gain.mean, gain.deviation] == pytest.approx([values.mean(), values.std()], rel=1e-12)
        assert [gain.min, gain.max, gain.rms] == pytest.approx([values.min(), values.max(), (values**2).mean() ** 0.5])
        if getattr(module, "bias", None) is not None:
            bias = found[f"{path}.bias"]
            assert (bias.kind, bias.place) == ("bias", gain.place)
            assert bias.mean == pytest.approx(module.bias.double().numpy().mean(), rel=1e-9)


def test_a_model_that_nobody_trained_is_fresh(tmp_path: Path, without_norms: None) -> None:
    config = transformers.BertConfig(**tiny.sizes("bert"))
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    assert scan(open_checkpoint(tmp_path), PLENTY).fresh
    edit(tmp_path, "bert.encoder.layer.1.output.LayerNorm.bias", lambda bias: bias[3].fill_(1e-7))
    assert not scan(open_checkpoint(tmp_path), PLENTY).fresh


def edit(folder: Path, name: str, change: Callable[[torch.Tensor], object]) -> None:
    """Change one tensor of a saved checkpoint in place."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors[name])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


# --- matrices and the whole document ---


def test_the_document_does_not_depend_on_memory(
    source: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_norms: None
) -> None:
    wide = save(widen(open_checkpoint(source(tiny.named("mixtral-modern"))), 2), tmp_path / "wide")
    monkeypatch.setattr(rows_module, "BLOCK", 8192)
    monkeypatch.setattr(scan_module, "LEAST", 0)
    largest, read = [], Stored.read

    def watched(tensor: Stored, *place: Any, **further: Any) -> torch.Tensor:
        block = read(tensor, *place, **further)
        largest.append(block.numel())
        return block

    monkeypatch.setattr(Stored, "read", watched)
    told: list[tuple[str, int, int]] = []
    with threads(1):  # of more, plenty of memory takes each for tensors of their own, and little for parts of one sum
        tight = scan(open_checkpoint(wide), 0, tell=lambda *of: told.append(of))
        assert max(largest) <= 8192
        assert tight.copies
        assert told[-1][0] == "weights" and told[-1][1] == told[-1][2] > 0
        assert tight.to_json() == scan(open_checkpoint(wide), PLENTY).to_json()
        assert max(largest) > 8192


def test_matrices_are_measured_as_numpy_measures_them(source: Callable[..., Path]) -> None:
    folder = source(tiny.named("gpt_oss-untied"))
    tensors = load_file(folder / "model.safetensors")
    found = {one.tensor: one for one in scan(open_checkpoint(folder), PLENTY).matrices}
    sizes = open_checkpoint(folder).sizes
    for name, fan_in in {
        "model.embed_tokens.weight": sizes["hidden"],  # its width
        "lm_head.weight": sizes["hidden"],
        "model.layers.0.self_attn.o_proj.weight": sizes["heads"] * sizes["value"],
        "model.layers.1.mlp.experts.gate_up_proj": sizes["hidden"],  # experts are no summands
        "model.layers.1.mlp.experts.down_proj": sizes["mlp"],
    }.items():
        values, one = tensors[name].double().numpy(), found[name]
        stack = values if values.ndim == 3 else values[None]
        singular = np.stack([np.linalg.svd(matrix, compute_uv=False) for matrix in stack])
        assert (one.fan_in, one.shape, one.dtype) == (fan_in, values.shape, "F32")
        assert one.times_xavier == pytest.approx(values.std() * fan_in**0.5, rel=1e-9)
        assert one.times_truncated == pytest.approx(values.std() / 0.0176, rel=1e-3)  # 0.01759
        assert one.spectral_norm == pytest.approx(singular.max(), rel=1e-6)
        assert one.stable_rank == pytest.approx(((singular**2).sum(1) / singular.max(1) ** 2).min(), rel=1e-6)
    assert not [name for name in found if name.endswith(("bias", "sinks", "norm.weight"))]


# --- copies ---

COPIES: Mapping[str, tuple[Mapping[str, int], Mapping[str, tuple[int, int]]]] = {
    # {variant: ({config key: size}, {axis: (copies, dead) of both layers})}
    "llama-tied": (
        {"hidden_size": 64, "intermediate_size": 80, "num_attention_heads": 8, "num_key_value_heads": 4},
        {"stream": (32, 0), "mlp": (80, 0), "heads": (8, 0), "kv": (4, 0)},
    ),
    "falcon-grouped": (
        {"hidden_size": 64, "ffn_hidden_size": 80, "num_attention_heads": 8, "num_kv_heads": 4},
        {"stream": (32, 0), "mlp": (80, 0), "heads": (8, 0), "kv": (4, 0)},
    ),
    "gpt_neox-tied": ({"hidden_size": 128}, {"stream": (64, 0), "head": (96, 32), "value": (128, 0)}),
    "mixtral-modern": ({"intermediate_size": 80}, {"mlp": (480, 0)}),
    "modernbert-tied": ({"hidden_size": 64}, {"embedded": (32, 0), "head": (0, 32), "value": (64, 0)}),
}


def counted(found: Scan) -> dict[str, tuple[int, int]]:
    """{axis: (copies, dead)}, layers added up."""
    axes = dict.fromkeys(one.axis for one in found.copies)
    every = {axis: [one for one in found.copies if one.axis == axis] for axis in axes}
    return {axis: (sum(one.copies for one in of), sum(one.dead for one in of)) for axis, of in every.items()}


@pytest.mark.parametrize("name", COPIES)
def test_copies_stay_without_noise_and_part_with_it(
    name: str, source: Callable[..., Path], without_norms: None
) -> None:
    settings, expected = COPIES[name]
    before = open_checkpoint(source(tiny.named(name)))
    assert counted(scan(widen(before, settings=settings), PLENTY)) == expected
    parted = scan(widen(before, settings=settings, noise=0.5), PLENTY)
    assert not any(copies for copies, _ in counted(parted).values())
    assert any(one.equal_rows for one in parted.matrices)  # what writes them is equal still


@pytest.mark.parametrize(
    ("name", "changed", "at", "parted"),
    [
        ("llama-tied", "model.layers.0.mlp.up_proj.weight", (47, 35), {"mlp": 1, "stream": 1}),
        (
            "llama-tied",
            "model.layers.0.self_attn.o_proj.weight",
            (35, 62),
            {"heads": 2, "kv": 1, "stream": 1},
        ),  # a query head parts its key-value head, and so the others of its group
        ("llama-tied", "model.layers.1.input_layernorm.weight", (40,), {"stream": 1}),
        # a tied embedding's columns are equal for good only where the head's coordinates are
        ("modernbert-tied", "head.dense.weight", (40, 3), {"embedded": 2}),
    ],
)
def test_copies_that_one_tensor_tells_apart_are_none(
    name: str,
    changed: str,
    at: tuple[int, ...],
    parted: dict[str, int],
    source: Callable[..., Path],
    tmp_path: Path,
    without_norms: None,
) -> None:
    settings, expected = COPIES[name]
    folder = save(widen(open_checkpoint(source(tiny.named(name))), settings=settings), tmp_path / "wide")
    edit(folder, changed, lambda values: values[at].mul_(1.01))
    found = counted(scan(open_checkpoint(folder), PLENTY))
    assert found == {axis: (copies - parted.get(axis, 0), dead) for axis, (copies, dead) in expected.items()}


@pytest.mark.parametrize(
    ("name", "changed", "at"),
    [
        ("mixtral-tied", "model.layers.1.block_sparse_moe.experts.7.w2.weight", (3, 5)),
        ("mixtral-modern", "model.layers.1.mlp.experts.down_proj", (7, 3, 5)),
    ],
)
def test_experts_with_equal_routers_are_copies_only_where_their_own_tensors_are(
    name: str, changed: str, at: tuple[int, ...], source: Callable[..., Path], tmp_path: Path, without_norms: None
) -> None:
    grown = widen(
        open_checkpoint(source(tiny.named(name))), settings={"num_local_experts": 12, "num_experts_per_tok": 4}
    )
    folder = save(grown, tmp_path / "wide")
    assert counted(scan(open_checkpoint(folder), PLENTY)) == {"experts": (12, 0)}
    edit(folder, changed, lambda values: values[at].mul_(1.01))
    assert counted(scan(open_checkpoint(folder), PLENTY)) == {"experts": (11, 0)}


def test_coordinates_that_are_zero_in_every_matrix_are_dead(
    source: Callable[..., Path], tmp_path: Path, without_norms: None
) -> None:
    folder = save(open_checkpoint(source(tiny.named("llama-tied"))), tmp_path / "pruned")
    tensors, layer = load_file(folder / "model.safetensors"), "model.layers.1.mlp"
    for part in ("gate", "up"):
        tensors[f"{layer}.{part}_proj.weight"][[3, 9]] = 0
    tensors[f"{layer}.down_proj.weight"][:, 3] = 0  # neuron 9 is read
    for name, values in tensors.items():  # hidden coordinate 7: the gains, which multiply nothing, stay
        if values.ndim == 2:
            values[(7,) if name.endswith(("o_proj.weight", "down_proj.weight")) else (slice(None), 7)] = 0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    copies = scan(open_checkpoint(folder), PLENTY).copies
    found = {(one.axis, one.layer): (one.dead, one.copies, one.example) for one in copies}
    assert found == {("stream", None): (1, 0, None), ("mlp", 1): (1, 0, None)}


def test_no_copies_are_what_angles_tell_apart_or_what_nothing_reads(
    source: Callable[..., Path], without_norms: None
) -> None:
    turned = widen(open_checkpoint(source(tiny.named("llama-tied"))), 2, attention="head-dim", rope="repeat")
    found = scan(turned, PLENTY)
    assert counted(found) == {"stream": (32, 0), "mlp": (80, 0), "value": (32, 0)}
    assert {one.equal_rows for one in found.matrices if "k_proj" in one.tensor} == {16}
    pooled = widen(open_checkpoint(source(tiny.named("bert-body"))), settings={"hidden_size": 64})
    assert "pooled" in pooled.sizes and "pooled" not in counted(scan(pooled, PLENTY))
