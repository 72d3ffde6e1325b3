"""The CLIP-Adapter (Appendix A.2), the paper's base network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.tasks import TaskBatch
from .base import BASE_NETWORKS, TRAINING_SCALE, BaseNetwork, join_weights, split_weights, unit
from .derivatives.adapter_loss import AdapterLoss


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the adapter; the defaults are the paper's, P = 394,240 at D = 768."""

    hidden: int = 256  # H
    bias: bool = True
    init_std: float = 0.1  # of W2: a fresh adapter is a small change to CLIP

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"AdapterConfig: hidden {self.hidden}; allowed: 1 or more")


@BASE_NETWORKS.register("clip_adapter")
class CLIPAdapter(BaseNetwork):
    """`f(x; w) = normalize(x + W2 / sqrt(H) relu(W1 / sqrt(D) x + b1) + b2)`, the NTK parametrisation.

    x is the unit image embedding times sqrt(D): at unit RMS the NTK factors mean what they say. (The authors feed
    CLIP's raw, unnormalised features.)
    """

    Config = AdapterConfig

    def __init__(self, config: AdapterConfig, dim: int, scale: float = TRAINING_SCALE) -> None:
        super().__init__(config, dim, scale)
        D, H = dim, config.hidden
        self.shapes: dict[str, tuple[int, ...]] = {"W1": (H, D), "b1": (H,), "W2": (D, H), "b2": (D,)}
        if not config.bias:
            self.shapes = {name: shape for name, shape in self.shapes.items() if len(shape) == 2}
        self.film_units = H if config.bias else 0  # FiLM's shift needs a bias to fold into

    @property
    def num_params(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def init_std(self) -> float:
        return self.config.init_std

    def unpack(self, w: Tensor) -> dict[str, Tensor]:
        """`w` (..., P) to views W1 (..., H, D), b1 (..., H), W2 (..., D, H), b2 (..., D); no biases without `bias`."""
        return split_weights(w, self.shapes)

    def pack(self, parts: dict[str, Tensor]) -> Tensor:
        """The inverse of `unpack`."""
        return join_weights(parts, self.shapes)

    def init(self, rng: torch.Generator | None = None) -> Tensor:
        """W1 ~ N(0, 1), W2 ~ N(0, init_std^2), biases zero."""
        D, H = self.dim, self.config.hidden
        parts = {
            "W1": torch.randn(H, D, generator=rng),
            "b1": torch.zeros(H),
            "W2": torch.randn(D, H, generator=rng) * self.config.init_std,
            "b2": torch.zeros(D),
        }
        return self.pack(parts)

    def forward(self, w: Tensor, images: Tensor) -> Tensor:
        parts = self.unpack(w)
        x = images * math.sqrt(self.dim)
        hidden = x @ parts["W1"].mT / math.sqrt(self.dim)  # (T, N, H)
        if self.config.bias:
            hidden = hidden + parts["b1"][:, None]
        out = x + torch.relu(hidden) @ parts["W2"].mT / math.sqrt(self.config.hidden)  # (T, N, D)
        if self.config.bias:
            out = out + parts["b2"][:, None]
        return unit(out)

    def loss(self, w: Tensor, batch: TaskBatch) -> Tensor:
        return self.loss_on(batch)(w) if self._is_narrow(batch) else super().loss(w, batch)

    def loss_on(self, batch: TaskBatch) -> Callable[[Tensor], Tensor]:
        return AdapterLoss(self, batch) if self._is_narrow(batch) else super().loss_on(batch)

    def _is_narrow(self, batch: TaskBatch) -> bool:
        """Whether `AdapterLoss` will do and is less work: hidden units are no more than a task's examples. It has no
        derivative in the images, and does not know what a subclass computes."""
        few = self.config.hidden <= batch.images.shape[1]
        return type(self) is CLIPAdapter and few and not batch.images.requires_grad

    def film(self, w: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """W2' = W2 diag(1 + scale), b2' = b2 + W2 / sqrt(H) shift."""
        if not self.film_units:
            return super().film(w, scale, shift)
        parts = {name: part.expand(len(scale), *part.shape) for name, part in self.unpack(w).items()}
        shifted = (parts["W2"] @ shift[..., None]).squeeze(-1) / math.sqrt(self.config.hidden)  # (T, D)
        return self.pack(parts | {"b2": parts["b2"] + shifted, "W2": parts["W2"] * (1 + scale)[:, None, :]})
