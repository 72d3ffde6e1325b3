"""Samplers of the reverse process: stateless functions from an `eps_fn` and noise z_T to z_0.

All take `(eps_fn, z_T, schedule, *, steps, noise, callback)`. Timesteps come from one tensor that includes the
noisiest; every coefficient is recomputed from `alpha_bar` for each pair (t, t_prev), so that fewer steps are another
discretisation of the same process and not another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from .schedule import EpsFn, NoiseSchedule

Callback = Callable[[int, int, Tensor, Tensor], None]  # (i, t, z_t, predicted z_0)
Noise = Callable[[Tensor], Tensor]  # z (B, Z) -> the noise of one step, like it in shape, type and device


def standard_normal(rng: torch.Generator) -> Noise:
    """Noise of its own for every row."""
    # Drawn on the generator's device, so that a seed means the same wherever the model runs.
    return lambda z: torch.randn(z.shape, generator=rng, device=rng.device, dtype=z.dtype).to(z.device)


def shared_normal(samples: int, rng: torch.Generator) -> Noise:
    """Noise for z (samples * T, Z), sample after sample, that is drawn for every sample and shared by its T questions:
    what a question gets does not depend on how many others there are and where it stands among them."""
    own = standard_normal(rng)

    def noise(z: Tensor) -> Tensor:
        Z = z.shape[-1]
        return own(z.new_empty(samples, 1, Z)).expand(-1, len(z) // samples, -1).flatten(0, 1)  # (samples * T, Z)

    return noise


def timesteps(schedule: NoiseSchedule, steps: int | None) -> Tensor:
    """`steps` distinct timesteps (long) from T - 1 down to 0; all of them for None.

    Fewer steps are spaced with the power 1.5, closer together near the data: on Gaussians with their exact denoiser
    that halves the error of even spacing.

    Raises:
        ValueError: `steps` is not in 1..T.
    """
    T = schedule.num_steps
    if steps is None:
        steps = T
    if not 1 <= steps <= T:
        raise ValueError(f"steps {steps}; allowed: 1 to {T}")
    if steps == 1:
        return torch.tensor([T - 1])
    ideal = (torch.linspace((T - 1) ** (2 / 3), 0, steps, dtype=torch.float64) ** 1.5).round().long()
    # Where rounding made neighbours equal, push them apart from the data's end upwards.
    floor = torch.arange(steps - 1, -1, -1)
    return torch.minimum(torch.maximum(ideal, floor), T - 1 - torch.arange(steps))


def _walk(schedule: NoiseSchedule, steps: int | None) -> Iterator[tuple[int, int, float, float]]:
    """(i, t, alpha_bar_t, alpha_bar_prev) with alpha_bar_prev = 1 for the last step, which lands on z_0."""
    alpha_bar = schedule.alpha_bar
    sequence = timesteps(schedule, steps).tolist()
    for i, t in enumerate(sequence):
        previous = float(alpha_bar[sequence[i + 1]]) if i + 1 < len(sequence) else 1.0
        yield i, t, float(alpha_bar[t]), previous


def _predict(eps_fn: EpsFn, z_t: Tensor, t: int, alpha_bar: float) -> tuple[Tensor, Tensor]:
    """(eps, predicted z_0) at timestep t."""
    eps = eps_fn(z_t, torch.full((len(z_t),), t, dtype=torch.long, device=z_t.device))
    return eps, (z_t - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5


def sample_ddpm(
    eps_fn: EpsFn,
    z_T: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: int | None = None,
    variance: Literal["beta_tilde", "between", "beta"] = "between",
    noise: Noise = torch.randn_like,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling (Eq. 8; Ho et al. 2020, Algorithm 2).

    sigma^2 is beta-tilde, beta, or their geometric mean ("sigma chosen between"): with few steps the first shrinks the
    spread of samples and the second widens it.
    """
    if variance not in ("beta_tilde", "between", "beta"):
        raise ValueError(f"variance {variance!r}; allowed: 'beta_tilde', 'between', 'beta'")
    z = z_T
    for i, t, now, previous in _walk(schedule, steps):
        _, z0 = _predict(eps_fn, z, t, now)
        if callback is not None:
            callback(i, t, z, z0)
        beta = 1 - now / previous  # of the step from t_prev to t
        mean = previous**0.5 * beta / (1 - now) * z0 + (1 - beta) ** 0.5 * (1 - previous) / (1 - now) * z
        shrink = (1 - previous) / (1 - now)  # beta-tilde / beta
        sigma2 = beta * {"beta": 1.0, "between": shrink**0.5, "beta_tilde": shrink}[variance]
        z = mean if previous == 1.0 else mean + sigma2**0.5 * noise(z)
    return z


def sample_ddim(
    eps_fn: EpsFn,
    z_T: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: int | None = None,
    eta: float = 0.0,
    noise: Noise = torch.randn_like,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM (Song et al. 2021, Eq. 12): deterministic at eta 0, as noisy as DDPM at eta 1."""
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta {eta}; allowed: 0 to 1")
    z = z_T
    for i, t, now, previous in _walk(schedule, steps):
        eps, z0 = _predict(eps_fn, z, t, now)
        if callback is not None:
            callback(i, t, z, z0)
        sigma2 = eta**2 * (1 - previous) / (1 - now) * (1 - now / previous)
        z = previous**0.5 * z0 + max(0.0, 1 - previous - sigma2) ** 0.5 * eps
        if eta > 0 and previous < 1.0:
            z = z + sigma2**0.5 * noise(z)
    return z


def sample_dpmpp_2m(
    eps_fn: EpsFn,
    z_T: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: int | None = None,
    noise: Noise = torch.randn_like,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), data prediction; the last step is first order. `noise` is
    accepted for the samplers' common interface; the method is deterministic."""
    z, last = z_T, None  # last = (predicted z_0, h) of the step before

    def half_log_snr(alpha_bar: float) -> float:
        return 0.5 * torch.logit(torch.tensor(alpha_bar, dtype=torch.float64)).item()

    for i, t, now, previous in _walk(schedule, steps):
        _, z0 = _predict(eps_fn, z, t, now)
        if callback is not None:
            callback(i, t, z, z0)
        if previous == 1.0:
            return z0  # h is infinite: the solver's step becomes its data prediction
        h = half_log_snr(previous) - half_log_snr(now)
        data = z0
        if last is not None:
            r = last[1] / h
            data = (1 + 1 / (2 * r)) * z0 - 1 / (2 * r) * last[0]
        shrink = torch.exp(torch.tensor(-h)).item()
        z = ((1 - previous) / (1 - now)) ** 0.5 * z + previous**0.5 * (1 - shrink) * data
        last = (z0, h)
    return z


SAMPLERS = {"ddpm": sample_ddpm, "ddim": sample_ddim, "dpmpp_2m": sample_dpmpp_2m}
