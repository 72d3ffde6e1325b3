"""Ridge regression, and what it would have said of an example without it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ridge:
    """y = x weight + bias, weight (F, D) shrunk by `shrinkage`, and the bias not.

    `inverse` (N, N) is that of the centred examples' products plus the shrinkage, `dual` (N, D) its product with the
    centred targets.
    """

    weight: Tensor
    bias: Tensor
    inverse: Tensor
    dual: Tensor

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, shrinkage: float) -> Ridge:
        """Minimise |y - x weight - bias|^2 + shrinkage |weight|^2 for x (N, F), y (N, D).

        Raises:
            ValueError: no shrinkage, without which it has no one solution.
        """
        if not shrinkage > 0:
            raise ValueError(f"shrinkage {shrinkage}; allowed: above 0")
        x_mean, y_mean = x.mean(0), y.mean(0)
        centred = (x - x_mean).double()
        products = centred @ centred.T
        inverse = torch.linalg.inv(products + shrinkage * torch.eye(len(x), dtype=torch.float64))
        dual = inverse @ (y - y_mean).double()
        weight = (centred.T @ dual).float()
        return cls(weight, y_mean - x_mean @ weight, inverse, dual)

    def predict(self, x: Tensor) -> Tensor:
        """(N, D) of x (N, F)."""
        return x @ self.weight + self.bias


def without_own(ridge: Ridge, y: Tensor, groups: Tensor, wanted: Tensor) -> Tensor:
    """What the ridge fitted without a group's examples says of them (G, D), for each group of `wanted` (G,); all
    examples of a group have the same x.

    With the inverse M and the dual a of the fit to all, the residual of group g without its own is M_gg^-1 a_g. The
    means are those of all examples, as if the bias were known.

    Args:
        y: (N, D), the targets of the fit. groups: (N,).
    """
    order = groups.argsort(stable=True)
    rows = {int(groups[part[0]]): part for part in order.split(groups.bincount()[groups.unique()].tolist())}
    result = torch.empty(len(wanted), y.shape[1])
    for i, group in enumerate(wanted.tolist()):
        own = rows[group]
        residual = torch.linalg.solve(ridge.inverse[own][:, own], ridge.dual[own])
        result[i] = (y[own[:1]] - residual[:1].float())[0]
    return result
