"""A low-rank residual map: the smallest base network that is not the CLIP-Adapter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import BASE_NETWORKS, TRAINING_SCALE, BaseNetwork, join_weights, split_weights, unit


@dataclass(frozen=True)
class LowRankConfig:
    """`rank` is R."""

    rank: int = 8
    init_std: float = 0.1  # of U: a fresh map is a small change to the identity

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"LowRankConfig: rank {self.rank}; allowed: 1 or more")


@BASE_NETWORKS.register("lowrank")
class LowRank(BaseNetwork):
    """`f(x; w) = normalize(x + U / sqrt(R) V x / sqrt(D) + b)`, linear, with x at unit RMS as in the CLIP-Adapter."""

    Config = LowRankConfig

    def __init__(self, config: LowRankConfig, dim: int, scale: float = TRAINING_SCALE) -> None:
        super().__init__(config, dim, scale)
        self.shapes: dict[str, tuple[int, ...]] = {"V": (config.rank, dim), "U": (dim, config.rank), "b": (dim,)}
        self.film_units = config.rank

    @property
    def num_params(self) -> int:
        return 2 * self.dim * self.config.rank + self.dim

    @property
    def init_std(self) -> float:
        return self.config.init_std

    def init(self, rng: torch.Generator | None = None) -> Tensor:
        """V ~ N(0, 1), U ~ N(0, init_std^2), b zero."""
        V = torch.randn(self.config.rank, self.dim, generator=rng)
        U = torch.randn(self.dim, self.config.rank, generator=rng) * self.config.init_std
        return join_weights({"V": V, "U": U, "b": torch.zeros(self.dim)}, self.shapes)

    def forward(self, w: Tensor, images: Tensor) -> Tensor:
        parts = split_weights(w, self.shapes)
        x = images * math.sqrt(self.dim)
        inner = x @ parts["V"].mT / math.sqrt(self.dim)  # (T, N, R)
        return unit(x + inner @ parts["U"].mT / math.sqrt(self.config.rank) + parts["b"][:, None])

    def film(self, w: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """U' = U diag(1 + scale), b' = b + U / sqrt(R) shift."""
        parts = {name: part.expand(len(scale), *part.shape) for name, part in split_weights(w, self.shapes).items()}
        shifted = (parts["U"] @ shift[..., None]).squeeze(-1) / math.sqrt(self.config.rank)  # (T, D)
        return join_weights(parts | {"b": parts["b"] + shifted, "U": parts["U"] * (1 + scale)[:, None, :]}, self.shapes)
