"""HyperLDM (Section 5, Appendix A.2): the denoiser of latents, conditional on a question's embedding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion.schedule import linear_schedule
from .trunk import Trunk, TrunkConfig
from .weight_model import MODULES

Scales = tuple[Tensor, Tensor]  # sqrt(alpha_bar_t), sqrt(1 - alpha_bar_t), each (B, 1)


class Prediction(NamedTuple):
    """What a denoiser puts out for z_t, and how it is read. All tensors (B, Z)."""

    target: Callable[[Tensor, Tensor, Scales], Tensor]  # of z_0, eps: what it should put out
    to_eps: Callable[[Tensor, Tensor, Scales], Tensor]  # of its output and z_t: the noise in z_t
    to_z0: Callable[[Tensor, Tensor, Scales], Tensor]  # of its output and z_t: the z_0 that it means


PREDICTIONS = {
    "eps": Prediction(  # the noise, as in the paper
        target=lambda z0, eps, scales: eps,
        to_eps=lambda out, z_t, scales: out,
        to_z0=lambda out, z_t, scales: (z_t - scales[1] * out) / scales[0],
    ),
    "v": Prediction(  # Salimans & Ho 2022: z_0 can be read from it without blowing up errors at large t
        target=lambda z0, eps, scales: scales[0] * eps - scales[1] * z0,
        to_eps=lambda out, z_t, scales: scales[0] * out + scales[1] * z_t,
        to_z0=lambda out, z_t, scales: scales[0] * z_t - scales[1] * out,
    ),
}


@dataclass(frozen=True)
class HyperLDMConfig(TrunkConfig):
    """The denoiser."""

    time_dim: int = 150
    prediction: str = "eps"  # what the network puts out, one of `PREDICTIONS`; callers see eps either way
    # The noise schedule, linear in beta (Appendix A.7.3).
    num_timesteps: int = 350
    beta_start: float = 1e-4
    beta_end: float = 0.06

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time_dim < 2 or self.time_dim % 2:
            raise ValueError(f"HyperLDMConfig: time_dim {self.time_dim} must be even (sine and cosine), 2 or more")
        if self.prediction not in PREDICTIONS:
            allowed = ", ".join(map(repr, PREDICTIONS))
            raise ValueError(f"HyperLDMConfig: prediction {self.prediction!r}; allowed: {allowed}")


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
        self.prediction = PREDICTIONS[config.prediction]
        with torch.device("cpu"):  # also where the module is built without storage: samplers read its numbers
            self.schedule = linear_schedule(config.num_timesteps, config.beta_start, config.beta_end)
        self.register_buffer("alpha_bar", self.schedule.alpha_bar.float(), persistent=False)

    def forward(self, z_t: Tensor, t: Tensor, e: Tensor) -> Tensor:
        """Noise in standardised z_t (B, Z) at t (B,), given unit embeddings e (B, E); zeros are no condition."""
        return self.given(e)(z_t, t)

    def given(self, e: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """`forward` with unit embeddings e (T, E), for many uses: of z_t (S T, Z), S latents for every row of e, the
        whole of e after each other. What layers make of the condition is computed once."""
        of_condition = self.project(self._condition(e), start=self.config.time_dim)

        def eps_fn(z_t: Tensor, t: Tensor) -> Tensor:
            return self.prediction.to_eps(self._output(z_t, t, of_condition), z_t, self._scales(t))

        return eps_fn

    def _scales(self, t: Tensor) -> Scales:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), (B, 1)."""
        alpha_bar = self.alpha_bar[t][:, None]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def target(self, z0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What `predict` should put out for z_t made of z0 and eps."""
        return self.prediction.target(z0, eps, self._scales(t))

    def to_z0(self, out: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """The z_0 that an output of `predict` means."""
        return self.prediction.to_z0(out, z_t, self._scales(t))

    def predict(self, z_t: Tensor, t: Tensor, e: Tensor, noise: Tensor | None = None) -> Tensor:
        """The network's own output (B, Z); in training with standard normal noise (B, E) on the condition."""
        context = torch.cat([time_embedding(t, self.config.time_dim), self._condition(e, noise)], dim=-1)
        return self.through(z_t, context)

    def _condition(self, e: Tensor, noise: Tensor | None = None) -> Tensor:
        dropped = (e == 0).all(-1, keepdim=True)  # "inputting zeros instead" (Section 5.2), after whitening too
        return self.condition(e, noise).masked_fill(dropped, 0.0)

    def _output(self, z_t: Tensor, t: Tensor, of_condition: list[Tensor]) -> Tensor:
        """`predict` of z_t (S T, Z), given `project` of the condition: (T, outputs) for each layer."""
        of_time = self.project(time_embedding(t, self.config.time_dim).to(z_t.dtype))  # (S T, outputs) for each layer
        both = zip(of_time, of_condition, strict=True)
        # Each of the S latents of a question has that question's part of the sum.
        return self.through_projected(z_t, [(a.unflatten(0, (-1, len(b))) + b).flatten(0, 1) for a, b in both])


def drop_condition(e: Tensor, probability: float, rng: torch.Generator) -> Tensor:
    """Conditioning dropout (Section 5.2): rows of e (B, E) set to zero with the given probability."""
    keep = torch.rand(len(e), 1, generator=rng, device=rng.device).to(e.device) >= probability
    return e * keep
