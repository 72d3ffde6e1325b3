"""Gradients are clipped as PyTorch clips them; small ones are left alone. A running mean of losses."""

import math

import pytest
import torch
from torch import nn

from train.pipeline.optim import clip
from train.pipeline.steps import RunningMean


@pytest.mark.parametrize("most", [0.5, 100.0])
def test_clipping_is_pytorchs(most):
    ours, theirs = ([nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))] for _ in range(2))
    for parameters in (ours, theirs):
        for i, parameter in enumerate(parameters):
            parameter.grad = torch.full_like(parameter, 1.0 + i)
    assert torch.equal(clip(ours, most), nn.utils.clip_grad_norm_(theirs, most))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


def test_a_running_mean_begins_with_what_it_sees():
    mean = RunningMean(decay=0.5)
    assert math.isnan(mean.value)
    for x in (3.0, 6.0):
        mean.update(x)
    assert mean.value == pytest.approx((0.5 * 3 + 6) / 1.5)
    again = RunningMean(decay=0.5)
    again.load_state_dict(mean.state_dict())
    again.update(1.0)
    mean.update(1.0)
    assert again.value == mean.value
