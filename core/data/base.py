"""What a dataset is to training and evaluation, and how a preset names one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..backbones import Backbone
from .tasks import Task

if TYPE_CHECKING:
    from PIL import Image


class Dataset(Protocol):
    """What training and evaluation need of a dataset.

    `identity` holds a "name" and everything else that labels and pixels depend on; `tasks` point into `num_images`
    images, which are loaded one by one, an OSError telling that one cannot be read. A dataset that makes its pixels at
    the backbone's own size may have `load_arrays(indices) -> (B, H, W, 3) uint8` beside `load_image`, and `pixels`, a
    dictionary of what they alone depend on: features that were encoded
    elsewhere are accepted whatever `pixels` says.
    """

    tasks: list[Task]

    @property
    def identity(self) -> dict[str, object]: ...
    @property
    def num_images(self) -> int: ...
    def load_image(self, index: int) -> Image.Image: ...


@runtime_checkable
class BringsBackbone(Protocol):
    """A dataset whose "images" are features already: it has a backbone of its own for them and for its texts."""

    def backbone(self) -> Backbone: ...


def check_fold(fold: int, folds: int) -> None:
    """A ValueError unless part `fold` of `folds` can be held out for cross-validation; 0 folds hold out none."""
    if folds < 0 or folds == 1:
        raise ValueError(f"folds {folds}; allowed: 0 for none, or 2 and more")
    if not 0 <= fold < max(1, folds):
        raise ValueError(f"fold {fold}; allowed: 0 to {max(1, folds) - 1} with folds {folds}")


def fold_bounds(fold: int, folds: int, count: int) -> slice:
    """Which of `count` questions, dealt into `folds`, are part `fold`."""
    return slice(fold * count // folds, (fold + 1) * count // folds)


class DatasetConfig(ABC):
    """Settings of a dataset: a frozen dataclass that opens it. A preset holds one."""

    @abstractmethod
    def open(self) -> Dataset:
        """The dataset; a ValueError says what is missing."""
