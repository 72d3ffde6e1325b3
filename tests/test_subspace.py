"""Descent in a task's own coordinates is the descent in all coordinates."""

from dataclasses import replace

import pytest
import torch

import core.adaptation.subspace
from core.adaptation.inner_loop import adapt, maml_loss
from core.adaptation.subspace import adapt_adapters, maml_adapter_loss
from core.data.tasks import TaskBatch
from core.networks.adapter import AdapterConfig, adapter_logits, init_adapter, task_loss
from tests.conftest import random_batch

STEPS = torch.tensor([0, 1, 2, 3, 7, 10])


def setup(D: int, bias: bool):
    """Six ragged tasks with support and query, two of whose images are equal, and weights that are not fresh."""
    config = AdapterConfig(D, 8, bias=bias)
    support, query = random_batch(T=6, N=20, D=D), random_batch(T=6, N=9, D=D, seed=1)
    support.images[2, 1] = support.images[2, 0]
    possible = query.labels < support.answer_mask.sum(1, keepdim=True)
    query = replace(
        query, answers=support.answers, answer_mask=support.answer_mask, labels=torch.where(possible, query.labels, 0)
    )
    w = init_adapter(config, torch.Generator().manual_seed(0))
    return config, support, query, w + 0.1 * torch.randn(len(w), generator=torch.Generator().manual_seed(1))


def loss(tasks: TaskBatch, config: AdapterConfig):
    return lambda w: task_loss(adapter_logits(w, tasks, config), tasks)


@pytest.mark.parametrize("D", [64, 16])  # with room for a subspace, and without
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("steps", [4, STEPS])
def test_adapted_weights_are_those_of_the_plain_loop(D, bias, steps, monkeypatch):
    config, support, _, w = setup(D, bias)
    expected = adapt(w.expand(6, -1), loss(support, config), steps=steps, lr=0.05)
    for cache in (1, 2**30):  # one task at a time, and as many as are of like size
        monkeypatch.setitem(core.adaptation.subspace._CACHE, "cpu", cache)
        got = adapt_adapters(w, support, config, steps=steps, lr=0.05)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("D", [64, 16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("first_order", [True, False])
def test_meta_gradient_is_that_of_the_plain_loop(D, bias, first_order):
    """Also in the directions that the basis leaves out: there it is zero in truth."""
    config, support, query, w = setup(D, bias)
    arguments = dict(steps=STEPS, lr=0.05, first_order=first_order)
    one, two = w.clone().requires_grad_(), w.clone().requires_grad_()
    expected = maml_loss(one.expand(6, -1), loss(support, config), loss(query, config), **arguments)
    got = maml_adapter_loss(two, support, query, config, **arguments)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    (wanted,) = torch.autograd.grad(expected.mean(), one)
    (gradient,) = torch.autograd.grad(got.mean(), two)
    assert float((gradient - wanted).norm() / wanted.norm()) < 1e-4


def test_bad_arguments():
    config, support, _, w = setup(16, True)
    for start, steps, lr, word in ((w[None], 1, 0.1, "shape"), (w, -1, 0.1, "negative"), (w, 1, -0.1, "negative")):
        with pytest.raises(ValueError, match=word):
            adapt_adapters(start, support, config, steps=steps, lr=lr)
