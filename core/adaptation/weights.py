"""The inner loop on weights themselves, of all tasks from one start: in the few coordinates that a task can see, where
the base network has such a way."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.tasks import TaskBatch
from ..networks.adapter import CLIPAdapter
from ..networks.base import BaseNetwork
from .inner_loop import TaskLoss, adapt, maml_loss
from .subspace import adapt_adapters, maml_adapter_loss


def loss_on(network: BaseNetwork, batch: TaskBatch, decode=lambda w: w) -> TaskLoss:
    """The training loss of what `decode` turns into weights, for `adapt`: (n, K) for the first n tasks to (n,)."""
    loss = network.loss_on(batch)
    return lambda x: loss(decode(x))


def adapt_weights(network: BaseNetwork, start: Tensor, batch: TaskBatch, *, steps: int | Tensor, lr: float) -> Tensor:
    """Weights (T, P) after gradient descent from `start` (P,) on the mean loss of every task's examples."""
    if type(network) is CLIPAdapter:  # a subclass may compute something else
        return adapt_adapters(network, start, batch, steps=steps, lr=lr)
    with torch.no_grad():
        return adapt(start.expand(len(batch), -1), loss_on(network, batch), steps=steps, lr=lr)


def maml_weights_loss(
    network: BaseNetwork,
    start: Tensor,
    support: TaskBatch,
    query: TaskBatch,
    *,
    steps: Tensor,
    lr: float,
    first_order: bool = False,
) -> Tensor:
    """Query loss (T,) after `adapt_weights`, differentiable to `start` (P,); `steps` (T,) falls from task to task."""
    if type(network) is CLIPAdapter:  # a subclass may compute something else
        return maml_adapter_loss(network, start, support, query, steps=steps, lr=lr, first_order=first_order)
    return maml_loss(
        start.expand(len(support), -1),
        loss_on(network, support),
        loss_on(network, query),
        steps=steps,
        lr=lr,
        first_order=first_order,
        falling=True,
    )
