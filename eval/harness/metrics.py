"""Statistics of accuracies: spread over seeds, and intervals by the bootstrap, over tasks or over pooled pairs, and
over training seeds where there are several.

Every draw takes tasks and training seeds, crossed: the same drawn tasks with each drawn seed. A difference of two rows
is taken seed by seed and task by task first, so both rows have the same drawn tasks and the same drawn seed. Rows of
one release may share stages (the HVAE, the adaptations, members of an ensemble): what a seed gives to both is in
neither's lead. Where they share nothing, the difference of two runs has the sum of their variances, drawn together too.

Of S seeds S - 1 are drawn, of one seed that one. Draws of S would have only (S - 1) / S of the variance between seeds,
a third less with three seeds; draws of S - 1 have all of it (Rao and Wu, JASA 1988, for few clusters). The interaction
of seeds and tasks counts more than once (Owen, Annals of Applied Statistics 2007: the pigeonhole bootstrap), so that
intervals are rather too wide. One seed says nothing about others: its interval is that over tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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


@lru_cache(maxsize=8)
def task_draws(count: int, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Bootstrap draws of as many tasks as there are, with replacement.

    Returns:
        (draws, T) float64: the share of each draw that each task has. Of 373 tasks 30 MB.
    """
    if count < 1:
        raise ValueError(f"tasks: {count}; allowed: 1 or more")
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randint(count, (draws, count), generator=rng)
    return torch.zeros(draws, count, dtype=torch.float64).scatter_add_(
        1, rows, torch.full((), 1 / count, dtype=torch.float64).expand_as(rows)
    )


@lru_cache(maxsize=8)
def seed_draws(count: int, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """(draws, max(1, S - 1)) long: which of S training seeds each draw takes, with replacement."""
    rng = torch.Generator().manual_seed(seed + 1)  # apart from the draws of tasks
    return torch.randint(count, (draws, max(1, count - 1)), generator=rng)


def _over_seeds(means: Tensor) -> tuple[float, float]:
    """The 95% interval of draws whose means (draws, S) by training seed are given."""
    drawn = means.gather(1, seed_draws(means.shape[1], len(means)))
    low, high = drawn.mean(1).quantile(_TAIL).tolist()
    return low, high


def crossed_bootstrap(values: Tensor, draws: int = DRAWS) -> Estimate:
    """Mean of values (seeds, T) of tasks, or of differences of two rows, with its interval over draws that resample
    tasks and training seeds, crossed."""
    if values.ndim != 2 or not values.numel():
        raise ValueError(f"crossed_bootstrap: values of shape {tuple(values.shape)}; allowed: (seeds, tasks)")
    values = values.double()
    low, high = _over_seeds(task_draws(values.shape[1], draws) @ values.mT)
    return Estimate(float(values.mean()), low, high)


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
    """Mean of values of pairs, with its interval over draws that resample training seeds, questions, then pairs within
    these. Of differences of two rows it is the paired one.

    Args:
        values: (seeds, M), such as which pairs a row answers right, or (M,) of one seed.
        taken: (draws, M), of `clustered_draws`.
        weight: (M,), of each pair (default: all the same); 1 / the pairs of its question makes a mean over questions.
    """
    if values.ndim not in (1, 2) or values.shape[-1:] != taken.shape[1:]:
        raise ValueError(f"clustered_bootstrap: values {tuple(values.shape)} of pairs, draws {tuple(taken.shape)}")
    values = values.double().reshape(-1, taken.shape[1])  # (S, M)
    weight = torch.ones_like(values[0]) if weight is None else weight.double()
    both = torch.cat([values * weight, weight[None]])  # (S + 1, M); whole numbers stay exact in 32 bits
    *total, weights = (taken @ both.float().mT).double().unbind(1)  # (draws,) each
    low, high = _over_seeds(torch.stack(total, 1) / weights[:, None])
    return Estimate(float((values * weight).sum() / (len(values) * weight.sum())), low, high)


@dataclass(frozen=True)
class TaskScores:
    """Accuracies `values` (seeds, T) of a row by task, each task counting the same."""

    values: Tensor

    def per_seed(self) -> list[float]:
        """Mean over tasks, by seed."""
        return self.values.double().mean(1).tolist()

    def estimate(self) -> Estimate:
        """Mean over seeds and tasks."""
        return crossed_bootstrap(self.values)

    def minus(self, other: TaskScores) -> Estimate:
        """Mean difference on the same tasks, of the same seeds."""
        return crossed_bootstrap(self.values - other.values)

    def of_seeds(self, rows: list[int]) -> TaskScores:
        """Of these rows of `values` alone."""
        return TaskScores(self.values[rows])


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


def sets_of_pairs(question: Tensor, own: Tensor) -> dict[str, PooledPairs]:
    """The sets of pairs that pooled accuracies are of, of each pair's `question` (M,): all, and those with a picture of
    their `own` (M,), where these are some."""
    sets = {"all": PooledPairs(question)}
    return sets | ({"image_disjoint": PooledPairs(question, own)} if 0 < own.sum() < len(own) else {})


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
        return self._bootstrap(self.values)

    def minus(self, other: PooledScores) -> Estimate:
        """Mean difference on the same pairs, of the same seeds."""
        return self._bootstrap(self.values.double() - other.values.double())

    def of_seeds(self, rows: list[int]) -> PooledScores:
        """Of these rows of `values` alone."""
        return PooledScores(self.values[rows], self.pairs)

    def _bootstrap(self, values: Tensor) -> Estimate:
        return clustered_bootstrap(values, self.pairs.taken, self.pairs.weight)


Scores = TaskScores | PooledScores
