"""The rule of typing errors."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from .rule import Rule, check_texts


@dataclass(frozen=True)
class Typing(Rule):
    """Typing errors in one word of `one_in`, at least in one; never in a word of under four letters, nor in its first
    letter."""

    errors: list[str]
    one_in: int = 6

    ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    ERRORS = ("swap", "drop", "double", "neighbour", "vowel", "insert")

    def __post_init__(self) -> None:
        check_texts("errors", self.errors, self.ERRORS)
        if type(self.one_in) is not int or self.one_in < 1:
            raise ValueError(f"one_in = {self.one_in!r}; allowed: a whole number from 1")

    def all(self, question: str) -> list[str]:
        raise ValueError("typing errors are drawn, not listed; ask for them with put")

    def put(self, question: str, rng: random.Random) -> str | None:
        words = [found for found in re.finditer(r"[^\W\d_]+", question) if len(found[0]) >= 4]
        count = max(1, round(len(question.split()) / self.one_in))
        text = question
        for found in sorted(rng.sample(words, min(count, len(words))), key=lambda found: -found.start()):
            text = text[: found.start()] + self._typed(found[0], rng) + text[found.end() :]
        return text if text != question else None

    def _typed(self, word: str, rng: random.Random) -> str:
        """The word with one error, by the first of the errors, in random order, that changes it."""
        for error in rng.sample(self.errors, len(self.errors)):
            for at in rng.sample(range(1, len(word)), len(word) - 1):
                typed = self._error(error, word, at, rng)
                if typed != word:
                    return typed
        return word

    def _error(self, error: str, word: str, at: int, rng: random.Random) -> str:
        before, letter, after = word[:at], word[at], word[at + 1 :]
        if error == "swap":
            return before + after[:1] + letter + after[1:]
        if error == "drop":
            return before + after
        if error == "double":
            return before + 2 * letter + after
        if error == "vowel":
            return before + rng.choice([v for v in "aeiou" if v != letter]) + after if letter in "aeiou" else word
        near = self._near(letter.lower())
        if not near:
            return word
        return before + (letter if error == "insert" else "") + rng.choice(near) + after

    def _near(self, letter: str) -> str:
        """The keys beside a letter's key."""
        row = next((row for row in self.ROWS if letter in row), "")
        at = row.find(letter)
        return row[max(at - 1, 0) : at] + row[at + 1 : at + 2] if row else ""
