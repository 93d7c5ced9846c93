"""The loss of tied models before training, and with each cure: predicted and measured.

    python scripts/tables/initial_loss.py [--docs docs/diagnosis.md]

Su Jianlin, https://spaces.ac.cn/archives/9698. Fresh models of the library, two layers, made from a config with the
deviation in question. The loss is the model's own on random ids, in float32: -log p(next | so far), averaged over every
next token that is not the last one. "Near zero": what each branch adds to the stream is multiplied by 1e-3. `--docs`
writes the tables between the two markers of that file.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

import torch
import transformers

from modelsurgeon.architectures import registry
from modelsurgeon.diagnosis.loss import predicted, predicted_closely, predicted_untied
from modelsurgeon.operations.transforms.fresh_heads import half_swap, shuffle
from modelsurgeon.operations.transforms.initial import deviation_for_uniform
from modelsurgeon.tensors.random.turned import RandomRotation
from readme import write_block

WIDTHS, VOCABS = (64, 256, 768), (1000, 32000)
WINDOWS, LENGTH = 2, 64
SMALL = 1e-3
CURED = (768, 32000)  # width and vocabulary of the cures' table
ROOT_HALF = math.sqrt(0.5)  # of a token's own logit is left where positions of the same deviation are added


@dataclass(frozen=True)
class Law:
    """One line of the first table; nats."""

    width: int
    vocab: int
    sigma: str
    deviation: float
    llama: tuple[float, float]
    gpt2: tuple[float, float]

    @property
    def rule(self) -> float:
        return predicted(self.vocab, self.width, self.deviation)

    @property
    def closely(self) -> float:
        return predicted_closely(self.vocab, self.width, self.deviation)

    def cells(self) -> list[str]:
        with_positions = predicted(self.vocab, self.width, self.deviation, ROOT_HALF)
        sigma = f"{self.sigma} = {self.deviation:.4f}" if "/" in self.sigma else self.sigma
        numbers = (self.width * self.deviation, math.log(self.vocab), self.rule, self.closely, *self.llama)
        return [str(self.width), str(self.vocab), sigma, *map(_shown, (*numbers, with_positions, *self.gpt2))]


def deviations(width: int, vocab: int) -> dict[str, float]:
    """{name: sigma} of one shape."""
    return {
        "0.006": 0.006,
        "0.02": 0.02,
        "1/sqrt(d)": width**-0.5,
        "(log n)/d": deviation_for_uniform(vocab, width),
    }


def fresh(kind: str, width: int, vocab: int, deviation: float, tied: bool = True) -> transformers.PreTrainedModel:
    """An untrained model of two layers, the same in every run."""
    torch.manual_seed(0)
    shape = {"vocab_size": vocab, "initializer_range": deviation, "tie_word_embeddings": tied}
    shape |= {"bos_token_id": None, "eos_token_id": None}
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=width, n_layer=2, n_head=width // 32, n_positions=LENGTH, **shape)
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.LlamaConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 32,
        max_position_embeddings=LENGTH,
        **shape,
    )
    return transformers.LlamaForCausalLM(config).eval()


def quieten(model: transformers.PreTrainedModel) -> None:
    """Multiply the output of every branch by SMALL."""
    table = registry.find(model.config.model_type)
    for name, parameter in model.named_parameters():
        line = table.template(name)
        written = {axis for expression, _ in line.signature.written for axis in expression.axes()} if line else set()
        if line and line.placeholders and "stream" in written:
            parameter.mul_(SMALL)


def loss(model: transformers.PreTrainedModel) -> float:
    """The mean loss over all positions and over every next token but the last one that was read."""
    ids = torch.randint(model.config.vocab_size, (WINDOWS, LENGTH), generator=torch.Generator().manual_seed(1))
    logits = model(input_ids=ids).logits.flatten(0, 1)
    own = logits.gather(1, ids.reshape(-1, 1))[:, 0]
    others = (logits.sum(1, dtype=torch.float64) - own) / (logits.shape[1] - 1)
    return float((logits.logsumexp(1) - others).mean())


def both(kind: str, width: int, vocab: int, deviation: float) -> tuple[float, float]:
    """(loss with branches near zero, loss as the library makes the model)."""
    model = fresh(kind, width, vocab, deviation)
    made = loss(model)
    quieten(model)
    return loss(model), made


def laws() -> Iterator[Law]:
    for width in WIDTHS:
        for vocab in VOCABS:
            for name, deviation in deviations(width, vocab).items():
                found = [both(kind, width, vocab, deviation) for kind in ("llama", "gpt2")]
                yield Law(width, vocab, name, deviation, *found)


def cures() -> Iterator[list[str]]:
    """The lines of the second table: the same embedding with each head, branches near zero and as made."""
    width, vocab = CURED
    for name in ("0.02", "1/sqrt(d)"):
        deviation = deviations(width, vocab)[name]
        model = fresh("llama", width, vocab, deviation, tied=False)
        rows = model.get_input_embeddings().weight
        heads = {
            "none: tied": rows,
            "normal": torch.randn(rows.shape, generator=torch.Generator().manual_seed(2)) * deviation,
            "orthogonal": (rows.double() @ RandomRotation(width, "0").matrix.T).float(),
            "half-swap": rows[:, half_swap(width)],
            "shuffle": rows[:, shuffle(width).argsort()],
        }
        found = {}
        for small in (False, True):
            if small:
                quieten(model)
            for cure, head in heads.items():
                model.get_output_embeddings().weight.copy_(head)
                found[cure, small] = loss(model)
        for cure in heads:
            rule = predicted if cure == "none: tied" else predicted_untied
            numbers = (rule(vocab, width, deviation), found[cure, True], found[cure, False])
            yield [cure, name, *map(_shown, numbers)]
    deviation = deviation_for_uniform(vocab, width)
    small, made = both("llama", width, vocab, deviation)
    yield [
        "sigma = (log n)/d, tied",
        f"{deviation:.4f}",
        *map(_shown, (predicted(vocab, width, deviation), small, made)),
    ]


def remarks(found: list[Law]) -> str:
    """The largest differences of prediction and measurement, for the article's models and for others."""
    worst = max(found, key=lambda law: abs(law.llama[0] - law.rule))
    close = max(found, key=lambda law: abs(law.llama[0] - law.closely))
    made = max(found, key=lambda law: abs(law.llama[1] - law.rule))

    def at(law: Law, measured: float, by: float) -> str:
        return f"{abs(measured - by):.2f} nats (d = {law.width}, n = {law.vocab}, sigma = {law.sigma})"

    return (
        f"Largest difference, Llama with branches near zero: {at(worst, worst.llama[0], worst.rule)}; "
        f"with the variance of the other logits, {at(close, close.llama[0], close.closely)}. "
        f"With branches as they are made: {at(made, made.llama[1], made.rule)}."
    )


def _shown(value: float) -> str:
    return f"{value:.2f}"


def table(headings: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path)
    arguments = parser.parse_args()
    with torch.no_grad():
        found = list(laws())
        cured = list(cures())
    shape = ["d", "n", "sigma", "d sigma", "log n", "predicted", "and variance"]
    law = table(
        [*shape, "Llama, near zero", "as made", "with positions", "GPT-2, near zero", "as made"],
        [law.cells() for law in found],
    )
    heading = f"Heads of their own, d = {CURED[0]}, n = {CURED[1]} (log n = {math.log(CURED[1]):.2f}), Llama:"
    cure = table(["head", "sigma", "predicted", "near zero", "as made"], cured)
    text = f"{law}\n\n{remarks(found)}\n\n{heading}\n\n{cure}"
    print(text)
    if arguments.docs:
        write_block(arguments.docs, "initial-loss", text)


if __name__ == "__main__":
    main()
