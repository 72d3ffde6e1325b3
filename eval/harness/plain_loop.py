"""What the batched inner loop is timed against: what one writes for one task at a time, unpadded, with autograd."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from core.data.tasks import TaskBatch
from core.networks.base import TRAINING_SCALE


def ragged_tasks(batch: TaskBatch) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Each task's own images (N, D) at unit RMS, labels (N,) and answers (C, D), without padding."""
    result = []
    for i in range(len(batch)):
        mask = batch.example_mask[i]
        images = batch.images[i][mask] * math.sqrt(batch.images.shape[-1])
        result.append((images, batch.labels[i][mask], batch.answers[i][batch.answer_mask[i]]))
    return result


def plain_loss(w: list[Tensor], images: Tensor, labels: Tensor, answers: Tensor) -> Tensor:
    """The adapter's loss on one task as one would write it for one task; `w` is W1, b1, W2, b2."""
    W1, b1, W2, b2 = w
    hidden = torch.relu(F.linear(images, W1 / math.sqrt(images.shape[1]), b1))
    out = F.normalize(images + F.linear(hidden, W2 / math.sqrt(len(b1)), b2), dim=-1)
    return F.cross_entropy(TRAINING_SCALE * out @ answers.T, labels)


def plain_adapt(w: list[Tensor], task: tuple[Tensor, ...], steps: int, lr: float, graph: bool = False) -> list[Tensor]:
    """Gradient descent on one task."""
    for _ in range(steps):
        if not graph:
            w = [part.detach().requires_grad_() for part in w]
        gradients = torch.autograd.grad(plain_loss(w, *task), w, create_graph=graph)
        w = [part - lr * gradient for part, gradient in zip(w, gradients, strict=True)]
    return w
