"""HyperCLIP (Section 4): a CLIP encoder for weights, task inference with it, and guidance by it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .hvae import floored
from .weight_generator import WeightGenerator
from .weight_model import MODULES, Saved
from .whitening import Whitening

_BETAS = (0.9, 0.999)  # of Adam (Kingma and Ba, 2015)
_ROWS_AT_ONCE = 2**14  # of the P that are multiplied out, in double precision


@dataclass(frozen=True)
class HyperCLIPConfig:
    """P - hidden - D; tanh is the paper's activation, softplus the authors' code's."""

    hidden: int = 256
    activation: Literal["tanh", "softplus"] = "tanh"
    whitening: float = 1e-3  # shrinkage of `Whitening` of question embeddings
    cond_noise: float = 0.0  # in training, on whitened question embeddings
    # Beyond the paper: whether it learns not from fine-tuned weights alone but also from what a generator decodes from
    # their latents, with noise of up to one s.d. on them. That is what guidance asks about: decoded weights, at first
    # far from any task's. They are `decoded_share` of every batch; without the others it cannot tell what fine-tuned
    # weights are for.
    decoded: bool = False
    decoded_share: float = 1.0
    # Beyond the paper: weights are projected on this many of their principal components, each scaled to unit variance,
    # before the first layer. A few hundred tasks in thousands of coordinates are learned by heart, and a cosine that
    # knows weights by heart leads guidance astray. 0 leaves weights as they are but for centre and scale.
    components: int = 0

    def __post_init__(self) -> None:
        if self.components < 0:
            raise ValueError(f"HyperCLIPConfig: components {self.components}; allowed: 0 (none) or more")
        if not 0.0 <= self.decoded_share <= 1.0:
            raise ValueError(f"HyperCLIPConfig: decoded_share {self.decoded_share}; allowed: 0 to 1")


def _factor(logit_scale: Tensor) -> Tensor:
    """The factor on cosines, (), that a learned logarithm (), means: at most 100, as in CLIP."""
    return logit_scale.exp().clamp(max=100)


