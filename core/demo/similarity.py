"""Compare: how alike the adapters of several questions are, and how alike their embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from ..generator import AdapterGenerator
from ..methods import DEFAULT_GENERATOR
from .ask import check_question
from .limits import MAX_QUESTIONS, MIN_QUESTIONS

_CENTRE = 64  # known questions whose mean is taken


def read_questions(text: str | None) -> list[str]:
    """Questions from lines of text; a ValueError for too few, too many, or one given twice."""
    return check_questions([line for line in (text or "").splitlines() if line.strip()])


def check_questions(questions: Sequence[str]) -> list[str]:
    """Questions without outer spaces; a ValueError for too few, too many, or one given twice."""
    if not MIN_QUESTIONS <= len(questions) <= MAX_QUESTIONS:
        raise ValueError(f"{len(questions)} questions; allowed: {MIN_QUESTIONS} to {MAX_QUESTIONS}, one a line")
    questions = [check_question(question) for question in questions]
    twice = sorted({question for question in questions if questions.count(question) > 1})
    if twice:
        raise ValueError(f"the question {twice[0]!r} is given more than once")
    return questions


class Similarity:
    """Cosine similarities around the mean over known questions: all adapters share much with each other, and all
    embeddings too, and what they share says nothing about a question."""

    def __init__(self, generator: AdapterGenerator, name: str = DEFAULT_GENERATOR) -> None:
        """Of HyperLDM's adapters, by the weight generator called `name`."""
        self._generator, self._name = generator, name
        known = generator.known_embeddings
        e = known[:: max(1, len(known) // _CENTRE)]
        self._e_mean, self._w_mean = e.mean(0), self._weights(e, seed=0, samples=1).mean(0)

    def _weights(self, e: Tensor, seed: int, samples: int | None = None) -> Tensor:
        return self._generator.weights(e, generator=self._name, seed=seed, samples=samples).cpu()

    def __call__(self, questions: Sequence[str], seed: int = 0) -> tuple[Tensor, Tensor]:
        """Cosines (Q, Q) between the adapters that are generated for questions, and between their embeddings."""
        e = self._generator.embed_questions(questions)
        return _cosines(self._weights(e, seed) - self._w_mean), _cosines(e - self._e_mean)


def _cosines(x: Tensor) -> Tensor:
    x = F.normalize(x, dim=-1)
    return x @ x.mT
