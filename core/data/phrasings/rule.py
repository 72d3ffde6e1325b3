"""What a kind of phrasing is made of, and checks of what files say."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence


class Rule:
    """One kind of phrasing. Subclasses are frozen dataclasses that check their fields (a ValueError names the key)."""

    def all(self, question: str) -> list[str]:
        """Every way of this kind to put the question, in the order of the file; empty where it changes nothing."""
        return [text for text in dict.fromkeys(self._ways(question)) if text != question]

    def put(self, question: str, rng: random.Random) -> str | None:
        """One of `all`, None where there is none."""
        ways = self.all(question)
        return rng.choice(ways) if ways else None

    def _ways(self, question: str) -> Iterable[str]:
        raise NotImplementedError


# -- what files may say --------------------------------------------------------------------------------------------


def check_texts(key: str, value: object, allowed: Sequence[str] = (), empty: bool = False) -> None:
    """Check that a value is a list of texts, each of `allowed` where given; `empty` texts only where these mean
    something."""
    of = f"some of {', '.join(map(repr, allowed))}" if allowed else "a list of texts"
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} = {value!r}; allowed: {of}")
    for text in value:
        if not isinstance(text, str) or (not text.strip() and not empty) or (allowed and text not in allowed):
            raise ValueError(f"{key} has {text!r}; allowed: {of}")


def check_pairs(key: str, value: object) -> None:
    """Check that a value is a list of pairs of texts."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} = {value!r}; allowed: a list of pairs of texts")
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(t, str) and t.strip() for t in pair):
            raise ValueError(f"{key} has {pair!r}; allowed: pairs of texts")


# -- words in a question -------------------------------------------------------------------------------------------


def find_words(words: Iterable[str]) -> re.Pattern[str]:
    """Finds whole words or phrases, the longest first."""
    longest = sorted({word.lower() for word in words}, key=lambda word: (-len(word), word))
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest))})(?![\w-])", re.IGNORECASE)
