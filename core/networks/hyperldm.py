"""HyperLDM (Section 5, Appendix A.2): the denoiser of latents, conditional on a question's embedding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..diffusion.schedule import linear_schedule
from .trunk import Trunk, TrunkConfig, seeing
from .weight_model import MODULES


@dataclass(frozen=True)
class HyperLDMConfig(TrunkConfig):
    """The denoiser."""

    time_dim: int = 150
    # What the network puts out: the noise, as in the paper, or v (Salimans & Ho 2022), from which z_0 can be read
    # without blowing up errors at large t. Callers see eps either way.
    prediction: Literal["eps", "v"] = "eps"
    # The noise schedule, linear in beta (Appendix A.7.3).
    num_timesteps: int = 350
    beta_start: float = 1e-4
    beta_end: float = 0.06

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time_dim < 2 or self.time_dim % 2:
            raise ValueError(f"HyperLDMConfig: time_dim {self.time_dim} must be even (sine and cosine), 2 or more")
        if self.prediction not in ("eps", "v"):
            raise ValueError(f"HyperLDMConfig: prediction {self.prediction!r}; allowed: 'eps', 'v'")


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding (B, dim) of timesteps t (B,)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@MODULES.register("hyperldm")
class HyperLDM(Trunk):
    """eps_psi(z_t, t, e). Works on standardised latents.

    Args:
        latent: Z. dim: E, the size of the question's embedding e.
    """

    Config = HyperLDMConfig

    def __init__(self, config: HyperLDMConfig, *, latent: int, dim: int) -> None:
        super().__init__(config, latent=latent, dim=dim, inputs=latent, context=config.time_dim + dim)
        self.schedule = linear_schedule(config.num_timesteps, config.beta_start, config.beta_end)
        self.register_buffer("alpha_bar", self.schedule.alpha_bar.float(), persistent=False)

    def forward(self, z_t: Tensor, t: Tensor, e: Tensor) -> Tensor:
        """Noise in standardised z_t (B, Z) at t (B,), given unit embeddings e (B, E); zeros are no condition."""
        return self.given(e)(z_t, t)

    def given(self, e: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """`forward` with unit embeddings e (T, E), for many uses: of z_t (S T, Z), S latents for every row of e, the
        whole of e after each other. What layers make of the condition is computed once."""
        of_condition = self.of_context(self._condition(e), start=self.config.time_dim)

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
        context = torch.cat([time_embedding(t, self.config.time_dim), self._condition(e, noise)], dim=-1)
        return self.through(z_t, seeing(context))

    def _condition(self, e: Tensor, noise: Tensor | None = None) -> Tensor:
        dropped = (e == 0).all(-1, keepdim=True)  # "inputting zeros instead" (Section 5.2), after whitening too
        return self.condition(e, noise).masked_fill(dropped, 0.0)

    def _output(self, z_t: Tensor, t: Tensor, of_condition: list[Tensor]) -> Tensor:
        """`predict` of z_t (S T, Z), given what `layers` owe to the condition, (T, outputs)."""
        of_time = self.of_context(time_embedding(t, self.config.time_dim).to(z_t.dtype))
        both = zip(of_time, of_condition, strict=True)
        return self.through(z_t, self.knowing([(a.unflatten(0, (-1, len(b))) + b).flatten(0, 1) for a, b in both]))


def drop_condition(e: Tensor, probability: float, rng: torch.Generator) -> Tensor:
    """Conditioning dropout (Section 5.2): rows of e (B, E) set to zero with the given probability."""
    keep = torch.rand(len(e), 1, generator=rng, device=rng.device).to(e.device) >= probability
    return e * keep
