"""The inner loop on adapter weights in the few coordinates that a task can see: exact, and several times faster.

Full-batch gradient descent from shared weights `w` moves the first layer only within the span of a task's N images,
and the second only within the span of its images, its C answers and the H columns (and the bias) that it starts with:
whatever else a weight matrix holds is never read and never changed. So a task of 58 images and 9 answers needs not
D = 768 coordinates but about 58 and K = 58 + 9 + 257. In an orthonormal basis gradient descent is the same descent, and
the sums over D that it takes shrink to K; the first layer needs no weights at all, only the Gram matrix of the images,
`h_t = h_0 - lr (X X^T / D + 1) sum_s dh_s`. The adapter's gradients are written out: the loop has no graph unless
MAML differentiates through it. What `inner_loop.adapt` does with these losses, this does too, but for rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.tasks import TaskBatch
from ..networks.adapter import CLIPAdapter
from .grouping import groups


def adapt_adapters(network: CLIPAdapter, start: Tensor, batch: TaskBatch, *, steps: int | Tensor, lr: float) -> Tensor:
    """Adapter weights (T, P) after gradient descent from `start` (P,) on the mean loss of every task's examples.

    Args:
        steps: for all tasks, or (T,) for each.
        lr: the inner learning rate eta.
    """
    _check(network, start, steps, lr)
    result = start.new_empty(len(batch), network.num_params)
    with torch.no_grad():
        begin, steps = _Start.of(network, start), _by_task(steps, batch)
        for rows in groups(network, batch, steps):
            problem = _Problem.of(begin, _trimmed(batch[rows]), None)
            result[rows] = problem.lift(*problem.descend(steps[rows], lr), lr)
    return result


def maml_adapter_loss(
    network: CLIPAdapter,
    start: Tensor,
    support: TaskBatch,
    query: TaskBatch,
    *,
    steps: int | Tensor,
    lr: float,
    first_order: bool = False,
) -> Tensor:
    """`inner_loop.maml_loss` of adapter weights: query loss (T,) after `adapt_adapters`, differentiable to `start`.

    The basis holds the query images too. What a weight matrix holds outside of it changes the query loss to second
    order at most, so the gradient within the basis is the whole gradient.
    """
    _check(network, start, steps, lr)
    begin, steps = _Start.of(network, start), _by_task(steps, support)
    parts = []
    for rows in groups(network, support, steps):
        problem = _Problem.of(begin, _trimmed(support[rows]), query[rows].trimmed())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not first_order):
            moved, W = problem.descend(steps[rows], lr)
        if first_order:
            W = problem.W + (W - problem.W).detach()
        parts.append((rows, problem.query_loss(moved, W, lr)))
    order = torch.cat([rows for rows, _ in parts])
    return torch.cat([loss for _, loss in parts])[order.argsort()]


def _check(network: CLIPAdapter, start: Tensor, steps: int | Tensor, lr: float) -> None:
    if start.shape != (network.num_params,):
        raise ValueError(f"start has shape {tuple(start.shape)}, one adapter of this size is ({network.num_params},)")
    if int(torch.as_tensor(steps).min()) < 0 or lr < 0:
        raise ValueError(f"steps {steps} and lr {lr} must not be negative")


def _by_task(steps: int | Tensor, batch: TaskBatch) -> Tensor:
    steps = torch.as_tensor(steps, device=batch.labels.device)
    return steps.expand(len(batch))


def _trimmed(batch: TaskBatch) -> TaskBatch:
    """Without examples and answers that are padding to all."""
    C = int(batch.answer_mask.sum(1).max())
    return replace(batch.trimmed(), answers=batch.answers[:, :C], answer_mask=batch.answer_mask[:, :C])


@dataclass(frozen=True)
class _Start:
    """What all tasks share: the weights they start from; the second layer as `W2`, (D, H'), which is W2 / sqrt(H) and
    the bias as a last column, for a hidden unit that is always on; an orthonormal basis Q (D, H') of its columns."""

    network: CLIPAdapter
    parts: dict[str, Tensor]
    W2: Tensor
    Q: Tensor
    R: Tensor  # Q^T W2

    @classmethod
    def of(cls, network: CLIPAdapter, w: Tensor) -> _Start:
        parts = network.unpack(w)
        W2 = parts["W2"] / math.sqrt(network.config.hidden)
        if network.config.bias:
            W2 = torch.cat([W2, parts["b2"][:, None]], 1)
        Q, _ = torch.linalg.qr(W2.detach())
        return cls(network, parts, W2, Q, Q.mT @ W2)


@dataclass(frozen=True)
class _Constants:
    """What every step of a descent reads and none changes; the first dimension of all but `rate` is the task.

    Shapes: images (T, N, K), answers (T, C, K), h0 (T, N, H), gram (T, N, N); weight (T, 1, N), an example's share of
    its task's loss; right (T, C, N), the same at its right answer; closed (T, C, 1), -inf at padded answers; rate
    (H',), the learning rate of each column of W.
    """

    images: Tensor
    answers: Tensor
    h0: Tensor
    gram: Tensor
    weight: Tensor
    right: Tensor
    closed: Tensor
    rate: Tensor

    def first(self, count: int) -> _Constants:
        """Those of the first `count` tasks."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "rate"}
        return replace(self, **{name: value[:count] for name, value in own.items()})


@dataclass(frozen=True)
class _Problem:
    """Some tasks in coordinates of their own.

    Shapes: images (T, N, K), answers (T, C, K), W (T, K, H'), h0 (T, N, H), gram (T, N, N); the same of the query
    images, if there are any: query_images (T, Nq, K), query_h0 (T, Nq, H), query_gram (T, Nq, N). `basis` is what
    `lift` needs, None where the coordinates are the usual ones.
    """

    begin: _Start
    support: TaskBatch
    query: TaskBatch | None
    images: Tensor
    answers: Tensor
    W: Tensor
    h0: Tensor
    gram: Tensor
    query_images: Tensor
    query_h0: Tensor
    query_gram: Tensor
    basis: tuple[Tensor, Tensor, Tensor] | None

    @classmethod
    def of(cls, begin: _Start, support: TaskBatch, query: TaskBatch | None) -> _Problem:
        network, parts, Q = begin.network, begin.parts, begin.Q
        D, N, bias = network.dim, support.images.shape[1], network.config.bias
        x = (support.images if query is None else torch.cat([support.images, query.images], 1)) * math.sqrt(D)
        h0 = x @ parts["W1"].mT / math.sqrt(D)
        if bias:
            h0 = h0 + parts["b1"]
        Z = torch.cat([x, support.answers], 1)  # (T, M, D)
        exact = Z.double()
        gram = exact @ exact.mT  # (T, M, M)
        if Z.shape[1] + Q.shape[1] < D:
            ZQ = Z @ Q  # (T, M, H')
            # The rest of Z, orthogonal to Q, has the coordinates L, where L L^T is its Gram matrix.
            rest = gram - ZQ.double() @ ZQ.double().mT
            rest.diagonal(dim1=1, dim2=2).add_(1e-9 * D)  # equal images, and padding
            L, failed = torch.linalg.cholesky_ex(rest)  # of weights that have diverged, say
            L = L.masked_fill(failed.bool()[:, None, None], torch.nan)
            coordinates = torch.cat([ZQ, L.float()], -1)  # (T, M, K)
            outside = Z.new_zeros(len(Z), Z.shape[1], Q.shape[1])  # what W2 holds in these directions: nothing,
            if torch.is_grad_enabled() and begin.W2.requires_grad:  # but it has a gradient
                outside = torch.linalg.solve_triangular(L.float(), Z @ begin.W2 - ZQ @ begin.R, upper=False)
            W = torch.cat([begin.R.expand(len(Z), -1, -1), outside], 1)  # (T, K, H')
            basis = (ZQ, Z, L)
        else:
            coordinates, W, basis = Z, begin.W2.expand(len(Z), -1, -1), None
        M = x.shape[1]
        gram = (gram[:, :M, :N] / D + float(bias)).float()
        return cls(
            begin,
            support,
            query,
            images=coordinates[:, :N],
            answers=coordinates[:, M:],
            W=W,
            h0=h0[:, :N],
            gram=gram[:, :N],
            query_images=coordinates[:, N:M],
            query_h0=h0[:, N:],
            query_gram=gram[:, N:],
            basis=basis,
        )

    def _constants(self, lr: float) -> _Constants:
        mask, H = self.support.example_mask, self.begin.network.config.hidden
        weight = (self.begin.network.scale * mask / mask.sum(1, keepdim=True).clamp(min=1))[:, None]  # (T, 1, N)
        right = F.one_hot(self.support.labels, self.answers.shape[1]).mT * weight  # (T, C, N)
        closed = torch.zeros_like(self.answers[..., :1]).masked_fill(~self.support.answer_mask[..., None], -torch.inf)
        rate = torch.full((self.W.shape[-1],), lr / H, device=self.W.device)
        rate[H:] = lr
        return _Constants(self.images, self.answers, self.h0, self.gram, weight, right, closed, rate)

    def descend(self, steps: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """Gradient descent: sum of the gradients of hidden units (T, N, H), and W (T, K, H'). `steps` (T,) must fall
        from task to task: those that are through drop out at the end."""
        constants = self._constants(lr)
        moved, W = torch.zeros_like(self.h0), self.W
        through: list[tuple[Tensor, Tensor]] = []
        left = (steps[:, None] > torch.arange(int(steps[0]), device=steps.device)).sum(0)  # tasks that make each step
        for active in left.tolist():
            if active < len(W):
                through.append((moved[active:], W[active:]))
                moved, W, constants = moved[:active], W[:active], constants.first(active)
            moved, W = self._step(moved, W, constants, lr)
        through.append((moved, W))
        moved, W = zip(*reversed(through), strict=True)
        return torch.cat(moved), torch.cat(W)

    def _step(self, moved: Tensor, W: Tensor, c: _Constants, lr: float) -> tuple[Tensor, Tensor]:
        """One step: the gradients of `BaseNetwork.loss` for the CLIP-Adapter, written out."""
        H = c.h0.shape[-1]
        h = torch.baddbmm(c.h0, c.gram, moved, alpha=-lr)
        a = self._on(h.relu())  # (T, N, H')
        u = torch.baddbmm(c.images, a, W.mT)  # (T, N, K), the adapter's output before normalisation
        inverse = 1 / (torch.linalg.vector_norm(u, dim=-1) + 1e-12)[:, None]  # (T, 1, N); padding may be 0
        dot = c.answers @ u.mT  # (T, C, N)
        share = torch.addcmul(c.closed, dot, self.begin.network.scale * inverse).softmax(1)
        g = torch.addcmul(-c.right, share, c.weight) * inverse  # (T, C, N)
        radial = (g * dot).sum(1) * inverse[:, 0].square()  # (T, N)
        du = torch.baddbmm(radial[..., None] * u, g.mT, c.answers, beta=-1)  # (T, N, K)
        moved = moved + (du @ W[..., :H]) * a[..., :H].sign()
        return moved, torch.baddbmm(W, du.mT, a * c.rate, alpha=-1)

    def _on(self, a: Tensor) -> Tensor:
        """Hidden units with the bias's, which is always on."""
        return torch.cat([a, torch.ones_like(a[..., :1])], -1) if self.begin.network.config.bias else a

    def query_loss(self, moved: Tensor, W: Tensor, lr: float) -> Tensor:
        """Loss (T,) of adapted weights on the query examples."""
        h = torch.baddbmm(self.query_h0, self.query_gram, moved, alpha=-lr)
        u = torch.baddbmm(self.query_images, self._on(h.relu()), W.mT)
        inverse = 1 / (torch.linalg.vector_norm(u, dim=-1) + 1e-12)[:, None]
        logits = self.begin.network.scale * (self.answers @ u.mT) * inverse  # (T, C, Nq)
        logits = logits.masked_fill(~self.support.answer_mask[..., None], -torch.inf)
        each = F.cross_entropy(logits, self.query.labels, reduction="none")  # (T, Nq)
        mask = self.query.example_mask
        return (each * mask).sum(1) / mask.sum(1).clamp(min=1)

    def lift(self, moved: Tensor, W: Tensor, lr: float) -> Tensor:
        """Weights w (T, P) in all coordinates again."""
        network = self.begin.network
        H = network.config.hidden
        change = W - self.W  # (T, K, H')
        if self.basis is not None:
            Q, (ZQ, Z, L) = self.begin.Q, self.basis
            inside, rest = change.split([Q.shape[1], L.shape[1]], 1)
            rest = torch.linalg.solve_triangular(L.mT, rest.double(), upper=True).float()  # (T, M, H')
            change = Q @ (inside - ZQ.mT @ rest) + Z.mT @ rest  # (T, D, H')
        w = network.pack(self.begin.parts).repeat(len(W), 1)
        adapted = network.unpack(w)
        adapted["W1"].baddbmm_(moved.mT, self.support.images, alpha=-lr)
        adapted["W2"].add_(change[..., :H], alpha=math.sqrt(H))
        if network.config.bias:
            adapted["b1"].sub_(moved.sum(1), alpha=lr)
            adapted["b2"].add_(change[..., H])
        return w
