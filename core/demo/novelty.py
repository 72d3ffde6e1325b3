"""Is this like what the models have seen? Distances of questions and pictures to known ones, with thresholds.

Thresholds are quantiles over known material that is left out in turn, so that a small fixed share of what is familiar
is called strange; the tests measure that share, and how much of what is strange is caught.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..backbones import Backbone
from ..generator import AdapterGenerator
from ..networks.whitening import Whitening

FALSE_ALARMS = 0.02  # share of what is familiar, left out and judged, that lies beyond the threshold
_NEIGHBOURS = 5
_QUANTILES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)


class QuestionNovelty:
    """Questions unlike all that the models know: those with a word that no known question or answer holds, and those
    whose whitened embedding, which is what the models read, is far from the nearest known ones.

    The words are asked first because a text tower places those that it never learned somewhere too. On Emoji-VQA, of
    the 373 test questions 2% are called strange (of those of new families 8%), of 300 questions of Meta-VQA 96%.
    """

    def __init__(self, generator: AdapterGenerator) -> None:
        known = generator.known_questions
        if len(known) <= _NEIGHBOURS:
            raise ValueError(f"{len(known)} known questions are too few to tell what is unusual")
        self._generator = generator
        self._words = frozenset().union(*(_words(" ".join((q["question"], *q["answers"]))) for q in known))
        e = generator.embed_questions([question["question"] for question in known])
        self._whiten = Whitening(e.shape[1])
        self._whiten.fit(e)
        self._known = F.normalize(self._whiten(e), dim=-1)  # (Q, D)
        others = (self._known @ self._known.mT).fill_diagonal_(-1)
        self.min_cosine = float(_nearness(others).quantile(FALSE_ALARMS))

    def reason(self, question: str) -> str:
        """Why the question is strange, as an end of the sentence "... because"; empty if it is not."""
        new = [word for word in dict.fromkeys(re.findall(_WORD, question.lower())) if word not in self._words]
        if new:
            words = ", ".join(f"“{word}”" for word in new[:4])
            return f"no question that the models know has the word{'s' if len(new) > 1 else ''} {words}"
        e = F.normalize(self._whiten(self._generator.embed_questions([question])), dim=-1)
        if float(_nearness(e @ self._known.mT)) < self.min_cosine:
            return "it is far from every question that the models know"
        return ""


_WORD = r"[\w']+"


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(_WORD, text.lower()))


def _nearness(cosine: Tensor) -> Tensor:
    """Mean cosine (B,) to the nearest known questions, of cosines (B, Q)."""
    return cosine.topk(_NEIGHBOURS, dim=1).values.mean(1)


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
