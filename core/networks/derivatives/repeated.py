"""A linear layer that one graph uses many times, as an inner loop does: the gradient of its weights is one product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_ROWS = 512  # kept until they are multiplied out: a product of as many runs at full speed, and memory stays bounded


class Repeated:
    """`layer`, for many uses in one graph, which may be differentiated in its inputs to any order.

    For every use autograd makes a gradient g^T x of the weights, as large as they are, and adds it to the sum so far; a
    step of the inner loop is two uses. Here a use hands on its g and x as they are, and the sum of all g^T x is one
    product of the rows of all uses. It is the same sum but for rounding.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.weight, self.bias = layer.weight.detach(), layer.bias
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._sum: Tensor | None = None
        self._whole = _Whole.apply(layer.weight, self)

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, inputs) to (B, outputs)."""
        return self.product(x, back=False) + self.bias

    def product(self, x: Tensor, back: bool) -> Tensor:
        """x W^T of x (B, inputs) or, `back`, x W of x (B, outputs)."""
        return _Product.apply(x, *_Use.apply(self._whole, self, len(x)), self, back)

    def add(self, g: Tensor, x: Tensor) -> None:
        """Add g^T x, of (B, outputs) and (B, inputs), to the gradient of the weights."""
        self._pairs.append((g, x))
        if sum(len(g) for g, _ in self._pairs) >= _ROWS:
            self._multiply_out()

    def gradient(self) -> Tensor:
        """The sum of what was added, which begins anew."""
        if self._pairs:
            self._multiply_out()
        result, self._sum = self._sum, None
        return torch.zeros_like(self.weight) if result is None else result

    def _multiply_out(self) -> None:
        g, x = (torch.cat(rows) for rows in zip(*self._pairs, strict=True))
        self._pairs.clear()
        self._sum = g.mT @ x if self._sum is None else self._sum.addmm_(g.mT, x)


class _Whole(torch.autograd.Function):
    """Stands for all weights, as a number without a meaning: its gradient is due when every use has had its own."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, layer: Repeated) -> Tensor:
        ctx.layer = layer
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.gradient(), None


class _Use(torch.autograd.Function):
    """Stands for the weights in one use: two tensors without storage, whose gradients are the g and x of that use. It
    is differentiated only where the weights' gradient is asked for, which an inner loop does not do."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, layer: Repeated, rows: int) -> tuple[Tensor, Tensor]:
        ctx.layer = layer
        outputs, inputs = layer.weight.shape
        return whole.new_zeros(()).expand(rows, outputs), whole.new_zeros(()).expand(rows, inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, x: Tensor) -> tuple[Tensor, None, None]:
        ctx.layer.add(g, x)
        return g.new_zeros(()), None, None


class _Product(torch.autograd.Function):
    """x W^T or, `back`, x W: the derivative of each in x is the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g_of_use: Tensor, x_of_use: Tensor, layer: Repeated, back: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer, ctx.back = layer, back
        return x @ layer.weight if back else x @ layer.weight.mT

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        (x,) = ctx.saved_tensors
        to_x = ctx.layer.product(g, not ctx.back) if ctx.needs_input_grad[0] else None
        return to_x, *((x, g) if ctx.back else (g, x)), None, None
