"""The optimizer and the learning rate's course that all stages share."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


def adam(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW, plain Adam without weight decay; fused, which makes a step of a large hypernetwork three times as fast."""
    parameters = list(parameters)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused)


def clip(parameters: Iterable[nn.Parameter], most: float) -> torch.Tensor:
    """Scale gradients so that their norm is at most `most`; returns the norm that they had.

    A CPU leaves those alone that are smaller: multiplied by one, a large hypernetwork's are read and written for
    nothing. A GPU would have to be waited for to know.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters])
    if norm.device.type != "cpu" or not norm <= most:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def cosine_decay(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """From the optimizer's rate to 2% of it along a half cosine."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
