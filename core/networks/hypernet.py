"""Hypernetworks h(z, theta) = w (Section 2.3, Appendix A.2), and FiLM as one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .adapter import AdapterConfig, init_adapter, pack, unpack
from .whitening import Whitening


@dataclass(frozen=True)
class HyperNetConfig:
    """An MLP with one hidden layer; unconditional if it learns its own `z0`."""

    input_dim: int = 64  # 64 for a free latent z, D for a task embedding e
    hidden: int = 256
    learn_z0: bool = False
    whitening: float = 1e-3  # shrinkage of `Whitening` of a task embedding
    cond_noise: float = 0.0  # in training, on whitened e


class HyperNet(nn.Module):
    """z (T, input_dim) to adapter weights w (T, P).

    Its input is its own `z0`, or a task embedding e (T, D), which `condition` whitens first. The bias of the last layer
    is a fresh adapter and its weight is small, so that generated weights start at the adapter's own init scale, part
    shared and part depending on z.
    """

    def __init__(
        self, config: HyperNetConfig, adapter: AdapterConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config, self.adapter, self.num_params = config, adapter, adapter.num_params
        self.hidden = nn.Linear(config.input_dim, config.hidden)
        self.out = nn.Linear(config.hidden, adapter.num_params)
        self.condition = (
            nn.Identity() if config.learn_z0 else Whitening(config.input_dim, config.whitening, config.cond_noise)
        )
        if config.learn_z0:
            self.z0 = nn.Parameter(torch.randn(config.input_dim, generator=generator))
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(self.hidden.bias)
        with torch.no_grad():
            # Hidden units have mean square 1 after Kaiming's init, so this spread of the last layer gives weights
            # whose z-dependent part has `init_std` for every coordinate.
            self.out.weight.normal_(0, adapter.init_std / math.sqrt(config.hidden), generator=generator)
            self.out.bias.copy_(init_adapter(adapter, generator))

    def decode(self, z: Tensor, some: slice | None = None) -> Tensor:
        """What `condition` put out, z (T, input_dim), to w (T, P), or to some coordinates of it."""
        hidden = torch.relu(self.hidden(z))
        return (
            self.out(hidden)
            if some is None
            else nn.functional.linear(hidden, self.out.weight[some], self.out.bias[some])
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.decode(self.condition(z))


@dataclass(frozen=True)
class FilmConfig:
    """Cond. Multitask FiLM (Algorithm 6): a linear map from e to one scale and one shift per hidden unit."""

    input_dim: int = 256
    whitening: float = 1e-3
    cond_noise: float = 0.0  # in training, on whitened e


class FilmAdapter(nn.Module):
    """FiLM on the adapter's hidden activation, h -> (1 + scale(e)) * h + shift(e), as weights w(e).

    It folds exactly into the second layer, W2' = W2 diag(1 + scale) and b2' = b2 + W2 / sqrt(H) shift, so this row
    too is "a question gives a w".
    """

    def __init__(self, config: FilmConfig, adapter: AdapterConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not adapter.bias:
            raise ValueError("FilmAdapter: FiLM's shift needs an adapter with biases")
        self.config, self.adapter = config, adapter
        self.w = nn.Parameter(init_adapter(adapter, generator))
        self.film = nn.Linear(config.input_dim, 2 * adapter.hidden)
        self.condition = Whitening(config.input_dim, config.whitening, config.cond_noise)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, e: Tensor) -> Tensor:
        scale, shift = self.film(self.condition(e)).chunk(2, dim=-1)  # (T, H) each
        parts = {name: part.expand(len(e), *part.shape) for name, part in unpack(self.w, self.adapter).items()}
        shifted = (parts["W2"] @ shift[..., None]).squeeze(-1) / math.sqrt(self.adapter.hidden)  # (T, D)
        parts["b2"] = parts["b2"] + shifted
        parts["W2"] = parts["W2"] * (1 + scale)[:, None, :]
        return pack(parts, self.adapter)
