"""Noise schedules and the training loss of (latent) diffusion (Section 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

EpsFn = Callable[[Tensor, Tensor], Tensor]  # (z_t (B, Z), t (B,)) -> eps (B, Z)


@dataclass(frozen=True)
class NoiseSchedule:
    """betas (T,), float64; everything else follows from them. Index t runs from 0 (least noise) to T - 1."""

    betas: Tensor

    def __post_init__(self) -> None:
        if self.betas.ndim != 1 or not bool(((self.betas > 0) & (self.betas < 1)).all()):
            raise ValueError("NoiseSchedule: betas must be a vector of values between 0 and 1")

    @property
    def num_steps(self) -> int:
        return len(self.betas)

    @property
    def alpha_bar(self) -> Tensor:
        """Cumulative product of 1 - beta, (T,) float64."""
        return (1 - self.betas.double()).cumprod(0)


def linear_schedule(num_steps: int = 350, beta_start: float = 1e-4, beta_end: float = 0.06) -> NoiseSchedule:
    """Beta linear in itself (Appendix A.7.3). The authors' option of this name is linear in sqrt(beta)."""
    return NoiseSchedule(torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64))


def q_sample(z0: Tensor, t: Tensor, eps: Tensor, schedule: NoiseSchedule) -> Tensor:
    """z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps for z0, eps (B, Z) and t (B,)."""
    alpha_bar = schedule.alpha_bar.to(z0.device)[t][:, None]
    return (alpha_bar.sqrt() * z0 + (1 - alpha_bar).sqrt() * eps).to(z0.dtype)


def diffusion_loss(
    predict: EpsFn, target: Tensor, z0: Tensor, t: Tensor, eps: Tensor, schedule: NoiseSchedule
) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 7 and 9, ||eps - eps_psi(z_t, t)||^2, as the mean over rows and coordinates.

    Args:
        predict: the network, (z_t (B, Z), t (B,)) -> (B, Z).
        target: what it should put out, (B, Z): eps, as in the paper, or v (Salimans & Ho 2022).

    Returns:
        The loss, (); what the network put out and the z_t that it saw, both (B, Z), for whatever else is asked of them.
    """
    z_t = q_sample(z0, t, eps, schedule)
    out = predict(z_t, t)
    return (out - target).square().mean(), out, z_t
