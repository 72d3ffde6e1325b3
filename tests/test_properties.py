"""What holds of tasks, networks, adaptation, samplers and guidance at every size: hypothesis draws sizes and seeds.

Settings are in conftest.py; `--hypothesis-profile long` tries many more.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.adaptation.inner_loop import adapt
from core.adaptation.weights import adapt_weights, loss_on, maml_weights_loss
from core.classifier import Adapter
from core.data.tasks import Task, TaskBatch, TaskSet, split_support_query, subsample
from core.diffusion.guidance import classifier_free, conditional, gradient_guidance
from core.diffusion.samplers import SAMPLERS, sample_ddim, sample_ddpm, shared_normal, standard_normal, timesteps
from core.diffusion.schedule import linear_schedule
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.base import BaseNetwork, accuracies, right_answers, task_accuracy, task_loss
from core.networks.hyperclip import HyperCLIP, HyperCLIPConfig, guide_latent
from core.networks.hyperldm import HyperLDM, HyperLDMConfig
from core.networks.lowrank import LowRank, LowRankConfig

SEEDS = st.integers(0, 2**31)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(*shape: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=rng(seed)), dim=-1)


@st.composite
def task_sets(draw) -> TaskSet:
    """One to five tasks of one to nine support examples, one to five query examples and two to six answers."""
    D, seed = draw(st.integers(2, 24)), draw(SEEDS)
    sizes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(2, 6)), min_size=1, max_size=5))
    tasks, rows, images, answers = [], [], 0, 0
    for i, (support, query, C) in enumerate(sizes):
        labels = torch.randint(C, (support + query,), generator=rng(seed + i)).tolist()
        at = tuple(range(images, images + support + query))
        tasks.append(
            Task(
                f"q{i}?",
                tuple(f"a{c}" for c in range(C)),
                (at[:support], tuple(labels[:support])),
                (at[support:], tuple(labels[support:])),
                "train",
            )
        )
        rows.append(tuple(range(answers, answers + C)))
        images, answers = images + support + query, answers + C
    features = unit(images, D, seed=seed), unit(answers, D, seed=seed + 1), unit(len(sizes), 5, seed=seed + 2)
    return TaskSet(tuple(tasks), *features, tuple(rows))


@st.composite
def networks(draw, dim: int) -> BaseNetwork:
    """A base network whose loss is not steep: then rounding stays small through steps of descent."""
    width, scale = draw(st.integers(1, 6)), draw(st.sampled_from([1.0, 10.0]))
    config = draw(st.sampled_from([AdapterConfig(width), AdapterConfig(width, bias=False), LowRankConfig(width)]))
    return (LowRank if isinstance(config, LowRankConfig) else CLIPAdapter)(config, dim, scale)


def weights(network: BaseNetwork, count: int, seed: int) -> Tensor:
    """Fresh weights (count, P), moved a little, so that no bias is zero."""
    moved = torch.randn(count, network.num_params, generator=rng(seed + 1))
    return network.init(rng(seed)) + 0.3 * moved


# -- ragged batches against one task at a time -------------------------------------------------------------------------


@given(st.data(), task_sets(), SEEDS)
def test_a_task_in_a_ragged_batch_is_the_task_alone(data, tasks, seed):
    network, T = data.draw(networks(tasks.dim)), len(tasks)
    w, batch, table = weights(network, T, seed), tasks.batch(), tasks.table()
    logits = network.logits(w, batch)
    loss, accuracy = task_loss(logits, batch), task_accuracy(logits, batch)
    torch.testing.assert_close(accuracies(network, w, table, values_at_once=data.draw(st.integers(1, 2000))), accuracy)
    for i in range(T):
        alone = tasks.batch([i])
        own = network.logits(w[i : i + 1], alone)
        n, C = own.shape[1:]
        torch.testing.assert_close(logits[i, :n, :C], own[0], **CLOSE)
        assert (logits[i, :, C:] == -math.inf).all() and not right_answers(logits, batch)[i, n:].any()
        torch.testing.assert_close(loss[i], task_loss(own, alone)[0], **CLOSE)
        assert accuracy[i] == task_accuracy(own, alone)[0]


@given(st.data(), task_sets(), SEEDS, st.booleans())
def test_a_task_adapts_in_a_ragged_batch_as_it_does_alone(data, tasks, seed, first_order):
    """Weights after steps of its own number, and the query loss after them."""
    network, T = data.draw(networks(tasks.dim)), len(tasks)
    steps = sorted(data.draw(st.lists(st.integers(0, 4), min_size=T, max_size=T)), reverse=True)
    start, how = weights(network, 1, seed)[0], {"lr": 0.05}
    parts = [(tasks.batch(rows, "support"), tasks.batch(rows, "query")) for rows in (None, *([i] for i in range(T)))]
    (support, query), *alone = parts
    adapted = adapt_weights(network, start, support, steps=torch.tensor(steps), **how)
    loss = maml_weights_loss(
        network, start, support, query, steps=torch.tensor(steps), first_order=first_order, **how
    ).detach()
    torch.testing.assert_close(loss, network.loss(adapted, query), **CLOSE)
    for i, (own, asked) in enumerate(alone):
        expected = adapt_weights(network, start, own, steps=steps[i], **how)
        torch.testing.assert_close(adapted[i], expected[0], **CLOSE)
        torch.testing.assert_close(loss[i], network.loss(expected, asked)[0], **CLOSE)
        plain = adapt(start[None], loss_on(network, own), steps=steps[i], **how)  # in all coordinates
        torch.testing.assert_close(expected, plain, **CLOSE)


@given(task_sets(), SEEDS, st.floats(0.1, 0.9), st.integers(1, 10))
def test_parts_of_a_task_are_disjoint_and_whole(tasks, seed, share, most):
    """Support and query, and samples, hold each example of their task once, with its own label."""
    batch = tasks.batch()
    tagged = replace(batch, images=torch.arange(batch.labels.shape[1])[None, :, None].expand(*batch.labels.shape, 1))
    support, query = split_support_query(tagged, support_fraction=share, rng=rng(seed))
    few = subsample(tagged, most, rng(seed))
    for i in range(len(batch)):
        n = int(batch.example_mask[i].sum())
        seen = [part.images[i, part.example_mask[i], 0].tolist() for part in (support, query, few)]
        assert sorted(seen[0] + seen[1]) == list(range(n)) and seen[0] and (seen[1] or n < 2)
        assert len(set(seen[2])) == len(seen[2]) == min(n, most)
        for part, numbers in zip((support, query, few), seen, strict=True):
            assert part.labels[i, part.example_mask[i]].tolist() == batch.labels[i, numbers].tolist()


# -- answers, examples, hidden units in another order ------------------------------------------------------------------


def with_answers_permuted(batch: TaskBatch, seed: int) -> tuple[TaskBatch, Tensor]:
    """Every task's answers in an order of its own, padding last as before, and that order (T, C)."""
    order = torch.rand(batch.answer_mask.shape, generator=rng(seed)).masked_fill(~batch.answer_mask, 2).argsort(1)
    answers = batch.answers.gather(1, order[..., None].expand_as(batch.answers))
    labels = order.argsort(1).gather(1, batch.labels) * batch.example_mask
    return replace(batch, answers=answers, labels=labels), order


