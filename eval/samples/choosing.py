"""A few labelled examples choose among samples, by likelihood or weighted with it, or serve as a cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from core.data.tasks import TaskBatch
from core.generator import AdapterGenerator
from core.methods import row_of
from eval.samples import draws


@dataclass(frozen=True)
class Pool:
    """Samples of every task's question, drawn before any example is seen, and what their adapters answer.

    Shapes: z (S, T, Z); right (S, T, N), the probability that a sample gives to the right answer of a support example;
    query (S, T, M, C), probabilities of all answers for query examples; answers (T,), how many candidates there are.
    """

    z: Tensor
    right: Tensor
    query: Tensor
    answers: Tensor

    @classmethod
    def draw(
        cls,
        generator: AdapterGenerator,
        name: str,
        support: TaskBatch,
        query: TaskBatch,
        *,
        samples: int,
        gamma: float = 1.0,
        seed: int = 0,
    ) -> Pool:
        """Samples at gamma 1, the model's own distribution of latents, read out at the row's calibrated scale."""
        z = draws.latents(generator, name, query.question, [(gamma, seed)], samples=samples)[0]  # (S, T, Z)
        scale, right, answered = generator.scale(row_of("hyperldm", name)), [], []
        for w in draws.decoded(generator, name, z):
            log_p = draws.log_probabilities(generator, w, support, scale)  # (T, N, C)
            right.append(log_p.gather(-1, support.labels[..., None]).squeeze(-1).exp())
            answered.append(draws.log_probabilities(generator, w, query, scale).exp())
        return cls(z, torch.stack(right), torch.stack(answered), query.answer_mask.sum(1))

    def log_likelihood(self, seen: Tensor, smoothing: float) -> Tensor:
        """log p(examples | sample) (S, T) of the examples in `seen` (T, N). A sample is taken to answer at random with
        probability `smoothing`, so that a single example that it gets badly wrong does not rule it out."""
        p = (1 - smoothing) * self.right + smoothing / self.answers[:, None]
        return (p.clamp(min=1e-12).log() * seen).sum(-1)

    def best(self, seen: Tensor, *, among: int, smoothing: float) -> Tensor:
        """Which of the first `among` samples (T,) has the highest likelihood; of equal ones the first."""
        return self.log_likelihood(seen, smoothing)[:among].argmax(0)

    def weights(self, seen: Tensor, *, temperature: float, smoothing: float) -> Tensor:
        """Importance weights (S, T) of all samples, proportional to likelihood^(1 / temperature)."""
        return (self.log_likelihood(seen, smoothing) / temperature).softmax(0)

    def answers_of(self, which: Tensor) -> Tensor:
        """Probabilities (T, M, C) by one sample `which` (T,) of each task."""
        return self.query[which, torch.arange(len(which), device=which.device)]

    def mean_answers(self, weights: Tensor) -> Tensor:
        """Probabilities (T, M, C), averaged with weights (S, T)."""
        return torch.einsum("st,stmc->tmc", weights, self.query)

    def mean_latent(self, weights: Tensor) -> Tensor:
        """Latents (T, Z), averaged with weights (S, T)."""
        return torch.einsum("st,stz->tz", weights, self.z)


def tip_adapter(
    logits: Tensor, keys: Tensor, support: TaskBatch, features: Tensor, alpha: float, beta: float
) -> Tensor:
    """Tip-Adapter without training (Zhang et al. 2022, Eq. 4 to 6): logits + alpha exp(-beta (1 - f F^T)) L.

    Args:
        logits: (T, M, C) of query examples, without the cache. features: (T, M, D), unit, theirs.
        keys: (T, N, D), unit, of the support examples, whose labels one-hot are the values L.

    Returns:
        (T, M, C).
    """
    values = F.one_hot(support.labels, logits.shape[-1]).to(keys) * support.example_mask[..., None]  # (T, N, C)
    affinity = (-beta * (1 - features @ keys.mT)).exp()  # (T, M, N)
    return logits + alpha * affinity @ values


def first_of(mask: Tensor, count: int, seed: int) -> Tensor:
    """`count` random examples of every task, as a mask (T, N) within `mask`; all of a task that has fewer, or for 0.
    The examples of a smaller count are among those of a larger one with the same seed."""
    if not count:
        return mask
    noise = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)).to(mask.device)
    return (noise.masked_fill(~mask, 2.0).argsort(1).argsort(1) < count) & mask
