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
from modelsurgeon.running.forward import compared_outputs, folded, run_batch
from modelsurgeon.running.generation import Continued, continue_prompts
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.outputs import Kept
from modelsurgeon.running.reader import Batch
from modelsurgeon.running.reference import home, is_offloaded, loaded, saved_folder
from modelsurgeon.verification.comparison import TOKENS, Comparison, Tallies
from modelsurgeon.verification.deviation import Deviation
from modelsurgeon.verification.layers import Layers, States, compare_states, keep_states
from modelsurgeon.verification.limits import wide_of

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
    inputs: Inputs = field(default=Inputs(()))

    def ask_source(self, dtype: str, wider: Answers | None = None) -> Answers:
        """Run the source in one dtype; `wider` are its answers in more bits. Raises as `loaded` and `make_inputs`."""
        begin, place = time.perf_counter(), saved_folder(self.source)
        behaves = self.behaviour and dtype == self.options.dtype
        with loaded(self.source, place, replace(self.options, dtype=dtype)) as (model, unread):
            if not self.inputs.batches:
                self.inputs = make_inputs(model, place, self.options, behaviour=self.behaviour)
            kept, states = (Kept(self.scratch / f"{kind} in {dtype}") for kind in ("outputs", "states"))
            answers = Answers(kept, states, int(getattr(model.config, "vocab_size", 0)), str(home(model)), notes=unread)
            noise = Tallies(wider.deviations, self.options.seed) if wider else None
            for number, batch, returned in self._returned(model, f"source in {dtype}", behaves):
                answers.keep(number, returned)
                if wider and noise:
                    noise.add(batch, wider.batch(number), returned)
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
            for number, batch, returned in self._returned(model, what, behaves):
                there = before.batch(number)
                tallies.add(batch, there, {k: self._fold(k, v, there[k]) for k, v in returned.items() if k in there})
            if behaves:
                run, row = partial(run_batch, model, self._row), self._row.inputs
                states = States(dtype, before.states, before.wider_states)
                layers, apart = compare_states(self.source, model, run, states, self.maps, row)
                continued, notes = self._continued(model, what), (*notes, *apart)
            del model
        if not tallies.of:
            raise ModelSurgeonError(f"the source returns {', '.join(before.names[0])}, the result none of them")
        notes = tuple(dict.fromkeys([*notes, *before.notes, *unread]))
        return ResultAnswers(tallies, notes, layers, continued, time.perf_counter() - begin)

    @property
    def _row(self) -> Batch:
        """The one row on which hidden states are compared."""
        first = self.inputs.batches[self.inputs.row]
        return replace(first, arguments={name: value[:1] for name, value in first.arguments.items()})

    def _returned(self, model: Any, what: str, behaves: bool) -> Iterator[tuple[int, Batch, Outputs]]:
        """(number, batch, its outputs), float32 or float64 on the CPU."""
        batches = self.inputs.batches
        steps = len(batches) + behaves  # hidden states and text come after
        for number, batch in enumerate(batches):
            self.tell(what, number, steps)
            wanted = compared_outputs(model, run_batch(model, batch), self.source.architecture)
            masks = {name: batch.read if name.startswith("encoder_") else batch.real for name in wanted}
            yield number, batch, {name: _real(value.cpu(), masks[name]) for name, value in wanted.items()}
        self.tell(what, len(batches), steps)

    def _fold(self, name: str, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """An output of the result in the source's coordinates."""
        value = folded(value, self.maps.get(self.source.architecture.outputs.get(name, "")))
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


def _real(value: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """[rows, positions, ...] -> [real positions, width]; an output of other positions is taken whole."""
    rows = value[real] if value.shape[:2] == real.shape else value
    rows = rows.unsqueeze(-1) if rows.ndim == 1 else rows.flatten(0, -2)
    return rows.to(torch.promote_types(value.dtype, torch.float32))
