"""What a release's models have seen, in words, and the questions and scenes that a page can offer for it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ..data.emoji.dataset import VERSION, draw_scenes_for_question
from ..data.emoji.questions import FAMILIES
from ..generator import AdapterGenerator
from .views.templates import escape_markdown

EXAMPLES = 6  # questions of each family


@dataclass(frozen=True)
class World:
    """What to tell people about a release, in Markdown. `drawn`: pictures can be made to order, with known truths."""

    drawn: bool
    summary: str
    credit: str
    bias: str
    alike: tuple[str, ...] = ()  # questions worth comparing


_DRAWN = World(
    True,
    "This model lives in a **world of drawn scenes**: up to four things on coloured badges, in a frame. It has never "
    "seen a photograph.",
    "Glyphs and scenes: [OpenMoji](https://openmoji.org), CC BY-SA 4.0; the models were trained on them.",
    "Scenes follow arbitrary habits, drawn at random (which thing tends to have which colour, place and company). The "
    "models have learned to expect them, and nothing else about the world.",
    (
        "What colour is the badge behind the dog?",
        "Which colour is behind the dog?",
        "What colour is the badge behind the cat?",
        "What colour is the background behind the dog?",
        "Where is the dog?",
        "In which corner is the cat?",
        "How many things are in the picture with the dog?",
        "What animal is there?",
    ),
)


def describe(generator: AdapterGenerator) -> World:
    """The world of a release, by the dataset that its config names; its texts are Markdown."""
    dataset = generator.config.get("dataset") or "an unnamed dataset"
    if dataset == VERSION:
        return _DRAWN
    dataset = escape_markdown(str(dataset))
    return World(
        False,
        f"This model was trained on **{dataset}**: bring your own pictures of the kind it knows.",
        f"Data: {dataset}, under its own licence.",
        f"The models inherit whatever {dataset} holds, stereotypes of gender and race among it; see the note below.",
    )


def examples(generator: AdapterGenerator, world: World) -> dict[str, list[str]]:
    """Questions by family: of a drawn world those that training never saw, else known ones."""
    if world.drawn:
        known = {question["question"] for question in generator.known_questions}
        rng = random.Random("examples")
        by_family = {}
        for name, family in FAMILIES.items():
            texts = [question.text for question in family.questions]
            by_family[name] = _some(rng, [t for t in texts if t not in known] or texts)
    else:
        by_family = {}
        for question in generator.known_questions:
            name = question.get("family") or question["question"].split()[0].lower()
            by_family.setdefault(name, []).append(question["question"])
    return {name: by_family[name][:EXAMPLES] for name in sorted(by_family)}


def _some(rng: random.Random, texts: Sequence[str]) -> list[str]:
    return rng.sample(texts, min(EXAMPLES, len(texts)))


def draw(world: World, question: str, count: int, seed: int) -> tuple[list[Image.Image], list[str | None]]:
    """Fresh scenes that fit a question, and their true answers where the question is one of the world's own.

    Raises:
        ValueError: a world that cannot be drawn, an empty question or a count out of range.
    """
    if not world.drawn:
        raise ValueError("this release knows no drawn scenes; please add pictures of your own")
    images, truths = zip(*draw_scenes_for_question(question, count, seed), strict=True)
    return list(images), list(truths)
