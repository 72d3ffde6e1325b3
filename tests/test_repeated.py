"""A layer used many times in one graph has the gradient that autograd adds up use by use."""

import pytest
import torch
from torch import nn

from core.networks.derivatives import repeated
from core.networks.derivatives.repeated import Repeated


def descend(layer, x, first_order):
    """Three uses of a layer, the later ones at points moved by gradients that run through the earlier."""
    for _ in range(2):
        (gradient,) = torch.autograd.grad(layer(x).tanh().square().sum(), x, create_graph=not first_order)
        x = x - 0.3 * gradient
    return layer(x).tanh().sum()


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("rows", [512, 4])
def test_gradient_through_an_inner_loop_is_autograds(first_order, rows, monkeypatch):
    monkeypatch.setattr(repeated, "_ROWS", rows)  # 4: multiplied out several times
    layer = nn.Linear(5, 7).double()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    wanted = torch.autograd.grad(descend(layer, x, first_order), [layer.weight, layer.bias, x])
    found = torch.autograd.grad(descend(Repeated(layer), x, first_order), [layer.weight, layer.bias, x])
    torch.testing.assert_close(found, wanted)


def test_gradients_begin_anew_at_every_pass():
    layer = nn.Linear(2, 3)
    several, x = Repeated(layer), torch.ones(1, 2)
    y = several(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert torch.equal(layer.weight.grad, torch.full((3, 2), 2.0))


def test_weights_that_are_not_trained_get_no_gradient():
    layer = nn.Linear(2, 3).requires_grad_(False)
    x = torch.ones(1, 2, requires_grad=True)
    Repeated(layer)(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0)[None])
