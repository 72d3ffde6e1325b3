"""Datasets of question-conditioned image classification, each made from its config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from core.data.emoji_vqa import EmojiConfig, EmojiVQA
from core.tasks import Task

DatasetConfig = EmojiConfig  # a union, once there are several: the config's class says which dataset is meant


class Dataset(Protocol):
    """What training and evaluation need of a dataset.

    `identity` holds a "name" and everything else that labels and pixels depend on; `tasks` point into `num_images`
    images.
    """

    tasks: list[Task]

    @property
    def identity(self) -> dict[str, object]: ...
    @property
    def num_images(self) -> int: ...
    def load_arrays(self, indices: Sequence[int]) -> np.ndarray: ...


def open_dataset(config: DatasetConfig) -> Dataset:
    """The dataset that `config` describes."""
    return EmojiVQA(config)
