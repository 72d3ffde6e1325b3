"""Pictures of simple shapes, and yes/no questions about them, each in a positive and a negated form.

`eval/datasets/shapes.py` writes them as files and says what they are for.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass

from PIL import Image, ImageDraw

from core.data.emoji.world import COLOURS as RGB
from core.data.tasks import Split

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = ("red", "yellow", "green", "blue", "purple")
BACKGROUNDS = ("white", "grey", "black")
WIDTHS = {"small": 22, "big": 35}  # pixels; the tiny CLIP knows badges of 34
PLACES = ("top left", "top right", "bottom left", "bottom right")
SIDES = {"on the left": "left", "on the right": "right", "at the top": "top", "at the bottom": "bottom"}
IMAGE_SIZE, CELL = 80, 38  # pixels, of the picture and from one place to the next
_SUPERSAMPLE = 4
_NAMED = 0.5  # of the things have the shape or the colour that the question names, so that a "no" is a near miss
_COUNTS = (1, 2, 3)

# The splits of the two forms of 52 meanings: 64 + 8 + 32 questions.
_PAIR_SPLITS: list[tuple[Split, Split]] = [
    *[("train", "train")] * 22,
    *[("test", "test")] * 8,
    *[("test", "train"), ("train", "test")] * 8,
    *[("val", "val"), ("val", "train"), ("train", "val")] * 2,
]
_KNOWN_WORD, _KNOWN_FAMILY = 3, 2  # training questions with a word of any other; with each form of a family


@dataclass(frozen=True)
class Thing:
    """A shape in a picture."""

    shape: str
    colour: str
    size: str
    place: str


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `jitter` seeds offsets, widths and light, which carry no meaning."""

    background: str
    things: tuple[Thing, ...]
    jitter: int


@dataclass(frozen=True)
class Meaning:
    """What is asked: has any of the things (or the biggest or smallest one) this shape, colour and side?

    `counts` says how many shapes its pictures may have: three always leave something on either side, and the biggest
    and the smallest are sought among two.
    """

    family: str
    positive: str
    negated: str
    extreme: str | None = None  # biggest, smallest
    shape: str | None = None
    colour: str | None = None
    side: str | None = None
    counts: tuple[int, ...] = _COUNTS

    def holds(self, scene: Scene) -> bool:
        """The answer to the positive form."""
        things = sorted(scene.things, key=lambda thing: WIDTHS[thing.size])
        if self.extreme:
            things = things[-1:] if self.extreme == "biggest" else things[:1]
        return any(
            self.shape in (None, thing.shape)
            and self.colour in (None, thing.colour)
            and (self.side is None or self.side in thing.place.split())
            for thing in things
        )


@dataclass(frozen=True)
class Question:
    """One form of a meaning: a task."""

    meaning: Meaning
    negated: bool
    split: Split

    @property
    def text(self) -> str:
        return self.meaning.negated if self.negated else self.meaning.positive

    @property
    def partner(self) -> str:
        """The other form."""
        return self.meaning.positive if self.negated else self.meaning.negated

    def answer(self, scene: Scene) -> str:
        return "yes" if self.meaning.holds(scene) != self.negated else "no"


def meanings(rng: random.Random) -> list[Meaning]:
    """52 meanings of nine families; which shapes are asked for on which side and in which colour is drawn."""
    found = []
    for shape in SHAPES:
        found.append(Meaning("shape", f"Is there a {shape}?", f"Is there no {shape}?", shape=shape))
        for where in rng.sample(list(SIDES), 2):
            positive, negated = f"Is there a {shape} {where}?", f"Is there no {shape} {where}?"
            found.append(Meaning("shape and side", positive, negated, shape=shape, side=SIDES[where]))
    for colour in COLOURS:
        found.append(Meaning("colour", f"Is anything {colour}?", f"Is nothing {colour}?", colour=colour))
    for colour, shape in rng.sample([(colour, shape) for colour in COLOURS for shape in SHAPES], 8):
        positive, negated = f"Is a {colour} {shape} present?", f"Is no {colour} {shape} present?"
        found.append(Meaning("colour and shape", positive, negated, shape=shape, colour=colour))
    for where, side in SIDES.items():
        positive, negated = f"Is there something {where}?", f"Is there nothing {where}?"
        found.append(Meaning("side", positive, negated, side=side, counts=(1, 2)))
    for extreme in ("biggest", "smallest"):
        for colour in COLOURS:
            positive, negated = f"Is the {extreme} shape {colour}?", f"Is the {extreme} shape not {colour}?"
            found.append(Meaning(f"{extreme}, colour", positive, negated, extreme, colour=colour, counts=(2,)))
        for shape in SHAPES:
            positive, negated = f"Is the {extreme} shape a {shape}?", f"Is the {extreme} shape not a {shape}?"
            found.append(Meaning(f"{extreme}, shape", positive, negated, extreme, shape=shape, counts=(2,)))
    return found


