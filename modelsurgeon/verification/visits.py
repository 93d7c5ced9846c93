"""One visit to each model: everything that is measured while it is in memory.

    visits = Visits(source, result, ...)
    before = visits.ask_source("float32")                outputs, hidden states and text, kept on disk
    compared = visits.compare_result("float32", before)  the result's, each compared as it comes

Memory is that of one model and of one batch, before and after.
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
from modelsurgeon.verification.comparison import Comparison, Deviation, Tallies
from modelsurgeon.verification.layers import Layers, compare_states, keep_states

# What the library raises where a class claims that it can generate, and cannot (WhisperForCausalLM).
UNABLE = (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError)
FEW = 4  # new tokens where weights wait on the disk: each token reads them all once more

Outputs = dict[str, torch.Tensor]


@dataclass
class Answers:
    """What the source answered in one dtype.

    kept        the outputs of each batch, on disk
    states      hidden states, likewise
    device      where the model ran, and its answers are compared
    names       the outputs of each batch
    deviations  {output: its standard deviation}
    noise       against the source's own answers in more bits, where there are some
    """

    kept: Kept
    states: Kept
    vocab: int = 0
    device: str = "cpu"
    names: list[tuple[str, ...]] = field(default_factory=list)
    deviations: dict[str, Deviation] = field(default_factory=dict)
    noise: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    continued: Continued | None = None
    seconds: float = 0.0

    def keep(self, number: int, returned: Outputs) -> None:
        for name, value in returned.items():
            self.kept.put(f"{number} {name}", value)
            self.deviations.setdefault(name, Deviation(self.device)).add(value)
        self.names.append(tuple(returned))

    def batch(self, number: int) -> Outputs:
        return {name: self.kept.get(f"{number} {name}") for name in self.names[number]}


@dataclass(frozen=True)
class ResultAnswers:
    """What the result answered, beside the source."""

    tallies: Tallies
    notes: tuple[str, ...]
    layers: Layers | None
    continued: Continued | None
    seconds: float


@dataclass
class Visits:
    """Both checkpoints, how they are run, and the folder that holds outputs meanwhile.

    behaviour  also long and shifted rows, padding on the left, hidden states, and text that both write
    """

    source: Checkpoint
    result: Checkpoint
    result_path: Path
    maps: Mapping[str, AxisMap]
    options: RunOptions
    scratch: Path
    tell: Tell
    behaviour: bool = False
    inputs: Inputs | None = None

    def ask_source(self, dtype: str, wider: Answers | None = None) -> Answers:
        """Run the source in one dtype; `wider` are its answers in more bits."""
        begin, place, what = time.perf_counter(), saved_folder(self.source), f"source in {dtype}"
        behaves = self._behaves(dtype)
        with loaded(self.source, place, replace(self.options, dtype=dtype)) as (model, unread):
            self.inputs = self.inputs or make_inputs(model, place, self.options, behaviour=self.behaviour)
            kept, states = (Kept(self.scratch / f"{what} in {dtype}") for what in ("outputs", "states"))
            vocab, where = int(getattr(model.config, "vocab_size", 0)), str(home(model))
            answers = Answers(kept, states, vocab, where, notes=unread)
            noise = Tallies(vocab, self.options.seed, where)
            for number, batch, returned in self._returned(model, what, behaves):
                answers.keep(number, returned)
                if wider:
                    noise.add(batch, wider.batch(number), returned)
            if behaves:
                keep_states(self.source, model, partial(run_batch, model, self._row), answers.states)
                answers.continued = self._continued(model, what)
            del model
        answers.noise = noise.comparisons(wider.deviations) if wider else ()
        answers.seconds = time.perf_counter() - begin
        return answers

    def compare_result(self, dtype: str, before: Answers) -> ResultAnswers:
        """Run the result in one dtype, and compare. Raises ModelSurgeonError where nothing is comparable."""
        begin, what, behaves = time.perf_counter(), f"result in {dtype}", self._behaves(dtype)
        tallies = Tallies(before.vocab, self.options.seed, before.device)
        layers: Layers | None = None
        continued, notes = None, self.inputs.notes if self.inputs else ()
        with loaded(self.result, self.result_path, replace(self.options, dtype=dtype)) as (model, unread):
            for number, batch, returned in self._returned(model, what, behaves):
                there = before.batch(number)
                tallies.add(batch, there, {k: self._fold(k, v, there[k]) for k, v in returned.items() if k in there})
            if behaves:
                run, row = partial(run_batch, model, self._row), self._row.inputs
                layers, apart = compare_states(self.source, model, run, before.states, self.maps, row)
                continued, notes = self._continued(model, what), (*notes, *apart)
            del model
        if not tallies.of:
            raise ModelSurgeonError(f"the source returns {', '.join(before.names[0])}, the result none of them")
        notes = tuple(dict.fromkeys([*notes, *before.notes, *unread]))
        return ResultAnswers(tallies, notes, layers, continued, time.perf_counter() - begin)

    def _behaves(self, dtype: str) -> bool:
        """Whether behaviour is compared in this dtype."""
        return self.behaviour and dtype == self.options.dtype

    @property
    def _asked(self) -> Inputs:
        assert self.inputs is not None, "the source is asked first"
        return self.inputs

    @property
    def _row(self) -> Batch:
        """The batch on which hidden states are compared."""
        first = self._asked.batches[self._asked.row]
        return replace(first, arguments={name: value[:1] for name, value in first.arguments.items()})

    def _returned(self, model: Any, what: str, behaves: bool) -> Iterator[tuple[int, Batch, Outputs]]:
        """(number, batch, {output: [positions, ...] float32 or float64 on the CPU}), real positions only."""
        batches = self._asked.batches
        steps = len(batches) + behaves  # hidden states and text come after
        for number, batch in enumerate(batches):
            self.tell(what, number, steps)
            yield number, batch, self._named(model, batch, run_batch(model, batch))
        self.tell(what, len(batches), steps)

    def _named(self, model: Any, batch: Batch, returned: Mapping[str, Any]) -> Outputs:
        wanted = compared_outputs(model, returned, self.source.architecture)
        masks = {name: batch.read if name.startswith("encoder_") else batch.real for name in wanted}
        return {name: _real(value.cpu(), masks[name]) for name, value in wanted.items()}

    def _fold(self, name: str, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """A result's output in the source's coordinates."""
        value = folded(value, self.maps.get(self.source.architecture.outputs.get(name, "")))
        if value.shape != like.shape:
            raise ModelSurgeonError(
                f"{name}: {like.shape[-1]} numbers a position before, {value.shape[-1]} after; a hidden state of "
                "another size can only be compared by the maps on record"
            )
        return value

    def _continued(self, model: Any, what: str) -> Continued | None:
        """What the model writes after the prompts, if it writes text."""
        asked, steps = self._asked, len(self._asked.batches) + 1
        found = None
        if asked.prompts:
            new = min(FEW, asked.new) if is_offloaded(model) else asked.new
            try:
                found = continue_prompts(model, replace(asked, new=new), home(model))
            except UNABLE as error:
                why = f"no text generated: {type(model).__name__} cannot: {type(error).__name__}: {error}"
                if what.startswith("result"):  # where the source can
                    raise ModelSurgeonError(f"{self.result_path}: {why.splitlines()[0]}") from error
                self.inputs = replace(asked, prompts=None, notes=(*asked.notes, why.splitlines()[0]))
        self.tell(what, steps, steps)
        return found


def _real(value: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """[rows, positions, ...] -> [real positions, width]; an output of other positions is taken whole."""
    kept = value[real] if value.shape[:2] == real.shape else value
    kept = kept.unsqueeze(-1) if kept.ndim == 1 else kept.flatten(0, -2)
    return kept.to(torch.promote_types(value.dtype, torch.float32))
