"""The adapter's loss with derivatives written out is the plain loss, with autograd's derivatives."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from core.adaptation.weights import adapt_weights
from core.data.tasks import TaskBatch
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.base import task_loss
from core.networks.derivatives.adapter_loss import AdapterLoss

T, N, C, D = 3, 7, 5, 8


def ragged() -> TaskBatch:
    """Tasks of 7, 4 and 1 examples and of 5, 2 and 3 answers, padded, in double precision."""
    rng = torch.Generator().manual_seed(0)
    examples, answers = (
        torch.arange(size)[None] < torch.tensor(sizes)[:, None] for size, sizes in ((N, (7, 4, 1)), (C, (5, 2, 3)))
    )
    unit = lambda size, mask: F.normalize(torch.randn(T, size, D, generator=rng).double(), dim=-1) * mask[..., None]
    labels = torch.randint(2, (T, N), generator=rng) * examples
    return TaskBatch(unit(N, examples), labels, examples, unit(C, answers), answers, torch.zeros(T, 1))


@pytest.mark.parametrize("bias", [True, False])
def test_loss_gradient_and_hessian_are_autograds(bias):
    network, batch = CLIPAdapter(AdapterConfig(hidden=4, bias=bias), D, scale=5.0), ragged()
    w = (network.init() + 0.3 * torch.randn(T, network.num_params)).double().requires_grad_(True)
    v, factor = torch.randn_like(w), torch.rand(T).double().requires_grad_(True)

    def derivatives(loss):
        value = loss(w)
        (gradient,) = torch.autograd.grad((factor * value).sum(), w, create_graph=True)
        return value, gradient, *torch.autograd.grad((gradient * v).sum(), [w, factor])

    plain = derivatives(lambda w: task_loss(network.logits(w, batch), batch))
    torch.testing.assert_close(derivatives(AdapterLoss(network, batch)), plain)


def test_padding_changes_nothing():
    network, batch = CLIPAdapter(AdapterConfig(hidden=4), D), ragged()
    w = (network.init() + 0.1 * torch.randn(T, network.num_params)).double()
    alone = dataclasses.replace(
        batch[1:2].trimmed(), answers=batch.answers[1:2, :2], answer_mask=batch.answer_mask[1:2, :2]
    )
    torch.testing.assert_close(AdapterLoss(network, alone)(w[1:2]), AdapterLoss(network, batch)(w)[1:2])


def test_fewer_weights_are_those_of_the_first_tasks():
    network, batch = CLIPAdapter(AdapterConfig(hidden=4), D), ragged()
    w = network.init().double().expand(T, -1)
    loss = network.loss_on(batch)
    torch.testing.assert_close(loss(w[:2]), loss(w)[:2])


def test_a_wide_adapter_takes_the_plain_way():
    batch = ragged()
    wide, narrow = (CLIPAdapter(AdapterConfig(hidden=hidden), D) for hidden in (N + 1, N))
    assert not isinstance(wide.loss_on(batch), AdapterLoss) and isinstance(narrow.loss_on(batch), AdapterLoss)


def test_a_subclass_that_computes_something_else_gets_its_own_loss_and_steps():
    class Doubled(CLIPAdapter):
        def forward(self, w, images):
            return super().forward(w, 2.0 * images)

    network, batch = Doubled(AdapterConfig(hidden=4), D, scale=5.0), ragged()
    w = (network.init() + 0.3 * torch.randn(T, network.num_params)).double()
    plain = lambda w: task_loss(network.logits(w, batch), batch)
    torch.testing.assert_close(network.loss(w, batch), plain(w))
    torch.testing.assert_close(network.loss_on(batch)(w), plain(w))
    start = w[0].requires_grad_(True)
    (gradient,) = torch.autograd.grad(plain(start.expand(T, -1)).sum(), start)
    one = plain(start[None].expand(T, -1))[0]
    (own,) = torch.autograd.grad(one, start)
    adapted = adapt_weights(network, start.detach(), batch, steps=1, lr=0.1)
    torch.testing.assert_close(adapted[0], start.detach() - 0.1 * own)
    assert not torch.allclose(gradient, own)
