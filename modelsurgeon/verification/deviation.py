"""How far numbers of one output usually are apart: the unit in which two models' outputs are compared.

    deviation = Deviation(tokens=True)
    deviation.add(logits)           the source's, batch after batch
    deviation.units(logits)         [positions, width]: the unit of each number

The unit is taken at each position, so that one position tells nothing about another, and from the differences of pairs
of numbers, so that a few huge ones (a bias of -1e9, an outlier channel) do not change it: a quarter of all pairs are
closer than 0.45 standard deviations where numbers are normal (Rousseeuw and Croux, "Alternatives to the median absolute
deviation", 1993). A huge number has a unit of its own, a share of its size: it is rounded in proportion to that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch

PAIRS = 1024  # of numbers, drawn at each position: they give the unit to 6%
CLOSE = 0.25  # the share of pairs that are closer than
NORMAL = 0.4506  # standard deviations, of normal numbers
MASKED = 1000.0  # nats: a token that far below another one has no probability, even in float64
ENOUGH = 6  # pairs of tokens that are not masked: of a tenth of the vocabulary, ten pairs
MUCH = 20  # times closer than MASKED: logits spread over thousands of nats are closer by chance
FEW = 8  # numbers: an output with fewer at a position is judged by column, over all positions
SMALLEST = 0.05  # of all numbers: what they have in common, an offset, is no larger than these are
HUGE = 16.0  # deviations: the unit of a larger number is its size over this


@dataclass
class Deviation:
    """The deviation of one output of the source, at each position and over all inputs; computed on `device`.

    tokens   whether it is logits over the vocabulary
    spreads  [positions] of each batch; of narrow outputs [positions, width] numbers
    sizes    [positions] of each batch: the size that all numbers but the smallest have
    """

    tokens: bool = False
    device: str = "cpu"
    spreads: list[torch.Tensor] = field(default_factory=list)
    narrow: list[torch.Tensor] = field(default_factory=list)
    sizes: list[torch.Tensor] = field(default_factory=list)
    _floor: torch.Tensor | None = field(default=None, repr=False)

    def add(self, value: torch.Tensor) -> None:
        """Add the output of one batch, [positions, width]."""
        self._floor = None
        if value.shape[-1] < FEW:
            self.narrow.append(value.double().cpu())
            return
        sample = value[:, _pairs(value.shape[-1])[0]].to(self.device).double()
        self.spreads.append(self._spread(value).cpu())
        smallest = sample.abs().nan_to_num(0, 0, 0).kthvalue(max(1, int(SMALLEST * sample.shape[-1])), dim=-1)
        self.sizes.append(smallest.values.cpu())

    def units(self, value: torch.Tensor) -> torch.Tensor:
        """The unit of each number of some positions of this output: [positions, width] float64, above 0."""
        spread = self.floor.to(self.device)
        if value.shape[-1] >= FEW:
            spread = torch.maximum(self._spread(value), spread).unsqueeze(-1)
        size = value.to(self.device).double().abs().div_(HUGE).nan_to_num_(0, 0, 0)
        return torch.maximum(size, spread, out=size)

    def __float__(self) -> float:
        """The median over all positions (columns, of a narrow output)."""
        found = torch.cat(self.spreads) if self.spreads else self.floor
        found = found[found > 0]
        return float(found.median()) if len(found) else float(self.floor.max())

    @property
    def floor(self) -> torch.Tensor:
        """What the unit is at least: the lowest tenth of all positions; [width] of a narrow output, by column."""
        if self._floor is None:
            self._floor = self._by_column() if self.narrow else self._lowest()
        return self._floor

    def grain(self, eps: float) -> float:
        """Deviations: what rounding to `eps` does to numbers, even to small ones; infinite for a constant output."""
        if self.narrow:
            numbers = torch.cat(self.narrow)
            size, spread = numbers.abs().nan_to_num(0, 0, 0).amin(0), spreads(numbers.T)
        else:
            size, spread = torch.cat(self.sizes), torch.cat(self.spreads)
        ratio = torch.where(spread > 0, eps * size / spread, torch.inf)
        return float(ratio.median()) if len(ratio) else torch.inf

    def _spread(self, value: torch.Tensor) -> torch.Tensor:
        return spreads(value.to(self.device), MASKED if self.tokens else torch.inf)

    def _lowest(self) -> torch.Tensor:
        found = torch.cat(self.spreads) if self.spreads else torch.zeros(0)
        found = found[found > 0].sort().values
        if len(found):
            return found[len(found) // 10]
        size = float(torch.cat(self.sizes).max()) if self.sizes else 0.0
        return torch.tensor(size / HUGE or 1.0, dtype=torch.float64)

    def _by_column(self) -> torch.Tensor:
        numbers = torch.cat(self.narrow)
        found = spreads(numbers.T)
        size = numbers.abs().nan_to_num(0, 0, 0).median(0).values / HUGE
        usual = found[found > 0]
        found = torch.where(found > 0, found, usual.median() if len(usual) else torch.zeros(()).double())
        found = torch.maximum(found, size)
        return torch.where(found > 0, found, 1.0)


def spreads(value: torch.Tensor, farthest: float = torch.inf) -> torch.Tensor:
    """[positions, width] -> [positions] float64: a robust standard deviation; 0 where all numbers are equal.

    farthest  pairs of numbers further apart are left out, if enough others are much closer
    """
    first, second = (value[:, one].double() for one in _pairs(value.shape[-1]))
    apart = first.sub_(second).abs_()
    apart = apart.masked_fill_(~(apart.isfinite() & (apart > 0)), torch.inf).sort(-1).values
    found, _ = _lower_quartile(apart, torch.inf)
    if farthest < torch.inf:
        near, count = _lower_quartile(apart, farthest)
        found = torch.where((count >= ENOUGH) & (near < farthest / MUCH), near, found)
    return found / NORMAL


def _lower_quartile(apart: torch.Tensor, farthest: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of sorted [positions, pairs] numbers below `farthest`: their lower quartile, 0 if there are none; their count."""
    count = (apart < farthest).sum(-1)
    at = ((count - 1).clamp(min=0).double() * CLOSE).long()
    return torch.where(count > 0, apart.gather(-1, at.unsqueeze(-1)).squeeze(-1), 0.0), count


@lru_cache(maxsize=64)
def _pairs(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[PAIRS] twice: the numbers of each pair, the same for each output of this width."""
    generator = torch.Generator().manual_seed(width)
    first = torch.randint(width, (PAIRS,), generator=generator)
    return first, (first + torch.randint(1, max(2, width), (PAIRS,), generator=generator)) % width
