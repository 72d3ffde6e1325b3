"""How many examples a sentence is worth: where a curve over examples reaches the accuracy of the question alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

DRAWS = 10_000


def crossing(curve: Tensor, counts: Sequence[float], level: Tensor) -> Tensor:
    """Where curves (B, K) over `counts`, ascending, first reach levels (B,): between two counts interpolated linearly
    in the logarithm of the count. The first count where a curve begins above its level; inf where it stays below.
    """
    x = torch.tensor([math.log(count) for count in counts], dtype=torch.float64)
    above = curve >= level[:, None]  # (B, K)
    at = above.int().argmax(1)  # the first that is above
    before = (at - 1).clamp(min=0)
    y0, y1 = (curve.gather(1, i[:, None]).squeeze(1) for i in (before, at))
    share = torch.where(y1 > y0, (level - y0) / (y1 - y0).clamp(min=1e-12), torch.ones_like(level)).clamp(0, 1)
    found = (x[before] + share * (x[at] - x[before])).exp()
    return found.masked_fill(~above.any(1), torch.inf)


def worth(curve: Tensor, counts: Sequence[float], alone: Tensor, draws: int = DRAWS, seed: int = 0) -> dict:
    """The crossing of mean accuracies, `curve` (K, T) of tasks by count and `alone` (T,), with a 95% interval by the
    bootstrap over tasks; None for what lies beyond the largest count."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randint(curve.shape[1], (draws, curve.shape[1]), generator=rng)
    taken = torch.zeros(draws, curve.shape[1], dtype=torch.float64)
    taken.scatter_add_(1, rows, torch.ones_like(rows, dtype=torch.float64)).div_(curve.shape[1])  # (draws, T)
    drawn = crossing(taken @ curve.double().mT, counts, taken @ alone.double())
    (mean,) = crossing(curve.double().mean(1)[None], counts, alone.double().mean()[None]).tolist()
    low, high = drawn.sort().values[[round(0.025 * (draws - 1)), round(0.975 * (draws - 1))]].tolist()
    shown = lambda value: None if math.isinf(value) else round(value, 2)
    return {"examples": shown(mean), "low": shown(low), "high": shown(high)}
