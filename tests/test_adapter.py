"""The CLIP-Adapter, and how logits become losses and accuracies."""

import math

import pytest
import torch
from torch import nn

from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.base import accuracies, task_accuracy, task_loss
from tests.conftest import random_batch

NETWORK = CLIPAdapter(AdapterConfig(hidden=4), dim=16)


@pytest.mark.parametrize("bias", [True, False])
def test_unpack_and_pack_are_inverse(bias):
    network = CLIPAdapter(AdapterConfig(hidden=4, bias=bias), dim=6)
    w = torch.randn(3, network.num_params)
    assert torch.equal(network.pack(network.unpack(w)), w)
    assert sum(part[0].numel() for part in network.unpack(w).values()) == network.num_params


def test_the_papers_size():
    assert CLIPAdapter(AdapterConfig(), dim=768).num_params == 394_240


@pytest.mark.parametrize("bias", [True, False])
def test_forward_is_two_linear_layers(bias):
    network = CLIPAdapter(AdapterConfig(hidden=5, bias=bias), dim=8)
    w = torch.randn(2, network.num_params)
    images = nn.functional.normalize(torch.randn(2, 7, 8), dim=-1)
    for i in range(2):
        parts = network.unpack(w[i])
        first, second = nn.Linear(8, 5, bias=bias), nn.Linear(5, 8, bias=bias)
        with torch.no_grad():
            first.weight.copy_(parts["W1"] / math.sqrt(8))
            second.weight.copy_(parts["W2"] / math.sqrt(5))
            if bias:
                first.bias.copy_(parts["b1"])
                second.bias.copy_(parts["b2"])
            x = images[i] * math.sqrt(8)
            expected = nn.functional.normalize(x + second(torch.relu(first(x))), dim=-1)
        torch.testing.assert_close(network.forward(w, images)[i], expected)


def test_zero_second_layer_is_plain_clip():
    batch, network = random_batch(D=16), CLIPAdapter(AdapterConfig(hidden=4, init_std=0.0), dim=16)
    w = network.init(torch.Generator().manual_seed(0)).expand(4, -1)
    torch.testing.assert_close(network.logits(w, batch), network.logits(None, batch))


def test_a_fresh_adapter_has_the_stated_scale():
    network = CLIPAdapter(AdapterConfig(hidden=32), dim=64)
    w = network.unpack(network.init(torch.Generator().manual_seed(0)))
    assert w["W1"].std() == pytest.approx(1, rel=0.1) and w["W2"].std() == pytest.approx(0.1, rel=0.1)
    assert w["b1"].abs().max() == w["b2"].abs().max() == 0


def test_the_order_of_hidden_units_does_not_matter():
    w, batch = torch.randn(4, NETWORK.num_params), random_batch(D=16)
    order, parts = torch.tensor([2, 0, 3, 1]), NETWORK.unpack(w)
    other = NETWORK.pack(
        {"W1": parts["W1"][:, order], "b1": parts["b1"][:, order], "W2": parts["W2"][..., order], "b2": parts["b2"]}
    )
    assert not torch.equal(other, w)
    torch.testing.assert_close(NETWORK.forward(other, batch.images), NETWORK.forward(w, batch.images))


def test_loss_and_accuracy_ignore_padding():
    batch = random_batch(D=16)
    w = NETWORK.init().expand(4, -1)
    logits = NETWORK.logits(w, batch)
    for i in range(4):
        n, c = int(batch.example_mask[i].sum()), int(batch.answer_mask[i].sum())
        own = logits[i, :n, :c]
        torch.testing.assert_close(task_loss(logits, batch)[i], nn.functional.cross_entropy(own, batch.labels[i, :n]))
        torch.testing.assert_close(
            task_accuracy(logits, batch)[i], (own.argmax(-1) == batch.labels[i, :n]).float().mean()
        )


def test_some_tasks_at_a_time_have_the_accuracies_of_all_at_once():
    batch, w = random_batch(D=16), torch.randn(4, NETWORK.num_params)
    expected = task_accuracy(NETWORK.logits(w, batch), batch)
    assert len(set(expected.tolist())) > 1
    for given in (w, lambda rows: w[rows]):
        for at_once in (1, 400, 2**26):  # one task, two, all
            torch.testing.assert_close(accuracies(NETWORK, given, batch, at_once), expected)
    plain = task_accuracy(NETWORK.logits(None, batch), batch)
    torch.testing.assert_close(accuracies(NETWORK, None, batch, 1), plain)


def test_wrong_length_is_named():
    with pytest.raises(ValueError, match="10 values"):
        CLIPAdapter(AdapterConfig(hidden=2), dim=4).unpack(torch.zeros(10))