@given(st.data(), task_sets(), SEEDS)
def test_permuting_answers_permutes_predictions(data, tasks, seed):
    network, batch = data.draw(networks(tasks.dim)), tasks.batch()
    other, order = with_answers_permuted(batch, seed)
    w = weights(network, len(batch), seed)
    logits, permuted = network.logits(w, batch), network.logits(w, other)
    torch.testing.assert_close(permuted, logits.gather(2, order[:, None].expand_as(logits)), **CLOSE)
    torch.testing.assert_close(network.loss(w, other), network.loss(w, batch), **CLOSE)
    best, permuted_best = logits.argmax(-1), order.gather(1, permuted.argmax(-1))
    top = logits.topk(2).values
    clear = batch.example_mask & (top[..., 0] - top[..., 1] > 1e-3)
    assert torch.equal(best[clear], permuted_best[clear])
    adapted = [adapt_weights(network, w[0], each, steps=3, lr=0.05) for each in (batch, other)]
    torch.testing.assert_close(*adapted, **CLOSE)


@given(st.data(), SEEDS, st.integers(1, 5), st.integers(2, 7), st.integers(2, 24))
def test_permuting_candidates_permutes_an_adapters_probabilities(data, seed, N, C, D):
    network = data.draw(networks(D))
    adapter = Adapter(weights(network, 1, seed)[0], network, backbone=None)
    x, answers, order = unit(N, D, seed=seed), unit(C, D, seed=seed + 1), torch.randperm(C, generator=rng(seed))
    probability = adapter.probabilities_of(x, answers)
    torch.testing.assert_close(adapter.probabilities_of(x, answers[order]), probability[:, order], **CLOSE)
    torch.testing.assert_close(probability.sum(-1), torch.ones(N), **CLOSE)


