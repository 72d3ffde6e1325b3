"""HyperLDM (Section 5, Appendix A.2): the denoiser of latents, conditional on a question's embedding."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffusion.schedule import linear_schedule
from .weight_model import MODULES, Saved
from .whitening import Whitening


@dataclass(frozen=True)
class HyperLDMConfig:
    """A fully connected denoiser. The paper's widths are 8192, 16384, 8192."""

    hidden: tuple[int, ...] = (8192, 16384, 8192)
    time_dim: int = 150
    squeeze: int = 16  # reduction of the squeeze-and-excitation bottleneck
    dropout: float = 0.0
    whitening: float = 1e-3  # shrinkage of `Whitening` of e
    cond_noise: float = 0.0  # in training, on whitened e
    # What the network puts out: the noise, as in the paper, or v (Salimans & Ho 2022), from which z_0 can be read
    # without blowing up errors at large t. Callers see eps either way.
    prediction: Literal["eps", "v"] = "eps"
    # The noise schedule, linear in beta (Appendix A.7.3).
    num_timesteps: int = 350
    beta_start: float = 1e-4
    beta_end: float = 0.06

    def __post_init__(self) -> None:
        if self.time_dim % 2:
            raise ValueError(f"HyperLDMConfig: time_dim {self.time_dim} must be even (sine and cosine)")
        if self.prediction not in ("eps", "v"):
            raise ValueError(f"HyperLDMConfig: prediction {self.prediction!r}; allowed: 'eps', 'v'")


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding (B, dim) of timesteps t (B,)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


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


@MODULES.register("hyperldm")
class HyperLDM(Saved):
    """eps_psi(z_t, t, e). Works on standardised latents; mean and s.d. of latents, and of the training questions'
    embeddings, are buffers saved with the module.

    Args:
        latent: Z. dim: E, the size of the question's embedding e.
    """

    Config = HyperLDMConfig

    def __init__(self, config: HyperLDMConfig, *, latent: int, dim: int) -> None:
        super().__init__()
        self.config, self.latent, self.dim = config, latent, dim
        context = config.time_dim + dim
        self.inlet = nn.Linear(latent + context, config.hidden[0])
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
        self.schedule = linear_schedule(config.num_timesteps, config.beta_start, config.beta_end)
        self.register_buffer("alpha_bar", self.schedule.alpha_bar.float(), persistent=False)

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

    def forward(self, z_t: Tensor, t: Tensor, e: Tensor) -> Tensor:
        """Noise in standardised z_t (B, Z) at t (B,), given unit embeddings e (B, E); zeros are no condition."""
        return self.given(e)(z_t, t)

    def given(self, e: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """`forward` with unit embeddings e (T, E), for many uses: of z_t (S T, Z), S latents for every row of e, the
        whole of e after each other. What layers make of the condition is computed once."""
        of_condition = self._of_condition(e, None)

        def eps_fn(z_t: Tensor, t: Tensor) -> Tensor:
            out = self._output(z_t, t, of_condition)
            if self.config.prediction == "eps":
                return out
            signal, noise = self._scales(t)
            return signal * out + noise * z_t

        return eps_fn

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), (B, 1)."""
        alpha_bar = self.alpha_bar[t][:, None]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def target(self, z0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What `predict` should put out for z_t made of z0 and eps: eps, or v = sqrt(ab) eps - sqrt(1 - ab) z0."""
        signal, noise = self._scales(t)
        return eps if self.config.prediction == "eps" else signal * eps - noise * z0

    def to_z0(self, out: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """The z_0 that an output of `predict` means."""
        signal, noise = self._scales(t)
        return (z_t - noise * out) / signal if self.config.prediction == "eps" else signal * z_t - noise * out

    def predict(self, z_t: Tensor, t: Tensor, e: Tensor, noise: Tensor | None = None) -> Tensor:
        """The network's own output, eps or v (B, Z); in training with standard normal noise (B, E) on the condition."""
        return self._output(z_t, t, self._of_condition(e, noise))

    def _layers(self) -> list[nn.Linear]:
        """The layers that read the context: the time's embedding and the condition, beside what comes before them."""
        return [self.inlet, *(block.linear for block in self.blocks)]

    def _parts(self, layer: nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
        """A layer's weights for its own inputs, the time's embedding and the condition."""
        time, dim = self.config.time_dim, self.dim
        return layer.weight.split([layer.in_features - time - dim, time, dim], dim=1)

    def _of_condition(self, e: Tensor, noise: Tensor | None) -> list[Tensor]:
        """What the outputs of `_layers` owe to the condition and the bias, (T, outputs) each."""
        dropped = (e == 0).all(-1, keepdim=True)  # "inputting zeros instead" (Section 5.2), after whitening too
        condition = self.condition(e, noise).masked_fill(dropped, 0.0)
        return [F.linear(condition, self._parts(layer)[2], layer.bias) for layer in self._layers()]

    def _output(self, z_t: Tensor, t: Tensor, of_condition: list[Tensor]) -> Tensor:
        time = time_embedding(t, self.config.time_dim)

        def linear(index: int, x: Tensor) -> Tensor:
            own, of_time, _ = self._parts(self._layers()[index])
            given = F.linear(time, of_time).unflatten(0, (-1, len(of_condition[index]))) + of_condition[index]
            return torch.addmm(given.flatten(0, 1), x, own.mT)

        x = linear(0, z_t)
        for index, block in enumerate(self.blocks, 1):
            x = block(x, functools.partial(linear, index))
        return self.outlet(x)


def drop_condition(e: Tensor, probability: float, rng: torch.Generator) -> Tensor:
    """Conditioning dropout (Section 5.2): rows of e (B, E) set to zero with the given probability."""
    keep = torch.rand(len(e), 1, generator=rng, device=rng.device).to(e.device) >= probability
    return e * keep
