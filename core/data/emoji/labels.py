"""Scenes as integers: what each quadrant holds, for supervision with exact truth."""

from __future__ import annotations

import numpy as np

from .world import CATEGORY_NAMES, CATEGORY_OF, COLOURS, OBJECTS, PLACES, SHAPES, SIZES, Scene

_INDEX = {
    "name": {name: i for i, name in enumerate(OBJECTS)},
    "colour": {name: i for i, name in enumerate(COLOURS)},
    "shape": {name: i for i, name in enumerate(SHAPES)},
    "size": {name: i for i, name in enumerate(SIZES)},
}
CATEGORY_OF_OBJECT = np.array([CATEGORY_NAMES.index(CATEGORY_OF[name]) for name in OBJECTS])
COLUMNS = ("name", "colour", "shape", "size")  # of the per-place table; absent things and badges are -1


def scene_labels(scene: Scene) -> np.ndarray:
    """(5, 4) int64: row p < 4 is place p with the columns (name, colour, shape, size), -1 where there is none;
    row 4 is (background, frame or -1, number of things, 0)."""
    table = np.full((5, 4), -1, dtype=np.int64)
    for thing in scene.things:
        row = table[PLACES.index(thing.place)]
        for column, attribute in enumerate(COLUMNS):
            value = getattr(thing, attribute)
            if value is not None:
                row[column] = _INDEX[attribute][value]
    frame = -1 if scene.frame is None else _INDEX["colour"][scene.frame]
    table[4] = (_INDEX["colour"][scene.background], frame, len(scene.things), 0)
    return table
