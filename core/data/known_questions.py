"""The questions a release was trained on: which are near to another one in meaning, and the answers they suggest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.whitening import Whitening
from ..texts import folded
from .phrasings.alternatives import YES_OR_NO, named_answers

NEIGHBOURS = 5  # whose mean cosine says how near a question is to all known ones
FALSE_ALARMS = 0.02  # share of what is familiar that may be called strange
_SHRINKAGE, _NOISE = 0.1, 0.5  # of the regression on answers


@dataclass(frozen=True)
class KnownQuestion:
    """A training question with its candidate answers; `similarity` (0 to 1) where it was found by a search."""

    question: str
    answers: tuple[str, ...]
    family: str = ""
    similarity: float = 1.0


class KnownQuestions:
    """Search among training questions by meaning, on embeddings e (Q, E).

    Two rulers, for two purposes. Candidate answers depend on what is asked, not on what it is asked about, and a
    sentence encoder puts "What colour is the badge behind the dog?" near to "Where is the dog?". So a linear regression
    from whitened embeddings to the answers that known questions have turns a question into a profile of answers, and
    near is who has the same profile. Of the right answers of Emoji-VQA's test questions this finds 96%
    (`eval/demo/suggestions.py`), shared words found 88%. How far a question is from all that is known is the cosine of
    embeddings: what a regression has not seen, it cannot measure.
    """

    def __init__(
        self, questions: Sequence[KnownQuestion], e: Tensor, fitted: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """Begin a search.

        Args:
            e: embeddings (Q, E) of the questions, unit vectors.
            fitted: what `fit_answers` found for these questions in several forms (default: what it finds for `e`).

        Raises:
            ValueError: not as many embeddings as questions.
        """
        if len(questions) != len(e):
            raise ValueError(f"KnownQuestions: {len(questions)} questions, {len(e)} embeddings; they must be as many")
        self.questions, self.e = tuple(questions), e
        self.answers = frozenset(answer for known in questions for answer in known.answers)
        self._text = {_plain(known.question): i for i, known in reversed(list(enumerate(self.questions)))}
        if len(e) > 1:
            self._mean, self._map = fit_answers(questions, e[:, None]) if fitted is None else fitted
            self._profiles = self._profile(e)

    def _profile(self, e: Tensor) -> Tensor:
        return F.normalize((e - self._mean) @ self._map, dim=-1)

    def __len__(self) -> int:
        return len(self.questions)

    def nearest(self, e: Tensor, count: int = 5) -> list[KnownQuestion]:
        """The `count` questions with the most similar answers to one with embedding e (E,), nearest first."""
        if not self.questions:
            return []
        if len(self.questions) == 1:
            return [self.questions[0]]
        scores = self._profiles @ self._profile(e)
        best = scores.topk(min(count, len(scores)))
        return [
            replace(self.questions[i], similarity=round(min(1.0, max(0.0, score)), 4))
            for score, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def suggest_answers(self, question: str, e: Tensor, count: int = 3) -> list[str]:
        """Candidate answers for a question with embedding e (E,).

        A known question gets its own, one that names its answers these ("a cat or a dog", `named_answers`). Another
        gets those that more than half of the `count` nearest share, those of the nearest first; where fewer than two
        are shared, the nearest one's.
        """
        own = self._text.get(_plain(question))
        if own is not None:
            return list(self.questions[own].answers)
        named = named_answers(question, self.answers)
        if named and (named != YES_OR_NO or not {folded(answer) for answer in self.answers}.issuperset(YES_OR_NO)):
            return named
        nearest = self.nearest(e, count)
        if not nearest:
            return []
        votes = Counter(answer for known in nearest for answer in known.answers)
        shared = [answer for answer in votes if 2 * votes[answer] > len(nearest)]
        return shared if len(shared) >= 2 else list(nearest[0].answers)


def fit_answers(questions: Sequence[KnownQuestion], e: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression from embeddings e (Q, K, E) of questions in K forms to the answers that each has.

    Returns:
        The mean of e (E,), and the map (E, A) of what is left of e to the answers, in the order of their first mention.
    """
    answers = {answer: i for i, answer in enumerate({a: None for q in questions for a in q.answers})}
    Y = torch.zeros(len(questions), len(answers))
    for i, known in enumerate(questions):
        Y[i, [answers[answer] for answer in known.answers]] = 1.0
    flat, Y = e.flatten(0, 1), (Y - Y.mean(0)).repeat_interleave(e.shape[1], 0)
    whitening = Whitening(e.shape[-1], _SHRINKAGE)
    whitening.fit(flat)
    X = whitening(flat).double()
    # Training with noise on the inputs comes to ridge regression (Bishop 1995), here with noise of s.d. 0.5.
    gram = X.mT @ X + _NOISE**2 * len(X) * torch.eye(X.shape[1]).double()
    found = torch.linalg.solve(gram, X.mT @ Y.double()).float()  # (E, A)
    return whitening.mean, whitening.matrix @ found


def nearness(meaning: Tensor, known: Tensor, own: bool = False) -> Tensor:
    """How near questions are to known ones: the mean cosine (B,) to the nearest five.

    Args:
        meaning: unit vectors (B, M) of questions. known: (Q, M), of known ones.
        own: the questions are the known ones, and none counts as its own neighbour.
    """
    cosine = meaning @ known.mT
    if own:
        cosine = cosine.fill_diagonal_(-1.0)
    return cosine.topk(min(NEIGHBOURS, cosine.shape[1]), dim=1).values.mean(1)


def _plain(question: str) -> str:
    """A question less what typing it changes: case, spaces, marks at the end."""
    return folded(question).rstrip("?!. ")
