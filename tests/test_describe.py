"""Descriptors inferred from a task's data, against tasks whose question follows from it."""

import dataclasses
import itertools

import pytest
import torch

from core.conditioning import Whitening
from core.describe import infer_descriptors, task_features
from tests.conftest import random_batch


def test_whitening_has_an_inverse():
    e = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(6, 6)
    whitening = Whitening(6)
    whitening.fit(e)
    assert torch.allclose(whitening.inverse(whitening(e)), e, atol=1e-4)


def test_features_are_balanced_and_see_only_examples_of_the_task():
    batch, z = random_batch(T=20, N=12, C=5, D=16), torch.randn(20, 3)
    x = task_features(batch, z)
    parts = list(itertools.chain(*x))
    assert [part.shape for part in parts] == [(20, 16), (20, 16), (20, 3), (20, 16), (20, 16)]
    assert all(torch.allclose(part.square().sum(1).mean(), torch.tensor(0.95), atol=1e-4) for part in parts)
    padded = dataclasses.replace(batch, labels=batch.labels + 2 * ~batch.example_mask)  # labels of padding
    again = itertools.chain(*task_features(padded, z))
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))


def test_missing_descriptors_are_recovered_and_given_ones_stay():
    """Questions that are a smooth function of the task come back; what stands in undescribed rows does not matter."""
    g = torch.Generator().manual_seed(0)
    features = torch.randn(300, 2, generator=g) * 2
    e = torch.stack([features[:, 0].sin(), features[:, 1].cos(), features.sum(1).tanh()], dim=1)
    described = torch.arange(300) % 2 == 0
    hidden = e.masked_fill(~described[:, None], float("nan"))
    found = infer_descriptors(hidden, described, [[features]])
    assert torch.equal(found[described], e[described])
    spread = (e[~described] - e[~described].mean(0)).square().mean()
    assert (found[~described] - e[~described]).square().mean() < 0.05 * spread


def test_groups_add_up():
    """Two functions of two groups are told apart: their sum comes back for pairs of values never seen together."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(400, 1, generator=g) * 4, torch.rand(400, 1, generator=g) * 4
    e = torch.cat([a.sin() + b.cos(), (2 * a).cos() - b], dim=1)
    described = (a < 2).squeeze() | (b < 2).squeeze()  # a quarter of the plane is never described
    found = infer_descriptors(e.masked_fill(~described[:, None], float("nan")), described, [[a], [b]])[~described]
    assert (found - e[~described]).square().mean() < 0.02 * e.var(0).mean()


def test_unrelated_features_give_the_mean():
    g = torch.Generator().manual_seed(0)
    e, features = torch.randn(200, 3, generator=g), torch.randn(200, 8, generator=g)
    described = torch.arange(200) < 100
    found = infer_descriptors(e, described, [[features]])[100:]
    assert (found - e[:100].mean(0)).square().mean() < 0.2 * e.var()


def test_a_task_without_question_is_called_what_it_shows():
    """Images of a task lie around an answer of another task: that is what the words of its features are."""
    g = torch.Generator().manual_seed(0)
    batch = random_batch(T=12, N=10, C=3, D=32, seed=1)
    words = batch.answers[:, 0]  # (T, D)
    images = words.roll(1, 0)[:, None] + 0.05 * torch.randn(12, 10, 32, generator=g)
    batch = dataclasses.replace(
        batch, images=torch.nn.functional.normalize(images, dim=-1) * batch.example_mask[..., None]
    )
    _, (named,), _ = task_features(batch, torch.randn(12, 2, generator=g))
    said = (words - words.mean(0)).roll(1, 0) / words.std(0)
    assert torch.nn.functional.cosine_similarity(named, said).min() > 0.6


def test_too_few_descriptors_are_named():
    with pytest.raises(ValueError, match="4 described tasks"):
        infer_descriptors(torch.randn(9, 3), torch.arange(9) < 4, [[torch.randn(9, 2)]])
