"""Networks whose output is a latent: the trunk of the denoiser, and what predicts a latent from a question alone."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .weight_model import Saved
from .whitening import Whitening

Linear = Callable[[nn.Linear, Tensor], Tensor]  # a layer that reads the context, and its own inputs, to its output


@dataclass(frozen=True)
class TrunkConfig:
    """A fully connected residual network that reads a question. The paper's widths are 8192, 16384, 8192."""

    hidden: tuple[int, ...] = (8192, 16384, 8192)
    squeeze: int = 16  # reduction of the squeeze-and-excitation bottleneck
    dropout: float = 0.0
    whitening: float = 1e-3  # shrinkage of `Whitening` of e
    cond_noise: float = 0.0  # in training, on whitened e

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"{type(self).__name__}: hidden {list(self.hidden)}; allowed: one width or several")
        if not 1 <= self.squeeze <= min(self.hidden):
            raise ValueError(
                f"{type(self).__name__}: squeeze {self.squeeze}; allowed: 1 to the least width, {min(self.hidden)}"
            )


class _Block(nn.Module):
    """Layer norm, linear, SiLU, a squeeze-and-excitation gate, and a residual connection."""

    def __init__(self, inputs: int, context: int, outputs: int, squeeze: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.linear = nn.Linear(inputs + context, outputs)
        self.gate = nn.Sequential(
            nn.Linear(outputs, outputs // squeeze), nn.ReLU(), nn.Linear(outputs // squeeze, outputs)
        )
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor, linear: Callable[[Tensor], Tensor]) -> Tensor:
        """`linear`: the block's linear layer, given its context."""
        h = nn.functional.silu(linear(self.norm(x)))
        return self.skip(x) + self.dropout(h * torch.sigmoid(self.gate(h)))


class Trunk(Saved):
    """An inlet, residual blocks that all see the context (Appendix A.2), and an outlet that begins at zero.

    Works on standardised latents; mean and s.d. of latents, and of the training questions' embeddings, are buffers
    saved with the module.

    Args:
        latent: Z. dim: E, the size of the question's embedding e. inputs: how many values the inlet takes besides the
            context; context: how many that has.
    """

    def __init__(self, config: TrunkConfig, *, latent: int, dim: int, inputs: int, context: int) -> None:
        super().__init__()
        self.config, self.latent, self.dim, self.context = config, latent, dim, context
        self.inlet = nn.Linear(inputs + context, config.hidden[0])
        self.blocks = nn.ModuleList(
            _Block(a, context, b, config.squeeze, config.dropout)
            for a, b in zip(config.hidden, config.hidden[1:], strict=False)
        )
        self.outlet = nn.Linear(config.hidden[-1], latent)
        nn.init.zeros_(self.outlet.weight)
        nn.init.zeros_(self.outlet.bias)
        self.register_buffer("z_mean", torch.zeros(latent))
        self.register_buffer("z_std", torch.ones(latent))
        self.condition = Whitening(dim, config.whitening, config.cond_noise)

    def sizes(self) -> dict[str, Any]:
        return {"latent": self.latent, "dim": self.dim}

    def set_statistics(self, z: Tensor, e: Tensor) -> None:
        """Statistics of the training latents z (samples, Z) and questions e (tasks, E)."""
        self.z_mean.copy_(z.mean(0))
        self.z_std.copy_(z.std(0).clamp(min=1e-6))
        self.condition.fit(e)

    def standardise(self, z: Tensor) -> Tensor:
        return (z - self.z_mean) / self.z_std

    def unstandardise(self, z: Tensor) -> Tensor:
        return z * self.z_std + self.z_mean

    def layers(self) -> list[nn.Linear]:
        """The layers that read the context, after inputs of their own."""
        return [self.inlet, *(block.linear for block in self.blocks)]

    def through(self, x: Tensor, linear: Linear) -> Tensor:
        """Inputs x (B, inputs) to (B, Z), where the context comes in through `linear`."""
        inlet, *linears = self.layers()
        x = linear(inlet, x)
        for layer, block in zip(linears, self.blocks, strict=True):
            x = block(x, functools.partial(linear, layer))
        return self.outlet(x)

    def of_context(self, context: Tensor, start: int = 0) -> list[Tensor]:
        """What the outputs of `layers` owe to a part of the context, (T, size) from `start` on: (T, outputs)."""
        weights = [layer.weight[:, layer.in_features - self.context + start :] for layer in self.layers()]
        return [F.linear(context, weight[:, : context.shape[1]]) for weight in weights]

    def knowing(self, of_context: Sequence[Tensor]) -> Linear:
        """`through`'s layers for what their outputs owe to all of the context, computed before. Not for training: parts
        of weights would each get a gradient as large as all of them."""
        owed = dict(zip(self.layers(), of_context, strict=True))
        return lambda layer, x: torch.addmm(owed[layer] + layer.bias, x, layer.weight[:, : x.shape[1]].mT)


def seeing(context: Tensor) -> Linear:
    """`Trunk.through`'s layers for a context (B, size)."""
    return lambda layer, x: layer(torch.cat([x, context], dim=-1))


class LatentMap(Saved, ABC):
    """A function from a question's embedding to a latent of a weight generator: no search, no noise."""

    latent: int  # Z
    dim: int  # E

    @abstractmethod
    def latents(self, e: Tensor) -> Tensor:
        """Latents (T, Z) for questions e (T, E)."""