@given(st.data(), task_sets(), SEEDS)
def test_the_order_of_examples_leaves_loss_and_adapted_weights(data, tasks, seed):
    network, batch = data.draw(networks(tasks.dim)), tasks.batch()
    order = torch.rand(batch.labels.shape, generator=rng(seed)).argsort(1)  # padding, too, comes anywhere
    other = replace(
        batch,
        images=batch.images.gather(1, order[..., None].expand_as(batch.images)),
        labels=batch.labels.gather(1, order),
        example_mask=batch.example_mask.gather(1, order),
    )
    w = weights(network, len(batch), seed)
    logits, permuted = network.logits(w, batch), network.logits(w, other)
    torch.testing.assert_close(permuted, logits.gather(1, order[..., None].expand_as(logits)), **CLOSE)
    torch.testing.assert_close(task_loss(permuted, other), task_loss(logits, batch), **CLOSE)
    adapted = [adapt_weights(network, w[0], each, steps=3, lr=0.05) for each in (batch, other)]
    torch.testing.assert_close(*adapted, **CLOSE)


@given(task_sets(), SEEDS, st.integers(1, 8), st.booleans(), st.integers(1, 4))
def test_permuting_hidden_units_leaves_outputs(tasks, seed, H, bias, steps):
    """As made, under FiLM in the same order, and adapted: descent permutes with them."""
    network, batch = CLIPAdapter(AdapterConfig(H, bias), tasks.dim, scale=10.0), tasks.batch()
    order = torch.randperm(H, generator=rng(seed))

    def permuted(w: Tensor) -> Tensor:
        axes = {"W1": -2, "b1": -1, "W2": -1}
        parts = {name: part.index_select(axes[name], order) if name in axes else part
                 for name, part in network.unpack(w).items()}  # fmt: skip
        return network.pack(parts)

    w = weights(network, len(batch), seed)
    torch.testing.assert_close(network.forward(permuted(w), batch.images), network.forward(w, batch.images), **CLOSE)
    adapted, other = (adapt_weights(network, start, batch, steps=steps, lr=0.05) for start in (w[0], permuted(w[0])))
    torch.testing.assert_close(other, permuted(adapted), **CLOSE)
    if bias:
        scale, shift = torch.randn(2, len(batch), H, generator=rng(seed + 2))
        filmed = network.film(permuted(w[0]), scale[:, order], shift[:, order])
        torch.testing.assert_close(filmed, permuted(network.film(w[0], scale, shift)), **CLOSE)


# -- samplers and guidance ---------------------------------------------------------------------------------------------

