"""Emoji-VQA, the embedded dataset: real meta-learning on a laptop, offline.

870 training and 373 test questions about scenes of OpenMoji glyphs, shaped like Meta-VQA (Appendix A.5): about 59
support and 25 query images a task, 2 to 19 answers, no image in two tasks, no test question in training, though 157
are asked there in other words (eval/README.md parts them). Of the test questions, 73 come from families that training
never saw.
"""

from __future__ import annotations

import importlib.metadata
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...config import later, to_dict
from ..base import DatasetConfig, check_fold, fold_bounds
from ..tasks import Task
from .questions import FAMILIES, QUESTIONS, Question
from .world import CATEGORIES, CATEGORY_NAMES, OBJECTS, Scene, World, WorldConfig

if TYPE_CHECKING:
    from PIL import Image

VERSION = "emoji-vqa v1"  # frozen: whatever changes a pixel, a question or a label needs a new name
_MIN_EXAMPLES, _MEAN_EXAMPLES, _MAX_EXAMPLES, _MAX_ANSWERS = 24, 86, 260, 20


@dataclass(frozen=True)
class EmojiConfig(DatasetConfig):
    """Size of the dataset. The defaults are Meta-VQA's; `val_tasks` of the training tasks serve for choices.

    For cross-validation in K `folds` (0: none), part number `fold` (0 to K - 1) does, and `val_tasks` plays no role.
    """

    train_tasks: int = 870
    val_tasks: int = 87
    test_known_tasks: int = 300
    test_new_tasks: int = 73
    seed: int = 0
    world: WorldConfig = field(default_factory=WorldConfig)
    folds: int = later(0)
    fold: int = later(0)

    def __post_init__(self) -> None:
        check_fold(self.fold, self.folds)
        if self.folds > self.train_tasks:
            raise ValueError(f"folds {self.folds}; allowed: up to {self.train_tasks}, the training tasks there are")
        if not 0 < self.val_tasks < self.train_tasks:
            raise ValueError(f"val_tasks {self.val_tasks} must lie between 0 and train_tasks {self.train_tasks}")

    def open(self) -> EmojiVQA:
        return EmojiVQA(self)


