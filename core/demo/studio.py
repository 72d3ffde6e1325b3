"""Everything that the demo loads once: at its start what the page shows, the rest when it is first asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..cache import once
from ..data.look import LOOK, Look
from ..generator import AdapterGenerator
from ..methods import DEFAULT_GENERATOR, row_of
from ..release.manifest import backbone_directory
from . import ask, guidance, refine
from .ask import Comparison
from .files import Downloads, read_pictures
from .guidance import LatentPlane
from .novelty import NEIGHBOURS, PictureNovelty, QuestionNovelty
from .similarity import Similarity
from .world import World, describe, draw, examples

_DRAWN_QUESTION = "What colour is the badge behind the dog?"  # the first about drawn scenes
_ANY_QUESTION = "What is in the picture?"  # the first of a release that knows none
_SCENES = 150  # scenes whose look sets what a familiar picture is


class Studio:
    """A release with what is known about it: its world, example questions, what is strange to it, its latents."""

    key, prefix = "", ""  # what addresses and programs call it, and what its elements' names begin with, among others

    def __init__(self, generator: AdapterGenerator) -> None:
        """Load what the page shows of a release, and no encoder of pictures: its libraries take seconds to import."""
        self.generator = generator
        self.world: World = describe(generator)
        self.title = self.world.title
        self.examples = examples(generator, self.world)
        self.downloads = Downloads()
        self.methods = ask.available(generator)
        self.generators = ask.searched(generator)
        self.name = next(iter(self.generators.values()), DEFAULT_GENERATOR)  # whose latents are searched unless asked
        self.readers = list(ask.searched(generator, ["hyperclip"]).values())  # whose HyperCLIP can read an adapter
        self.questions = QuestionNovelty(generator) if len(generator.known_questions) > NEIGHBOURS else None
        self.guidable = guidance.has_plane(generator, self.name)
        self.comparable = bool(generator.has("hyperldm", self.name) and generator.known_questions)
        rows = refine.rows(generator)
        self.few_shot = rows if len(rows) == len(refine.ROWS) else {}  # there is nothing to compare with one alone
        self.first_question = self._first_question()

    @once
    def plane(self) -> LatentPlane:
        """The plane of latents that a `guidable` release shows."""
        return LatentPlane.load(self.generator, self.name)

    @once
    def similarity(self) -> Similarity:
        """How alike the adapters of a `comparable` release are."""
        return Similarity(self.generator, self.name)

    @property
    def judges_pictures(self) -> bool:
        """Whether it can tell that a picture is strange."""
        return self.world.drawn or _look(self.generator) is not None

    @once
    def pictures(self) -> PictureNovelty | None:
        """By scenes of known questions, where scenes can be drawn; else by the look of the pictures that the backbone
        was made from, where that lies beside it. A release ships no pictures."""
        backbone = self.generator.backbone
        if self.world.drawn:
            return PictureNovelty.of(backbone, self._scenes())
        look = _look(self.generator)
        return None if look is None else PictureNovelty(backbone, Look.read(look))

    def _scenes(self) -> list[Image.Image]:
        """One for each of some known questions."""
        known = self.generator.known_questions
        asked = [question["question"] for question in known[:: max(1, len(known) // _SCENES)]]
        return [draw(self.world, question, 1, seed=0)[0][0] for question in asked]

    def _first_question(self) -> str:
        if self.world.samples:
            return self.world.samples[0].question
        if self.world.drawn:
            return _DRAWN_QUESTION
        known = self.generator.known_questions
        return known[0]["question"] if known else _ANY_QUESTION

    @once
    def trunk(self) -> str | None:
        """The public network, by timm's name, that its image encoder was made from; None where none is named."""
        backbone = backbone_directory(self.generator.directory, self.generator.config)
        path = None if backbone is None else backbone / "photo_tower.json"
        if path is None or not path.is_file():
            return None
        return json.loads(path.read_text(encoding="utf-8")).get("trunk")

    @property
    def gamma(self) -> float:
        """The strength of guidance that validation tasks chose."""
        return self.choice.get("gamma", 1.5)

    @property
    def calibrated(self) -> bool:
        """Whether validation tasks chose the scales of probabilities, too."""
        return bool(self.generator.config.get("scales"))

    @property
    def least_probability(self) -> float | None:
        """That of an answer which is worth claiming; None where validation questions chose none."""
        return self.generator.config.get("thresholds", {}).get("answer")

    @property
    def question_encoder(self) -> str:
        """What embeds questions, in words."""
        named = self.generator.config["question_encoder"]
        return f"the sentence encoder {named['model']}" if "model" in named else "CLIP's text tower"

    @property
    def choice(self) -> dict:
        """HyperLDM's settings that validation tasks chose."""
        return self.generator.config.get("choices", {}).get(row_of("hyperldm", self.name), {})

    @property
    def alike(self) -> list[str]:
        """Questions worth comparing: the world's own, else the first of each family."""
        return list(self.world.alike) or [questions[0] for questions in self.examples.values()][:8]

    def suggest(self, question: str) -> list[str]:
        """Candidate answers that the question names, or those of the nearest known questions."""
        return self.generator.suggest_answers(question)

    def gather(self, question: str, drawn: bool, count: int, paths, seed: int) -> tuple[list, list]:
        """(pictures, truths): scenes drawn for a question, or a visitor's own files, whose truths are None."""
        if drawn:
            return draw(self.world, question, count, seed)
        images = read_pictures(paths)
        return images, [None] * len(images)

    def compare(self, question, answers, images, truths, methods, *, drawn: bool, **settings) -> Comparison:
        """`ask.compare`, with this release's idea of what is strange; scenes that were `drawn` for it are not."""
        return ask.compare(
            self.generator,
            question,
            answers,
            images,
            truths,
            methods,
            questions=self.questions,
            pictures=None if drawn else self.pictures,
            least=None if drawn else self.least_probability,
            drawn=drawn,
            **{"name": self.name, **settings},
        )

    def warm(self) -> None:
        """Read every model, and use it once: the first visitor waits no longer than the tenth.

        Raises:
            ValueError: a model that is missing or damaged.
        """
        blank = Image.new("RGB", (64, 64))
        self.generator.backbone.encode_images([blank])
        self.generator.backbone.encode_texts(self.suggest(self.first_question))
        for method in self.methods:
            for name in self.generators.values() or [self.name]:
                if self.generator.has(method, name):
                    self.generator.generate(self.first_question, method, generator=name, steps=1, samples=1)
        if self.readers and self.generator.known_questions:
            name = self.readers[0]
            adapter = self.generator.generate(self.first_question, "hyperclip", generator=name, steps=1)
            self.generator.infer_question(adapter, 1, name)
        if self.pictures is not None:
            self.pictures.are_strange([blank])
        _ = (self.guidable and self.plane, self.comparable and self.similarity)


def open_worlds(generators: Sequence[AdapterGenerator]) -> list[Studio]:
    """A studio of each release. Of several each gets a key, its preset's name, and a title of its own."""
    studios = [Studio(generator) for generator in generators]
    if len(studios) > 1:
        names = [re.sub(r"[^a-z0-9]+", "-", str(g.config.get("preset")).lower()).strip("-") for g in generators]
        titles = [studio.title for studio in studios]
        for i, studio in enumerate(studios):
            again = names[:i].count(names[i])
            studio.key = f"{names[i] or 'world'}-{again + 1}" if again else names[i] or "world"
            studio.prefix = f"{studio.key}-"
            same = titles[:i].count(titles[i])
            studio.title = f"{titles[i]} ({same + 1})" if same else titles[i]
    return studios


def _look(generator: AdapterGenerator) -> Path | None:
    """The file that describes the pictures that a release's backbone was made from, if there is one."""
    backbone = backbone_directory(generator.directory, generator.config)
    return backbone / LOOK if backbone is not None and (backbone / LOOK).is_file() else None
