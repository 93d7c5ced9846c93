"""One visit to each model: everything that is measured while it is in memory.

    visits = Visits(source, result, ...)
    before = visits.ask_source("float32")                outputs, hidden states and text, kept on disk
    compared = visits.compare_result("float32", before)  the result's, each compared as soon as it is computed

Memory is that of one model and of two batches, the source's and the result's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.progress import Tell
from modelsurgeon.running.batches import Inputs, make_inputs
from modelsurgeon.running.coverage import Coverage
from modelsurgeon.running.forward import compared_outputs, folded, over_tokens, real_rows, run_batch
from modelsurgeon.running.generation import Continued, continue_prompts
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.outputs import Kept
from modelsurgeon.running.reader import Batch, settle
from modelsurgeon.running.reference import home, is_offloaded, loaded, saved_folder
from modelsurgeon.verification.comparison import TOKENS, Comparison, Tallies
from modelsurgeon.verification.deviation import Deviation
from modelsurgeon.verification.layers import Layers, States, compare_states, keep_states
from modelsurgeon.verification.limits import wide_of
from modelsurgeon.verification.lookups import Lookups

# What the library raises where a class claims that it can generate, and cannot (WhisperForCausalLM).
UNABLE = (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError)
FEW = 4  # new tokens where weights are on the disk: each token reads them all once more

Outputs = dict[str, torch.Tensor]  # {name: [positions, width]}, real positions only


@dataclass
class Answers:
    """What the source returned in one dtype.

    kept          the outputs of each batch, on disk; `states` are its hidden states, on disk too
    device        where the model ran and outputs are compared
    names         the names of each batch's outputs
    deviations    {output: Deviation}
    noise         the comparison with the source's own outputs in more bits, if those were computed
    wider_states  hidden states in more bits, on disk too
    coverage      how much was fed of what the source can look up
    """

    kept: Kept
    states: Kept
    vocab: int = 0
    device: str = "cpu"
    names: list[tuple[str, ...]] = field(default_factory=list)
    deviations: dict[str, Deviation] = field(default_factory=dict)
    noise: tuple[Comparison, ...] = ()
    wider_states: Kept | None = None
    notes: tuple[str, ...] = ()
    continued: Continued | None = None
    seconds: float = 0.0
    coverage: Coverage | None = None

    def keep(self, number: int, returned: Outputs) -> None:
        """Store the outputs of a batch."""
        for name, value in returned.items():
            self.kept.put(f"{number} {name}", value)
            tokens = name in TOKENS and value.shape[-1] == self.vocab
            self.deviations.setdefault(name, Deviation(tokens, self.device)).add(value)
        self.names.append(tuple(returned))

    def batch(self, number: int) -> Outputs:
        """Read the outputs of a batch."""
        return {name: self.kept.get(f"{number} {name}") for name in self.names[number]}


@dataclass(frozen=True)
class ResultAnswers:
    """What the result returned, compared with the source."""

    tallies: Tallies
    notes: tuple[str, ...]
    layers: Layers | None
    continued: Continued | None
    seconds: float


@dataclass
class Visits:
    """Both checkpoints, how they are run, and the folder for outputs.

    behaviour  also long and shifted rows, padding on the left, hidden states, and text that both write
    thorough   feed every row that can be looked up, as there is no proof
    inputs     what both models are run on; the first visit to the source prepares it
    """

    source: Checkpoint
    result: Checkpoint
    result_path: Path
    maps: Mapping[str, AxisMap]
    options: RunOptions
    scratch: Path
    tell: Tell
    behaviour: bool = False
    thorough: bool = False
    inputs: Inputs = field(default=Inputs(()))

    def ask_source(self, dtype: str, wider: Answers | None = None) -> Answers:
        """Run the source in one dtype; `wider` are its answers in more bits. Raises as `loaded` and `make_inputs`."""
        begin, place = time.perf_counter(), saved_folder(self.source)
        behaves = self.behaviour and dtype == self.options.dtype
        with loaded(self.source, place, replace(self.options, dtype=dtype)) as (model, unread):
            settled = self._settle(model)
            if not self.inputs.batches:
                self.inputs = self._prepared(model, place, settled)
            kept, states = (Kept(self.scratch / f"{kind} in {dtype}") for kind in ("outputs", "states"))
            vocab = self.inputs.vocab if over_tokens(model) else 0
            answers = Answers(kept, states, vocab, str(home(model)), notes=unread)
            noise = Tallies(wider.deviations, self.options.seed) if wider else None
            with Lookups(self.source, model) as seen:
                for number, batch, returned in self._returned(model, f"source in {dtype}", behaves):
                    answers.keep(number, returned)
                    if wider and noise:
                        noise.add(batch, wider.batch(number), returned)
            answers.coverage = seen.coverage(self._batches(model), self.inputs.trained, self.inputs.reach)
            answers.notes += seen.unread() if self.thorough else ()
            if self.behaviour and dtype in (self.options.dtype, wide_of(self.options.dtype)):
                keep_states(self.source, model, partial(run_batch, model, self._row), states)
            if behaves:
                answers.continued = self._continued(model, f"source in {dtype}")
            del model
        answers.noise = noise.comparisons(noise=True) if noise else ()
        answers.wider_states = wider.states if wider else None
        answers.seconds = time.perf_counter() - begin
        return answers

    def compare_result(self, dtype: str, before: Answers) -> ResultAnswers:
        """Run the result in one dtype, and compare. Raises ModelSurgeonError where nothing is comparable."""
        begin, what, behaves = time.perf_counter(), f"result in {dtype}", self.behaviour and dtype == self.options.dtype
        tallies = Tallies(before.deviations, self.options.seed)
        layers: Layers | None = None
        continued, notes = None, self.inputs.notes
        with loaded(self.result, self.result_path, replace(self.options, dtype=dtype)) as (model, unread):
            unread += self._settle(model)
            for number, batch, returned in self._returned(model, what, behaves):
                there = before.batch(number)
                tallies.add(batch, there, {k: self._fold(k, v, there[k]) for k, v in returned.items() if k in there})
            if behaves:
                layers, apart = self._compared_states(model, States(dtype, before.states, before.wider_states))
                continued, notes = self._continued(model, what), (*notes, *apart)
            del model
        if not tallies.of:
            raise ModelSurgeonError(f"the source returns {', '.join(before.names[0])}, the result none of them")
        notes = tuple(dict.fromkeys([*notes, *before.notes, *unread]))
        return ResultAnswers(tallies, notes, layers, continued, time.perf_counter() - begin)

    def _compared_states(self, model: Any, states: States) -> tuple[Layers | None, tuple[str, ...]]:
        """The result's hidden states beside the source's, and notes; none where layers have other numbers now."""
        if _depths(self.source) != _depths(self.result):
            return None, ("hidden states not compared: the result has other layers than the source",)
        run = partial(run_batch, model, self._row)
        return compare_states(self.source, model, run, states, self.maps, self._row.inputs)

    @property
    def _row(self) -> Batch:
        """The one row on which hidden states are compared."""
        first = self.inputs.batches[self.inputs.row]
        return replace(first, arguments={name: value[:1] for name, value in first.arguments.items()})

    def _returned(self, model: Any, what: str, behaves: bool) -> Iterator[tuple[int, Batch, Outputs]]:
        """(number, batch, its outputs), float32 or float64 on the CPU."""
        batches = self._batches(model)
        steps = len(batches) + behaves  # hidden states and text come after
        for number, batch in enumerate(batches):
            self.tell(what, number, steps)
            wanted = compared_outputs(model, run_batch(model, batch), self.source.architecture)
            yield number, batch, {name: self._rows(model, batch, name, value) for name, value in wanted.items()}
        self.tell(what, len(batches), steps)

    def _batches(self, model: Any) -> tuple[Batch, ...]:
        """What is run in the model's dtype: 16 bits that nobody asked for are told, not judged."""
        asked = getattr(torch, self.options.dtype)
        told = model.dtype != asked and model.dtype.itemsize < 4
        return self.inputs.batches[: self.inputs.usual] if told else self.inputs.batches

    def _rows(self, model: Any, batch: Batch, name: str, value: torch.Tensor) -> torch.Tensor:
        """[positions, width] of an output, on the CPU: of logits the tokens that both have, or the batch's columns."""
        rows = real_rows(model, batch, name, value.cpu())
        rows = rows.unsqueeze(-1) if rows.ndim == 1 else rows.flatten(0, -2)
        if name in TOKENS and over_tokens(model):
            rows = rows[:, : self.inputs.vocab] if batch.columns is None else rows[:, batch.columns]
        return rows.to(torch.promote_types(value.dtype, torch.float32))

    def _common(self) -> int | None:
        """The tokens that both vocabularies have, where they differ in size."""
        sizes = [side.sizes.get("vocab") for side in (self.source, self.result)]
        found = [size for size in sizes if size is not None]
        return min(found) if len(set(found)) > 1 else None

    def _settle(self, model: Any) -> tuple[str, ...]:
        """Keep a model's special tokens to those that are fed: a note where it names others."""
        vocab = self._common() or getattr(model.config, "vocab_size", None)
        return settle(model, vocab) if vocab else ()

    def _prepared(self, model: Any, place: Path, notes: tuple[str, ...]) -> Inputs:
        """What both models are run on; of a resized vocabulary, the tokens that both have."""
        common = self._common()
        behaviour, thorough = self.behaviour, self.thorough
        found = make_inputs(model, place, self.options, behaviour=behaviour, thorough=thorough, vocab=common)
        if common:
            sizes = " -> ".join(f"{side.sizes['vocab']:,}" for side in (self.source, self.result))
            notes += (f"vocabulary {sizes}: compared on the {common:,} tokens that both have",)
            notes += ("no text generated: each would choose among tokens of its own",) * bool(found.prompts)
        return replace(found, notes=(*notes, *found.notes), prompts=None if common else found.prompts)

    def _fold(self, name: str, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """An output of the result in the source's coordinates."""
        value = folded(value, self.maps.get(self.source.architecture.outputs.get(name, "")))
        if len(value) != len(like):
            raise ModelSurgeonError(f"{name}: {len(like):,} rows of numbers before, {len(value):,} after")
        if value.shape != like.shape:
            raise ModelSurgeonError(
                f"{name}: {like.shape[-1]} numbers a position before, {value.shape[-1]} after; a hidden state of "
                "another size can only be compared by the maps on record"
            )
        return value

    def _continued(self, model: Any, what: str) -> Continued | None:
        """What the model writes after the prompts, if it writes text."""
        inputs, steps, continued = self.inputs, len(self.inputs.batches) + 1, None
        if inputs.prompts:
            new = min(FEW, inputs.new) if is_offloaded(model) else inputs.new
            try:
                continued = continue_prompts(model, replace(inputs, new=new), home(model))
            except UNABLE as error:
                why = f"no text generated: {type(model).__name__} cannot: {type(error).__name__}: {error}"
                if what.startswith("result"):  # the source can
                    raise ModelSurgeonError(f"{self.result_path}: {why.splitlines()[0]}") from error
                self.inputs = replace(inputs, prompts=None, notes=(*inputs.notes, why.splitlines()[0]))
        self.tell(what, steps, steps)
        return continued


def _depths(checkpoint: Checkpoint) -> list[Any]:
    """How many layers it has of each kind."""
    table = checkpoint.architecture
    return [table.value(checkpoint.resolved, key) for key in table.counters.values()]
