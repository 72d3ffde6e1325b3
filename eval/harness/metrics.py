"""Statistics of per-task accuracies: spread over seeds, paired bootstrap over tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def mean_and_sd(per_seed: list[float]) -> tuple[float, float | None]:
    """Mean over seeds and sample s.d., None for a single seed."""
    values = torch.tensor(per_seed, dtype=torch.float64)
    return float(values.mean()), float(values.std()) if len(values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """Mean difference of two rows over the same tasks, with a 95% interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(a: Tensor, b: Tensor, draws: int = 10_000, seed: int = 0) -> Difference:
    """Bootstrap over tasks of mean(a - b), for per-task accuracies a, b (tasks,) on the same tasks."""
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired_bootstrap: shapes {tuple(a.shape)} and {tuple(b.shape)} must be equal vectors")
    difference = (a - b).double()
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(difference), (draws, len(difference)), generator=rng)
    means = difference[rows].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Difference(float(difference.mean()), low, high)
