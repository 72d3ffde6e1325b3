"""Networks whose output is a latent: the trunk of the denoiser, and what predicts a latent from a question alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .weight_model import Saved
from .whitening import Whitening


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


class Projected(NamedTuple):
    """What a context adds to the output of one `ContextLinear`, computed before."""

    added: Tensor  # (B, outputs)


class ContextLinear(nn.Linear):
    """A linear layer of inputs x (B, inputs) and a context (B, context). Its weight (outputs, inputs + context) has the
    columns of both, in this order.

    A product is the sum of products with parts of the columns. Where many inputs share a part of the context, `project`
    multiplies that part once, and `forward` takes the sum over all parts as `Projected`.
    """

    def __init__(self, inputs: int, context: int, outputs: int) -> None:
        super().__init__(inputs + context, outputs)
        self.inputs = inputs

    def forward(self, x: Tensor, context: Tensor | Projected) -> Tensor:
        """Inputs x (B, inputs) and their context (B, context), or what it adds to the output, to (B, outputs)."""
        if isinstance(context, Projected):
            return torch.addmm(context.added + self.bias, x, self.weight[:, : self.inputs].mT)
        return super().forward(torch.cat([x, context], dim=-1))

    def project(self, part: Tensor, start: int = 0) -> Tensor:
        """What a part of the context adds to the output, (T, outputs): `part` (T, size) is its values from `start` on.

        Not for training: each part of the weight would get a gradient as large as the whole weight.
        """
        first = self.inputs + start
        return F.linear(part, self.weight[:, first : first + part.shape[1]])


class _Block(nn.Module):
    """Layer norm, linear, SiLU, a squeeze-and-excitation gate, and a residual connection."""

    def __init__(self, inputs: int, context: int, outputs: int, squeeze: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.linear = ContextLinear(inputs, context, outputs)
        self.gate = nn.Sequential(
            nn.Linear(outputs, outputs // squeeze), nn.ReLU(), nn.Linear(outputs // squeeze, outputs)
        )
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor, context: Tensor | Projected) -> Tensor:
        """Inputs x (B, inputs) and their context, as `ContextLinear` takes it, to (B, outputs)."""
        h = F.silu(self.linear(self.norm(x), context))
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
        self.config, self.latent, self.dim = config, latent, dim
        self.inlet = ContextLinear(inputs, context, config.hidden[0])
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

    def through(self, x: Tensor, context: Tensor) -> Tensor:
        """Inputs x (B, inputs) and their context (B, context) to (B, Z)."""
        return self._through(x, [context] * (1 + len(self.blocks)))

    def through_projected(self, x: Tensor, projected: Sequence[Tensor]) -> Tensor:
        """`through`, given the sum of `project` over all parts of the context: (B, outputs) for each layer."""
        return self._through(x, [Projected(added) for added in projected])

    def project(self, part: Tensor, start: int = 0) -> list[Tensor]:
        """`ContextLinear.project` of a part of the context (T, size): (T, outputs) for each layer that reads it, the
        inlet's first."""
        return [layer.project(part, start) for layer in (self.inlet, *(block.linear for block in self.blocks))]

    def _through(self, x: Tensor, contexts: Sequence[Tensor | Projected]) -> Tensor:
        """`through`, with a context for each layer that reads it, the inlet's first."""
        first, *others = contexts
        x = self.inlet(x, first)
        for block, context in zip(self.blocks, others, strict=True):
            x = block(x, context)
        return self.outlet(x)


class LatentMap(Saved, ABC):
    """A function from a question's embedding to a latent of a weight generator: no search, no noise."""

    latent: int  # Z
    dim: int  # E

    @abstractmethod
    def latents(self, e: Tensor) -> Tensor:
        """Latents (T, Z) for questions e (T, E)."""