def questions(seed: int) -> list[Question]:
    """All 104 questions with their splits: drawn until training knows every word and both forms of every family, and
    the test asks of every family."""
    rng = random.Random(f"{seed}/questions")
    while True:
        asked = meanings(rng)
        splits = rng.sample(_PAIR_SPLITS, len(asked))
        drawn = [
            Question(meaning, negated, split)
            for meaning, pair in zip(asked, splits, strict=True)
            for negated, split in zip((False, True), pair, strict=True)
        ]
        train = [question for question in drawn if question.split == "train"]
        words = Counter(word for question in train for word in question.text.strip("?").split())
        forms = Counter((question.meaning.family, question.negated) for question in train)
        tested = {question.meaning.family for question in drawn if question.split == "test"}
        if (
            all(words[word] >= _KNOWN_WORD for q in drawn for word in q.text.strip("?").split())
            and all(forms[q.meaning.family, q.negated] >= _KNOWN_FAMILY for q in drawn)
            and tested == {question.meaning.family for question in drawn}
        ):
            return drawn


def scenes(question: Question, pictures: int, seed: int) -> list[Scene]:
    """So many scenes, in random order: half of them answered yes, with each number of shapes."""
    rng = random.Random(f"{seed}/{question.text}")
    found = []
    for i in range(pictures):
        count = question.meaning.counts[i // 2 % len(question.meaning.counts)]
        scene = _scene(rng, question.meaning, count)
        while question.answer(scene) != ("yes", "no")[i % 2]:
            scene = _scene(rng, question.meaning, count)
        found.append(scene)
    return rng.sample(found, pictures)


def _scene(rng: random.Random, meaning: Meaning, count: int) -> Scene:
    draw = lambda named, values: named if named and rng.random() < _NAMED else rng.choice(values)
    sizes = rng.sample(list(WIDTHS), count) if meaning.extreme else rng.choices(list(WIDTHS), k=count)
    things = tuple(
        Thing(draw(meaning.shape, SHAPES), draw(meaning.colour, COLOURS), size, place)
        for size, place in zip(sizes, rng.sample(PLACES, count), strict=True)
    )
    return Scene(rng.choice(BACKGROUNDS), things, rng.getrandbits(32))


def draw_scene(scene: Scene) -> Image.Image:
    """The scene as an RGB image, 80 x 80 pixels."""
    rng = random.Random(scene.jitter)
    shade = lambda name: tuple(min(255, max(0, channel + rng.randint(-8, 8))) for channel in RGB[name])
    side = IMAGE_SIZE * _SUPERSAMPLE
    image = Image.new("RGB", (side, side), shade(scene.background))
    for thing in scene.things:
        row, column = divmod(PLACES.index(thing.place), 2)
        x = IMAGE_SIZE / 2 + CELL * (column - 0.5) + rng.uniform(-1.5, 1.5)
        y = IMAGE_SIZE / 2 + CELL * (row - 0.5) + rng.uniform(-1.5, 1.5)
        radius = WIDTHS[thing.size] / 2 * rng.uniform(0.94, 1.06)
        points = [((x + radius * a) * _SUPERSAMPLE, (y + radius * b) * _SUPERSAMPLE) for a, b in _outline(thing.shape)]
        ImageDraw.Draw(image).polygon(points, fill=shade(thing.colour))
    return image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners (x, y) of a shape, y downwards, within the square from -1 to 1."""
    if shape == "circle":
        return [(math.cos(i * math.pi / 32), math.sin(i * math.pi / 32)) for i in range(64)]
    if shape == "square":
        return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
    if shape == "triangle":
        return [(0, -1), (1, 0.9), (-1, 0.9)]
    if shape == "star":
        radii = [1.05, 0.45] * 5
        return [(r * math.sin(i * math.pi / 5), 0.08 - r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)]
    arm = 0.42
    quarter = [(arm, -1), (arm, -arm), (1, -arm)]
    return [point for k in range(4) for point in _turned(quarter, k)]


def _turned(points: list[tuple[float, float]], quarters: int) -> list[tuple[float, float]]:
    for _ in range(quarters):
        points = [(-y, x) for x, y in points]
    return points
