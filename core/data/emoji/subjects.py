"""How the one thing that a question of Emoji-VQA is about is named: by object, category, place, badge, neighbour."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .world import BESIDE, CATEGORIES, CATEGORY_NAMES, COLOURS, OBJECTS, PLACES, SHAPES, SIZES, Scene, Thing, World

Argument = tuple[str, ...]


@dataclass(frozen=True)
class _Subject:
    """How the one thing that a question is about is named."""

    phrases: tuple[str, ...]  # noun phrases with the argument's fields {0}, {1}
    arguments: Callable[[], Iterator[Argument]]
    matches: Callable[[Scene, Thing, Argument], bool]
    compose: Callable[[World, random.Random, Argument, int | None], Scene]


def _neighbour_of(scene: Scene, direction: str, name: str) -> str | None:
    """The place in a direction of the named object, None if it is not in the scene or at the edge."""
    anchor = next((thing for thing in scene.things if thing.name == name), None)
    return None if anchor is None else BESIDE[direction].get(anchor.place)


def _compose_beside(world: World, rng: random.Random, argument: Argument, count: int | None) -> Scene:
    place = rng.choice(list(BESIDE[argument[0]]))
    return world.compose(rng, argument[1], count=count or rng.choice((2, 2, 3, 4)), fixed={"place": place})


def _any_of(rng: random.Random, category: str) -> str:
    return rng.choice(list(CATEGORIES[category][1]))


SUBJECTS: dict[str, _Subject] = {
    "object": _Subject(
        ("the {0}",),
        lambda: ((name,) for name in OBJECTS),
        lambda scene, thing, argument: thing.name == argument[0],
        lambda world, rng, argument, count: world.compose(rng, argument[0], count=count),
    ),
    "category": _Subject(
        ("the {0}",),
        lambda: ((name,) for name in CATEGORY_NAMES),
        lambda scene, thing, argument: thing.category == argument[0],
        lambda world, rng, argument, count: world.compose(rng, _any_of(rng, argument[0]), count=count),
    ),
    "place": _Subject(
        ("the one in the {0} corner", "the {0} thing"),
        lambda: ((place,) for place in PLACES),
        lambda scene, thing, argument: thing.place == argument[0],
        lambda world, rng, argument, count: world.compose(rng, count=count, fixed={"place": argument[0]}),
    ),
    "colour": _Subject(
        ("the one on the {0} badge", "the thing with the {0} badge"),
        lambda: ((colour,) for colour in COLOURS),
        lambda scene, thing, argument: thing.colour == argument[0],
        lambda world, rng, argument, count: world.compose(rng, count=count, fixed={"colour": argument[0]}),
    ),
    "shape": _Subject(
        ("the one on the {0}", "the thing with the {0}"),
        lambda: ((shape,) for shape in SHAPES),
        lambda scene, thing, argument: thing.shape == argument[0],
        lambda world, rng, argument, count: world.compose(rng, count=count, fixed={"shape": argument[0]}),
    ),
    "size": _Subject(
        ("the {0} one", "the only {0} thing"),
        lambda: ((size,) for size in SIZES),
        lambda scene, thing, argument: thing.size == argument[0],
        lambda world, rng, argument, count: world.compose(rng, count=count, fixed={"size": argument[0]}),
    ),
    "neighbour": _Subject(
        ("the one {0} the {1}", "the thing {0} the {1}"),
        lambda: ((direction, name) for direction in BESIDE for name in OBJECTS),
        lambda scene, thing, argument: thing.place == _neighbour_of(scene, *argument),
        _compose_beside,
    ),
}
