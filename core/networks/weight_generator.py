"""Weight generators: decoders of latents to weights, and where their training latents come from. HVAE and HNet are two.

HyperCLIP guidance and HyperLDM search the latent space of either and know no more of it than this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ..registry import Registry


class WeightGenerator(ABC):
    """What a network must have to be searched by HyperCLIP guidance and HyperLDM."""

    name: ClassVar[str]  # names its files, settings and rows: "hvae" makes hvae_hyperldm
    label: ClassVar[str]  # for people
    checkpoint: ClassVar[str]  # the file of a release that holds it
    adapted_row: ClassVar[str]  # the row that is fine-tuned on every training task to make its training data
    guidance_starts: ClassVar[tuple[float, ...]]  # scales of `start` that HyperCLIP guidance may choose from

    @property
    @abstractmethod
    def latent(self) -> int:
        """Z."""

    @property
    @abstractmethod
    def num_params(self) -> int:
        """P."""

    @abstractmethod
    def start(self, rng: torch.Generator, scale: float = 1.0) -> Tensor:
        """Where guidance begins, (Z,), times `scale` (Algorithm 11)."""

    @abstractmethod
    def encode(self, adapted: Tensor) -> Tensor:
        """Latents (B, Z) of what fine-tuning of `adapted_row` made, (B, K)."""

    @abstractmethod
    def adapted_weights(self, adapted: Tensor, some: slice | None = None) -> Tensor:
        """Weights (B, P) of what fine-tuning of `adapted_row` made, (B, K), or some coordinates of them."""

    @abstractmethod
    def decode(self, z: Tensor, some: slice | None = None) -> Tensor:
        """Latents (B, Z) to weights (B, P), or to some coordinates of them."""

    def affine_end(self) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor] | None:
        """(features, A (P, K), b (P,)) of a decoder that ends in an affine map, `decode(z) = features(z) @ A.T + b`:
        whatever is linear after it can be multiplied out once. None for one that ends otherwise."""
        return None


WEIGHT_GENERATORS: Registry[type[WeightGenerator]] = Registry("generator", __package__)
