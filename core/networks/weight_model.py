"""Models of a table's row: what gives weights for a question, and what few-shot adaptation changes in it (Table 2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..registry import Registry
from .base import BaseNetwork


class Saved(nn.Module):
    """A module that a checkpoint holds: rebuilt by `MODULES[name](config, **sizes())`."""

    name: ClassVar[str]
    Config: ClassVar[type]
    config: Any

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments besides `config`: numbers, and the base network."""
        raise NotImplementedError


MODULES: Registry[type[Saved]] = Registry("kind of module", __package__)


class WeightModel(Saved, ABC):
    """Question embeddings e (T, E) to weights w (T, P), through what the inner loop adapts (T, K)."""

    network: BaseNetwork

    @property
    def condition_dim(self) -> int:
        """How many standard normal values of noise a question takes in training: E, or 0."""
        return 0

    def fit(self, e: Tensor) -> None:
        """Take the statistics of training questions e (tasks, E)."""

    @abstractmethod
    def initial(self, e: Tensor, noise: Tensor | None = None) -> Tensor:
        """Where adaptation starts for questions e (T, E), (T, K): weights, a latent, or a whitened embedding.

        Args:
            noise: (T, `condition_dim`), in training.
        """

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """What is adapted, (T, K), as weights (T, P)."""

    def repeated(self) -> Callable[[Tensor], Tensor]:
        """`decode`, for many uses in one graph, as the inner loop makes of it."""
        return self.decode

    def weights(self, e: Tensor, noise: Tensor | None = None) -> Tensor:
        """Weights (T, P) without adaptation."""
        return self.decode(self.initial(e, noise))


@MODULES.register("adapter")
class SharedWeights(WeightModel):
    """One weight vector for all questions: Uncond. Multitask, MNet-MAML (Algorithms 2 and 3). K = P.

    Its checkpoint is an adapter's, and can be used as one.
    """

    Config = type(None)
    config = None

    def __init__(self, config: None = None, *, network: BaseNetwork, rng: torch.Generator | None = None) -> None:
        super().__init__()
        self.network = network
        self.w = nn.Parameter(network.init(rng))

    def sizes(self) -> dict[str, Any]:
        return {"network": self.network}

    def initial(self, e: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.w.expand(len(e), -1)

    def decode(self, x: Tensor) -> Tensor:
        return x
