"""Questions about drawn scenes that leave something open, with two readings each, by rule and seed.

Something that tells the readings apart is left out: whose badge, which of two objects of a category, whether background
or frame. Every reading is a precise question of Emoji-VQA that neither training nor validation asks in any words. All
readings of a question are about the same scenes, where their answers differ: no adapter can serve both.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass

from core.data.emoji.questions import FAMILIES, phrasings
from core.data.emoji.scene import Scene
from core.data.emoji.subjects import Argument
from core.data.emoji.world import CATEGORIES, CATEGORY_NAMES, OBJECTS, World

SCENES = 48  # of a question, half of them for support
VAL, TEST = 5, 16  # questions of a kind
Answers = tuple[str | None, str | None]


@dataclass(frozen=True)
class Kind:
    """A way to leave something open. `families` are those of the readings; `of_category` says that these are the same
    question about two objects of one category, which alone is named; `answers` reads both answers from a scene."""

    name: str
    text: str
    families: tuple[str, str]
    answers: Callable[[Scene], Answers]
    of_category: bool = False


def _own_or_others(attribute: str) -> Callable[[Scene], Answers]:
    return lambda scene: (getattr(scene.things[0], attribute), getattr(scene.things[1], attribute))


KINDS = (
    Kind(
        "whose badge colour",
        "The {0}: what colour is the badge?",
        ("badge colour of object", "company's badge colour of object"),
        _own_or_others("colour"),
    ),
    Kind(
        "whose badge shape",
        "The {0}: what shape is the badge?",
        ("badge shape of object", "company's badge shape of object"),
        _own_or_others("shape"),
    ),
    Kind(
        "whose size",
        "The picture with the {0}: how big is the thing?",
        ("size of object", "company's size of object"),
        _own_or_others("size"),
    ),
    Kind(
        "background or frame",
        "Which colour goes with the {0}?",
        ("background of object", "frame of object"),
        lambda scene: (scene.background, scene.frame),
    ),
    Kind(
        "badge colour of which",
        "What colour is the badge behind the {0}?",
        ("badge colour of object",) * 2,
        _own_or_others("colour"),
        of_category=True,
    ),
    Kind(
        "badge shape of which",
        "What shape is the badge behind the {0}?",
        ("badge shape of object",) * 2,
        _own_or_others("shape"),
        of_category=True,
    ),
)


@dataclass(frozen=True)
class Ambiguous:
    """A question with its two readings: `labels` has the answers of the one and the other, by scene, as rows of
    `answers`."""

    kind: str
    text: str
    readings: tuple[str, str]
    answers: tuple[str, ...]
    scenes: tuple[Scene, ...]
    labels: tuple[tuple[int, ...], tuple[int, ...]]


def _precise(family: str, argument: Argument) -> str:
    """The first question of a family about something."""
    return next(question.text for question in FAMILIES[family].questions if question.argument == argument)


def _subjects(kind: Kind, rng: random.Random) -> list[tuple[str, tuple[Argument, Argument]]]:
    """What is named, and the arguments of the readings, in random order."""
    if kind.of_category:
        order = {category: rng.sample(list(CATEGORIES[category][1]), 4) for category in rng.sample(CATEGORY_NAMES, 19)}
        return [(category, ((own[i],), (own[i + 1],))) for i in (0, 2) for category, own in order.items()]
    return [(name, ((name,), (name,))) for name in rng.sample(OBJECTS, len(OBJECTS))]


def _scene(kind: Kind, world: World, rng: random.Random, arguments: tuple[Argument, Argument]) -> tuple[Scene, Answers]:
    """A scene where both readings have an answer and these differ. Their objects are the first two things."""
    while True:
        if kind.of_category:
            (a,), (b,) = arguments
            scene = world.compose(rng, a, count=rng.choice((2, 3)), company=[b])
            if any(thing.category == scene.things[0].category for thing in scene.things[2:]):
                continue
        else:  # of the second reading, which asks more of a scene
            scene, _ = FAMILIES[kind.families[1]].draw(world, rng, arguments[1])
        answers = kind.answers(scene)
        if None not in answers and answers[0] != answers[1]:
            return scene, answers


def build(world: World, asked: Collection[str], part: str, seed: int = 0) -> list[Ambiguous]:
    """The questions of a part, "val" or "test", less those with a reading that `asked` questions ask in any words.

    Raises:
        ValueError: there are too few.
    """
    result = []
    for kind in KINDS:
        rng, found = random.Random(f"{seed}/two readings/{kind.name}"), []
        for name, arguments in _subjects(kind, rng):
            readings = tuple(map(_precise, kind.families, arguments))
            if all(set(phrasings(reading)).isdisjoint(asked) for reading in readings):
                found.append((name, arguments, readings))
        if len(found) < VAL + TEST:
            raise ValueError(f"{kind.name}: {len(found)} questions that training does not ask; needed: {VAL + TEST}")
        for name, arguments, readings in found[:VAL] if part == "val" else found[VAL : VAL + TEST]:
            draw = random.Random(f"{seed}/two readings/{kind.name}/{readings}")
            drawn = [_scene(kind, world, draw, arguments) for _ in range(SCENES)]
            answers = tuple(sorted({answer for _, both in drawn for answer in both}))
            labels = tuple(tuple(answers.index(both[i]) for _, both in drawn) for i in range(2))
            scenes = tuple(scene for scene, _ in drawn)
            result.append(Ambiguous(kind.name, kind.text.format(name), readings, answers, scenes, labels))
    return result


def digest(questions: list[Ambiguous]) -> str:
    """SHA-256 of questions, scenes and answers."""
    text = json.dumps([asdict(question) for question in questions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
