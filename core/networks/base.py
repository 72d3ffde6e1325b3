"""Base networks: what a question's weights are the weights of. One small protocol, one flat vector of weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import from_dict, to_dict
from ..data.tasks import TaskBatch
from ..registry import Registry

TRAINING_SCALE = 100.0  # on cosines, in losses; what probabilities are read out with is calibrated (core/release)


class BaseNetwork(ABC):
    """f(x; w): adapts frozen image embeddings, as a pure function of one flat weight vector w (P,).

    A subclass names the dataclass of its settings in `Config` and is entered in `BASE_NETWORKS`.

    Args:
        config: an instance of `Config`.
        dim: D, the size of the backbone's embeddings. Whether a network takes FiLM is asked of one with dim 1.
        scale: the factor on cosines that losses are computed with.
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    film_units: int = 0  # hidden units that FiLM can scale and shift; 0: none, and the network has no FiLM row

    def __init__(self, config: Any, dim: int, scale: float = TRAINING_SCALE) -> None:
        if dim < 1 or not scale > 0:
            raise ValueError(f"{type(self).__name__}: dim {dim} and scale {scale} must be positive")
        self.config, self.dim, self.scale = config, dim, scale

    @property
    @abstractmethod
    def num_params(self) -> int:
        """P, the length of `w`."""

    @property
    @abstractmethod
    def init_std(self) -> float:
        """The s.d. at which hypernetworks begin the part of `w` that depends on the question."""

    @abstractmethod
    def init(self, rng: torch.Generator | None = None) -> Tensor:
        """Fresh weights (P,), on the CPU: a small change to the frozen embedding."""

    @abstractmethod
    def forward(self, w: Tensor, images: Tensor) -> Tensor:
        """Adapted image embeddings, one network per task.

        Args:
            w: (T, P). images: (T, N, D) unit vectors; padding is zeros.

        Returns:
            (T, N, D) unit vectors.
        """

    def film(self, w: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """FiLM on the hidden activation, h -> (1 + scale) h + shift, folded into weights (T, P).

        Args:
            w: (P,). scale, shift: (T, `film_units`).
        """
        raise ValueError(f"network {self.name!r} has no hidden units for FiLM")

    def logits(self, w: Tensor | None, batch: TaskBatch, scale: float | None = None) -> Tensor:
        """Scores (T, N, C) of every answer: `scale` (default: the training scale) times the cosine, -inf for padded
        answers. `w` is (T, P), or None for the frozen embedding alone."""
        images = batch.images if w is None else self.forward(w, batch.images)
        logits = (self.scale if scale is None else scale) * (images @ batch.answers.mT)
        return logits.masked_fill(~batch.answer_mask[:, None, :], -torch.inf)

    def loss(self, w: Tensor, batch: TaskBatch) -> Tensor:
        """Cross-entropy (T,) of weights w (T, P) at the training scale."""
        return task_loss(self.logits(w, batch), batch)

    def loss_on(self, batch: TaskBatch) -> Callable[[Tensor], Tensor]:
        """`loss` on a batch, for many uses: of weights (n, P) on its first n tasks, (n,)."""
        return lambda w: self.loss(w, batch[: len(w)] if len(w) < len(batch) else batch)

    def spec(self) -> dict[str, Any]:
        """JSON-able description, from which `open_network` builds it again."""
        return {"name": self.name, "config": to_dict(self.config), "dim": self.dim, "scale": self.scale}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BaseNetwork) and self.spec() == other.spec()

    def __hash__(self) -> int:
        return hash((self.name, self.config, self.dim, self.scale))


BASE_NETWORKS: Registry[type[BaseNetwork]] = Registry("network", __package__)


def open_network(spec: dict[str, Any]) -> BaseNetwork:
    """The base network that `BaseNetwork.spec` describes.

    Raises:
        ValueError: not such a description, an unknown name, or settings that the network does not have.
    """
    if not isinstance(spec, dict) or not {"name", "config", "dim"} <= spec.keys() <= {"name", "config", "dim", "scale"}:
        raise ValueError(f"network {spec!r}: expected name, config, dim and scale")
    dim, scale = spec["dim"], spec.get("scale", TRAINING_SCALE)
    if (
        not isinstance(dim, int)
        or isinstance(dim, bool)
        or isinstance(scale, bool)
        or not isinstance(scale, (int, float))
    ):
        raise ValueError(f"network {spec['name']!r}: dim {dim!r} and scale {scale!r} must be numbers")
    cls = BASE_NETWORKS[spec["name"]]
    return cls(from_dict(cls.Config, spec["config"]), dim, float(scale))


def default_configs() -> dict[str, Any]:
    """The settings of every base network, by name, at their defaults."""
    return {name: BASE_NETWORKS[name].Config() for name in BASE_NETWORKS.names()}


def split_weights(w: Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """`w` (..., P) as views of these shapes (..., *shape), in order; a ValueError if P is not their sum."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    if w.shape[-1] != sum(sizes):
        layout = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
        raise ValueError(f"w has {w.shape[-1]} values, the network ({layout}) takes {sum(sizes)}")
    return {
        name: part.unflatten(-1, shape) for (name, shape), part in zip(shapes.items(), w.split(sizes, -1), strict=True)
    }


def join_weights(parts: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> Tensor:
    """The inverse of `split_weights`."""
    return torch.cat([parts[name].flatten(-len(shape)) for name, shape in shapes.items()], dim=-1)


def unit(x: Tensor) -> Tensor:
    """x (..., D) at unit length. Padding is zeros, where a norm has no second derivative: F.normalize would make the
    MAML gradient NaN."""
    return x / (x.square().sum(-1, keepdim=True) + 1e-12).sqrt()


def task_loss(logits: Tensor, batch: TaskBatch) -> Tensor:
    """Cross-entropy (T,) of logits (T, N, C), the mean over each task's own examples."""
    each = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="none").view_as(batch.labels)
    return (each * batch.example_mask).sum(1) / batch.example_mask.sum(1).clamp(min=1)


def right_answers(logits: Tensor, batch: TaskBatch) -> Tensor:
    """Which examples (T, N), bool, logits (T, N, C) answer right; padding never is."""
    return (logits.argmax(-1) == batch.labels) & batch.example_mask


def task_accuracy(logits: Tensor, batch: TaskBatch) -> Tensor:
    """Share of right answers (T,) among each task's own examples."""
    return right_answers(logits, batch).sum(1) / batch.example_mask.sum(1).clamp(min=1)


@torch.no_grad()
def accuracies(network: BaseNetwork, w, batch, values_at_once: int = 2**26) -> Tensor:
    """Accuracy (T,) of every task, as many tasks at once as `values_at_once` image features (256 MB) allow.

    Args:
        w: weights (T, P); None for the frozen embedding alone; or a function from rows (B,) to their weights (B, P).
        batch: a `TaskBatch` or a `TaskTable`.
    """
    T, N = batch.labels.shape
    result = []
    for rows in torch.arange(T, device=batch.labels.device).split(max(1, values_at_once // (N * network.dim))):
        tasks = batch[rows].trimmed()
        chosen = w(rows) if callable(w) else w if w is None else w[rows]
        result.append(task_accuracy(network.logits(chosen, tasks), tasks))
    return torch.cat(result)
