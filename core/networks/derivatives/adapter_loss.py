"""The CLIP-Adapter's loss with its first and second derivative written out, in few and small matrices.

The loss reads the adapter's output u = sqrt(D) x + W a, (N, D), only through its products with the answers and through
its length. With a = [relu(W1 x + b1), 1], (N, H'), and W = [W2 / sqrt(H), b2], (D, H'),

    u . answers = sqrt(D) x . answers + a Y^T     and     |u|^2 = D |x|^2 + sum a (2 q + a G),

where Y = answers W, q = sqrt(D) x W and G = W^T W. So nothing of the size N x D is made, nor kept for derivatives: for
hidden units that are few beside the examples, two products a derivative are all that is as large. The losses are those
of `BaseNetwork.loss` but for rounding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

if TYPE_CHECKING:
    from ...data.tasks import TaskBatch
    from ..adapter import CLIPAdapter


class AdapterLoss:
    """Cross-entropy (n,) of weights w (n, P) on the first n tasks of a batch, at the training scale; differentiable
    twice, in w alone."""

    def __init__(self, network: CLIPAdapter, batch: TaskBatch) -> None:
        self.network, self.x, self.answers, self.root = network, batch.images, batch.answers, math.sqrt(network.dim)
        self.length = network.dim * torch.linalg.vector_norm(self.x, dim=-1, keepdim=True).square()  # (T, N, 1)
        self.dot = self.root * (self.x @ self.answers.mT)  # (T, N, C)
        self.right = F.one_hot(batch.labels, batch.answers.shape[1])
        self.closed = self.x.new_zeros(()).masked_fill(~batch.answer_mask[:, None], -torch.inf)
        mask = batch.example_mask
        self.share = (mask.to(self.x) / mask.sum(1, keepdim=True).clamp(min=1))[
            ..., None
        ]  # (T, N, 1), of the task's loss

    def __call__(self, w: Tensor) -> Tensor:
        return _Loss.apply(w, self)

    def second_layer(self, parts: dict[str, Tensor]) -> Tensor:
        """W (T, D, H')."""
        W = parts["W2"] / math.sqrt(self.network.config.hidden)
        return torch.cat([W, parts["b2"][..., None]], -1) if self.network.config.bias else W

    def first_layer(self, parts: dict[str, Tensor]) -> Tensor:
        """W1 x + b1, (T, N, H)."""
        x, W1 = self.x[: len(parts["W1"])], parts["W1"].mT
        return torch.baddbmm(parts["b1"][:, None], x, W1) if self.network.config.bias else x @ W1

    def beside(self, a: Tensor, value: float) -> Tensor:
        """Hidden units (T, N, H) with the one that stands for the second layer's bias, if there is one."""
        return F.pad(a, (0, 1), value=value) if self.network.config.bias else a


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, problem: AdapterLoss) -> Tensor:
        ctx.at = _At(problem, w)
        ctx.save_for_backward(w)
        return ctx.at.loss()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None]:
        return _Gradient.apply(*ctx.saved_tensors, factor, ctx.at), None


