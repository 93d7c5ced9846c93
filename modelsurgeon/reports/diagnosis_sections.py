"""The sections of a diagnosis' page, in their order: a title, what the numbers mean, tables and charts.

    section("Norms", "What norms multiply by", figure("gains", "the dot is the mean."), each("tensors; ...", gains, 5))

A part without anything to show has no blocks, and a section without blocks is left out.
"""

from __future__ import annotations

from modelsurgeon.reports import diagnosis_tables as tables
from modelsurgeon.reports.blocks import Block, Figure, Paragraph, Section, marked
from modelsurgeon.reports.diagnosis_tables import Part, Subject, each, facts


def figure(name: str, caption: str) -> Part:
    """The chart of that name, if it is drawn."""
    return lambda subject: [Figure(subject.charts[name], caption)] if name in subject.charts else []


def section(title: str, explained: str, *parts: Part) -> Part:
    """The parts under a title, with what they mean."""

    def part(subject: Subject) -> list[Block]:
        blocks = [block for part in parts for block in part(subject)]
        explanation = [Paragraph(marked(explained))] if explained else []
        return [Section(title, [*explanation, *blocks])] if blocks else []

    return part


SECTIONS: tuple[Part, ...] = (
    section("What was examined", "", facts("", tables.MODEL)),
    section(
        "Embedding and head",
        "Rows are tokens, columns are components. *Robust deviation*: of all components, by their median, so that a "
        "outliers do not move it. Sign-based optimisers leave components of ±100 at rare tokens; rows at the mean of "
        "all, equal to another or zero have never been trained.",
        tables.token_tables,
        figure("row-norms", "norms of all rows in order: outliers are at the ends, dead rows on the lower edge."),
        each("where; what; row; token; value; times", tables.far, 2),
        section(
            "Loss before training",
            "A tied model begins by predicting each token from itself: its deviation, not the text, decides what the "
            "first loss is. Nats.",
            facts("initial_loss", tables.LOSS),
        ),
    ),
    section(
        "Spectrum of the head",
        "A head of d columns over n tokens has d directions, however many tokens there are. *Singular entropy*: how "
        "far the singular values, as shares of their sum, are from even; as a model saturates, the spectrum flattens "
        "and then spikes (arXiv 2404.07647). *Effective rank*: the number of even values with the same entropy.",
        figure("head-spectrum", "singular values over their root mean square."),
        facts("spectrum", tables.SPECTRUM),
    ),
    section(
        "Norms",
        "What norms multiply by, with the model's own offset. *Last*: what the head reads is written by it. A "
        "masked-LM head's own norm takes large gains where the body's stay near 1 (https://spaces.ac.cn/archives/8747).",
        figure("gains", "the dot is the mean, the bar goes from the least to the largest."),
        each("tensors; kind; place; count; mean; rms; least; largest", tables.gains, 5),
    ),
    section(
        "Matrices",
        "Deviation beside what initialisations give: Xavier's 1/sqrt(fan in), and 0.0176, which the truncated normal "
        "of 0.02 has. *Stable rank*: (Frobenius norm / spectral norm)². From the least to the largest of each group.",
        figure("deviations", "1: as Xavier would draw them."),
        each(
            "tensors; shape; count; times Xavier's; times 0.0176; spectral norm; stable rank; equal or zero",
            tables.matrices,
            6,
        ),
    ),
    section(
        "Copies",
        "Coordinates that are equal in every tensor that has them get equal gradients: training never parts them. "
        "Those that are zero everywhere get none.",
        each("axis; passes through; layer; size; groups; copies; dead; two of them", tables.copies, 5),
    ),
    section(
        "Numbers",
        "Of all that is stored. *Overflow*, *underflow*: what that dtype would turn into infinity, or into zero; "
        "both are in what it *loses*, in this order.",
        facts("numbers", tables.NUMBERS),
        each("tensor; numbers; nan; inf; zero; subnormal; largest; float16 loses; bfloat16 loses", tables.lossy, 8),
    ),
    section(
        "From running it",
        "",
        facts("running", tables.RUNNING),
        figure("loss-by-position", "mean cross entropy at each position of a window: context should lower it."),
        figure(
            "head-cut",
            "the head replaced by its best approximation of a rank: where the line is still steep at the full rank, "
            "the head wants more.",
        ),
        figure("anisotropy", "0: hidden states point all ways. 1: they are parallel."),
        figure("residual-norm", "the dot is the mean, the bar goes up to the largest."),
        figure("attention-logits", "before the softmax, unmasked ones."),
        section(
            "Hidden states",
            "",
            each(
                "state; side; layer; anisotropy; mean norm; largest norm; largest |x|; median |x|; effective rank",
                tables.states,
                7,
            ),
        ),
        section(
            "Attention logits, the largest first",
            "",
            each("attention; layer; largest; deviation; entropy, nats", tables.attention, 4),
        ),
    ),
)
