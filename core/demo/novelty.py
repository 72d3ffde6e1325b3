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
from ..data.known_questions import FALSE_ALARMS, NEIGHBOURS, nearness
from ..generator import AdapterGenerator

_QUANTILES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)


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
        self._known = generator.question_encoder.meaning(e)  # (Q, M)
        chosen = generator.config.get("thresholds", {}).get("question")
        if chosen is None:
            chosen = float(nearness(self._known, self._known, own=True).quantile(FALSE_ALARMS))
        self.threshold = chosen

    def are_strange(self, questions: Sequence[str]) -> list[bool]:
        """For each question, whether it is far from all that the models know."""
        meaning = self._generator.question_encoder.meaning(self._generator.embed_questions(questions))
        return (nearness(meaning, self._known) < self.threshold).tolist()

    def reason(self, question: str) -> str:
        """Why the question is strange, as an end of the sentence "... because"; empty if it is not."""
        return (
            "it is far in meaning from every question that the models know" if self.are_strange([question])[0] else ""
        )


class PictureNovelty:
    """Pictures unlike known ones in how they are drawn: the Mahalanobis distance of the distribution of differences
    between neighbouring pixels, at the backbone's own resolution.

    The embedding is the wrong ruler for a backbone that was trained on one kind of picture: it maps all others into
    the same place. Of eight photographs none is farther from drawn scenes, by embedding (nearest neighbours or
    Mahalanobis), than 1% of drawn scenes are from each other; by this measure all are.
    """

    def __init__(self, backbone: Backbone, images: Sequence[Image.Image]) -> None:
        """Statistics of `images`; every third is left out of them and sets the threshold. Each also counts enlarged
        twice to five times, since people send screenshots."""
        self._backbone = backbone
        enlarged = [
            image.resize((image.width * (2 + i % 4), image.height * (2 + i % 4)), Image.Resampling.BICUBIC)
            for i, image in enumerate(images)
        ]
        x = self._describe([*images, *enlarged])
        left_out = torch.arange(len(images)).repeat(2) % 3 == 0
        self._mean = x[~left_out].mean(0)
        covariance = torch.cov(x[~left_out].mT)
        self._precision = torch.linalg.inv(covariance + 1e-3 * torch.eye(len(covariance)))
        self.max_distance = float(self._distance(x[left_out]).quantile(1 - FALSE_ALARMS))

    def _describe(self, images: Sequence[Image.Image]) -> Tensor:
        """Log quantiles (N, 7) of the differences between neighbouring pixels."""
        x = torch.stack([self._backbone.transform(image.convert("RGB")) for image in images])  # (N, 3, H, W)
        across = (x[..., 1:] - x[..., :-1]).abs().mean(1).flatten(1)
        down = (x[..., 1:, :] - x[..., :-1, :]).abs().mean(1).flatten(1)
        differences = torch.cat([across, down], dim=1)
        return (torch.quantile(differences, torch.tensor(_QUANTILES), dim=1).mT + 0.02).log()

    def _distance(self, x: Tensor) -> Tensor:
        return (((x - self._mean) @ self._precision) * (x - self._mean)).sum(1)

    def are_strange(self, images: Sequence[Image.Image]) -> list[bool]:
        """For each picture, whether it is unlike all that the models know."""
        return (self._distance(self._describe(images)) > self.max_distance).tolist()
