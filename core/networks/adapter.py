"""The CLIP-Adapter (Appendix A.2) as a pure function of one flat weight vector `w`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.tasks import TaskBatch

LOGIT_SCALE = 100.0  # on cosines, CLIP's own


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the adapter; the defaults are the paper's, P = 394,240."""

    dim: int = 768  # D, the backbone's embedding
    hidden: int = 256  # H
    bias: bool = True
    init_std: float = 0.1  # of W2: a fresh adapter is a small change to CLIP

    def __post_init__(self) -> None:
        if self.dim < 1 or self.hidden < 1:
            raise ValueError(f"AdapterConfig: dim {self.dim} and hidden {self.hidden} must be positive")

    @property
    def num_params(self) -> int:
        """P, the length of `w`."""
        return 2 * self.dim * self.hidden + (self.hidden + self.dim if self.bias else 0)


def unpack(w: Tensor, config: AdapterConfig) -> dict[str, Tensor]:
    """`w` (..., P) to views W1 (..., H, D), b1 (..., H), W2 (..., D, H), b2 (..., D); no biases without `bias`."""
    D, H = config.dim, config.hidden
    if w.shape[-1] != config.num_params:
        raise ValueError(f"w has {w.shape[-1]} values, the adapter {D}-{H}-{D} takes {config.num_params}")
    shapes = {"W1": (H, D), "b1": (H,), "W2": (D, H), "b2": (D,)}
    if not config.bias:
        shapes = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    parts = w.split([math.prod(shape) for shape in shapes.values()], dim=-1)
    return {name: part.unflatten(-1, shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def pack(parts: dict[str, Tensor], config: AdapterConfig) -> Tensor:
    """The inverse of `unpack`."""
    names = ("W1", "b1", "W2", "b2") if config.bias else ("W1", "W2")
    return torch.cat([parts[name].flatten(-2) if name[0] == "W" else parts[name] for name in names], dim=-1)


def init_adapter(config: AdapterConfig, generator: torch.Generator | None = None) -> Tensor:
    """Fresh weights (P,) under the NTK parametrisation: W1 ~ N(0, 1), W2 ~ N(0, init_std^2), biases zero."""
    D, H = config.dim, config.hidden
    parts = {
        "W1": torch.randn(H, D, generator=generator),
        "b1": torch.zeros(H),
        "W2": torch.randn(D, H, generator=generator) * config.init_std,
        "b2": torch.zeros(D),
    }
    return pack(parts, config)


def adapter_forward(w: Tensor, images: Tensor, config: AdapterConfig) -> Tensor:
    """Adapted image embeddings, one adapter per task.

    `f(x; w) = normalize(x + W2 / sqrt(H) relu(W1 / sqrt(D) x + b1) + b2)` with x the unit image embedding times
    sqrt(D): at unit RMS the NTK factors mean what they say. (The authors feed CLIP's raw, unnormalised features.)

    Args:
        w: (T, P). images: (T, N, D) unit vectors.

    Returns:
        (T, N, D) unit vectors.
    """
    parts = unpack(w, config)
    x = images * math.sqrt(config.dim)
    hidden = x @ parts["W1"].mT / math.sqrt(config.dim)  # (T, N, H)
    if config.bias:
        hidden = hidden + parts["b1"][:, None]
    out = x + torch.relu(hidden) @ parts["W2"].mT / math.sqrt(config.hidden)  # (T, N, D)
    if config.bias:
        out = out + parts["b2"][:, None]
    # Padded images are zeros, where a norm has no second derivative: F.normalize would make the MAML gradient NaN.
    return out / (out.square().sum(-1, keepdim=True) + 1e-12).sqrt()


def adapter_logits(w: Tensor | None, batch: TaskBatch, config: AdapterConfig, scale: float = LOGIT_SCALE) -> Tensor:
    """Scores (T, N, C) of every answer, `scale` times the cosine; -inf for padded answers. `w=None` is plain CLIP."""
    images = batch.images if w is None else adapter_forward(w, batch.images, config)
    logits = scale * (images @ batch.answers.mT)
    return logits.masked_fill(~batch.answer_mask[:, None, :], -torch.inf)


def task_loss(logits: Tensor, batch: TaskBatch) -> Tensor:
    """Cross-entropy (T,), the mean over each task's own examples."""
    each = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="none").view_as(batch.labels)
    return (each * batch.example_mask).sum(1) / batch.example_mask.sum(1).clamp(min=1)


def task_accuracy(logits: Tensor, batch: TaskBatch) -> Tensor:
    """Share of right answers (T,) among each task's own examples."""
    right = (logits.argmax(-1) == batch.labels) & batch.example_mask
    return right.sum(1) / batch.example_mask.sum(1).clamp(min=1)
