"""Gradients are clipped as PyTorch clips them; small ones are left alone."""

import pytest
import torch
from torch import nn

from train.pipeline.optim import clip


@pytest.mark.parametrize("most", [0.5, 100.0])
def test_clipping_is_pytorchs(most):
    ours, theirs = ([nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))] for _ in range(2))
    for parameters in (ours, theirs):
        for i, parameter in enumerate(parameters):
            parameter.grad = torch.full_like(parameter, 1.0 + i)
    assert torch.equal(clip(ours, most), nn.utils.clip_grad_norm_(theirs, most))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))
