"""How every test runs: of OMP_NUM_THREADS threads, else one; no network, nothing printed; and tiny saved models."""

import contextlib
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # which xdist sets for its workers: lines in a pipe are not broken
os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # a thread for every tiny tensor takes longer than its bytes

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
import transformers

from modelsurgeon.tensors import budget
from support import tiny

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # of two cores, each xdist worker takes one
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
# The same examples in every run, and no deadline: the cores are shared.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, max_examples=50, database=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """source(variant, dtype="float32") -> the folder of a saved tiny model, made once for all workers: read only."""
    shared = tmp_path_factory.getbasetemp()
    shared = (shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared) / "tiny"
    shared.mkdir(exist_ok=True)

    def folder(variant: tiny.Variant, dtype: str = "float32") -> Path:
        path = shared / f"{variant.name}-{dtype}"
        if not path.exists():
            made = tiny.save(variant, tmp_path_factory.mktemp("tiny") / path.name, dtype)
            with contextlib.suppress(OSError):  # another worker was quicker
                made.rename(path)
        return path

    return folder


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan memory as if no other test had left its models here; `test_memory.py` measures processes of their own."""
    monkeypatch.setattr(budget, "resident", lambda: 300_000_000)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws of torch's own generator does not depend on the tests that this worker ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _grad_off() -> Iterator[None]:
    with torch.no_grad():
        yield
