"""Hypernetworks h(z, theta) = w with one hidden layer (Section 2.3, Appendix A.2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import BaseNetwork
from .derivatives.repeated import Repeated
from .weight_generator import WEIGHT_GENERATORS, WeightGenerator
from .weight_model import MODULES, WeightModel
from .whitening import Whitening


@dataclass(frozen=True)
class HNetConfig:
    """The unconditional hypernetwork, which learns its own `z0`."""

    latent: int = 64  # Z
    hidden: int = 256


@dataclass(frozen=True)
class CondHyperNetConfig:
    """A hypernetwork of task embeddings."""

    hidden: int = 256
    whitening: float = 1e-3  # shrinkage of `Whitening` of e
    cond_noise: float = 0.0  # in training, on whitened e


class QuestionModel(WeightModel):
    """A model of weights that reads whitened questions. A subclass sets `network` and `condition`."""

    condition: Whitening

    def sizes(self) -> dict[str, Any]:
        return {"network": self.network, "question_dim": self.condition_dim}

    @property
    def condition_dim(self) -> int:
        return len(self.condition.mean)

    def fit(self, e: Tensor) -> None:
        self.condition.fit(e)

    def initial(self, e: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.condition(e, noise)


class _HyperNet(WeightModel):
    """An MLP (T, inputs) to weights (T, P).

    The bias of the last layer is a fresh network and its weight is small, so that generated weights start at the base
    network's own init scale, part shared and part depending on the input.
    """

    def __init__(self, inputs: int, hidden: int, network: BaseNetwork) -> None:
        super().__init__()
        self.network = network
        self.hidden = nn.Linear(inputs, hidden)
        self.out = nn.Linear(hidden, network.num_params)

    def _initialise(self, rng: torch.Generator | None) -> None:
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="relu", generator=rng)
        nn.init.zeros_(self.hidden.bias)
        with torch.no_grad():
            # Hidden units have mean square 1 after Kaiming's init, so this spread of the last layer gives weights
            # whose input-dependent part has `init_std` for every coordinate.
            std = self.network.init_std / math.sqrt(self.hidden.out_features)
            self.out.weight.normal_(0, std, generator=rng)
            self.out.bias.copy_(self.network.init(rng))

    def sizes(self) -> dict[str, Any]:
        return {"network": self.network}

    def decode(self, x: Tensor, some: slice | None = None) -> Tensor:
        """Inputs (T, K) to weights (T, P), or to some coordinates of them."""
        hidden = torch.relu(self.hidden(x))
        if some is None:
            return self.out(hidden)
        return F.linear(hidden, self.out.weight[some], self.out.bias[some])

    def repeated(self) -> Callable[[Tensor], Tensor]:
        hidden, out = Repeated(self.hidden), Repeated(self.out)
        return lambda x: out(torch.relu(hidden(x)))


@MODULES.register("hnet")
@WEIGHT_GENERATORS.register("hnet")
class HNet(_HyperNet, WeightGenerator):
    """The HNet of HNet-MAML (Algorithm 4): a free latent z, meta-learned start z0, and the weights that z decodes to.

    As a generator, its training latents are those that fine-tuning of z0 on a task reaches (Algorithm 12).
    """

    Config = HNetConfig
    label = "HNet"
    checkpoint = adapted_row = "hnet_maml"
    guidance_starts = (1.0,)

    def __init__(self, config: HNetConfig, *, network: BaseNetwork, rng: torch.Generator | None = None) -> None:
        super().__init__(config.latent, config.hidden, network)
        self.config = config
        self.z0 = nn.Parameter(torch.randn(config.latent, generator=rng))
        self._initialise(rng)

    @property
    def latent(self) -> int:
        return self.config.latent

    @property
    def num_params(self) -> int:
        return self.network.num_params

    def initial(self, e: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.z0.expand(len(e), -1)

    def start(self, rng: torch.Generator, scale: float = 1.0) -> Tensor:
        return self.z0.detach() * scale

    def encode(self, adapted: Tensor) -> Tensor:
        return adapted

    def adapted_weights(self, adapted: Tensor, some: slice | None = None) -> Tensor:
        return self.decode(adapted, some)

    def affine_end(self) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
        return lambda z: torch.relu(self.hidden(z)), self.out.weight, self.out.bias


class _CondHyperNet(QuestionModel, _HyperNet):
    """A hypernetwork that reads a whitened task embedding, itself or `inputs` numbers that are made of it."""

    def __init__(
        self, config: Any, *, network: BaseNetwork, question_dim: int | None = None, inputs: int | None = None
    ) -> None:
        """`question_dim`: E, the size of e (default: D, that of the backbone's own embeddings)."""
        dim = network.dim if question_dim is None else question_dim
        super().__init__(inputs or dim, config.hidden, network)
        self.config = config
        self.condition = Whitening(dim, config.whitening, config.cond_noise)


@MODULES.register("cond_hypernet")
class CondHyperNet(_CondHyperNet):
    """A task embedding e, whitened, to weights (Algorithms 5 and 7). Its inner loop moves the whitened embedding."""

    Config = CondHyperNetConfig

    def __init__(
        self,
        config: CondHyperNetConfig,
        *,
        network: BaseNetwork,
        question_dim: int | None = None,
        rng: torch.Generator | None = None,
    ) -> None:
        super().__init__(config, network=network, question_dim=question_dim)
        self._initialise(rng)


@dataclass(frozen=True)
class CondBottleneckConfig:
    """A hypernetwork of a few numbers that a network reads from a task embedding."""

    latent: int = 32  # Z
    encoder: tuple[int, ...] = (512,)  # hidden layers from the question to the bottleneck
    hidden: int = 256  # of the decoder
    whitening: float = 1e-3  # shrinkage of `Whitening` of e
    cond_noise: float = 0.0  # in training, on whitened e


@MODULES.register("cond_bottleneck")
class CondBottleneck(_CondHyperNet):
    """A task embedding e, whitened, to z (T, Z), and z to weights: the shape of HyperLDM and HVAE in one network that
    the task's loss trains at once. Its inner loop moves z."""

    Config = CondBottleneckConfig

    def __init__(
        self,
        config: CondBottleneckConfig,
        *,
        network: BaseNetwork,
        question_dim: int | None = None,
        rng: torch.Generator | None = None,
    ) -> None:
        super().__init__(config, network=network, question_dim=question_dim, inputs=config.latent)
        sizes = (self.condition_dim, *config.encoder, config.latent)
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=rng)
            nn.init.zeros_(layer.bias)
        self.encoder = nn.Sequential(layers[0], *(part for layer in layers[1:] for part in (nn.ReLU(), layer)))
        self._initialise(rng)

    def initial(self, e: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.encoder(super().initial(e, noise))
