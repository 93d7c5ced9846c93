"""How every test runs: one thread a worker, no network, nothing printed by `transformers`; and tiny saved models."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
import transformers

import tiny

torch.set_num_threads(1)  # of two cores, each xdist worker takes one
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
# The same examples in every run, and no deadline: the cores are shared.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, max_examples=50, database=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """source(variant, dtype="float32") -> the folder of a saved tiny model, made once a worker."""
    made: dict[tuple[str, str], Path] = {}

    def folder(variant: tiny.Variant, dtype: str = "float32") -> Path:
        key = (variant.name, dtype)
        if key not in made:
            made[key] = tiny.save(variant, tmp_path_factory.mktemp("tiny") / f"{variant.name}-{dtype}", dtype)
        return made[key]

    return folder


@pytest.fixture(autouse=True)
def _grad_off() -> Iterator[None]:
    with torch.no_grad():
        yield
