"""From a question straight to a latent, by least squares: no diffusion, no guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .trunk import LatentMap, Trunk, TrunkConfig
from .weight_model import MODULES
from .whitening import Whitening


@MODULES.register("latent_regression")
class LatentRegression(Trunk, LatentMap):
    """The denoiser's trunk without z_t and t: what HyperLDM is worth beyond it is what diffusion adds."""

    Config = TrunkConfig

    def __init__(self, config: TrunkConfig, *, latent: int, dim: int) -> None:
        super().__init__(config, latent=latent, dim=dim, inputs=0, context=dim)

    def predict(self, e: Tensor, noise: Tensor | None = None) -> Tensor:
        """Standardised latents (B, Z); in training with standard normal noise (B, E) on the question."""
        return self.through(e[:, :0], self.condition(e, noise))

    def latents(self, e: Tensor) -> Tensor:
        return self.unstandardise(self.predict(e))


@dataclass(frozen=True)
class KernelRidgeConfig:
    """Gaussian-kernel ridge regression."""

    whitening: float = 0.1  # shrinkage of `Whitening` of e
    width: float = 1.0  # of the kernel, per coordinate of whitened e
    ridge: float = 0.1


@MODULES.register("kernel_ridge")
class KernelRidge(LatentMap):
    """Kernel ridge regression from whitened questions to latents, in closed form.

    `z = z_mean + k(e, e_train) dual`, with `k(a, b) = exp(-|a - b|^2 / (2 width^2 E))`.

    Args:
        questions: how many training questions it keeps.
    """

    Config = KernelRidgeConfig

    def __init__(self, config: KernelRidgeConfig, *, questions: int, latent: int, dim: int) -> None:
        super().__init__()
        self.config, self.questions, self.latent, self.dim = config, questions, latent, dim
        self.condition = Whitening(dim, config.whitening)
        self.register_buffer("known", torch.zeros(questions, dim))  # whitened training questions
        self.register_buffer("dual", torch.zeros(questions * latent))  # flat: checkpoints keep vectors exactly
        self.register_buffer("z_mean", torch.zeros(latent))

    def sizes(self) -> dict[str, Any]:
        return {"questions": self.questions, "latent": self.latent, "dim": self.dim}

    @torch.no_grad()
    def fit(self, e: Tensor, z: Tensor, condition: Whitening) -> None:
        """Take training questions e (questions, E), their latents z (questions, Z), and a whitening that is fitted.

        The equations are nearly singular for a wide kernel, so they are solved for the matrices that a checkpoint
        keeps, in half precision.
        """
        self.condition.load_state_dict(condition.state_dict())
        self.condition.matrix.copy_(condition.matrix.half())
        self.known.copy_(self.condition(e).half())
        self.z_mean.copy_(z.mean(0))
        penalty = self.config.ridge * torch.eye(len(e), dtype=torch.float64, device=e.device)
        kernel = self._kernel(self.known.double(), self.known.double())
        self.dual.copy_(torch.linalg.solve(kernel + penalty, (z - self.z_mean).double()).flatten())

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return (-torch.cdist(a, b).square() / (2 * self.config.width**2 * self.dim)).exp()

    def latents(self, e: Tensor) -> Tensor:
        kernel = self._kernel(self.condition(e).double(), self.known.double())
        return (self.z_mean + kernel @ self.dual.double().view(self.questions, self.latent)).to(e.dtype)
