"""What can be asked in Emoji-VQA: families of questions, their phrasings, and the answer that a scene gives.

A family composes what is asked (a colour, a shape, a kind ...) with how its subject is named (by object, category,
place, badge, size, neighbour). Many families share an answer set, so that only the question tells what is meant.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from .subjects import SUBJECTS, Argument, _any_of
from .world import (
    CATEGORIES,
    CATEGORY_NAMES,
    CATEGORY_OF,
    COLOURS,
    COUNTS,
    OBJECTS,
    PLACES,
    SHAPES,
    Scene,
    Thing,
    World,
)


@dataclass(frozen=True)
class Question:
    """One question: its words, family, what it names (`argument`), and a cloze prompt for its answers."""

    text: str
    family: str
    argument: Argument
    prompt: str


@dataclass(frozen=True)
class _Ask:
    """What is asked of the subject, alone in its scene or not."""

    phrases: tuple[str, ...]
    prompt: str
    answer: Callable[[Scene, Thing], str | None]
    count: int | None = None  # number of things the scene must have


def _company(attribute: str) -> Callable[[Scene, Thing], str | None]:
    def answer(scene: Scene, thing: Thing) -> str | None:
        return getattr(next(other for other in scene.things if other != thing), attribute)

    return answer


_ASKS: dict[str, _Ask] = {
    "kind": _Ask(
        ("What kind of thing is {r}?", "Which sort of thing is {r}?", "What category does {r} belong to?"),
        "{r} is a {{}}",
        lambda scene, thing: thing.category,
    ),
    "badge colour": _Ask(
        ("What colour is the badge behind {r}?", "Which colour is behind {r}?", "What colour does {r} stand on?"),
        "the badge behind {r} is {{}}",
        lambda scene, thing: thing.colour,
    ),
    "badge shape": _Ask(
        ("What shape is the badge behind {r}?", "Which shape is behind {r}?", "What shape does {r} stand on?"),
        "the badge behind {r} is a {{}}",
        lambda scene, thing: thing.shape,
    ),
    "size": _Ask(
        ("How big is {r}?", "What size is {r}?", "Which size does {r} have?"),
        "{r} is {{}}",
        lambda scene, thing: thing.size,
    ),
    "place": _Ask(
        ("Where is {r}?", "In which corner is {r}?", "Which corner holds {r}?"),
        "{r} is in the {{}} corner",
        lambda scene, thing: thing.place,
    ),
    "background": _Ask(
        ("What colour is the background behind {r}?", "Which background colour goes with {r}?",
         "What colour is the wall in the picture with {r}?"),
        "the background behind {r} is {{}}",
        lambda scene, thing: scene.background,
    ),
    "frame": _Ask(
        ("What colour is the frame around {r}?", "Which frame colour goes with {r}?",
         "What colour frames the picture with {r}?"),
        "the frame around {r} is {{}}",
        lambda scene, thing: scene.frame,
    ),
    "how many with": _Ask(
        ("How many things are in the picture with {r}?", "How many things are there, counting {r}?",
         "What is the number of things around {r}?"),
        "there are {{}} things in the picture with {r}",
        lambda scene, thing: COUNTS[len(scene.things) - 1],
    ),
    "company's kind": _Ask(
        ("What kind of thing is next to {r}?", "Which sort of thing keeps {r} company?",
         "What kind of thing is {r} with?"),
        "{r} is next to a {{}}",
        _company("category"),
        count=2,
    ),
    "company's badge colour": _Ask(
        ("What colour is the badge next to {r}?", "Which colour is the other badge, not that of {r}?",
         "What badge colour keeps {r} company?"),
        "the badge next to {r} is {{}}",
        _company("colour"),
        count=2,
    ),
    "company's badge shape": _Ask(
        ("What shape is next to {r}?", "Which shape is the other badge, not that of {r}?",
         "What badge shape keeps {r} company?"),
        "the badge next to {r} is a {{}}",
        _company("shape"),
        count=2,
    ),
    "company's size": _Ask(
        ("How big is the thing next to {r}?", "What size is the thing that is with {r}?"),
        "the thing next to {r} is {{}}",
        _company("size"),
        count=2,
    ),
}  # fmt: skip

# Which asks make sense of which subjects (a thing named by its badge's colour is not asked for that colour).
_COMPOSED: dict[str, tuple[str, ...]] = {
    "object": ("badge colour", "badge shape", "size", "place", "background", "frame", "how many with",
               "company's kind", "company's badge colour", "company's badge shape", "company's size"),
    "category": ("badge colour", "badge shape", "size", "place", "background", "frame", "how many with",
                 "company's kind", "company's badge colour", "company's badge shape"),
    "place": ("kind", "badge colour", "badge shape", "size"),
    "colour": ("kind", "badge shape", "size", "place", "background", "frame", "how many with"),
    "shape": ("kind", "badge colour", "size", "place", "background", "frame", "how many with"),
    "size": ("kind", "badge colour", "badge shape", "place"),
    "neighbour": ("kind", "badge colour", "badge shape", "size"),
}  # fmt: skip

# Whole families that no training question belongs to: each asks something known of subjects named in a known way.
NEW_FAMILIES: frozenset[str] = frozenset({
    "size of category", "kind of shape", "place of colour", "badge colour of neighbour", "background of shape",
    "frame of colour", "company's badge shape of object", "how many with shape", "name by category and shape",
})  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A family of questions. `draw` makes a scene that the question fits and its answer."""

    name: str
    questions: tuple[Question, ...]
    draw_once: Callable[[World, random.Random, Argument], tuple[Scene, str | None]]

    @property
    def is_new(self) -> bool:
        return self.name in NEW_FAMILIES

    def draw(self, world: World, rng: random.Random, argument: Argument) -> tuple[Scene, str]:
        """A scene with one right answer, drawn until the question fits it."""
        for _ in range(1000):
            scene, answer = self.draw_once(world, rng, argument)
            if answer is not None:
                return scene, answer
        raise RuntimeError(f"no scene fits {self.name!r} of {argument!r}")


