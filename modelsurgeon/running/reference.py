"""The reference implementation: a whole checkpoint loaded in `transformers`, which sees none of its other files.

The library reads a temporary folder: the config, and links to weights that were checked. In the checkpoint's own folder
a config or an adapter could lead it to other files, to kernels and to code (CVE-2026-4372, CVE-2026-5241). Weights that
the library would invent are an error.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from modelsurgeon.architectures import registry
from modelsurgeon.checkpoints.checkpoint import Checkpoint, read_config, read_tensors
from modelsurgeon.checkpoints.weight_files import weight_files
from modelsurgeon.errors import ModelSurgeonError, SourceError, first_line
from modelsurgeon.files.file import LocalFolder
from modelsurgeon.running.options import RunOptions

# Keys of config.json that name files, kernels or code to the library, and do not describe the model.
LOADING = frozenset(
    "attn_implementation auto_map experts_implementation fusion_config quantization_config transformers_weights".split()
)
# What the library raises for a config that it cannot make a model of.
UNBUILDABLE = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, TypeError, ValueError)
GPU_SHARE = 0.9  # of a GPU's free memory goes to weights, as in the library: the rest is for activations


def loadable(config: Mapping[str, Any], kept: Set[str] = frozenset()) -> dict[str, Any]:
    """A config without the keys of LOADING and without private ones; `kept` names those of LOADING that stay.

    A padding token that the vocabulary lacks is left out where the model computes nothing from it: torch refuses it.
    """
    found = {k: v for k, v in config.items() if (k not in LOADING or k in kept) and not k.startswith("_")}
    pad, vocab = found.get("pad_token_id"), found.get("vocab_size")
    kind = config.get("model_type")
    counted = kind in registry.known() and "pad_token_id" in registry.find(kind).keys.split()
    if isinstance(pad, int) and isinstance(vocab, int) and not -vocab <= pad < vocab and not counted:
        found["pad_token_id"] = None
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings of `transformers`: `loaded` checks what the library would warn of."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.ERROR)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def loading_errors(name: str) -> Iterator[None]:
    """Raise SourceError, with the checkpoint's name, where the library fails to load it."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (*UNBUILDABLE, StrictDataclassError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise SourceError(f"{name}: transformers cannot load it: {reason}") from error


@contextmanager
def loaded(
    checkpoint: Checkpoint, folder: Path, options: RunOptions = RunOptions()
) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """The model that `folder` holds, of the checkpoint's class, and notes of tensors that it does not read.

    Weights may be read from the folder, and from a temporary one, until the context ends.
    Raises SourceError where the library cannot load it, or would invent some of its weights.
    """
    gc.collect()  # the model before this one
    coded = auto_class(checkpoint, folder) if options.trust_remote_code else None
    chosen = coded or model_class(checkpoint)
    with checked_view(folder, with_code=bool(coded)) as view, TemporaryDirectory(prefix="modelsurgeon-") as offload:
        with loading_errors(str(folder)):
            model, info = chosen.from_pretrained(
                view,
                dtype=getattr(torch, options.dtype),
                use_safetensors=True,
                trust_remote_code=bool(coded),
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # it reports them, and they are refused below
                attn_implementation="eager",  # every family has it, and a config may name another
                experts_implementation="eager",  # the only one that takes float64
                **({} if coded else bare_body(checkpoint, chosen)),
                **_placement(options, offload),
            )
        refuse_made_up(str(folder), model, info)
        _align(model)
        model = model.eval() if options.device == "auto" else model.to(options.device).eval()
        unread = sorted(info["unexpected_keys"])
        yield model, tuple(f"not run: {type(model).__name__} does not read {name!r}" for name in unread)


def refuse_made_up(name: str, model: Any, info: Mapping[str, Any]) -> None:
    """Raise SourceError where the library's report on loading a model lists weights that it would invent."""
    absent = sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
    if absent:
        raise SourceError(f"{name}: {type(model).__name__} finds no {absent[0]!r} that fits, and would make it up")


def load(checkpoint: Checkpoint, folder: Path, options: RunOptions = RunOptions()) -> tuple[Any, tuple[str, ...]]:
    """`loaded` without a context: one device holds the whole model. Raises ModelSurgeonError for device `auto`."""
    if options.device == "auto":
        raise ModelSurgeonError("device auto leaves weights on the disk; expected cpu, cuda or cuda:1 here")
    with loaded(checkpoint, folder, options) as model_and_notes:
        return model_and_notes


