"""Rows of few_examples.py: what each makes of a few labelled examples, and its nine tries on validation tasks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from core.adaptation.inner_loop import adapt
from core.adaptation.weights import adapt_weights, loss_on
from core.data.tasks import TaskBatch
from core.diffusion.guidance import classifier_free, gradient_guidance
from core.diffusion.samplers import SAMPLERS
from core.generator import AdapterGenerator
from core.methods import row_of
from core.networks.base import accuracies, task_accuracy
from core.release.checkpoint import load_model
from eval.samples import draws
from eval.samples.choosing import Pool, tip_adapter

SAMPLES = 64
GUIDED_SAMPLES = 2  # averaged, as latents
SMOOTHING = 0.05  # of likelihoods, where it is not one of the tries
Option = tuple[float, ...]


@dataclass(frozen=True)
class Bench:
    """Some tasks with what rows compute once for them. `name` is the weight generator whose latents are searched."""

    generator: AdapterGenerator
    name: str
    support: TaskBatch
    query: TaskBatch
    samples: int = SAMPLES

    @cached_property
    def pool(self) -> Pool:
        return Pool.draw(self.generator, self.name, self.support, self.query, samples=self.samples)

    @cached_property
    def z(self) -> Tensor:
        """The mean latent (T, Z) given the question, as the release samples it."""
        return self.generator.latents(self.query.question, "hyperldm", generator=self.name)

    @cached_property
    def z_mean(self) -> Tensor:
        """The mean training latent, for every task (T, Z): what is known without a question."""
        _, tensors = load_model(self.generator.file(f"latents_{self.name}"), "latents")
        return tensors["z"].to(self.z).mean(0).expand_as(self.z)

    @cached_property
    def w(self) -> Tensor:
        """Weights (T, P) from the question alone."""
        with torch.no_grad():
            return self.decode(self.z)

    @property
    def decode(self) -> Callable[[Tensor], Tensor]:
        return self.generator.weight_generator(self.name).decode

    def accuracy(self, w: Tensor | None) -> Tensor:
        """Query accuracy (T,) of weights (T, P)."""
        return accuracies(self.generator.network, w, self.query).cpu()

    def of_answers(self, scores: Tensor) -> Tensor:
        """Query accuracy (T,) of scores (T, M, C)."""
        return task_accuracy(scores.masked_fill(~self.query.answer_mask[:, None], -torch.inf), self.query).cpu()


Tried = Iterator[tuple[Option, Tensor]]  # an option and its accuracies (T,)


def _best(bench: Bench, seen: Tensor, options: Sequence[Option]) -> Tried:
    for among, smoothing in options:
        which = bench.pool.best(seen, among=int(among), smoothing=smoothing)
        yield (among, smoothing), bench.of_answers(bench.pool.answers_of(which))


def _weighted_latents(bench: Bench, seen: Tensor, options: Sequence[Option]) -> Tried:
    for temperature, smoothing in options:
        weights = bench.pool.weights(seen, temperature=temperature, smoothing=smoothing)
        with torch.no_grad():
            w = bench.decode(bench.pool.mean_latent(weights))
        yield (temperature, smoothing), bench.accuracy(w)


def _weighted_answers(bench: Bench, seen: Tensor, options: Sequence[Option]) -> Tried:
    for temperature, smoothing in options:
        weights = bench.pool.weights(seen, temperature=temperature, smoothing=smoothing)
        yield (temperature, smoothing), bench.of_answers(bench.pool.mean_answers(weights))


def _guided(bench: Bench, seen: Tensor, options: Sequence[Option]) -> Tried:
    """Eq. 11 with the log-likelihood of the examples under the adapter that the predicted z_0 decodes to."""
    generator, row = bench.generator, row_of("hyperldm", bench.name)
    model, T, n = generator.module(row), len(bench.query), GUIDED_SAMPLES
    examples = bench.support.with_mask(seen).trimmed()[torch.arange(T, device=seen.device).repeat(n)]
    loss, count = loss_on(generator.network, examples, bench.decode), examples.example_mask.sum(1)
    share = generator.scale(row) / generator.network.scale  # losses are at the training scale

    def log_prob(z0: Tensor) -> Tensor:
        return -share * count * loss(model.unstandardise(z0))

    noise = draws.noise_of([0], n)
    z_T = noise(torch.empty(n * T, model.latent, device=generator.device))
    for (scale,) in options:
        eps_fn = gradient_guidance(classifier_free(model, bench.query.question, 1.0), log_prob, model.schedule, scale)
        with torch.no_grad():
            steps = draws.steps_of(generator, bench.name)
            z = SAMPLERS["ddim"](eps_fn, z_T, model.schedule, steps=steps, noise=noise)
            w = bench.decode(model.unstandardise(z.view(n, T, -1).mean(0)))
        yield (scale,), bench.accuracy(w)


def _descents(start: Tensor, loss: Callable[[Tensor], Tensor], options: Sequence[Option]) -> Iterator:
    """(lr, steps) and where gradient descent is after so many steps; fewer steps are passed on the way to more."""
    for lr, group in itertools.groupby(sorted(options), key=lambda option: option[0]):
        x, done = start, 0
        for _, steps in group:
            x, done = adapt(x, loss, steps=int(steps) - done, lr=lr), int(steps)
            yield (lr, steps), x


def _best_latent(bench: Bench, seen: Tensor) -> Tensor:
    """The latents (T, Z) of the samples that the examples choose."""
    which = bench.pool.best(seen, among=len(bench.pool.z), smoothing=SMOOTHING)
    return bench.pool.z[which, torch.arange(len(which), device=which.device)]


def _refined(start: Callable[[Bench, Tensor], Tensor]) -> Callable[..., Tried]:
    def tried(bench: Bench, seen: Tensor, options: Sequence[Option]) -> Tried:
        examples = bench.support.with_mask(seen).trimmed()
        loss = loss_on(bench.generator.network, examples, bench.decode)
        for option, z in _descents(start(bench, seen), loss, options):
            with torch.no_grad():
                yield option, bench.accuracy(bench.decode(z))

    return tried


def _maml(bench: Bench, seen: Tensor, options: Sequence[Option]) -> Tried:
    network, start = bench.generator.network, bench.generator.module("mnet_maml").w.detach()
    examples = bench.support.with_mask(seen).trimmed()
    for lr, steps in options:
        yield (lr, steps), bench.accuracy(adapt_weights(network, start, examples, steps=int(steps), lr=lr))


def _tip(row: str | None) -> Callable[..., Tried]:
    """Tip-Adapter's cache on plain CLIP features, or on those of the question's adapter."""

    @torch.no_grad()
    def tried(bench: Bench, seen: Tensor, options: Sequence[Option]) -> Tried:
        network, w = bench.generator.network, bench.w if row else None
        scale = bench.generator.scale(row_of(row, bench.name) if row else "clip")
        examples = bench.support.with_mask(seen).trimmed()
        of = lambda images: images if w is None else network.forward(w, images)
        keys, features = of(examples.images), of(bench.query.images)
        logits = network.logits(w, bench.query, scale=scale)
        for alpha, beta in options:
            yield (alpha, beta), bench.of_answers(tip_adapter(logits, keys, examples, features, alpha, beta))

    return tried


@dataclass(frozen=True)
class Learner:
    """A row: `tried` gives the accuracies (T,) of each of some options for the examples in a mask (T, N)."""

    id: str
    label: str
    reads_question: bool
    names: tuple[str, ...]  # of an option's numbers
    options: tuple[Option, ...]
    tried: Callable[..., Tried]

    def option(self, values: Sequence[float]) -> dict[str, Any]:
        return dict(zip(self.names, values, strict=True))


_grid = lambda *values: tuple(itertools.product(*values))
_SMOOTHING = (0.0, 0.05, 0.2)
_WEIGHTING = _grid((1.0, 3.0, 10.0), _SMOOTHING)
_DESCENT = _grid((0.3, 1.5, 6.0), (2, 8, 30))
_LONG = _grid((3.0, 6.0, 12.0), (20, 40, 80))  # from further away
_CACHE = _grid((0.5, 2.0, 8.0), (0.5, 2.0, 8.0))
LEARNERS: tuple[Learner, ...] = (
    Learner("best", "best sample", True, ("samples", "smoothing"), _grid((8, 24, SAMPLES), _SMOOTHING), _best),
    Learner(
        "latents", "samples weighted, as latents", True, ("temperature", "smoothing"), _WEIGHTING, _weighted_latents
    ),
    Learner(
        "answers",
        "samples weighted, as probabilities",
        True,
        ("temperature", "smoothing"),
        _WEIGHTING,
        _weighted_answers,
    ),
    Learner(
        "guided",
        "sampler guided by likelihood",
        True,
        ("scale",),
        _grid((0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 4.0)),
        _guided,
    ),
    Learner("refined", "mean latent, refined", True, ("lr", "steps"), _DESCENT, _refined(lambda bench, seen: bench.z)),
    Learner("tip_ldm", "Tip-Adapter on its adapter", True, ("alpha", "beta"), _CACHE, _tip("hyperldm")),
    Learner(
        "no_question",
        "mean training latent, refined",
        False,
        ("lr", "steps"),
        _LONG,
        _refined(lambda bench, seen: bench.z_mean),
    ),
    Learner("maml", "MNet-MAML", False, ("lr", "steps"), _grid((0.1, 0.5, 2.0), (5, 15, 50)), _maml),
    Learner("tip_clip", "Tip-Adapter on plain CLIP", False, ("alpha", "beta"), _CACHE, _tip(None)),
)
BEST_REFINED = Learner("best_refined", "best sample, refined", True, ("lr", "steps"), _DESCENT, _refined(_best_latent))
