"""Is this like what the models have seen? Distances of questions and pictures to known ones, with thresholds.

Thresholds are quantiles over known material that is left out in turn, so that a small fixed share of what is familiar
is called strange; the tests measure that share, and how much of what is strange is caught.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from ..backbones import Backbone
from ..backbones.questions import question_part
from ..data.known_questions import FALSE_ALARMS, NEIGHBOURS, nearness
from ..data.look import Look, describe
from ..data.phrasings.alternatives import YES_OR_NO, asks_yes_or_no
from ..generator import AdapterGenerator
from ..texts import folded


class QuestionNovelty:
    """Questions that are far in meaning from all that the models know (`core.data.known_questions.nearness`).

    The threshold is the release's, chosen on validation questions as they are and in other words; in a release without
    one it is a quantile over known questions, each left out in turn.
    """

    def __init__(self, generator: AdapterGenerator) -> None:
        e = generator.known_embeddings
        if len(e) <= NEIGHBOURS:
            raise ValueError(f"{len(e)} known questions are too few to tell what is unusual")
        self._generator = generator
        self._answers = frozenset(folded(answer) for known in generator.known_questions for answer in known["answers"])
        self._known = self._meaning(e)  # (Q, M)
        chosen = generator.config.get("thresholds", {}).get("question")
        if chosen is None:
            chosen = float(nearness(self._known, self._known, own=True).quantile(FALSE_ALARMS))
        self.threshold = chosen

    def are_strange(self, questions: Sequence[str]) -> list[bool]:
        """For each question, whether it is far from all that the models know."""
        meaning = self._meaning(self._generator.embed_questions(questions))
        return (nearness(meaning, self._known) < self.threshold).tolist()

    def _meaning(self, e: Tensor) -> Tensor:
        encoder = self._generator.question_encoder
        return encoder.meaning(question_part(e, encoder))

    def reason(self, question: str) -> str:
        """Why the question is strange, as an end of the sentence "... because"; empty if it is not."""
        if asks_yes_or_no(question) and not self._answers.issuperset(YES_OR_NO):
            return "it asks for yes or no, which no question that the models know does"
        if self.are_strange([question])[0]:
            return "it is far in meaning from every question that the models know"
        return ""


class PictureNovelty:
    """Pictures unlike known ones in how they are drawn (`core.data.look`), at the backbone's own resolution."""

    def __init__(self, backbone: Backbone, look: Look) -> None:
        """`look`: that of known pictures, by the backbone's transform."""
        self._backbone, self._look = backbone, look

    @classmethod
    def of(cls, backbone: Backbone, images: Sequence[Image.Image]) -> PictureNovelty:
        """From known pictures. Each also counts enlarged twice to five times, since people send screenshots."""
        enlarged = [
            image.resize((image.width * (2 + i % 4), image.height * (2 + i % 4)), Image.Resampling.BICUBIC)
            for i, image in enumerate(images)
        ]
        x = describe([*images, *enlarged], backbone.transform)
        return cls(backbone, Look.fit(x, folds=torch.arange(len(images)).repeat(2) % 3))

    def are_strange(self, images: Sequence[Image.Image]) -> list[bool]:
        """For each picture, whether it is unlike all that the models know."""
        return self._look.are_strange(describe(images, self._backbone.transform))
