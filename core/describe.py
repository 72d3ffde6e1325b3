"""Descriptors for tasks that lack one, inferred from their data: the task embedding that their question would have.

With half of the questions missing (the paper's 50% Q.), a denoiser hears half of the pairs of question and latent, and
the rest teaches it only what latents look like. But a task without a question still has images, answers and adapted
weights, and the tasks that have a question show how these go together. Beyond the paper, and for HyperLDM alone: rows
that the paper trains on described tasks only stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from core.conditioning import Whitening
from core.tasks import TaskBatch

FORMAT = 2  # raise it when descriptors come out otherwise
MIN_DESCRIBED = 5
_SHARPNESS = 20.0  # of the choice among answers, by cosine
_FIT_STEPS, _FIT_RATE = 150, 0.1  # of Adam on the logarithms of the process's widths, variances and noise
_MIN_NOISE = 1e-3

Features = Sequence[Sequence[Tensor]]


def task_features(batch: TaskBatch, z: Tensor) -> Features:
    """What a task is like apart from its question, in groups of (T, F) features.

    What its images share, their mean, tells what the question is about; so does, in words, what zero-shot CLIP calls
    it, among the answers of all tasks. Latent z (T, Z), mean answer, and mean answer by frequency tell what is asked.
    All are standardised by coordinate, at unit mean square over tasks.
    """
    mask = batch.example_mask.float()
    count = mask.sum(1, keepdim=True)  # (T, 1)
    images = (batch.images * mask[..., None]).sum(1) / count
    words = batch.answers[batch.answer_mask].unique(dim=0)  # (V, D)
    cosine = F.normalize(images - images.mean(0), dim=-1) @ F.normalize(words - words.mean(0), dim=-1).mT
    named = (_SHARPNESS * cosine).softmax(-1) @ words
    answers = batch.answers.sum(1) / batch.answer_mask.sum(1, keepdim=True)
    frequency = torch.zeros_like(batch.answer_mask, dtype=mask.dtype).scatter_add_(1, batch.labels, mask) / count
    usual = (frequency[..., None] * batch.answers).sum(1)
    scaled = lambda x: (x - x.mean(0)) / x.std(0).clamp(min=1e-6) / x.shape[1] ** 0.5
    return (scaled(images),), (scaled(named),), (scaled(z), scaled(answers), scaled(usual))


def infer_descriptors(e: Tensor, described: Tensor, features: Features) -> Tensor:
    """Task embeddings (T, D): e's own rows where a task is described, inferred ones elsewhere.

    A Gaussian process from `task_features` to whitened embeddings: the sum of one function of each group, whose kernel
    is Gaussian with a width for every feature in it. Widths, variances and noise, shared by all coordinates, are those
    of most marginal likelihood (Rasmussen & Williams 2006, Eq. 2.25 and 5.8) on the described tasks. A pure function:
    rows of `e` that are not described are not looked at.

    Args:
        e: (T, D). described: (T,) bool.

    Raises:
        ValueError: too few described tasks.
    """
    known, missing = described.nonzero().squeeze(1), (~described).nonzero().squeeze(1)
    if len(known) < MIN_DESCRIBED:
        raise ValueError(f"infer_descriptors: {len(known)} described tasks; at least {MIN_DESCRIBED} are needed")
    whitening = Whitening(e.shape[1]).to(e.device)
    whitening.fit(e[known])
    target = whitening(e[known]).double()
    mean = target.mean(0)
    target = target - mean
    distances = lambda rows: [[torch.cdist(x[rows].double(), x[known].double()).square() for x in g] for g in features]
    within, across = distances(known), distances(missing)

    free = lambda value: torch.tensor(value, dtype=torch.float64, device=e.device, requires_grad=True)
    noise, variances = free(-1.0), [free(-1.0) for _ in features]  # logarithms, as are the widths
    widths = [[free(0.0) for _ in group] for group in features]

    def kernel(squares: list[list[Tensor]]) -> Tensor:
        return sum(
            (variance - sum(d / (2 * width.exp().square()) for d, width in zip(group, group_widths, strict=True))).exp()
            for variance, group, group_widths in zip(variances, squares, widths, strict=True)
        )

    def factor() -> Tensor:
        return torch.linalg.cholesky(kernel(within) + (noise.exp() + _MIN_NOISE) * torch.eye(len(known)).to(target))

    optimizer = torch.optim.Adam([noise, *variances, *(w for group in widths for w in group)], lr=_FIT_RATE)
    with torch.enable_grad():
        for _ in range(_FIT_STEPS):
            L = factor()
            fit = (target * torch.cholesky_solve(target, L)).sum() / (2 * target.shape[1])
            optimizer.zero_grad()
            (fit + L.diagonal().log().sum()).backward()
            optimizer.step()
    with torch.no_grad():
        inferred = mean + kernel(across) @ torch.cholesky_solve(target, factor())
    return e.index_copy(0, missing, whitening.inverse(inferred.to(e.dtype)))
