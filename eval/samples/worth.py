"""How many examples a sentence is worth: where a curve over examples reaches the accuracy of the question alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eval.harness.metrics import DRAWS, seed_draws, task_draws


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


def worth(curve: Tensor, counts: Sequence[float], alone: Tensor, draws: int = DRAWS) -> dict[str, float | None]:
    """The crossing of mean accuracies, `curve` (S, K, T) of S training seeds by count and task and `alone` (S, T), with
    a 95% interval over draws that resample tasks and training seeds, crossed; None for what lies beyond the largest
    count."""
    tasks, seeds = task_draws(curve.shape[-1], draws), seed_draws(len(curve), draws)  # (draws, T), (draws, S')
    by_seed = torch.stack([tasks @ values.double().mT for values in (*curve.unbind(1), alone)], -1)  # (draws, S, K + 1)
    drawn = by_seed.gather(1, seeds[..., None].expand(-1, -1, by_seed.shape[-1])).mean(1)  # (draws, K + 1)
    found = crossing(drawn[:, :-1], counts, drawn[:, -1])
    (mean,) = crossing(curve.double().mean((0, 2))[None], counts, alone.double().mean()[None]).tolist()
    low, high = found.sort().values[[round(0.025 * (draws - 1)), round(0.975 * (draws - 1))]].tolist()
    shown = lambda value: None if math.isinf(value) else round(value, 2)
    return {"examples": shown(mean), "low": shown(low), "high": shown(high)}