WAYS = {
    **SAMPLERS,
    "ddim, eta 1": lambda *a, **k: sample_ddim(*a, eta=1.0, **k),
    "ddpm, beta": lambda *a, **k: sample_ddpm(*a, variance="beta", **k),
    "ddpm, beta_tilde": lambda *a, **k: sample_ddpm(*a, variance="beta_tilde", **k),
}
DTYPES = st.sampled_from([torch.float32, torch.float64])


@st.composite
def denoisers(draw) -> HyperLDM:
    """Untrained ones that put something out, of both kinds, of schedules of two to 40 steps."""
    config = HyperLDMConfig(
        hidden=tuple(draw(st.lists(st.integers(4, 12), min_size=1, max_size=3))),
        time_dim=2 * draw(st.integers(1, 4)),
        squeeze=2,
        prediction=draw(st.sampled_from(["eps", "v"])),
        num_timesteps=draw(st.integers(2, 40)),
    )
    torch.manual_seed(draw(SEEDS))
    model = HyperLDM(config, latent=draw(st.integers(1, 5)), dim=draw(st.integers(1, 6))).eval()
    torch.nn.init.normal_(model.outlet.weight, std=0.3)
    return model.requires_grad_(False)


@pytest.mark.parametrize("way", sorted(WAYS))
@given(st.data(), denoisers(), SEEDS, DTYPES, st.integers(1, 4), st.sampled_from([0.0, 1.0, 2.5]))
def test_every_sampler_under_guidance(way, data, model, seed, dtype, B, gamma):
    """Finite, of the shape and type of z_T, which it leaves alone; a function of the random state."""
    model, steps = model.to(dtype), data.draw(st.integers(1, model.schedule.num_steps))
    e = unit(B, model.dim, seed=seed).to(dtype)
    z_T = torch.randn(B, model.latent, generator=rng(seed), dtype=dtype)
    before, seen = z_T.clone(), []

    def sample(eps_fn, z_T=z_T) -> Tensor:
        seen.clear()
        watch = lambda i, t, z, z0: seen.append((i, t))
        noise = standard_normal(rng(seed))
        return WAYS[way](eps_fn, z_T, model.schedule, steps=steps, noise=noise, callback=watch)

    z = sample(classifier_free(model, e, gamma))
    assert z.shape == z_T.shape and z.dtype == dtype and z.isfinite().all() and torch.equal(z_T, before)
    assert seen == list(enumerate(timesteps(model.schedule, steps).tolist()))
    assert torch.equal(sample(classifier_free(model, e, gamma)), z)
    if gamma == 1.0:
        assert torch.equal(z, sample(conditional(model, e)))
    if gamma == 0.0:
        assert torch.equal(z, sample(conditional(model, torch.zeros_like(e))))
    nothing = gradient_guidance(classifier_free(model, e, gamma), lambda z0: -z0.square().sum(-1), model.schedule, 0.0)
    torch.testing.assert_close(sample(nothing), z, **CLOSE)


@given(denoisers(), SEEDS, DTYPES, st.integers(1, 4), st.floats(0, 10))
def test_guidance_is_the_convention_of_eq_10(model, seed, dtype, B, gamma):
    model = model.to(dtype).requires_grad_(False)
    e, z = unit(B, model.dim, seed=seed).to(dtype), torch.randn(B, model.latent, generator=rng(seed), dtype=dtype)
    t = torch.randint(model.schedule.num_steps, (B,), generator=rng(seed))
    with_e, without = conditional(model, e)(z, t), conditional(model, torch.zeros_like(e))(z, t)
    guided = classifier_free(model, e, gamma)(z, t)
    assert guided.shape == z.shape and guided.dtype == dtype
    torch.testing.assert_close(guided, (1 - gamma) * without + gamma * with_e, rtol=1e-3, atol=1e-3)


