"""The inner loop A_Ti (Eq. 2): gradient descent on many tasks at once; and the MAML objective around it (Eq. 1, 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TaskLoss = Callable[[Tensor], Tensor]  # parameters (T, K) -> loss per task (T,)


def adapt(
    start: Tensor,
    loss: TaskLoss,
    *,
    steps: int | Tensor,
    lr: float,
    first_order: bool = False,
    differentiable: bool = False,
    falling: bool = False,
) -> Tensor:
    """Adapt one parameter vector per task by full-batch gradient descent.

    The same loop adapts weights, a hypernetwork's latent or a task embedding; `loss` decides what they mean. Tasks
    never mix: the gradient of the summed loss is each task's own gradient.

    Args:
        start: (T, K), where each task begins.
        loss: maps (T, K) to the support loss (T,).
        steps: how many steps, for all tasks or (T,) for each; finished tasks stay where they are.
        lr: the inner learning rate eta.
        first_order: ignore how the gradient itself depends on `start` (FOMAML). Matters only if `differentiable`.
        falling: `steps` is (T,) and falls from task to task, and `loss` takes (n, K) for the first n tasks alone: then
            only the tasks that still move are worked on.
        differentiable: keep the graph, so that the result can be differentiated with respect to `start`.

    Returns:
        Adapted parameters (T, K); without a graph unless `differentiable`.
    """
    least, most = (int(end) for end in steps.aminmax()) if isinstance(steps, Tensor) else (steps, steps)
    if least < 0 or lr < 0:
        raise ValueError(f"adapt: steps {least} and lr {lr} must not be negative")
    if falling and not (isinstance(steps, Tensor) and bool((steps[1:] <= steps[:-1]).all())):
        raise ValueError(f"adapt: falling, but steps {steps} do not fall from task to task")
    current = start if differentiable else start.detach()
    through: list[Tensor] = []  # of the tasks that are done, the last ones first
    for step in range(most):
        if falling:
            moving = int((steps > step).sum())
            if moving < len(current):  # finished tasks cost nothing more
                through.append(current[moving:])
                current, steps = current[:moving], steps[:moving]
        with torch.enable_grad():
            if not current.requires_grad:
                current = current.detach().requires_grad_()
            keep_graph = differentiable and not first_order
            (gradient,) = torch.autograd.grad(loss(current).sum(), current, create_graph=keep_graph)
        if isinstance(steps, Tensor):
            gradient = gradient.where((step < steps)[:, None], 0)
        current = current - lr * gradient
        if not differentiable:
            current = current.detach()
    return torch.cat([current, *reversed(through)]) if through else current


def maml_loss(
    start: Tensor,
    support_loss: TaskLoss,
    query_loss: TaskLoss,
    *,
    steps: int | Tensor,
    lr: float,
    first_order: bool = False,
    falling: bool = False,
) -> Tensor:
    """Query loss (T,) after adaptation on the support set, differentiable down to `start` and the decoder's weights.
    The arguments are those of `adapt`."""
    inner = {"steps": steps, "lr": lr, "first_order": first_order, "falling": falling}
    adapted = adapt(start, support_loss, differentiable=True, **inner)
    return query_loss(adapted)