def _composed_family(ask_name: str, subject_name: str) -> Family:
    ask, subject = _ASKS[ask_name], SUBJECTS[subject_name]
    name = f"{ask_name} of {subject_name}" if ask_name != "how many with" else f"{ask_name} {subject_name}"

    def draw_once(world: World, rng: random.Random, argument: Argument) -> tuple[Scene, str | None]:
        scene = subject.compose(world, rng, argument, ask.count)
        found = [thing for thing in scene.things if subject.matches(scene, thing, argument)]
        return scene, ask.answer(scene, found[0]) if len(found) == 1 else None

    questions = []
    for argument in subject.arguments():
        for referent in (phrase.format(*argument) for phrase in subject.phrases):
            prompt = ask.prompt.format(r=referent)
            questions += [Question(_sentence(p.format(r=referent)), name, argument, prompt) for p in ask.phrases]
    return Family(name, tuple(questions), draw_once)


def _name_family(by: str) -> Family:
    """ "What animal is there?", or the one of several that a place or badge singles out."""
    options = {"": ("",), "place": PLACES, "colour": tuple(COLOURS), "shape": SHAPES}[by]
    phrases = {
        "": ("What {c} is there?", "Which {c} is in the picture?", "What {c} can you see?"),
        "place": ("Which {c} is in the {v} corner?", "What {c} is at the {v}?"),
        "colour": ("Which {c} is on the {v} badge?", "What {c} has a {v} badge?"),
        "shape": ("Which {c} is on the {v}?", "What {c} has a {v} behind it?"),
    }[by]
    prompt = {
        "": "the {c} is a {{}}",
        "place": "the {c} in the {v} corner is a {{}}",
        "colour": "the {c} on the {v} badge is a {{}}",
        "shape": "the {c} on the {v} is a {{}}",
    }[by]
    name = f"name by category and {by}" if by else "name by category"

    def draw_once(world: World, rng: random.Random, argument: Argument) -> tuple[Scene, str | None]:
        category, value = argument
        main = _any_of(rng, category)
        if not by:
            scene = world.compose(rng, main)
            found = [thing for thing in scene.things if thing.category == category]
        else:
            others = [name for name in CATEGORIES[category][1] if name != main]
            company = rng.sample(others, rng.choice((1, 1, 2)))
            scene = world.compose(rng, main, count=rng.choice((2, 3, 4)), fixed={by: value}, company=company)
            found = [t for t in scene.things if t.category == category and getattr(t, by) == value]
        return scene, found[0].name if len(found) == 1 else None

    questions = [
        Question(phrase.format(c=c, v=v), name, (c, v), prompt.format(c=c, v=v))
        for c in CATEGORY_NAMES
        for v in options
        for phrase in phrases
    ]
    return Family(name, tuple(questions), draw_once)


