"""How pictures look: the distribution of differences between neighbouring pixels, and what is far from known ones.

It tells a photograph from a drawing, a screenshot or noise, whatever they show. The embedding is the wrong ruler for a
backbone that was trained on one kind of picture: it maps all others into the same place. Of eight photographs none is
farther from drawn scenes, by embedding (nearest neighbours or Mahalanobis), than 1% of drawn scenes are from each
other; by this measure all are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..files import read_json, write_json
from .images import as_shown
from .known_questions import FALSE_ALARMS

LOOK = "look.json"  # beside a backbone: the look of the pictures that it was made from
_QUANTILES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
_FLOOR = 0.0055  # about one and a half levels of 255: smaller differences are not told apart
_SHRINKAGE = 1e-3  # variance that each coordinate has at least
_LEAST, _FOLDS = 9, 3  # pictures, and the parts that they are measured in

Transform = Callable[[Image.Image], Tensor]  # an RGB picture to floats (3, H, W)


@dataclass(frozen=True)
class Look:
    """The look of known pictures: mean (7,) and precision (7, 7) of their descriptions, and the squared Mahalanobis
    distance `limit` beyond which a picture is strange."""

    mean: Tensor
    precision: Tensor
    limit: float

    @classmethod
    def fit(cls, x: Tensor, folds: Tensor | None = None) -> Look:
        """From descriptions x (N, 7). A share of `FALSE_ALARMS` of them lies beyond the limit, each measured by the
        others: those of other `folds` (N,), by default three in turn.

        Raises:
            ValueError: fewer than nine pictures.
        """
        if len(x) < _LEAST:
            raise ValueError(f"{len(x)} pictures are too few to tell what is unusual; at least {_LEAST} are needed")
        if folds is None:
            folds = torch.arange(len(x)) % _FOLDS
        without = [cls(*_statistics(x[folds != fold]), 0.0).distance(x[folds == fold]) for fold in folds.unique()]
        return cls(*_statistics(x), float(torch.cat(without).quantile(1 - FALSE_ALARMS)))

    @classmethod
    def read(cls, path: Path) -> Look:
        """What `write` has written; a ValueError, naming the file, for anything else."""
        size = len(_QUANTILES)
        try:
            stored = read_json(path)
            mean, precision = torch.tensor(stored["mean"]), torch.tensor(stored["precision"])
            limit = float(stored["limit"])
            if mean.shape != (size,) or precision.shape != (size, size):
                raise ValueError(f"mean {tuple(mean.shape)} and precision {tuple(precision.shape)} of {size} quantiles")
            if not (mean.isfinite().all() and precision.isfinite().all() and limit > 0):
                raise ValueError("numbers that are infinite, or a limit that is none")
        except (KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not the look of pictures ({error})") from None
        return cls(mean, precision, limit)

    def write(self, path: Path) -> None:
        """As JSON, atomically."""
        write_json(path, {"mean": self.mean.tolist(), "precision": self.precision.tolist(), "limit": self.limit})

    def distance(self, x: Tensor) -> Tensor:
        """Squared Mahalanobis distances (N,) of descriptions x (N, 7)."""
        return (((x - self.mean) @ self.precision) * (x - self.mean)).sum(1)

    def are_strange(self, x: Tensor) -> list[bool]:
        """For each description, whether it is unlike those of known pictures."""
        return (self.distance(x) > self.limit).tolist()


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (7,) and precision (7, 7) of descriptions."""
    covariance = torch.cov(x.mT)
    return x.mean(0), torch.linalg.inv(covariance + _SHRINKAGE * torch.eye(len(covariance)))


def describe(images: Sequence[Image.Image], transform: Transform) -> Tensor:
    """Descriptions (N, 7) of pictures, as a backbone's transform prepares them: log quantiles of the differences
    between neighbouring pixels, as shares of the way from black to white, which each transform puts into numbers of
    its own."""
    return descriptions(torch.stack([transform(as_shown(image)) for image in images]), transform)


def descriptions(pixels: Tensor, transform: Transform) -> Tensor:
    """As `describe`, of stacked outputs (N, 3, H, W) of the transform."""
    white, black = (transform(Image.new("RGB", (8, 8), colour)).mean((1, 2)) for colour in ("white", "black"))
    x = pixels / (white - black)[:, None, None]
    across = (x[..., 1:] - x[..., :-1]).abs().mean(1).flatten(1)
    down = (x[..., 1:, :] - x[..., :-1, :]).abs().mean(1).flatten(1)
    differences = torch.cat([across, down], dim=1)
    return (torch.quantile(differences, torch.tensor(_QUANTILES), dim=1).mT + _FLOOR).log()
