"""Guidance: an `eps_fn` in, an `eps_fn` out, so that kinds of guidance stack and samplers know none of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..networks.hyperldm import HyperLDM
from .schedule import EpsFn, NoiseSchedule


def conditional(model: HyperLDM, e: Tensor) -> EpsFn:
    """eps_psi(z_t, t, e) for fixed embeddings e (T, E), of z_t (S T, Z): S latents a row, all of e after each other."""
    return model.given(e)


def classifier_free(model: HyperLDM, e: Tensor, gamma: float | Tensor) -> EpsFn:
    """Eq. 10: `(1 - gamma) eps(z_t, t, 0) + gamma eps(z_t, t, e)`, of z_t as in `conditional`.

    0 is the unconditional model, 1 exactly the conditional one, more is guidance. Both evaluations of a step run as
    one batch. Of several strengths (S,) each of the S latents of a row has its own.
    """
    strengths = torch.as_tensor(gamma)
    if bool((strengths < 0).any()):
        raise ValueError(f"gamma {gamma}; allowed: 0 or more")
    if bool((strengths == 1).all()):
        return conditional(model, e)
    if bool((strengths == 0).all()):
        return conditional(model, torch.zeros_like(e))
    if isinstance(gamma, Tensor):
        gamma = gamma.to(e).reshape(-1, 1, 1)  # (S, 1, 1)
    both = model.given(torch.cat([torch.zeros_like(e), e]))

    def eps_fn(z_t: Tensor, t: Tensor) -> Tensor:
        twice = lambda x: torch.stack([x.unflatten(0, (-1, len(e)))] * 2, dim=1).flatten(0, 2)  # (S, 2, T, ...)
        without, with_e = both(twice(z_t), twice(t)).unflatten(0, (-1, 2, len(e))).unbind(1)  # (S, T, Z) each
        return ((1 - gamma) * without + gamma * with_e).flatten(0, 1)

    return eps_fn


def gradient_guidance(
    eps_fn: EpsFn, log_prob: Callable[[Tensor], Tensor], schedule: NoiseSchedule, scale: float
) -> EpsFn:
    """Classifier guidance (Eq. 11): shift eps by `-scale * sigma_t * grad log p(y | z_t)`.

    `log_prob` maps a predicted z_0 (B, Z), standardised, to a log probability (B,): HyperCLIP's cosine for classifier
    guidance, minus the support loss of decoded weights for few-shot guidance. The gradient is taken through the
    predicted z_0, which is what such classifiers know about.
    """

    def guided(z_t: Tensor, t: Tensor) -> Tensor:
        alpha_bar = schedule.alpha_bar.to(z_t.device)[t][:, None].to(z_t.dtype)
        with torch.enable_grad():
            z = z_t.detach().requires_grad_()
            eps = eps_fn(z, t)
            z0 = (z - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
            (gradient,) = torch.autograd.grad(log_prob(z0).sum(), z)
        return eps.detach() - scale * (1 - alpha_bar).sqrt() * gradient

    return guided
