"""Samples of HyperLDM as they are, not averaged, and what their adapters answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from core.data.tasks import TaskBatch
from core.diffusion.guidance import classifier_free
from core.diffusion.samplers import SAMPLERS, Noise
from core.generator import AdapterGenerator
from core.methods import row_of

STEPS = 10  # of a sampler that draws samples; with a single one it predicts the mean latent
ROWS_AT_ONCE = 2**14  # latents that go through the denoiser together: activations of 32 MB a layer


def steps_of(generator: AdapterGenerator, name: str) -> int:
    """`STEPS`, or as many as the schedule of a small release has."""
    return min(STEPS, generator.module(row_of("hyperldm", name)).schedule.num_steps)


def noise_of(seeds: Sequence[int], samples: int) -> Noise:
    """Noise for latents (len(seeds) * samples * T, Z): `samples` of every seed, as `shared_normal` draws them for that
    seed alone, shared by the T questions."""
    own = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise(z: Tensor) -> Tensor:
        Z = z.shape[-1]
        drawn = torch.cat([torch.randn(samples, Z, generator=rng, dtype=z.dtype) for rng in own])  # (R S, Z)
        return drawn[:, None].expand(-1, len(z) // len(drawn), -1).flatten(0, 1).to(z.device)

    return noise


@torch.no_grad()
def latents(
    generator: AdapterGenerator,
    name: str,
    e: Tensor,
    pairs: Sequence[tuple[float, int]],
    *,
    samples: int = 1,
    steps: int | None = None,
) -> Tensor:
    """Latents (len(pairs), samples, T, Z) of questions e (T, E) for pairs of gamma and noise seed.

    Of a pair the mean over samples is what `ReleaseModels.latents` gives for its gamma and seed. As many pairs as fit
    `ROWS_AT_ONCE` go through the sampler together.
    """
    model, e = generator.module(row_of("hyperldm", name)), e.to(generator.device)
    sampler = SAMPLERS[generator.choice(row_of("hyperldm", name)).get("sampler", "ddim")]
    steps = steps_of(generator, name) if steps is None else steps
    T, at_once, found = len(e), max(1, ROWS_AT_ONCE // (samples * len(e))), []
    for first in range(0, len(pairs), at_once):
        some = pairs[first : first + at_once]
        noise = noise_of([seed for _, seed in some], samples)
        z_T = noise(torch.empty(len(some) * samples * T, model.latent, device=generator.device))
        gammas = torch.tensor([gamma for gamma, _ in some]).repeat_interleave(samples)
        z = sampler(classifier_free(model, e, gammas), z_T, model.schedule, steps=steps, noise=noise)
        found.append(model.unstandardise(z.view(len(some), samples, T, -1)))
    return torch.cat(found)


@torch.no_grad()
def log_probabilities(generator: AdapterGenerator, w: Tensor, batch: TaskBatch, scale: float) -> Tensor:
    """Log probabilities (T, N, C) of every answer by weights w (T, P); -inf for padded answers."""
    return generator.network.logits(w, batch, scale=scale).log_softmax(-1)


@torch.no_grad()
def decoded(generator: AdapterGenerator, name: str, z: Tensor) -> Iterator[Tensor]:
    """Weights (T, P) of latents z (S, T, Z), a sample of all tasks at a time."""
    for one in z:
        yield generator.weight_generator(name).decode(one)
