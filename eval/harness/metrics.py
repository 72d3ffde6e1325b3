"""Statistics of accuracies: spread over seeds, and intervals by the bootstrap, over tasks or over pooled pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DRAWS = 10_000
_BLOCK = 1000  # draws made at once
_TAIL = torch.tensor([0.025, 0.975], dtype=torch.float64)


def mean_and_sd(per_seed: list[float]) -> tuple[float, float | None]:
    """Mean over seeds and sample s.d., None for a single seed."""
    values = torch.tensor(per_seed, dtype=torch.float64)
    return float(values.mean()), float(values.std()) if len(values) > 1 else None


@dataclass(frozen=True)
class Estimate:
    """A mean, or a mean difference of two rows on the same tasks, with its 95% interval."""

    mean: float
    low: float
    high: float

    def rounded(self) -> list[float]:
        """Mean, low and high as records keep them."""
        return [round(value, 4) for value in (self.mean, self.low, self.high)]


def paired_bootstrap(a: Tensor, b: Tensor, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Bootstrap over tasks of mean(a - b), for per-task accuracies a, b (tasks,) on the same tasks."""
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired_bootstrap: shapes {tuple(a.shape)} and {tuple(b.shape)} must be equal vectors")
    difference = (a - b).double()
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(difference), (draws, len(difference)), generator=rng)
    low, high = difference[rows].mean(1).quantile(_TAIL).tolist()
    return Estimate(float(difference.mean()), low, high)


_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # t(0.975) of 1, 2, ... degrees of freedom


def seeds_interval(per_seed: Sequence[float]) -> Estimate:
    """Mean of what training seeds gave, with its 95% interval by Student's t: mean +- t s / sqrt(n)."""
    n = len(per_seed)
    if not 2 <= n <= len(_STUDENT) + 1:
        raise ValueError(f"seeds_interval: {n} values; allowed: 2 to {len(_STUDENT) + 1}")
    mean, sd = mean_and_sd(list(per_seed))
    half = _STUDENT[n - 2] * sd / n**0.5
    return Estimate(mean, mean - half, mean + half)


def clustered_draws(question: Tensor, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Bootstrap draws of pairs that stand in questions: as many questions as there are, with replacement, then within
    each drawn question as many of its pairs as it has, with replacement.

    Args:
        question: (M,) long, whose pair each one is.

    Returns:
        (draws, M) float32: how often each draw takes each pair. Of 1,584 pairs 63 MB.
    """
    if question.ndim != 1 or not len(question):
        raise ValueError(f"question: shape {tuple(question.shape)}; allowed: a vector of one or more")
    _, cluster, count = question.unique(return_inverse=True, return_counts=True)
    order, first = cluster.argsort(stable=True), count.cumsum(0) - count  # the pairs of a question, side by side
    M, Q, rng = len(question), len(count), torch.Generator().manual_seed(seed)
    blocks = []
    for start in range(0, draws, _BLOCK):
        B = min(_BLOCK, draws - start)
        drawn = torch.randint(Q, (B * Q,), generator=rng)
        at = torch.arange(B * Q).repeat_interleave(count[drawn])  # the drawn question of every drawn pair
        chance = torch.rand(len(at), generator=rng, dtype=torch.float64)
        pair = order[first[drawn[at]] + (chance * count[drawn[at]]).long()]
        blocks.append(torch.bincount((at // Q) * M + pair, minlength=B * M).view(B, M).float())
    return torch.cat(blocks)


def clustered_bootstrap(values: Tensor, taken: Tensor, weight: Tensor | None = None) -> Estimate:
    """Mean of values of pairs, with its interval over draws that resample questions, then pairs within these. Of
    differences of two rows it is the paired one.

    Args:
        values: (M,), such as the share of training seeds that answer right. taken: (draws, M), of `clustered_draws`.
        weight: (M,), of each pair (default: all the same); 1 / the pairs of its question makes a mean over questions.
    """
    if values.ndim != 1 or values.shape != taken.shape[1:]:
        raise ValueError(f"clustered_bootstrap: values {tuple(values.shape)} of pairs, draws {tuple(taken.shape)}")
    values = values.double()
    weight = torch.ones_like(values) if weight is None else weight.double()
    both = torch.stack([values * weight, weight])  # (2, M)
    total, weights = (taken @ both.float().mT).double().unbind(1)  # (draws,)
    low, high = (total / weights).quantile(_TAIL).tolist()
    return Estimate(float((values * weight).sum() / weight.sum()), low, high)


@dataclass(frozen=True)
class TaskScores:
    """Accuracies `values` (seeds, T) of a row by task, each task counting the same."""

    values: Tensor

    def by_task(self) -> Tensor:
        """(seeds, T)."""
        return self.values

    def minus(self, other: TaskScores) -> Estimate:
        """Mean difference of means over seeds, on the same tasks."""
        return paired_bootstrap(self.values.mean(0), other.values.mean(0))


class PooledPairs:
    """Some pairs of picture and question whose accuracy is pooled, with the draws of their bootstrap.

    Args:
        question: (M,) long, whose pair each of all M pairs is.
        mask: (M,) bool, the K pairs that are meant (default: all).
        by_question: each question counts the same instead of each pair.
    """

    def __init__(self, question: Tensor, mask: Tensor | None = None, *, by_question: bool = False) -> None:
        self.mask = torch.ones_like(question, dtype=torch.bool) if mask is None else mask
        self.question = question[self.mask]  # (K,)
        self.taken = clustered_draws(self.question)  # (draws, K)
        self.weight = torch.ones(len(self.question), dtype=torch.float64)
        if by_question:
            _, task, count = self.question.unique(return_inverse=True, return_counts=True)
            self.weight /= count[task]

    def __len__(self) -> int:
        return len(self.question)

    @property
    def n_questions(self) -> int:
        return len(self.question.unique())


@dataclass(frozen=True)
class PooledScores:
    """Which `pairs` a row answers right: `values` (seeds, K)."""

    values: Tensor
    pairs: PooledPairs

    def by_task(self) -> Tensor:
        """Accuracy (seeds, T) of every task that has pairs here, in order."""
        _, task, count = self.pairs.question.unique(return_inverse=True, return_counts=True)
        total = torch.zeros(len(self.values), len(count), dtype=torch.float64)
        return total.index_add(1, task, self.values.double()) / count

    def per_seed(self) -> list[float]:
        """Mean over pairs, by seed."""
        return (self.values.double() @ self.pairs.weight / self.pairs.weight.sum()).tolist()

    def estimate(self) -> Estimate:
        """Mean over seeds and pairs."""
        return self._bootstrap(self.values.double().mean(0))

    def minus(self, other: PooledScores) -> Estimate:
        """Mean difference of means over seeds, on the same pairs."""
        return self._bootstrap(self.values.double().mean(0) - other.values.double().mean(0))

    def _bootstrap(self, values: Tensor) -> Estimate:
        return clustered_bootstrap(values, self.pairs.taken, self.pairs.weight)


Scores = TaskScores | PooledScores
