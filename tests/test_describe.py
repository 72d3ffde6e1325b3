"""Descriptors inferred from a task's data, against tasks whose question follows from it."""

import dataclasses

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
    groups = x.split([3, 16, 16, 16], dim=1)
    assert all(torch.allclose(group.square().sum(1).mean(), torch.tensor(0.95), atol=1e-4) for group in groups)
    padded = dataclasses.replace(batch, labels=batch.labels + 2 * ~batch.example_mask)  # labels of padding
    assert torch.equal(task_features(padded, z), x)


def test_missing_descriptors_are_recovered_and_given_ones_stay():
    """Questions that are a smooth function of the task come back; what stands in undescribed rows does not matter."""
    g = torch.Generator().manual_seed(0)
    features = torch.randn(300, 2, generator=g) * 2
    e = torch.stack([features[:, 0].sin(), features[:, 1].cos(), features.sum(1).tanh()], dim=1)
    described = torch.arange(300) % 2 == 0
    hidden = e.masked_fill(~described[:, None], float("nan"))
    found = infer_descriptors(hidden, described, features)
    assert torch.equal(found[described], e[described])
    spread = (e[~described] - e[~described].mean(0)).square().mean()
    assert (found[~described] - e[~described]).square().mean() < 0.05 * spread


def test_unrelated_features_give_the_mean():
    g = torch.Generator().manual_seed(0)
    e, features = torch.randn(200, 3, generator=g), torch.randn(200, 8, generator=g)
    described = torch.arange(200) < 100
    found = infer_descriptors(e, described, features)[100:]
    assert (found - e[:100].mean(0)).square().mean() < 0.2 * e.var()


def test_too_few_descriptors_are_named():
    with pytest.raises(ValueError, match="4 described tasks"):
        infer_descriptors(torch.randn(9, 3), torch.arange(9) < 4, torch.randn(9, 2))
