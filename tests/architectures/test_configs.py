"""Published configs, as people have them: widened by plan alone, they are what `transformers` would build."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Origin
from modelsurgeon.files.file import File, LocalFolder
from modelsurgeon.growth.targets import by_config
from modelsurgeon.saving.plan import make_plan
from modelsurgeon.tensors.stored import Stored
from support.grow import widen

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.json"))
TARGETS = sorted((Path(__file__).parents[2] / "configs" / "targets").glob("*.json"))
STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """{name on disk: shape} of the model that the library builds from a config, without its numbers."""
    made = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(json.loads(json.dumps(config)))
    with torch.device("meta"):
        model = getattr(transformers, config["architectures"][0])(made)
    tied = set(getattr(model, "_tied_weights_keys", None) or {}) if made.tie_word_embeddings else set()
    kept = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    renamed = {"lm_head.weight": "embed_out.weight"} if config["model_type"] == "gpt_neox" else {}
    return {renamed.get(name, name): tuple(tensor.shape) for name, tensor in kept.items()}


class Nowhere(File):
    """Nobody can read it."""

    name, size, path, stamp = "nowhere.safetensors", 0, None, ()

    def read_into(self, view: memoryview, at: int) -> None:
        raise AssertionError("a tensor was read")

    def check_unchanged(self) -> None:
        raise AssertionError("a tensor was read")

    def __str__(self) -> str:
        return self.name


def headers_only(config: dict[str, Any], folder: Path) -> Checkpoint:
    """A checkpoint whose numbers are nowhere: reading one would fail."""
    dtype = STORED[config.get("torch_dtype", "float32")]
    tensors = {name: Stored(Nowhere(), dtype, shape, 0) for name, shape in shapes(config).items()}
    return Checkpoint(config, tensors, {}, Origin("published", LocalFolder(folder)))


@pytest.mark.parametrize("attention", ["heads", "head-dim"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_published_config_widens_to_what_the_library_builds(path: Path, attention: str, tmp_path: Path) -> None:
    before = headers_only(json.loads(path.read_text()), tmp_path)
    after = widen(before, 2, attention=attention)
    assert {name: tensor.shape for name, tensor in after.tensors.items()} == shapes(dict(after.config))
    assert set(before.config) <= set(after.config)
    plan = make_plan(before, after)
    assert plan.parameters[1] > 2 * plan.parameters[0]
    assert not after.lossy


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: path.stem)
def test_a_published_config_grows_losslessly_to_each_target_made_for_it(path: Path, tmp_path: Path) -> None:
    source = path.parent.parent / f"{path.stem.partition('-to-')[0]}.json"
    before, target = headers_only(json.loads(source.read_text()), tmp_path), json.loads(path.read_text())
    settings, notes = by_config(before, target)
    after = widen(before, settings=settings)
    assert {name: tensor.shape for name, tensor in after.tensors.items()} == shapes(dict(after.config))
    assert target.items() <= after.config.items()
    assert not notes and not after.lossy
    rounded = {name for name, tensor in after.tensors.items() if tensor.dtype != before.dtype}
    plan = make_plan(before, after)
    assert all(row.precision.startswith("rounded: stored as F32") for row in plan.rows if row.template in rounded)
