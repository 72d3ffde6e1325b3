"""Cond. Multitask FiLM (Algorithm 6) as a hypernetwork."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import BaseNetwork
from .hypernet import QuestionModel
from .weight_model import MODULES
from .whitening import Whitening


@dataclass(frozen=True)
class FilmConfig:
    """A linear map from e to one scale and one shift per hidden unit."""

    whitening: float = 1e-3  # shrinkage of `Whitening` of e
    cond_noise: float = 0.0  # in training, on whitened e


@MODULES.register("film")
class FilmModel(QuestionModel):
    """FiLM on the base network's hidden activation, h -> (1 + scale(e)) h + shift(e).

    It folds exactly into weights (`BaseNetwork.film`), so this row too is "a question gives a w".
    """

    Config = FilmConfig

    def __init__(
        self,
        config: FilmConfig,
        *,
        network: BaseNetwork,
        question_dim: int | None = None,
        rng: torch.Generator | None = None,
    ) -> None:
        """`question_dim`: E, the size of e (default: D, that of the backbone's own embeddings)."""
        super().__init__()
        dim = network.dim if question_dim is None else question_dim
        if not network.film_units:
            raise ValueError(
                f"FiLM: network {network.name!r} with {network.config} has no hidden units that it can shift"
            )
        self.config, self.network = config, network
        self.w = nn.Parameter(network.init(rng))
        self.film = nn.Linear(dim, 2 * network.film_units)
        self.condition = Whitening(dim, config.whitening, config.cond_noise)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def decode(self, x: Tensor) -> Tensor:
        scale, shift = self.film(x).chunk(2, dim=-1)  # (T, H) each
        return self.network.film(self.w, scale, shift)
