"""The temperature of a row's answers: one factor on cosines, fitted to labelled examples."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.tasks import TaskBatch

_LOWEST, _HIGHEST, _HALVINGS = 1e-2, 1e4, 60


@torch.no_grad()
def fit_scale(cosines: Tensor, batch: TaskBatch) -> float:
    """The scale s at which softmax(s * cosines) has the least cross-entropy, the mean over tasks of their means.

    Cross-entropy is convex in s: its derivative, the expected minus the right answer's cosine, rises, and its zero is
    found by halving. (Guo et al. 2017 call 1 / s the temperature.)

    Args:
        cosines: (T, N, C), of every example and answer; padded answers are ignored.
    """
    closed = ~batch.answer_mask[:, None]
    cosines = cosines.double().masked_fill(closed, 0.0)
    right = cosines.gather(-1, batch.labels[..., None]).squeeze(-1)  # (T, N)
    share = batch.example_mask / batch.example_mask.sum(1, keepdim=True).clamp(min=1) / len(batch)

    def slope(scale: float) -> float:
        probability = (scale * cosines).masked_fill(closed, -torch.inf).softmax(-1)
        return float((((probability * cosines).sum(-1) - right) * share).sum())

    low, high = _LOWEST, _HIGHEST
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low * high) ** 0.5
