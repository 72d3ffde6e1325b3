"""Guidance: what the strength gamma does to one question's adapter, and the way of its latent through diffusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..generator import Adapter, AdapterGenerator
from ..methods import DEFAULT_GENERATOR, row_of
from ..release.checkpoint import load_model

GAMMAS = tuple(i / 4 for i in range(13))  # 0 to 3
PATHS = (0.0, 1.0, 2.0, 3.0)  # whose way through the plane is drawn
WAY = 10  # steps of that way at least: the few that weights need show none


@dataclass(frozen=True)
class Guided:
    """One strength of guidance. `accuracy` is None where no truth is known; `path` (steps + 1, 2) in the plane is one
    sample's way from noise to its latent; `end` (2,) is the mean of all samples, which is decoded."""

    gamma: float
    accuracy: float | None
    confidence: float  # mean probability of the chosen answer
    path: Tensor
    end: Tensor


class LatentPlane:
    """The plane of the two largest principal components of the training tasks' latents."""

    def __init__(self, z: Tensor) -> None:
        self._mean = z.mean(0)
        _, size, directions = torch.linalg.svd(z - self._mean, full_matrices=False)
        self._axes = directions[:2].mT  # (Z, 2)
        self.share = float(size[:2].square().sum() / size.square().sum())  # of the variance
        self.points = self(z)  # (T, 2)

    def __call__(self, z: Tensor) -> Tensor:
        """Coordinates (B, 2) of latents (B, Z)."""
        return (z - self._mean) @ self._axes

    @classmethod
    def load(cls, generator: AdapterGenerator, name: str = DEFAULT_GENERATOR) -> LatentPlane:
        """From the table of latents that a release ships."""
        path = generator.file(f"latents_{name}")
        _, tensors = load_model(path, "latents")
        if tensors.keys() != {"z"} or tensors["z"].ndim != 2 or min(tensors["z"].shape) < 2:
            raise ValueError(f"{path}: holds {', '.join(sorted(tensors))}; expected a table z of latents")
        return cls(tensors["z"])


def has_plane(generator: AdapterGenerator, name: str = DEFAULT_GENERATOR) -> bool:
    """Whether a release holds HyperLDM and the table of latents."""
    return generator.has("hyperldm", name) and (generator.directory / f"latents_{name}.safetensors").is_file()


@torch.no_grad()
def sweep(
    generator: AdapterGenerator,
    plane: LatentPlane,
    question: str,
    answers: Sequence[str],
    x: Tensor,
    truths: Sequence[str | None],
    *,
    name: str = DEFAULT_GENERATOR,
    seed: int = 0,
) -> Iterator[Guided]:
    """For each of `GAMMAS` in turn, from the same noise, what the adapter says of pictures with embeddings x (N, D)."""
    e = generator.embed_questions([question], [answers])
    texts = generator.embed_answers(answers)
    model, decode = generator.module(row_of("hyperldm", name)), generator.weight_generator(name).decode
    provenance = {"scale": generator.scale(row_of("hyperldm", name))}
    known = [i for i, truth in enumerate(truths) if truth is not None]
    steps = max(WAY, generator.choice(row_of("hyperldm", name)).get("steps", WAY))
    for gamma in GAMMAS:
        way: list[Tensor] = []
        keep = lambda i, t, z_t, z0, way=way: way.append((z_t, z0))
        generator.latents(e, generator=name, gamma=gamma, steps=steps, samples=1, seed=seed, callback=keep)
        z = generator.latents(e, generator=name, gamma=gamma, seed=seed)
        path = [model.unstandardise(z_t) for z_t, _ in way] + [model.unstandardise(way[-1][1])]
        adapter = Adapter(decode(z)[0].cpu(), generator.network, generator.backbone, provenance)
        best = adapter.probabilities_of(x, texts).max(-1)
        right = [answers[int(best.indices[i])] == truths[i] for i in known]
        yield Guided(
            gamma,
            sum(right) / len(right) if right else None,
            float(best.values.mean()),
            plane(torch.cat(path).cpu()),
            plane(z.cpu())[0],
        )
