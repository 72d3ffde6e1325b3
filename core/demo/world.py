"""What a release's models have seen, in words, and the questions and scenes that a page can offer for it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from ..data.emoji.dataset import VERSION, draw_scenes_for_question
from ..data.emoji.questions import FAMILIES
from ..generator import AdapterGenerator
from .views.templates import escape_markdown

EXAMPLES = 6  # questions of each family
PHOTOS = Path(__file__).parent / "photos"
_MEASURED = "meta-vqa-photos"  # the shipped questions about photographs, on which verdicts were measured
_META_VQA = ("meta-vqa", "meta-vqa-photos-part")  # other photographs; what is one's own is called otherwise
_VERDICT = " (often wrong)"


@dataclass(frozen=True)
class Sample:
    """A picture to try, and a question that suits it."""

    path: Path
    question: str


@dataclass(frozen=True)
class World:
    """What to tell people about a release, in Markdown. `drawn`: pictures can be made to order, with known truths."""

    drawn: bool
    title: str  # plain text
    summary: str
    credit: str
    bias: str
    alike: tuple[str, ...] = ()  # questions worth comparing
    questions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # to try, by family
    samples: tuple[Sample, ...] = ()


_DRAWN = World(
    True,
    "Drawn scenes",
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
_PHOTOGRAPHS = World(
    False,
    "Photographs",
    "This model answers about **photographs of everyday life**. Add one of yours: upload, paste or take it. Rooms, "
    "sports, animals and what people do are what it knows best; **colours, counts and times of day it often gets "
    "wrong**, and it cannot read.",
    "Photographs: COCO. Questions and answers: VQA v2, CC BY 4.0, as sorted in Meta-VQA. Example photographs: cat by "
    "Stefan van der Walt and coffee by Rachel Michetti (CC0), from scikit-image; rocket by SpaceX (public domain), "
    "from scikit-image; raccoon (public domain), from SciPy.",
    "The photographs were collected on Flickr, and mostly show Western everyday life: homes, streets, meals and sports "
    "of other places are known less well. Answers are the words that paid annotators chose, their guesses and "
    "stereotypes of gender, race and age among them; the commonest answer is preferred where the picture says little. "
    "What is not among the candidate answers cannot be found.",
    (
        "What animal is this?",
        "What type of animal is this?",
        "What color is the cat?",
        "What is the cat doing?",
        "What room is this?",
        "What sport is this?",
        "What is the man doing?",
        "How many people are there?",
    ),
    {
        "Animals": ("What animal is this?", "What is the cat doing?", "What is the cat sitting on?"),
        "Places": ("What room is this?", "Where is this picture taken?", "What is in the background?"),
        "Sports and doings": ("What sport is this?", "What is the person doing?", "What is the man riding?"),
        "Food and things": ("What food is on the plate?", "What is in the cup?", "What kind of vehicle is this?"),
        f"Colours, counts and times{_VERDICT}": (
            "What color is the cat?",
            "What color is the wall?",
            "How many people are there?",
            "What time of day is it?",
        ),
    },
    (
        Sample(PHOTOS / "cat.jpg", "What animal is this?"),
        Sample(PHOTOS / "coffee.jpg", "What is in the cup?"),
        Sample(PHOTOS / "raccoon.jpg", "How many animals are there?"),
        Sample(PHOTOS / "rocket.jpg", "What time of day is it?"),
    ),
)
_OTHER_PHOTOGRAPHS = replace(
    _PHOTOGRAPHS,
    summary="This model answers about **photographs of everyday life**. Add one of yours: upload, paste or take it. "
    "Which questions it answers well was not measured; **expect wrong answers**.",
    questions={name.removesuffix(_VERDICT): asked for name, asked in _PHOTOGRAPHS.questions.items()},
)


TITLES = {"emoji": _DRAWN.title, "photos": _PHOTOGRAPHS.title}  # of the shipped releases, by preset


def describe(generator: AdapterGenerator) -> World:
    """The world of a release, by the dataset that its config names; its texts are Markdown."""
    named = str(generator.config.get("dataset") or "an unnamed dataset")
    if named == VERSION:
        return _DRAWN
    if named == _MEASURED:
        return _PHOTOGRAPHS
    if named in _META_VQA:
        return _OTHER_PHOTOGRAPHS
    dataset, count = escape_markdown(named), len(generator.known_questions)
    size = f", {count} questions" if count > 1 else ""
    return World(
        False,
        named,
        f"This model was trained on **{dataset}**{size}: bring your own pictures of the kind it knows.",
        f"Data: {dataset}, under its own licence.",
        f"The models inherit whatever {dataset} holds, stereotypes of gender and race among it; see the note below.",
    )


def examples(generator: AdapterGenerator, world: World) -> dict[str, list[str]]:
    """Questions by family: the world's own; of a drawn world those that training never saw; else known ones."""
    if world.questions:
        return {name: list(questions) for name, questions in world.questions.items()}
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