class EmojiVQA:
    """The dataset: `tasks`, and images by index. Every scene is a pure function of (seed, task, image)."""

    def __init__(self, config: EmojiConfig | None = None) -> None:
        self.config = config or EmojiConfig()
        self.world = World(self.config.world)
        self._images: list[tuple[str, int]] = []  # image index -> (question, number of the draw)
        self.tasks: list[Task] = [self._task(question, split) for question, split in _choose_questions(self.config)]

    @property
    def identity(self) -> dict[str, object]:
        """What questions and labels depend on: not which of them are held out."""
        config = {key: value for key, value in to_dict(self.config).items() if key not in ("folds", "fold")}
        return {"name": VERSION, "config": config}

    @property
    def pixels(self) -> dict[str, object]:
        """What pixels depend on besides."""
        return {"pillow": importlib.metadata.version("pillow")}

    @property
    def num_images(self) -> int:
        return len(self._images)

    def scene(self, index: int) -> Scene:
        """The symbolic scene of image `index`."""
        question, draw = self._images[index]
        return self._draw(QUESTIONS[question], draw)[0]

    def load_image(self, index: int) -> Image.Image:
        """Image `index`, RGB, 80 x 80."""
        from .scene import draw_scene  # with Pillow and the font, which training on stored features does without

        return draw_scene(self.scene(index))

    def load_arrays(self, indices: range | list[int]) -> np.ndarray:
        """Images as (len(indices), 80, 80, 3) uint8."""
        from .scene import IMAGE_SIZE, draw_array

        if not len(indices):
            return np.zeros((0, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        return np.stack([draw_array(self.scene(index)) for index in indices])

    def _draw(self, question: Question, draw: int) -> tuple[Scene, str]:
        rng = random.Random(f"{self.config.seed}/{question.text}/{draw}")
        return FAMILIES[question.family].draw(self.world, rng, question.argument)

    def _task(self, question: Question, split: str) -> Task:
        rng = random.Random(f"{self.config.seed}/{question.text}/task")
        target = min(_MAX_EXAMPLES, _MIN_EXAMPLES + int(rng.expovariate(1 / (_MEAN_EXAMPLES - _MIN_EXAMPLES))))
        drawn = [(draw, self._draw(question, draw)[1]) for draw in range(target)]
        counts = Counter(answer for _, answer in drawn)
        answers = tuple(sorted(a for a, n in counts.most_common(_MAX_ANSWERS) if n > 1))
        if len(answers) < 2:
            raise RuntimeError(f"{question.text!r} has only the answers {answers!r} in {target} scenes")
        parts: dict[str, tuple[list[int], list[int]]] = {"support": ([], []), "query": ([], [])}
        for label, answer in enumerate(answers):
            draws = [draw for draw, given in drawn if given == answer]
            n_support = round(0.7 * len(draws))  # per answer, as in Meta-VQA
            for i, draw in enumerate(draws):
                images, labels = parts["support" if i < n_support else "query"]
                images.append(len(self._images))
                labels.append(label)
                self._images.append((question.text, draw))
        return Task(
            question=question.text,
            answers=answers,
            support=tuple(map(tuple, parts["support"])),
            query=tuple(map(tuple, parts["query"])),
            split=split,
            family=question.family,
            new_family=FAMILIES[question.family].is_new,
            prompt=question.prompt,
        )


def _choose_questions(config: EmojiConfig) -> Iterator[tuple[Question, str]]:
    """Distinct questions with their splits: families take turns, large and small alike, until the counts are met."""
    rng = random.Random(f"{config.seed}/questions")

    def take(new: bool, count: int, taken: set[str]) -> list[Question]:
        pools = {
            name: [q for q in f.questions if q.text not in taken] for name, f in FAMILIES.items() if f.is_new == new
        }
        for pool in pools.values():
            rng.shuffle(pool)
        # Families are visited unequally often, as in any collection of questions (about 10 to 25 each at full size).
        weight = {name: rng.uniform(0.6, 1.4) for name in pools}
        chosen: list[Question] = []
        while len(chosen) < count:
            open_pools = [name for name in pools if pools[name]]
            if not open_pools:
                raise ValueError(f"only {len(chosen)} questions left, {count} wanted; ask for fewer tasks")
            name = rng.choices(open_pools, [weight[name] for name in open_pools])[0]
            chosen.append(pools[name].pop())
        return chosen

    # Test questions first, so that small families keep some: one phrasing may be tested that training never saw.
    test = take(True, config.test_new_tasks, set()) + take(False, config.test_known_tasks, set())
    train = take(False, config.train_tasks, {question.text for question in test})
    rng.shuffle(train)
    held = fold_bounds(config.fold, config.folds, len(train)) if config.folds else slice(config.val_tasks)
    val = set(range(len(train))[held])
    for i, question in enumerate(train):
        yield question, "val" if i in val else "train"
    for question in test:
        yield question, "test"


def draw_scenes_for_question(
    question: str, count: int, seed: int = 0, world: World | None = None
) -> list[tuple[Image.Image, str | None]]:
    """Fresh scenes that a question fits, each with its true answer.

    For a question that the dataset does not know, the scenes hold whatever objects or categories it names, and the
    truth is None.

    Raises:
        ValueError: `count` is not in 1..64 or the question is empty.
    """
    if not 1 <= count <= 64:
        raise ValueError(f"count {count}; allowed: 1 to 64")
    if not question.strip():
        raise ValueError("the question is empty")
    from .scene import draw_scene

    world = world or World(WorldConfig())
    known = QUESTIONS.get(question.strip())
    words = set(re.findall(r"[a-z]+", question.lower()))
    named = [name for name in OBJECTS if name in words]
    for category in CATEGORY_NAMES:
        if words & {category.split()[-1], CATEGORIES[category][0].split()[-1]}:
            named += CATEGORIES[category][1]
    result: list[tuple[Image.Image, str | None]] = []
    for i in range(count):
        rng = random.Random(f"demo/{seed}/{question.strip()}/{i}")
        if known is not None:
            scene, answer = FAMILIES[known.family].draw(world, rng, known.argument)
        else:
            scene, answer = world.compose(rng, rng.choice(named) if named else None), None
        result.append((draw_scene(scene), answer))
    return result
