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
from support import draws, tiny

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # of two cores, each xdist worker takes one
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
# No deadline: the cores are shared. No database: examples depend on the seed alone.
hypothesis.settings.register_profile("suite", deadline=None, max_examples=draws.examples(50), database=None)
hypothesis.settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have hypothesis begin with the seed of the draws, unless --hypothesis-seed names another one."""
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = draws.chance("hypothesis").getrandbits(64)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(draws.report())


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