def _count_family(of: str) -> Family:
    """How many things of a category, on a shape, on a colour; at least one."""
    options = {"category": CATEGORY_NAMES, "shape": SHAPES, "colour": tuple(COLOURS)}[of]

    def draw_once(world: World, rng: random.Random, argument: Argument) -> tuple[Scene, str | None]:
        (value,) = argument
        if of == "category":
            habit = world.habits[value].count if rng.random() < 0.4 else rng.randint(1, 4)
            names = rng.sample(list(CATEGORIES[value][1]), habit)
            scene = world.compose(rng, names[0], count=rng.randint(habit, 4), company=names[1:])
        else:
            scene = world.compose(rng, fixed={of: value})
            rest = scene.things[1:]
            if rng.random() < 0.6:
                rest = tuple(replace(t, **{of: value}) if t.shape and rng.random() < 0.6 else t for t in rest)
            if of == "colour" and value == scene.background:
                return scene, None
            scene = replace(scene, things=(scene.things[0], *rest))
        return scene, COUNTS[sum(getattr(thing, of) == value for thing in scene.things) - 1]

    def plural(value: str) -> str:
        return CATEGORIES[value][0] if of == "category" else f"{value} badges"

    questions = [
        Question(phrase.format(plural(value)), f"how many of {of}", (value,), "there are {} " + plural(value))
        for value in options
        for phrase in ("How many {} are there?", "How many {} do you see?", "What is the number of {}?")
    ]
    return Family(f"how many of {of}", tuple(questions), draw_once)


def _odd_family() -> Family:
    def draw_once(world: World, rng: random.Random, argument: Argument) -> tuple[Scene, str | None]:
        (category,) = argument
        crowd = rng.sample(list(CATEGORIES[category][1]), rng.choice((2, 3)))
        odd = world.habits[category].company if rng.random() < 0.4 else rng.choice(CATEGORY_NAMES)
        scene = world.compose(rng, _any_of(rng, odd), count=len(crowd) + 1, company=crowd)
        return scene, odd if odd != category else None

    questions = [
        Question(phrase.format(CATEGORIES[c][0]), "odd one out", (c,), f"among the {CATEGORIES[c][0]} is a {{}}")
        for c in CATEGORY_NAMES
        for phrase in ("What is the odd one out among the {}?", "What kind of thing does not belong to the {}?",
                       "Which sort of thing is the stranger among the {}?")
    ]  # fmt: skip
    return Family("odd one out", tuple(questions), draw_once)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(_composed_family(ask, subject) for subject, asks in _COMPOSED.items() for ask in asks),
        *(_name_family(by) for by in ("", "place", "colour", "shape")),
        *(_count_family(of) for of in ("category", "shape", "colour")),
        _odd_family(),
    )
}
QUESTIONS: dict[str, Question] = {q.text: q for family in FAMILIES.values() for q in family.questions}
assert sum(len(family.questions) for family in FAMILIES.values()) == len(QUESTIONS), "two families share a question"
assert set(FAMILIES) >= NEW_FAMILIES
assert set(CATEGORY_OF) == set(OBJECTS)


def phrasings(question: str) -> list[str]:
    """All questions of the dataset that ask the same as this one, itself among them. KeyError if it is none of them."""
    known = QUESTIONS[question]
    return [q.text for q in FAMILIES[known.family].questions if q.argument == known.argument]
