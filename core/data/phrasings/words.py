"""Rules that change words: spelling, synonyms, singular and plural."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .rule import Rule, check_pairs, check_texts, find_words
from .word_order import plural


def _as_written(word: str, before: str) -> str:
    """A word with the capitals of the one that it replaces."""
    if len(before) > 1 and before.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if before[0].isupper() else word


def _replaced(question: str, finder: re.Pattern[str], other: Callable[[str], str]) -> str:
    """A question with every word that is found replaced, and "a" or "an" before it made right."""
    result, end = "", 0
    for found in finder.finditer(question):
        result += question[end : found.start()]
        word = _as_written(other(found[0].lower()), found[0])
        article = "an" if word[0].lower() in "aeiou" else "a"
        result = re.sub(r"\b(a)n?( )$", rf"{article}\2", result, flags=re.IGNORECASE) + word
        end = found.end()
    return result + question[end:]


@dataclass(frozen=True)
class Spelling(Rule):
    """Words spelled in two ways: each one that occurs is spelled the other way."""

    pairs: list[list[str]]

    def __post_init__(self) -> None:
        check_pairs("pairs", self.pairs)

    def _ways(self, question: str) -> Iterable[str]:
        other = {a.lower(): b for pair in self.pairs for a, b in (pair, pair[::-1])}
        yield _replaced(question, find_words(other), other.__getitem__)


@dataclass(frozen=True)
class Synonyms(Rule):
    """Words that mean the same: every word or phrase of the list that occurs is replaced by one of its synonyms."""

    words: Mapping[str, list[str]]

    def __post_init__(self) -> None:
        if not isinstance(self.words, dict) or not self.words:
            raise ValueError(f"words = {self.words!r}; allowed: a table of words, each with a list of its synonyms")
        for word, synonyms in self.words.items():
            check_texts(f"words.{word}", synonyms)

    def put(self, question: str, rng: random.Random) -> str | None:
        text = _replaced(question, find_words(self.words), lambda word: rng.choice(self.words[word]))
        return text if text != question else None

    def _ways(self, question: str) -> Iterable[str]:
        finder = find_words(self.words)
        found = [self.words[match.lower()] for match in finder.findall(question)]
        for chosen in itertools.product(*found):
            following = iter(chosen)
            yield _replaced(question, finder, lambda word, following=following: next(following))


@dataclass(frozen=True)
class Number(Rule):
    """One noun in the plural instead of the singular, or the other way; the verb and "this" beside it go along. A noun
    after "a" stays, and one before another noun or a word of `heads` ("badge colour")."""

    nouns: list[str]
    irregular: list[list[str]] | None = None
    heads: list[str] | None = None

    AGREE = (("is", "are"), ("was", "were"), ("does", "do"), ("has", "have"), ("this", "these"), ("that", "those"))
    THIS = re.compile(r"\b(?:this|these|that|those)(?= $)", re.IGNORECASE)
    VERB_BEFORE = re.compile(
        r"\b(?:is|are|was|were|does|do|has|have)(?= (?:the|these|this|that|those) (?:\w+ ){0,2}$)", re.IGNORECASE
    )
    VERB_AFTER = re.compile(r"(?<=^ )(?:is|are|was|were|has|have)\b", re.IGNORECASE)

    def __post_init__(self) -> None:
        check_texts("nouns", self.nouns)
        if self.irregular is not None:
            check_pairs("irregular", self.irregular)
        if self.heads is not None:
            check_texts("heads", self.heads)

    def _ways(self, question: str) -> Iterable[str]:
        pairs = [(noun, plural(noun)) for noun in self.nouns] + [tuple(pair) for pair in self.irregular or ()]
        other = {a: b for one, many in pairs for a, b in ((one, many), (many, one))}
        many = {pair[1] for pair in pairs}
        finder, heads = find_words(other), find_words([*other, *(self.heads or ())])
        for found in finder.finditer(question):
            before, after = question[: found.start()], question[found.end() :]
            if re.search(r"\ban? $", before, re.IGNORECASE) or heads.match(after.lstrip()):
                continue
            word = other[found[0].lower()]
            agree = dict(self.AGREE if word in many else [pair[::-1] for pair in self.AGREE])
            swap = lambda verb, agree=agree: agree.get(verb[0].lower(), verb[0])
            before = self.VERB_BEFORE.sub(swap, self.THIS.sub(swap, before))
            yield before + _as_written(word, found[0]) + self.VERB_AFTER.sub(swap, after)
