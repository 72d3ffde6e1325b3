"""Question embeddings as networks should read them: centred and whitened."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Whitening(nn.Module):
    """e (..., E) to centred coordinates of even spread, at unit RMS over the questions it was fitted to.

    Questions crowd together in CLIP's space: a handful of directions hold most of their variance, and what tells one
    question from the next lies in the small ones, which a network on raw embeddings hardly sees. Whitening gives all
    directions that questions use the same size; those far below `shrinkage` times the largest variance stay small, so
    that noise is not blown up. A large `shrinkage` leaves embeddings as they are but for centre and scale.

    The matrix is the symmetric one (ZCA), which is unique. A matrix of eigenvectors depends on signs and rotations that
    the solver happens to give, so that one thread and two would train different networks.

    Training adds normal noise of s.d. `noise` to the result: a few hundred questions lie far apart in many dimensions,
    and without it a network learns each by heart instead of what near ones share. The caller draws it, and passes it.

    Mean and matrix are buffers, the identity until `fit`.
    """

    def __init__(self, dim: int, shrinkage: float = 1e-3, noise: float = 0.0) -> None:
        super().__init__()
        if shrinkage <= 0:
            raise ValueError(f"Whitening: shrinkage {shrinkage} must be positive")
        if noise < 0:
            raise ValueError(f"Whitening: noise {noise} must not be negative")
        self.shrinkage, self.noise = shrinkage, noise
        self.register_buffer("mean", torch.zeros(dim))
        # Not torch.eye: a module is built without storage before its file is read, and there that takes seconds.
        self.register_buffer("matrix", torch.zeros(dim, dim).fill_diagonal_(1.0))

    @torch.no_grad()
    def fit(self, e: Tensor) -> None:
        """Take the statistics of training questions e (tasks, E)."""
        if len(e) < 2:
            raise ValueError(f"Whitening: needs at least 2 questions, got {len(e)}")
        mean = e.double().mean(0)
        centred = e.double() - mean
        variance, directions = torch.linalg.eigh(centred.mT @ centred / len(e))
        variance = variance.clamp(min=0)
        if variance.max() <= 1e-12:
            raise ValueError(f"Whitening: all {len(e)} questions have the same embedding; at least 2 must differ")
        scale = 1 / (variance + self.shrinkage * variance.max() + 1e-12).sqrt()
        matrix = directions * scale @ directions.mT  # (E, E)
        self.mean.copy_(mean)
        self.matrix.copy_(matrix / (centred @ matrix).square().mean().sqrt())

    def forward(self, e: Tensor, noise: Tensor | None = None) -> Tensor:
        """Whitened e (..., E), plus `self.noise` times standard normal `noise` (..., E) where it is given."""
        with torch.autocast(e.device.type, enabled=False):  # it makes much of small differences
            x = (e - self.mean) @ self.matrix
        return x if noise is None else x + self.noise * noise

    def inverse(self, x: Tensor) -> Tensor:
        """The embeddings (..., E) whose whitened form is x, without noise."""
        return torch.linalg.solve(self.matrix.double(), x.double(), left=False).to(x.dtype) + self.mean
