"""Results of transforms on disk, and how far their outputs are from their source's."""

from __future__ import annotations

import json
import shutil

from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.saving.save import save
from support import tiny

TOLERANCE = tiny.ROUNDING
NOTICED = 10 * TOLERANCE  # a mistake must change the outputs by as much


VARIANTS = tiny.variants()


FAMILIES = [v for v in VARIANTS if v.main and not v.tied]  # one form of each


def eps(variant):
    """The eps of a variant's norms; 0 where it is fixed in the code."""
    return (variant.table.eps and {**tiny.sizes(variant.model_type), **variant.config}[variant.table.eps]) or 0


def saved(checkpoint, folder):
    shutil.rmtree(folder, ignore_errors=True)
    return save(checkpoint, folder)


def composed(checkpoint):
    """{axis: map} of all steps on record, one after another."""
    maps = {}
    for step in checkpoint.steps:
        for axis, axis_map in step.maps.items():
            maps[axis] = maps[axis].then(axis_map) if axis in maps else axis_map
    return maps


def moved(variant, source, result):
    """How far the outputs of a result on disk are from the source's, in deviations."""
    maps = composed(open_checkpoint(result))
    return tiny.error(tiny.run(source, variant.kind), tiny.run(result, variant.kind), variant, maps)


def change_tensors(folder, change):
    tensors = {name: tensor.contiguous() for name, tensor in change(load_file(folder / "model.safetensors")).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def change_config(folder, **changes):
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