@given(SEEDS, DTYPES, st.integers(1, 4), st.integers(1, 5), st.integers(2, 60), st.floats(0, 3))
def test_gradient_guidance_is_eq_11(seed, dtype, B, Z, T, scale):
    """For an eps_fn whose predicted z_0 is known: eps = 0 predicts z_t / sqrt(alpha_bar)."""
    schedule, y = linear_schedule(T), torch.randn(Z, generator=rng(seed), dtype=dtype)
    z, t = torch.randn(B, Z, generator=rng(seed + 1), dtype=dtype), torch.randint(T, (B,), generator=rng(seed))
    guided = gradient_guidance(lambda z, t: 0 * z, lambda z0: -(z0 - y).square().sum(-1), schedule, scale)(z, t)
    alpha_bar = schedule.alpha_bar[t][:, None].to(dtype)
    gradient = -2 * (z / alpha_bar.sqrt() - y) / alpha_bar.sqrt()
    torch.testing.assert_close(guided, -scale * (1 - alpha_bar).sqrt() * gradient, **CLOSE)
    assert guided.dtype == dtype and not guided.requires_grad


@pytest.mark.parametrize("way", sorted(WAYS))
@given(st.data(), denoisers(), SEEDS, st.integers(1, 3), st.integers(2, 4))
def test_what_a_question_gets_depends_on_no_other(way, data, model, seed, samples, T):
    steps = data.draw(st.integers(1, model.schedule.num_steps))
    e = unit(T, model.dim, seed=seed)

    def latents(e: Tensor) -> Tensor:
        noise = shared_normal(samples, rng(seed))
        z_T = noise(torch.empty(samples * len(e), model.latent))
        eps_fn = classifier_free(model, e.repeat(samples, 1), 1.5)
        return WAYS[way](eps_fn, z_T, model.schedule, steps=steps, noise=noise).view(samples, len(e), -1)

    i = data.draw(st.integers(0, T - 1))
    torch.testing.assert_close(latents(e)[:, i], latents(e[i : i + 1])[:, 0], rtol=1e-3, atol=1e-3)


@given(st.integers(1, 500), st.data())
def test_timesteps_are_distinct_and_fall_from_the_noisiest_one(T, data):
    steps = data.draw(st.integers(1, T))
    sequence = timesteps(linear_schedule(T), steps).tolist()
    assert len(sequence) == steps and sequence == sorted(set(sequence), reverse=True)
    assert sequence[0] == T - 1 and (sequence[-1] == 0 or steps == 1)


@given(SEEDS, st.integers(1, 4), st.integers(1, 5), st.integers(2, 30), st.integers(1, 6), st.integers(0, 6),
       st.sampled_from(["sgd", "adam"]))  # fmt: skip
def test_guidance_by_hyperclip(seed, T, Z, P, E, steps, optimizer):
    """Finite latents of z0's shape, z0 left alone; small steps down find a higher cosine, whoever is beside."""
    torch.manual_seed(seed)
    model = HyperCLIP(HyperCLIPConfig(hidden=4), num_params=P, dim=E).requires_grad_(False)
    decoder, z0, target = torch.randn(Z, P), torch.randn(T, Z), model.embed_questions(unit(T, E, seed=seed))
    before, cosines = z0.clone(), []
    how = {"steps": steps, "lr": 1e-3, "lam": 0.0, "optimizer": optimizer}
    embed = lambda z: model(z @ decoder)
    z = guide_latent(z0, target, embed, **how, callback=lambda step, z, cosine: cosines.append(cosine))
    assert z.shape == z0.shape and z.isfinite().all() and torch.equal(z0, before) and len(cosines) == steps
    if steps == 0:
        assert torch.equal(z, z0)
    if optimizer == "sgd":  # Adam's first steps have the size of its rate, however small the gradient
        cosine = lambda z: (embed(z) * target).sum(-1)
        assert (cosine(z) >= cosine(z0) - 1e-5).all()
        torch.testing.assert_close(guide_latent(z0[:1], target[:1], embed, **how), z[:1], **CLOSE)