def _placement(options: RunOptions, folder: str) -> dict[str, Any]:
    """Where the library puts the weights while it loads them; what fits nowhere stays in `folder`."""
    if options.device != "auto":
        return {}
    automatic = {"device_map": "auto", "offload_folder": folder}
    if options.memory is None:
        return automatic
    from accelerate.utils import get_max_memory  # type: ignore[import-untyped]

    gpus = {place: int(GPU_SHARE * free) for place, free in get_max_memory().items() if isinstance(place, int)}
    return {**automatic, "max_memory": {**gpus, "cpu": options.memory}}


def home(model: Any) -> torch.device:
    """The device for a model's inputs: the one that computes with its first weights, wherever these are stored."""
    places = getattr(model, "hf_device_map", {"": model.device}).values()
    return torch.device(next((place for place in places if place not in ("cpu", "disk")), "cpu"))


def is_offloaded(model: Any) -> bool:
    """Whether some weights are read from the disk for every forward pass."""
    return "disk" in getattr(model, "hf_device_map", {}).values()


def bare_body(checkpoint: Checkpoint, chosen: Any) -> dict[str, Any]:
    """The argument that stops a bare body's class from adding a pooler, where none was saved."""
    is_body = chosen.__name__.endswith("Model") and not chosen.__name__.endswith("LMHeadModel")
    pools = "pooler_output" in checkpoint.architecture.outputs and is_body
    stored = any(".pooler." in f".{name}" for name in checkpoint.tensors)
    return {"add_pooling_layer": False} if pools and not stored else {}


def _align(model: Any) -> None:
    """Move parameters off odd addresses: a file's layout must not choose the kernel, and so the last bit."""
    for parameter in model.parameters():
        if parameter.data_ptr() % 64:  # bytes: the alignment of torch's own allocator
            parameter.data = parameter.data.clone()


def saved_folder(checkpoint: Checkpoint) -> Path:
    """The folder that a checkpoint was opened from. Raises ModelSurgeonError for a plan: it has no outputs yet."""
    if not all(tensor.verbatim for tensor in checkpoint.tensors.values()):
        raise ModelSurgeonError(f"{checkpoint.origin.id}: a plan cannot be run; save it and open the result")
    return checkpoint.origin.path


def model_class(checkpoint: Checkpoint) -> Any:
    """The class that config.json names, if it belongs to this model type; else the table's, or the bare body."""
    import transformers

    config, table = checkpoint.config, checkpoint.architecture
    name = str((config.get("architectures") or [""])[0])
    named: Any = getattr(transformers, name, None)
    is_model = isinstance(named, type) and issubclass(named, transformers.PreTrainedModel)
    if is_model and getattr(named.config_class, "model_type", None) == config["model_type"]:
        return named
    if not name and table.tie and not checkpoint.has_head:
        return transformers.AutoModel
    return getattr(transformers, table.model)


def auto_class(checkpoint: Checkpoint, folder: Path) -> Any:
    """The library's class that runs the code which config.json names; None where the folder has no such code.

    Code of another repository ("org/name--module.Class") is never fetched.
    """
    import transformers

    named = checkpoint.config.get("auto_map")
    for kind, code in named.items() if isinstance(named, dict) else ():
        if kind.startswith("AutoModel") and (folder / f"{str(code).partition('.')[0]}.py").is_file():
            return getattr(transformers, kind, None)
    return None


@contextmanager
def checked_view(folder: Path, with_code: bool = False) -> Iterator[Path]:
    """A temporary folder that holds config.json, links to the weights and, `with_code`, to Python files; no more."""
    opened = LocalFolder(folder)
    found = read_config(opened)
    config = loadable(found, {"auto_map"} if with_code else frozenset())
    weights = weight_files(opened, found)
    read_tensors(opened, weights)
    files = {known: folder / name for known, name in weights.standard.items()}
    files |= {name: folder / name for name in opened.names() if with_code and name.endswith(".py")}
    with TemporaryDirectory(prefix="modelsurgeon-") as name:
        view = Path(name)
        (view / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for file, path in files.items():
            (view / file).symlink_to(path.resolve())
        yield view
