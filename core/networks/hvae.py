"""HVAE (Section 3, Algorithm 8): a variational autoencoder of adapted weights; its decoder is a hypernetwork."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .weight_generator import WEIGHT_GENERATORS, WeightGenerator
from .weight_model import MODULES, Saved


@dataclass(frozen=True)
class HVAEConfig:
    """Sizes and loss of the HVAE. The defaults are those of the authors' code; the paper's text (Appendix A.2) has the
    two hidden layers in the other order, `hidden=(256, 512)`: half as many parameters at its size."""

    latent: int = 32  # Z
    hidden: tuple[int, ...] = (512, 256)  # of the encoder; the decoder mirrors it
    kl_weight: float = 1.0
    # "authors": sum over coordinates over sqrt(P), and KL over sqrt(P), as in their code; "mean": mean over coordinates
    reconstruction: Literal["authors", "mean"] = "authors"
    reconstruction_weight: float = 1.0
    # Beyond the paper: what decoded weights do. "answers" is the KL from the original weights' answers, "labels" the
    # task's own loss, so that the latent space is shaped by behaviour and not by coordinates that do not matter.
    behaviour_weight: float = 0.0
    behaviour: Literal["answers", "labels"] = "labels"


def floored(std: Tensor) -> Tensor:
    """S.d. of weights (P,), to divide by. A coordinate that never moved has 1% of the typical s.d. instead of zero, so
    that it is not blown up."""
    return std.clamp(min=float(std.median()) * 0.01 + 1e-8)


def mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them, Kaiming init (Appendix A.2; the HVAE makes its last layers' smaller)."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
        nn.init.zeros_(layers[-2].bias)
    return nn.Sequential(*layers[:-1])


@MODULES.register("hvae")
@WEIGHT_GENERATORS.register("hvae")
class HVAE(Saved, WeightGenerator):
    """Encoder w -> (mu, log variance) of z, decoder z -> w.

    Weights are standardised per coordinate by buffers saved with the module: the mean and s.d. of the training
    adaptations. Both towers see standardised weights; callers only ever see weights.

    As a generator, its training latents are encoded means of weights fine-tuned from the MNet-MAML initialisation.
    """

    Config = HVAEConfig
    label = "HVAE"
    checkpoint = "hvae"
    adapted_row = "mnet_maml"
    guidance_starts = (1.0, 0.0)  # a draw of the prior, as the paper has it, or its mean

    def __init__(self, config: HVAEConfig, *, num_params: int) -> None:
        super().__init__()
        self.config, self._num_params = config, num_params
        self.encoder = mlp((num_params, *config.hidden, 2 * config.latent))
        self.decoder = mlp((config.latent, *reversed(config.hidden), num_params))
        nn.init.normal_(self.decoder[-1].weight, std=0.5 / math.sqrt(config.hidden[0]))
        nn.init.normal_(self.encoder[-1].weight, std=0.5 / math.sqrt(config.hidden[-1]))
        self.register_buffer("w_mean", torch.zeros(num_params))
        self.register_buffer("w_std", torch.ones(num_params))

    def sizes(self) -> dict[str, Any]:
        return {"num_params": self.num_params}

    @property
    def latent(self) -> int:
        return self.config.latent

    @property
    def num_params(self) -> int:
        return self._num_params

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take mean and s.d. (P,) of adapted weights."""
        self.w_mean.copy_(mean)
        self.w_std.copy_(floored(std))

    def start(self, rng: torch.Generator, scale: float = 1.0) -> Tensor:
        """A draw of the prior N(0, I) (Algorithm 11)."""
        return scale * torch.randn(self.latent, generator=rng, device=rng.device).to(self.w_mean.device)

    def posterior(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, (B, Z) each, of q(z | w) for w (B, P), in float32 also under autocast."""
        return self._posterior(self._standardised(w))

    def _standardised(self, w: Tensor) -> Tensor:
        return (w - self.w_mean) / self.w_std

    def _posterior(self, standardised: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_var = self.encoder(standardised).float().chunk(2, dim=-1)
        return mu, log_var.clamp(-10, 5)

    def encode(self, adapted: Tensor) -> Tensor:
        return self.posterior(adapted)[0]

    def adapted_weights(self, adapted: Tensor, some: slice | None = None) -> Tensor:
        return adapted if some is None else adapted[:, some]

    def decode(self, z: Tensor, some: slice | None = None) -> Tensor:
        """h(z, theta) = w: (B, Z) to (B, P), or to some coordinates of it, in float32 also under autocast."""
        if some is None:
            return torch.addcmul(self.w_mean, self.w_std, self.decoder(z).float())
        last = self.decoder[-1]
        out = F.linear(self.decoder[:-1](z), last.weight[some], last.bias[some])
        return self.w_mean[some] + self.w_std[some] * out.float()

    def affine_end(self) -> tuple[nn.Module, Tensor, Tensor]:
        last = self.decoder[-1]
        return self.decoder[:-1], self.w_std[:, None] * last.weight, self.w_mean + self.w_std * last.bias

    def losses(self, w: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Per-sample terms (B,) and decoded weights (B, P), for weights w (B, P) and standard normal noise (B, Z)."""
        standardised = self._standardised(w)
        mu, log_var = self._posterior(standardised)
        out = self.decoder(mu + noise * (0.5 * log_var).exp()).float()
        squared = F.mse_loss(out, standardised, reduction="none")
        kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(-1)
        scale = math.sqrt(self.num_params)
        if self.config.reconstruction == "authors":
            reconstruction, kl = squared.sum(-1) / scale, kl / scale
        else:
            reconstruction = squared.mean(-1)
        weight = self.config.reconstruction_weight
        terms = {"reconstruction": weight * reconstruction, "kl": self.config.kl_weight * kl}
        return terms, torch.addcmul(self.w_mean, self.w_std, out)
