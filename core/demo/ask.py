"""Ask: one question, several methods, the same pictures; and a score over a visit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..generator import Adapter, AdapterGenerator, check_answers, check_images
from ..methods import DEFAULT_GENERATOR, SEARCHES
from ..networks.weight_generator import WEIGHT_GENERATORS
from ..texts import split_answers
from . import sensitive
from .limits import MAX_PICTURES, MAX_QUESTION, MAX_SEED, SCORED
from .novelty import PictureNovelty, QuestionNovelty

# Side by side, by what people read: those of `core.methods.METHODS` that the page offers.
LABELS = {
    "hyperldm": "HyperLDM",
    "hyperclip": "HyperCLIP guidance",
    "cond_multitask": "Cond. Multitask",
    "clip": "Plain CLIP",
}
# Whose latents HyperLDM and HyperCLIP search, by what people read; the default comes first.
GENERATORS_BY_LABEL = {
    WEIGHT_GENERATORS[name].label: name
    for name in sorted(WEIGHT_GENERATORS.names(), key=lambda name: (name != DEFAULT_GENERATOR, name))
}

Score = dict[str, dict[tuple, bool]]  # by method: scene -> right?


@dataclass(frozen=True)
class Comparison:
    """What several methods say about pictures. `truths` are None where unknown; probabilities (N, C) by method."""

    question: str
    answers: list[str]
    images: list[Image.Image]
    truths: list[str | None]
    probabilities: dict[str, Tensor]
    adapters: dict[str, Adapter]
    seconds: tuple[float, float]  # to generate all adapters, to classify all pictures
    strange_question: str = ""  # why the question is unlike what the models know
    strange_images: tuple[bool, ...] = ()
    sensitive: str = ""  # what the question asks about a person that a picture cannot tell
    least: float | None = None  # probability of an answer that is worth claiming
    drawn: bool = False  # for this question; no truth is known where the program that draws does not understand it

    def right(self, method: str) -> list[bool | None]:
        """Picture by picture, whether the most probable answer is the true one; None where the truth is unknown, or no
        candidate, so that no method could be right."""
        best = self.probabilities[method].argmax(-1).tolist()
        fair = [truth in self.answers for truth in self.truths]
        pairs = zip(best, self.truths, fair, strict=True)
        return [self.answers[k] == truth if known else None for k, truth, known in pairs]

    def unclaimed(self, method: str) -> list[bool]:
        """Picture by picture, whether no answer is worth claiming. Plain CLIP's probabilities are not calibrated, and
        are not judged."""
        if self.least is None or method == "clip":
            return [False] * len(self.images)
        return (self.probabilities[method].max(-1).values < self.least).tolist()


def available(generator: AdapterGenerator) -> dict[str, str]:
    """The methods of `LABELS` that a release holds, with their labels."""
    names = GENERATORS_BY_LABEL.values()
    return {method: label for method, label in LABELS.items() if any(generator.has(method, name) for name in names)}


def searched(generator: AdapterGenerator, methods: Sequence[str] = SEARCHES) -> dict[str, str]:
    """Those of `GENERATORS_BY_LABEL` whose latents a release can search by any of `methods`."""
    return {
        label: name
        for label, name in GENERATORS_BY_LABEL.items()
        if any(generator.has(method, name) for method in methods)
    }


def check_question(question: str | None) -> str:
    """The question without outer spaces; a ValueError that asks for one, or for a shorter one."""
    question = " ".join((question or "").split())
    if not question:
        raise ValueError("please type a question")
    if len(question) > MAX_QUESTION:
        raise ValueError(f"the question has {len(question)} characters; {MAX_QUESTION} are allowed")
    return question


def check_count(pictures: int) -> None:
    """A ValueError if so many pictures are too many for one request."""
    if pictures > MAX_PICTURES:
        raise ValueError(f"{pictures} pictures; {MAX_PICTURES} are allowed at once")


def read_seed(value: float | None) -> int:
    """The seed that a visitor typed, 0 if none; a ValueError for what is no whole number, or too large for a link."""
    value = value or 0
    if not 0 <= value <= MAX_SEED or value != int(value):  # infinity and NaN, which int refuses, are not in between
        raise ValueError(f"seed {value:.15g}; allowed: whole numbers from 0 to {MAX_SEED}")
    return int(value)


def read_answers(text: str | None) -> list[str]:
    """Candidate answers from a text, as `split_answers` reads it, less empty ones.

    Raises:
        ValueError: what `check_answers` refuses.
    """
    return check_answers([answer for answer in split_answers(text or "") if answer.strip()])


def compare(
    generator: AdapterGenerator,
    question: str,
    answers: Sequence[str],
    images: Sequence[Image.Image],
    truths: Sequence[str | None],
    methods: Sequence[str],
    *,
    name: str = DEFAULT_GENERATOR,
    gamma: float | None = None,
    steps: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    questions: QuestionNovelty | None = None,
    pictures: PictureNovelty | None = None,
    least: float | None = None,
    drawn: bool = False,
) -> Comparison:
    """Generate an adapter by each of `methods` and classify the pictures with all of them.

    Pictures and answers are embedded once for all methods. `name`, `gamma`, `steps` and `samples` are those of
    `AdapterGenerator.generate`; `steps` and `samples` are HyperLDM's. `questions` and `pictures` say what is strange;
    an answer of a probability below `least` is not claimed; `drawn`: the pictures are scenes drawn for the question.

    Raises:
        ValueError: no method, no picture, too many, or a bad question or answer; the message says what to mend.
    """
    question, answers = check_question(question), check_answers(answers)
    if not methods:
        raise ValueError("please choose at least one method")
    check_count(len(check_images(images)))
    begun = time.perf_counter()
    sampling = {"gamma": gamma, "steps": steps, "samples": samples}
    adapters = {
        method: generator.generate(
            question, method, answers=answers, generator=name, seed=seed, **(sampling if method == "hyperldm" else {})
        )
        for method in methods
    }
    generated = time.perf_counter()
    x, texts = generator.embed_images(images), generator.embed_answers(answers)
    with torch.inference_mode():
        probabilities = {method: adapter.probabilities_of(x, texts) for method, adapter in adapters.items()}
    return Comparison(
        question,
        list(answers),
        list(images),
        list(truths),
        probabilities,
        adapters,
        (generated - begun, time.perf_counter() - generated),
        questions.reason(question) if questions else "",
        tuple(pictures.are_strange(images)) if pictures else (False,) * len(images),
        sensitive.subject(question),
        least,
        drawn,
    )


def add_to_score(score: Score, comparison: Comparison, seed: int) -> Score:
    """The score with a comparison's drawn scenes, the latest `SCORED`. A scene that is asked about again counts once,
    as last answered."""
    result = {method: dict(scenes) for method, scenes in score.items()}
    for method in comparison.probabilities:
        for i, right in enumerate(comparison.right(method)):
            if right is not None:
                result.setdefault(method, {})[comparison.question, seed, i] = right
    return {method: dict(list(scenes.items())[-SCORED:]) for method, scenes in result.items()}


def totals(score: Score) -> dict[str, tuple[int, int]]:
    """(right, asked) by method."""
    return {method: (sum(scenes.values()), len(scenes)) for method, scenes in score.items()}
