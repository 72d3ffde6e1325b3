"""The endless stream of labelled scenes that the image tower learns from."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from core.data.emoji.labels import scene_labels
from core.data.emoji.scene import draw_array
from core.data.emoji.world import CATEGORIES, CATEGORY_OF, OBJECTS, Scene, World, WorldConfig


def training_scene(worlds: tuple[World, World], seed: int, index: int) -> Scene:
    """Scene `index` of the endless training stream: 30% with the world's habits, the rest without, so that the
    embedding holds what is there and not what is usual; three in ten are crowds of one category."""
    rng = random.Random(f"backbone/{seed}/{index}")
    world = worlds[0] if rng.random() < 0.3 else worlds[1]
    main, company = rng.choice(OBJECTS), None
    if rng.random() < 0.3:
        others = [name for name in CATEGORIES[CATEGORY_OF[main]][1] if name != main]
        company = rng.sample(others, rng.randint(1, 3))
    return world.compose(rng, main, company=company)


class SceneStream(Dataset):
    """Batches `start`, `start + 1`, ... of images (B, 80, 80, 3) uint8 with labels (B, 5, 4)."""

    def __init__(self, seed: int, batch: int, start: int, stop: int) -> None:
        self.seed, self.batch, self.start, self.stop = seed, batch, start, stop
        self.worlds = (World(WorldConfig()), World(WorldConfig(own_habit=0.0, category_habit=0.0)))

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if i >= len(self):
            raise IndexError(i)
        first = (self.start + i) * self.batch
        scenes = [training_scene(self.worlds, self.seed, first + k) for k in range(self.batch)]
        images = torch.from_numpy(np.stack([draw_array(scene) for scene in scenes]))
        return images, torch.from_numpy(np.stack([scene_labels(scene) for scene in scenes]))
