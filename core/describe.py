"""Descriptors for tasks that lack one, inferred from their data: the task embedding that their question would have.

With half of the questions missing (the paper's 50% Q.), a denoiser hears half of the pairs of question and latent, and
the rest teaches it only what latents look like. But a task without a question still has images, answers and adapted
weights, and the tasks that have a question show how these go together. Beyond the paper, and for HyperLDM alone: rows
that the paper trains on described tasks only stay as they are.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from core.conditioning import Whitening
from core.tasks import TaskBatch

WIDTHS, RIDGES = (1.5, 2.0, 3.0, 4.5, 6.0), (0.01, 0.03, 0.1, 0.3)
FOLDS = 5


def task_features(batch: TaskBatch, z: Tensor) -> Tensor:
    """What a task is like apart from its question, (T, F): latent z (T, Z), mean image, mean answer, and mean answer by
    frequency. Every group is standardised by coordinate and weighs the same in a distance."""
    mask = batch.example_mask.float()
    count = mask.sum(1, keepdim=True)  # (T, 1)
    images = (batch.images * mask[..., None]).sum(1) / count
    answers = batch.answers.sum(1) / batch.answer_mask.sum(1, keepdim=True)
    frequency = torch.zeros_like(batch.answer_mask, dtype=mask.dtype).scatter_add_(1, batch.labels, mask) / count
    usual = (frequency[..., None] * batch.answers).sum(1)
    groups = (z, images, answers, usual)
    return torch.cat([(x - x.mean(0)) / x.std(0).clamp(min=1e-6) / x.shape[1] ** 0.5 for x in groups], dim=1)


def infer_descriptors(e: Tensor, described: Tensor, features: Tensor) -> Tensor:
    """Task embeddings (T, D): e's own rows where a task is described, inferred ones elsewhere.

    Gaussian-kernel ridge regression from `task_features` (T, F) to whitened embeddings, on the described tasks; its
    width and ridge are those with the least error on held-out described tasks, in five folds. A pure function: rows of
    `e` that are not described are not looked at.

    Args:
        e: (T, D). described: (T,) bool.

    Raises:
        ValueError: fewer described tasks than folds.
    """
    known = described.nonzero().squeeze(1)
    if len(known) < FOLDS:
        raise ValueError(f"infer_descriptors: {len(known)} described tasks; at least {FOLDS} are needed")
    whitening = Whitening(e.shape[1]).to(e.device)
    whitening.fit(e[known])
    target = whitening(e[known])
    within = torch.cdist(features[known], features[known]).square()  # (K, K)

    def regress(distance: Tensor, fit: Tensor, width: float, ridge: float) -> Tensor:
        """Predictions from the known tasks at positions `fit`, for tasks at squared `distance` (rows, K) of all."""
        inner, cross = ((-d[:, fit] / (2 * width**2)).exp() for d in (within[fit], distance))
        mean = target[fit].mean(0)
        return mean + cross @ torch.linalg.solve(inner + ridge * torch.eye(len(fit)).to(inner), target[fit] - mean)

    fold = torch.arange(len(known), device=e.device) % FOLDS

    def error(width: float, ridge: float) -> float:
        """Squared error on held-out described tasks."""
        return sum(
            float((regress(within[out], (~out).nonzero().squeeze(1), width, ridge) - target[out]).square().sum())
            for out in (fold == i for i in range(FOLDS))
        )

    width, ridge = min(itertools.product(WIDTHS, RIDGES), key=lambda option: error(*option))
    result, missing = e.clone(), ~described
    distance = torch.cdist(features[missing], features[known]).square()
    everything = torch.arange(len(known), device=e.device)
    result[missing] = whitening.inverse(regress(distance, everything, width, ridge))
    return result