class _Gradient(torch.autograd.Function):
    """`factor` (T,) times the gradient (T, P) of the loss at w."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, factor: Tensor, at: _At) -> Tensor:
        ctx.at = at
        ctx.save_for_backward(factor)
        return at.gradient(factor[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, None]:
        (factor,) = ctx.saved_tensors
        return *ctx.at.second(factor[:, None, None], v), None


class _At:
    """The loss at weights w (T, P), and what its derivatives share. Names are those above; `d_` is the derivative of
    the loss, times `factor` (T, 1, 1), in what follows, `v_` the change of what follows as w moves along v."""

    def __init__(self, problem: AdapterLoss, w: Tensor) -> None:
        self.problem, tasks = problem, slice(len(w))
        parts, scale = problem.network.unpack(w), problem.network.scale
        self.x, self.answers = problem.x[tasks], problem.answers[tasks]
        self.share, self.right = problem.share[tasks], problem.right[tasks]
        h = problem.first_layer(parts)
        self.on, self.a = h > 0, problem.beside(h.relu(), 1.0)
        self.W = problem.second_layer(parts)
        self.G = self.W.mT @ self.W
        q, self.Y = problem.root * (self.x @ self.W), self.answers @ self.W
        self.u = torch.baddbmm(q, self.a, self.G)  # (T, N, H'), half of how the length squared changes with a
        length = problem.length[tasks] + (self.a * (q + self.u)).sum(-1, keepdim=True)
        self.r = length.clamp(min=1e-12).rsqrt()  # (T, N, 1); padding may have none
        self.scaled = scale * self.r
        self.logits = self.scaled * torch.baddbmm(problem.dot[tasks], self.a, self.Y.mT)  # (T, N, C)
        self.log_p = (self.logits + problem.closed[tasks]).log_softmax(-1)
        self.p = self.log_p.exp()

    def loss(self) -> Tensor:
        right = self.log_p.masked_fill(self.right == 0, 0.0)
        return -(right * self.share).sum((1, 2))

    def _first_order(self, factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        d_logits = factor * self.share * (self.p - self.right)  # (T, N, C)
        d_length = -0.5 * self.r.square() * (d_logits * self.logits).sum(-1, keepdim=True)  # (T, N, 1)
        return d_logits, self.scaled * d_logits, d_length

    def gradient(self, factor: Tensor) -> Tensor:
        _, d_dot, d_length = self._first_order(factor)
        d_a = torch.baddbmm(2 * d_length * self.u, d_dot, self.Y)
        part = d_length * self.a
        return self._packed(d_a, self._from_products(part, d_dot.mT @ self.a, self.a.mT @ part))

    def second(self, factor: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`factor` times the Hessian's product with v (T, P), and the gradient's, (T,), without the factor."""
        problem, a, W = self.problem, self.a, self.W
        d_logits, d_dot, d_length = self._first_order(factor)
        parts = problem.network.unpack(v)
        v_a = problem.beside(problem.first_layer(parts) * self.on, 0.0)
        v_W = problem.second_layer(parts)
        v_G = W.mT @ v_W
        v_G = v_G + v_G.mT
        v_q, v_Y = problem.root * (self.x @ v_W), self.answers @ v_W
        moved = torch.baddbmm(v_q, a, v_G)
        v_length = (2 * v_a * self.u + a * (v_q + moved)).sum(-1, keepdim=True)
        v_u = torch.baddbmm(moved, v_a, self.G)
        v_log_r = -0.5 * self.r.square() * v_length
        v_dot = torch.baddbmm(v_a @ self.Y.mT, a, v_Y.mT)
        v_logits = v_log_r * self.logits + self.scaled * v_dot
        v_d_logits = factor * self.share * self.p * (v_logits - (self.p * v_logits).sum(-1, keepdim=True))
        v_d_dot = v_log_r * d_dot + self.scaled * v_d_logits
        v_product = (v_d_logits * self.logits + d_logits * v_logits).sum(-1, keepdim=True)
        v_d_length = 2 * v_log_r * d_length - 0.5 * self.r.square() * v_product
        v_d_a = torch.baddbmm(2 * (v_d_length * self.u + d_length * v_u), v_d_dot, self.Y)
        v_d_a = torch.baddbmm(v_d_a, d_dot, v_Y)
        v_part, part = v_d_length * a + d_length * v_a, d_length * a
        v_d_Y = torch.baddbmm(v_d_dot.mT @ a, d_dot.mT, v_a)
        v_d_W = self._from_products(v_part, v_d_Y, torch.baddbmm(a.mT @ v_part, v_a.mT, part))
        v_d_W.baddbmm_(v_W, a.mT @ part, alpha=2)
        along = (self.share * (self.p - self.right) * v_logits).sum((1, 2))
        return self._packed(v_d_a, v_d_W), along

    def _from_products(self, half_d_q: Tensor, d_Y: Tensor, d_G: Tensor) -> Tensor:
        """A derivative in W (T, D, H') from those in q (T, N, H'), Y (T, C, H') and G (T, H', H')."""
        d_W = torch.baddbmm(self.answers.mT @ d_Y, self.W, d_G, alpha=2)
        return d_W.baddbmm_(self.x.mT, half_d_q, alpha=2 * self.problem.root)

    def _packed(self, d_a: Tensor, d_W: Tensor) -> Tensor:
        """A derivative (T, P) in weights from those in a (T, N, H') and W (T, D, H')."""
        H, network = self.on.shape[-1], self.problem.network
        d_h = d_a[..., :H] * self.on
        result = d_h.new_empty(len(d_h), network.num_params)
        parts = network.unpack(result)
        parts["W1"].copy_(d_h.mT @ self.x)
        torch.div(d_W[..., :H], math.sqrt(H), out=parts["W2"])
        if network.config.bias:
            parts["b1"].copy_(d_h.sum(1))
            parts["b2"].copy_(d_W[..., H])
        return result
