"""Training questions, as they are and put in other words: what conditional rows learn from."""

from __future__ import annotations

import functools
import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.config import config_hash
from core.data.phrasings import Phrasings

RULES = Path(__file__).resolve().parents[1] / "phrasings.toml"  # the kinds that training uses
WAYS = 24  # of putting a question in other words


@functools.cache
def digest() -> str:
    """A hash of all that decides what training questions are put into: rules, lists and how many forms are made."""
    return config_hash(tomllib.loads(RULES.read_text(encoding="utf-8")), WAYS)


def other_words(questions: Sequence[str], phrasings: Phrasings, ways: int = WAYS) -> list[list[str]]:
    """Every question in `ways` other forms, the kinds of phrasing in turn; a question that no rule changes is repeated.
    What a question becomes depends on it alone."""
    result = []
    for question in questions:
        rng = random.Random(f"phrasings/{question}")
        kinds = list(phrasings.kinds)
        rng.shuffle(kinds)
        found: list[str] = []
        for attempt in range(4 * ways):
            put = phrasings.put(question, kinds[attempt % len(kinds)], rng)
            if put is not None and put not in found:
                found.append(put)
            if len(found) == ways:
                break
        result.append([(found or [question])[i % max(1, len(found))] for i in range(ways)])
    return result


@dataclass(frozen=True)
class Asked:
    """Task embeddings (T, 1 + K, E) of T training questions, as they are and in K other forms.

    `share` of all draws are in other words.
    """

    e: Tensor
    share: float

    def draw(self, rows: Tensor, rng: torch.Generator) -> Tensor:
        """Embeddings (B, E) of the questions `rows` (B,), each in a form drawn for it."""
        K = self.e.shape[1] - 1
        if not K:
            return self.e[rows, 0]
        form = torch.randint(1, 1 + K, rows.shape, generator=rng)  # on the CPU, with the random state
        form = form.where(torch.rand(rows.shape, generator=rng) < self.share, 0)
        return self.e[rows, form]

    def all(self, rows: Tensor) -> Tensor:
        """Embeddings (B (1 + K), E) in all forms: what whitening takes its statistics of."""
        return self.e[rows].flatten(0, 1)
