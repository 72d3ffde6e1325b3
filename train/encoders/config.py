"""Settings of the photo tower."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PhotoTowerTraining:
    """How the photo tower's head is fitted (`train/encoders/photo_tower.py`)."""

    blocks: tuple[int, ...] = (4, 5, 6)  # of the trunk, whose maps are read besides the last
    classes: float = 0.3  # weight of the names of the ImageNet classes that the trunk recognises
    shrinkage: float = 15.0
