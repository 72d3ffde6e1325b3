"""Descent in a task's own coordinates is the descent in all coordinates."""

from dataclasses import replace

import pytest
import torch

import core.adaptation.grouping
from core.adaptation.inner_loop import adapt, maml_loss
from core.adaptation.subspace import adapt_adapters, maml_adapter_loss
from core.adaptation.weights import adapt_weights, loss_on, maml_weights_loss
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.base import BASE_NETWORKS
from tests.conftest import random_batch

STEPS = torch.tensor([0, 1, 2, 3, 7, 10])


def setup(D: int, bias: bool):
    """Six ragged tasks with support and query, two of whose images are equal, and weights that are not fresh."""
    network = CLIPAdapter(AdapterConfig(hidden=8, bias=bias), D)
    support, query = random_batch(T=6, N=20, D=D), random_batch(T=6, N=9, D=D, seed=1)
    support.images[2, 1] = support.images[2, 0]
    possible = query.labels < support.answer_mask.sum(1, keepdim=True)
    query = replace(
        query, answers=support.answers, answer_mask=support.answer_mask, labels=torch.where(possible, query.labels, 0)
    )
    w = network.init(torch.Generator().manual_seed(0))
    return network, support, query, w + 0.1 * torch.randn(len(w), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("D", [64, 16])  # with room for a subspace, and without
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("steps", [4, STEPS])
def test_adapted_weights_are_those_of_the_plain_loop(D, bias, steps, monkeypatch):
    network, support, _, w = setup(D, bias)
    plain = lambda w: network.loss(w, support)
    expected = adapt(w.expand(6, -1), plain, steps=steps, lr=0.05)
    for cache in (1, 2**30):  # one task at a time, and as many as are of like size
        monkeypatch.setattr(core.adaptation.grouping, "_CACHE_BYTES", cache)
        got = adapt_adapters(network, w, support, steps=steps, lr=0.05)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("D", [64, 16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("first_order", [True, False])
def test_meta_gradient_is_that_of_the_plain_loop(D, bias, first_order):
    """Also in the directions that the basis leaves out: there it is zero in truth."""
    network, support, query, w = setup(D, bias)
    arguments = dict(steps=STEPS, lr=0.05, first_order=first_order)
    one, two = w.clone().requires_grad_(), w.clone().requires_grad_()
    losses = (lambda w, tasks=tasks: network.loss(w, tasks) for tasks in (support, query))
    expected = maml_loss(one.expand(6, -1), *losses, **arguments)
    got = maml_adapter_loss(network, two, support, query, **arguments)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    (wanted,) = torch.autograd.grad(expected.mean(), one)
    (gradient,) = torch.autograd.grad(got.mean(), two)
    assert float((gradient - wanted).norm() / wanted.norm()) < 1e-4


def test_bad_arguments():
    network, support, _, w = setup(16, True)
    for start, steps, lr, word in ((w[None], 1, 0.1, "shape"), (w, -1, 0.1, "negative"), (w, 1, -0.1, "negative")):
        with pytest.raises(ValueError, match=word):
            adapt_adapters(network, start, support, steps=steps, lr=lr)


@pytest.mark.parametrize("name", BASE_NETWORKS.names())
def test_weights_of_every_network_descend_as_in_the_plain_loop(name):
    """Whichever way `adapt_weights` and `maml_weights_loss` take for a network, fast or plain."""
    _, support, query, _ = setup(64, True)
    network = BASE_NETWORKS[name](BASE_NETWORKS[name].Config(), 64)
    w, steps = network.init(torch.Generator().manual_seed(0)), STEPS.flip(0)
    arguments = dict(steps=steps, lr=0.01)
    expected = adapt(w.expand(6, -1), loss_on(network, support), **arguments)
    torch.testing.assert_close(adapt_weights(network, w, support, **arguments), expected, rtol=1e-4, atol=2e-5)
    one, two = w.clone().requires_grad_(), w.clone().requires_grad_()
    expected = maml_loss(one.expand(6, -1), loss_on(network, support), loss_on(network, query), **arguments)
    got = maml_weights_loss(network, two, support, query, **arguments)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    (wanted,) = torch.autograd.grad(expected.mean(), one)
    (gradient,) = torch.autograd.grad(got.mean(), two)
    assert float((gradient - wanted).norm() / wanted.norm()) < 1e-4


def test_the_loss_of_the_first_tasks_alone_is_theirs():
    network, support, _, w = setup(16, True)
    weights = w + torch.linspace(0, 0.1, 6)[:, None]
    whole = loss_on(network, support)(weights)
    torch.testing.assert_close(loss_on(network, support)(weights[:2]), whole[:2])
    torch.testing.assert_close(loss_on(network, support, lambda w: 2 * w)(weights / 2), whole)
