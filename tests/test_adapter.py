import math

import pytest
import torch
from torch import nn

from core.networks.adapter import (
    AdapterConfig,
    adapter_forward,
    adapter_logits,
    init_adapter,
    pack,
    task_accuracy,
    task_loss,
    unpack,
)
from tests.conftest import random_batch


@pytest.mark.parametrize("bias", [True, False])
def test_unpack_and_pack_are_inverse(bias):
    config = AdapterConfig(dim=6, hidden=4, bias=bias)
    w = torch.randn(3, config.num_params)
    assert torch.equal(pack(unpack(w, config), config), w)
    assert sum(part[0].numel() for part in unpack(w, config).values()) == config.num_params


def test_the_papers_size():
    assert AdapterConfig().num_params == 394_240


@pytest.mark.parametrize("bias", [True, False])
def test_forward_is_two_linear_layers(bias):
    config = AdapterConfig(dim=8, hidden=5, bias=bias)
    w = torch.randn(2, config.num_params)
    images = nn.functional.normalize(torch.randn(2, 7, 8), dim=-1)
    for i in range(2):
        parts = unpack(w[i], config)
        first, second = nn.Linear(8, 5, bias=bias), nn.Linear(5, 8, bias=bias)
        with torch.no_grad():
            first.weight.copy_(parts["W1"] / math.sqrt(8))
            second.weight.copy_(parts["W2"] / math.sqrt(5))
            if bias:
                first.bias.copy_(parts["b1"])
                second.bias.copy_(parts["b2"])
            x = images[i] * math.sqrt(8)
            expected = nn.functional.normalize(x + second(torch.relu(first(x))), dim=-1)
        torch.testing.assert_close(adapter_forward(w, images, config)[i], expected)


def test_zero_second_layer_is_plain_clip():
    batch, config = random_batch(D=16), AdapterConfig(dim=16, hidden=4, init_std=0.0)
    w = init_adapter(config, torch.Generator().manual_seed(0)).expand(4, -1)
    torch.testing.assert_close(adapter_logits(w, batch, config), adapter_logits(None, batch, config))


def test_loss_and_accuracy_ignore_padding():
    batch, config = random_batch(D=16), AdapterConfig(dim=16, hidden=4)
    w = init_adapter(config).expand(4, -1)
    logits = adapter_logits(w, batch, config)
    for i in range(4):
        n, c = int(batch.example_mask[i].sum()), int(batch.answer_mask[i].sum())
        own = logits[i, :n, :c]
        torch.testing.assert_close(task_loss(logits, batch)[i], nn.functional.cross_entropy(own, batch.labels[i, :n]))
        torch.testing.assert_close(
            task_accuracy(logits, batch)[i], (own.argmax(-1) == batch.labels[i, :n]).float().mean()
        )


def test_wrong_length_is_named():
    with pytest.raises(ValueError, match="10 values"):
        unpack(torch.zeros(10), AdapterConfig(dim=4, hidden=2))
