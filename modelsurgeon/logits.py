"""Level 2 of verification: run both checkpoints in `transformers` on the same inputs, and compare what they return.

    >>> report = compare(open_checkpoint("demo"), open_checkpoint("wider"))
    >>> report.same, report.comparisons[0]
    (True, Comparison(inputs='text', output='logits', positions=512, max_abs=1.2e-05, max_rel=2.9e-06, kl=...))

One model at a time is in memory: the source runs, its outputs are kept on the CPU, and it is freed before the result is
loaded. Inputs are windows of a text, random token ids of several lengths, and a padded batch of which only real
positions count. An output whose last axis grew is folded back by the axis' map (D of `axis_map.py`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from modelsurgeon.axis_map import AxisMap
from modelsurgeon.checkpoint import INDEX, Checkpoint, read_config, read_tensors
from modelsurgeon.errors import ModelSurgeonError, SourceError
from modelsurgeon.tensor import DTYPE_NAMES, Stored

# Float32 forward passes of one function in another order of summation differ by 2e-6 to 3e-5 of the outputs' deviation
# (46 families, design.md); a planted mistake (a share x 1.01, an eps left alone) moves them by more than 1e-3.
TOLERANCE = 1e-4
# Two 16-bit passes of one function are each as far from the float32 pass as the noise floor is: twice it from each other.
NOISE = 2.0
SAMPLE = Path(__file__).parent / "sample.txt"
MASKED = 0.15  # the share of positions that a masked language model has to fill in, as in BERT's training
ROWS = 4  # windows of text in one forward pass
NUMBERS = 2**23  # outputs compared at a time: 64 MB of float64
UNLABELLED = -100
# Keys of config.json that name files, kernels or code to the library rather than a model.
LOADING = frozenset(
    ["attn_implementation", "auto_map", "custom_pipelines", "distributed_config", "experts_implementation", "fusion_config", "kernel_config", "quantization_config", "transformers_weights"]
)


@dataclass(frozen=True)
class Comparison:
    """One output for one kind of input.

    inputs       "text", "random ids, length 7", "padded batch" ...
    output       "logits", "prediction_logits", "last_hidden_state", "pooler_output" ...
    positions    how many positions were compared (rows, for an output with none)
    max_abs      the largest difference
    max_rel      the same over the standard deviation of the source's output (over all inputs: one position has none)
    kl           nats: the mean of KL(source || result), for logits over the vocabulary
    top1         share of positions whose largest logit is the same token
    loss_before  nats: the source's mean cross entropy, where a text gives the labels
    loss_after   nats: the result's
    """

    inputs: str
    output: str
    positions: int
    max_abs: float
    max_rel: float
    kl: float | None = None
    top1: float | None = None
    loss_before: float | None = None
    loss_after: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Numbers that JSON has no word for are strings: "nan", "inf"."""
        return {k: repr(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class LogitReport:
    """What two models return for the same inputs.

    dtype    what both models computed in
    notes    what was not run, and why
    seconds  wall time
    noise    16 bits only: the source in 16 bits against itself in float32, in the order of `comparisons`
    """

    dtype: str
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    seconds: float
    noise: tuple[Comparison, ...] = ()

    @property
    def limits(self) -> tuple[float, ...]:
        """The largest `max_rel` that each comparison may show: TOLERANCE, or what rounding in 16 bits explains."""
        if not self.noise:
            return (TOLERANCE,) * len(self.comparisons)
        return tuple(max(TOLERANCE, NOISE * noise.max_rel) for noise in self.noise)

    @property
    def same(self) -> bool:
        """Whether every difference is finite and within its limit (and there was something to compare)."""
        pairs = zip(self.comparisons, self.limits, strict=True)
        return bool(self.comparisons) and all(math.isfinite(c.max_rel) and c.max_rel <= limit for c, limit in pairs)

    def to_json(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "same": self.same,
            "tolerance": TOLERANCE,
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "noise": [comparison.to_json() for comparison in self.noise],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def compare(
    source: Checkpoint,
    result: Checkpoint,
    *,
    result_path: Path | None = None,
    maps: Mapping[str, AxisMap] | None = None,
    text: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    samples: int = 4,
    length: int = 128,
    seed: int = 0,
) -> LogitReport:
    """Compare what both checkpoints return, in one dtype.

    result_path  the folder of a result that still lies in staging; None: where it was opened
    maps         {axis: map} from source to result; an axis without one did not grow
    text         None: the bundled sample, prose and code
    samples      windows of text, of `length` tokens each
    Raises SourceError where `transformers` cannot load a checkpoint whole, ModelSurgeonError where the outputs differ
    in size and no map says how.
    """
    begin = time.perf_counter()
    folders = _folder(source, None), _folder(result, result_path)
    sampling = _Sampling(text or SAMPLE.read_text(encoding="utf-8"), samples, length, seed)
    with _quiet():
        batches, before, notes = _run_source(source, folders[0], sampling, dtype, device)
        after, unread = _run(source, folders[1], batches, dtype, device)
    comparisons = _comparisons(source, batches, before, after, maps or {})
    notes = tuple(dict.fromkeys([*notes, *unread]))
    return LogitReport(dtype, comparisons, notes, time.perf_counter() - begin)


def compare_stored(
    source: Checkpoint,
    result: Checkpoint,
    *,
    result_path: Path | None = None,
    maps: Mapping[str, AxisMap] | None = None,
    text: str | None = None,
    device: str = "cpu",
    samples: int = 4,
    length: int = 128,
    seed: int = 0,
) -> LogitReport | None:
    """Compare in the source's 16-bit dtype, beside the noise floor: the source in 16 bits against itself in float32.

    None where the source is stored in 32 or 64 bits: `compare` says it all. Arguments and errors as there.
    """
    if source.dtype not in ("BF16", "F16"):
        return None
    begin = time.perf_counter()
    dtype = next(name for name, stored in DTYPE_NAMES.items() if stored == source.dtype)
    folders = _folder(source, None), _folder(result, result_path)
    sampling = _Sampling(text or SAMPLE.read_text(encoding="utf-8"), samples, length, seed)
    with _quiet():
        batches, wide, notes = _run_source(source, folders[0], sampling, "float32", device)
        before, _ = _run(source, folders[0], batches, dtype, device)
        noise = _comparisons(source, batches, wide, before, {})
        del wide
        after, unread = _run(source, folders[1], batches, dtype, device)
    comparisons = _comparisons(source, batches, before, after, maps or {})
    notes = tuple(dict.fromkeys([*notes, *unread]))
    return LogitReport(dtype, comparisons, notes, time.perf_counter() - begin, noise)


# --- loading ---------------------------------------------------------------------------------------------------------


def _folder(checkpoint: Checkpoint, path: Path | None) -> Path:
    if path is None and not all(isinstance(tensor, Stored) for tensor in checkpoint.tensors.values()):
        raise ModelSurgeonError(f"{checkpoint.origin.id}: a plan that is not saved yet has no outputs; save it first")
    return path or checkpoint.origin.path


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no warnings of `transformers`: what they warn of is checked in `_load`."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _checked_view(folder: Path) -> Iterator[Path]:
    """A folder of links to a checkpoint's own weights beside its config, and nothing else.

    The library would follow a config or an adapter beside it to other files, to kernels and to code
    (CVE-2026-4372, CVE-2026-5241).
    """
    config = {k: v for k, v in read_config(folder).items() if k not in LOADING and not k.startswith("_")}
    shards = {t.path.name: t.path for t in read_tensors(folder).values() if isinstance(t, Stored)}
    if (folder / INDEX).exists():
        shards[INDEX] = folder / INDEX
    with TemporaryDirectory(prefix="modelsurgeon-") as name:
        view = Path(name)
        (view / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for shard, path in shards.items():
            (view / shard).symlink_to(path.resolve())
        yield view


def _model_class(checkpoint: Checkpoint) -> Any:
    """The class that config.json names, where it is one of this model type; else the table's, or the bare body."""
    import transformers

    config = checkpoint.config
    for name in (config.get("architectures") or [None])[:1]:
        named = getattr(transformers, str(name), None)
        if isinstance(named, type) and issubclass(named, transformers.PreTrainedModel):
            if getattr(named.config_class, "model_type", None) == config["model_type"]:
                return named
    if not config.get("architectures") and checkpoint.architecture.tie and not checkpoint.has_head:
        return transformers.AutoModel
    return getattr(transformers, checkpoint.architecture.model)


def _load(source: Checkpoint, folder: Path, dtype: str, device: str) -> tuple[Any, tuple[str, ...]]:
    """(the model, notes). Raises SourceError where the library cannot load it, or would make up some of its weights."""
    from huggingface_hub.errors import StrictDataclassError

    with _checked_view(folder) as view:
        try:
            model, info = _model_class(source).from_pretrained(
                view,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told of, and refused below
                attn_implementation="eager",  # every family has it; others may be kernels of the Hub
                experts_implementation="eager",  # the only one for float64
            )
        except (AttributeError, ImportError, KeyError, TypeError, ValueError, StrictDataclassError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise SourceError(f"{folder}: transformers cannot load it: {type(error).__name__}: {reason}") from error
    absent = sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
    if absent:
        raise SourceError(f"{folder}: {type(model).__name__} finds no {absent[0]!r} in it, and would make it up")
    unread = sorted(info["unexpected_keys"])
    notes = [f"{type(model).__name__} does not read {unread[0]!r}, nor {len(unread) - 1} others"] if unread else []
    return model.to(device).eval(), tuple(notes)


# --- inputs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Batch:
    """One forward pass.

    inputs     the kind of input
    arguments  what the model is called with
    real       [rows, positions] bool: output positions that are no padding
    labels     [rows, positions] int64: what each position should predict, UNLABELLED where nothing is asked
    """

    inputs: str
    arguments: Mapping[str, torch.Tensor]
    real: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class _Sampling:
    """What inputs are made from; see `compare`."""

    text: str
    samples: int
    length: int
    seed: int


class _Inputs:
    """Batches for one model: what they depend on is read off its config and class."""

    def __init__(self, model: Any, sampling: _Sampling) -> None:
        if model.main_input_name != "input_ids":
            raise ModelSurgeonError(f"{type(model).__name__} takes {model.main_input_name}, no token ids: nothing to run")
        config = model.config
        self.sampling = sampling
        self.vocab = int(config.vocab_size)
        self.pad = config.pad_token_id if isinstance(getattr(config, "pad_token_id", None), int) else 0