@MODULES.register("hyperclip")
class HyperCLIP(Saved):
    """CLIP_H: adapted weights (B, P) to unit embeddings e^(H) (B, E) in the space of question embeddings.

    Weights are standardised by buffers, or projected on their principal components (`config.components`). Questions are
    compared after whitening: as they come, two questions of one kind have nearly the same direction.
    """

    Config = HyperCLIPConfig

    def __init__(self, config: HyperCLIPConfig, *, num_params: int, dim: int) -> None:
        super().__init__()
        self.config, self.num_params, self.dim = config, num_params, dim
        if config.components > num_params:
            raise ValueError(
                f"HyperCLIP: {config.components} components of {num_params} weights; components must be at most the "
                "number of weights"
            )
        self.hidden = nn.Linear(config.components or num_params, config.hidden)
        self.out = nn.Linear(config.hidden, dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.register_buffer("w_mean", torch.zeros(num_params))
        if config.components:
            self.register_buffer("projection", torch.zeros(num_params, config.components).fill_diagonal_(1.0))
        else:
            self.register_buffer("w_std", torch.ones(num_params))
        self.condition = Whitening(dim, config.whitening, config.cond_noise)

    def sizes(self) -> dict[str, Any]:
        return {"num_params": self.num_params, "dim": self.dim}

    def set_statistics(self, mean: Tensor, std: Tensor, e: Tensor) -> None:
        """Mean and s.d. (P,) of weights, for a model without components, and training questions e (tasks, E)."""
        self.w_mean.copy_(mean)
        self.w_std.copy_(floored(std))
        self.condition.fit(e)

    @torch.no_grad()
    def set_components(self, w: Tensor, e: Tensor) -> None:
        """Principal components of weights w (n, P) like those to come, and training questions e (tasks, E).

        Raises:
            ValueError: n is not larger than `config.components`.
        """
        K = self.config.components
        if len(w) <= K:
            raise ValueError(f"HyperCLIP: {K} components need more than {K} weight vectors, got {len(w)}")
        mean = w.mean(0)
        _, singular, directions = torch.svd_lowrank(w - mean, q=K, niter=4)  # the spectrum falls fast enough
        # The sign of a component is arbitrary, and a solver's choice: its largest weight is made positive, so that one
        # thread and two train the same.
        largest = directions.abs().argmax(0, keepdim=True)
        directions = directions * directions.gather(0, largest).sign()
        std = singular / math.sqrt(len(w))
        self.w_mean.copy_(mean)
        self.projection.copy_(directions / std.clamp(min=float(std[0]) * 1e-4 + 1e-8))
        self.condition.fit(e)

    @property
    def scale(self) -> Tensor:
        """The learned factor on cosines, ()."""
        return _factor(self.logit_scale)

    def forward(self, w: Tensor) -> Tensor:
        if self.config.components:
            with torch.autocast(w.device.type, enabled=False):  # it makes much of small differences
                x = (w.float() - self.w_mean) @ self.projection
        else:
            x = (w - self.w_mean) / self.w_std
        return self._embed(self.hidden(x))

    def _embed(self, x: Tensor) -> Tensor:
        """What enters the hidden layer's activation, (B, hidden), to unit embeddings (B, E)."""
        activation = torch.tanh if self.config.activation == "tanh" else F.softplus
        return F.normalize(self.out(activation(x)), dim=-1)

    @torch.no_grad()
    def after(self, weight: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
        """`forward` of weights that are `x @ weight.T + bias`, as a function of x (B, K). Linear maps are multiplied
        out, so that a call costs nothing that grows with P.

        Args:
            weight: (P, K). bias: (P,).
        """
        product = 0.0  # of everything linear before the activation, (hidden or components, K + 1)
        for some in torch.arange(self.num_params, device=weight.device).split(_ROWS_AT_ONCE):
            affine = torch.cat([weight[some], (bias - self.w_mean)[some, None]], dim=1)  # (rows, K + 1)
            if self.config.components:
                into = self.projection[some].mT
            else:
                into = self.hidden.weight[:, some] / self.w_std[some]
            product = product + into.double() @ affine.double()
        if self.config.components:
            product = self.hidden.weight.double() @ product
        matrix, offset = product[:, :-1].float(), product[:, -1].float() + self.hidden.bias
        return lambda x: self._embed(F.linear(x, matrix, offset))

    def embed_questions(self, e: Tensor, noise: Tensor | None = None) -> Tensor:
        """Question embeddings (B, E), whitened (in training with standard normal noise (B, E)) and unit, ready to be
        compared with `forward`'s output."""
        return F.normalize(self.condition(e, noise), dim=-1)


def hyperclip_loss(h: Tensor, e: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric cross-entropy of Algorithm 1 for matching rows of unit vectors h and e (B, E)."""
    logits = _factor(logit_scale) * h @ e.mT
    target = torch.arange(len(h), device=h.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2


def ranks(scores: Tensor, target: Tensor) -> Tensor:
    """Rank (B,), 1 is best, of column target (B,) in scores (B, Q); ties count against the target."""
    own = scores.gather(1, target[:, None])
    return (scores >= own).sum(1)


def infer_task(model: HyperCLIP, w: Tensor, questions: Tensor) -> Tensor:
    """Figure 3.B-C: probability (B, Q) of each candidate question e (Q, E), given fine-tuned weights w (B, P)."""
    cosine = model(w) @ model.embed_questions(questions).mT
    return (model.scale * cosine).softmax(-1)


def embed_latents(generator: WeightGenerator, model: HyperCLIP) -> Callable[[Tensor], Tensor]:
    """Latents (B, Z) to the unit embeddings (B, E) of the weights that they decode to. Where the decoder ends in an
    affine map, that and HyperCLIP's first one are multiplied out now, once."""
    found = generator.affine_end()
    if found is None:
        return lambda z: model(generator.decode(z))
    features, weight, bias = found
    embed = model.after(weight, bias)
    return lambda z: embed(features(z))


def guide_latent(
    z0: Tensor,
    target: Tensor,
    embed: Callable[[Tensor], Tensor],
    *,
    steps: int = 10,
    lr: float = 0.1,
    lam: float = 0.01,
    optimizer: Literal["sgd", "adam"] = "adam",
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """HyperCLIP guidance (Eq. 4, Algorithm 11): move z0 (T, Z) towards weights that HyperCLIP matches with questions.

    Minimises `-cos(CLIP_H(h(z)), e) + lam * ||z - z0||` for every task on its own (the paper prints the cosine
    without its minus). `optimizer="adam"` is the authors' code's default, "sgd" the paper's words.

    Args:
        target: the questions (T, E), by `HyperCLIP.embed_questions`.
        embed: CLIP_H(h(z)) of latents, such as `embed_latents` gives.

    Returns:
        Guided latents (T, Z), detached. `callback(step, z, cosine)` sees every step.
    """
    if steps < 0:
        raise ValueError(f"steps {steps} must not be negative")
    if optimizer not in ("sgd", "adam"):
        raise ValueError(f"optimizer {optimizer!r}; allowed: 'sgd', 'adam'")
    z0 = z0.detach()
    z, mean, square = z0.clone(), torch.zeros_like(z0), torch.zeros_like(z0)
    for step in range(steps):
        with torch.enable_grad():
            z.requires_grad_()
            cosine = (embed(z) * target).sum(-1)  # (T,)
            # A norm has no gradient at zero, where the descent begins.
            distance = ((z - z0).square().sum(-1) + 1e-12).sqrt()
            (gradient,) = torch.autograd.grad((lam * distance - cosine).sum(), z)
        z = z.detach()
        if optimizer == "adam":  # torch.optim's takes longer than the rest of a step
            mean = mean.lerp(gradient, 1 - _BETAS[0])
            square = square.lerp(gradient.square(), 1 - _BETAS[1])
            first, second = (1 - beta ** (step + 1) for beta in _BETAS)
            gradient = (mean / first) / ((square / second).sqrt() + 1e-8)
        z = z - lr * gradient
        if callback is not None:
            callback(step, z, cosine.detach())
    return z
