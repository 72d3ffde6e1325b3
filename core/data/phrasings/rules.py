"""The rules that kinds of phrasing are made of. Each is a class: its fields are the keys that a file gives it.

`put` draws one way to put a question, `all` lists all ways; both leave out what is the question itself.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .word_order import body, indirect, plural


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


def _texts(key: str, value: object, allowed: Sequence[str] = (), empty: bool = False) -> None:
    """Check that a value is a list of texts, each of `allowed` where given; `empty` texts only where these mean
    something."""
    of = f"some of {', '.join(map(repr, allowed))}" if allowed else "a list of texts"
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} = {value!r}; allowed: {of}")
    for text in value:
        if not isinstance(text, str) or (not text.strip() and not empty) or (allowed and text not in allowed):
            raise ValueError(f"{key} has {text!r}; allowed: {of}")


def _pairs(key: str, value: object) -> None:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} = {value!r}; allowed: a list of pairs of texts")
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(t, str) and t.strip() for t in pair):
            raise ValueError(f"{key} has {pair!r}; allowed: pairs of texts")


# -- words in a question -------------------------------------------------------------------------------------------


def _finder(words: Iterable[str]) -> re.Pattern[str]:
    """Finds whole words or phrases, the longest first."""
    longest = sorted({word.lower() for word in words}, key=lambda word: (-len(word), word))
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest))})(?![\w-])", re.IGNORECASE)


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


# -- rules ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spelling(Rule):
    """Words spelled in two ways: each one that occurs is spelled the other way."""

    pairs: list[list[str]]

    def __post_init__(self) -> None:
        _pairs("pairs", self.pairs)

    def _ways(self, question: str) -> Iterable[str]:
        other = {a.lower(): b for pair in self.pairs for a, b in (pair, pair[::-1])}
        yield _replaced(question, _finder(other), other.__getitem__)


@dataclass(frozen=True)
class Case(Rule):
    """Small and capital letters."""

    forms: list[str]

    FORMS = {
        "lower": str.lower,
        "upper": str.upper,
        "no capital": lambda text: text[:1].lower() + text[1:],
        "title": str.title,
    }

    def __post_init__(self) -> None:
        _texts("forms", self.forms, tuple(self.FORMS))

    def _ways(self, question: str) -> Iterable[str]:
        return (self.FORMS[form](question) for form in self.forms)


@dataclass(frozen=True)
class Endings(Rule):
    """What stands at the end instead of the question mark."""

    endings: list[str]

    def __post_init__(self) -> None:
        _texts("endings", self.endings, empty=True)

    def _ways(self, question: str) -> Iterable[str]:
        return (question.rstrip("?.! ") + ending for ending in self.endings)


@dataclass(frozen=True)
class Frames(Rule):
    """Sentences around the question. `{q}` is the question without its mark and capital, `{i}` the same in the word
    order of a clause ("what colour the dog is"; the frame is left out where the rule cannot tell), `{Q}` the question
    as it is."""

    frames: list[str]

    def __post_init__(self) -> None:
        _texts("frames", self.frames)
        for frame in self.frames:
            if len(re.findall(r"\{[^}]*\}", frame)) != 1 or not re.search(r"\{[qiQ]\}", frame):
                raise ValueError(f"frames has {frame!r}; allowed: texts with one of {{q}}, {{i}}, {{Q}}")

    def _ways(self, question: str) -> Iterable[str]:
        parts = {"q": body(question), "i": indirect(question), "Q": question.strip()}
        for frame in self.frames:
            before, name, after = re.split(r"\{([qiQ])\}", frame)
            if parts[name] is not None:
                yield before + parts[name] + after


@dataclass(frozen=True)
class Synonyms(Rule):
    """Words that mean the same: every word or phrase of the list that occurs is replaced by one of its synonyms."""

    words: Mapping[str, list[str]]

    def __post_init__(self) -> None:
        if not isinstance(self.words, dict) or not self.words:
            raise ValueError(f"words = {self.words!r}; allowed: a table of words, each with a list of its synonyms")
        for word, synonyms in self.words.items():
            _texts(f"words.{word}", synonyms)

    def put(self, question: str, rng: random.Random) -> str | None:
        text = _replaced(question, _finder(self.words), lambda word: rng.choice(self.words[word]))
        return text if text != question else None

    def _ways(self, question: str) -> Iterable[str]:
        finder = _finder(self.words)
        found = [self.words[match.lower()] for match in finder.findall(question)]
        for chosen in itertools.product(*found):
            following = iter(chosen)
            yield _replaced(question, finder, lambda word, following=following: next(following))


@dataclass(frozen=True)
class Templates(Rule):
    """The question taken apart and put together anew, by the first template that fits. `match` has slots: `{x}` takes
    any words, `{x:on|next to}` one of several; `put` has the slots in any order. Words of `drop` are left out of the
    result."""

    templates: list[dict[str, object]]
    drop: list[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.templates, list) or not self.templates:
            raise ValueError(f"templates = {self.templates!r}; allowed: a list of tables with the keys match and put")
        for template in self.templates:
            if not isinstance(template, dict) or set(template) != {"match", "put"}:
                raise ValueError(f"templates has {template!r}; allowed: tables with the keys match and put")
            _texts("match", [template["match"]])
            _texts("put", template["put"])
            slots = set(_template(template["match"]).groupindex)
            for text in template["put"]:
                if unknown := set(re.findall(r"\{([^}]*)\}", text)) - slots:
                    allowed = ", ".join(f"{{{slot}}}" for slot in sorted(slots))
                    raise ValueError(f"put has {text!r} with the slot {{{min(unknown)}}}; allowed: {allowed}")
        if self.drop is not None:
            _texts("drop", self.drop)

    def _ways(self, question: str) -> Iterable[str]:
        text = body(question)
        fitting = ((template["put"], _template(template["match"]).fullmatch(text)) for template in self.templates)
        puts, found = next(((puts, found) for puts, found in fitting if found), ([], None))
        return [self._without(re.sub(r"\{(\w+)\}", lambda slot: found[slot[1]], put)) for put in puts]

    def _without(self, text: str) -> str:
        """A text without the words to drop; else with a capital."""
        if self.drop is None:
            return text[:1].upper() + text[1:]
        return re.sub(r"\s+", " ", _finder(self.drop).sub("", text)).strip(" ,")


def _template(match: str) -> re.Pattern[str]:
    """A pattern with a named group for every slot; capitals and the mark at the end do not matter."""
    parts = re.split(r"\{(\w+)(?::([^}]*))?\}", match.rstrip("?"))
    pattern = re.escape(parts[0])
    for name, choices, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        inside = "|".join(map(re.escape, choices.split("|"))) if choices else ".+?"
        pattern += f"(?P<{name}>{inside})" + re.escape(literal)
    return re.compile(pattern, re.IGNORECASE)


@dataclass(frozen=True)
class Number(Rule):
    """One noun in the plural instead of the singular, or the other way; the verb and "this" beside it go along. A noun
    after "a" stays, and one before another noun or a word of `heads` ("badge colour")."""

    nouns: list[str]
    irregular: list[list[str]] | None = None
    heads: list[str] | None = None

    AGREE = (("is", "are"), ("was", "were"), ("does", "do"), ("has", "have"), ("this", "these"), ("that", "those"))

    def __post_init__(self) -> None:
        _texts("nouns", self.nouns)
        if self.irregular is not None:
            _pairs("irregular", self.irregular)
        if self.heads is not None:
            _texts("heads", self.heads)

    def _ways(self, question: str) -> Iterable[str]:
        pairs = [(noun, plural(noun)) for noun in self.nouns] + [tuple(pair) for pair in self.irregular or ()]
        other = {a: b for one, many in pairs for a, b in ((one, many), (many, one))}
        many = {pair[1] for pair in pairs}
        finder, heads = _finder(other), _finder([*other, *(self.heads or ())])
        for found in finder.finditer(question):
            before, after = question[: found.start()], question[found.end() :]
            if re.search(r"\ban? $", before, re.IGNORECASE) or heads.match(after.lstrip()):
                continue
            word = other[found[0].lower()]
            agree = dict(self.AGREE if word in many else [pair[::-1] for pair in self.AGREE])
            swap = lambda verb, agree=agree: agree.get(verb[0].lower(), verb[0])
            before = re.sub(r"\b(?:this|these|that|those)(?= $)", swap, before)
            before = re.sub(
                r"\b(?:is|are|was|were|does|do|has|have)(?= (?:the|these|this|that|those) (?:\w+ )?$)", swap, before
            )
            yield before + _as_written(word, found[0]) + re.sub(r"^ (?:is|are|was|were|has|have)\b", _led(swap), after)


def _led(swap: Callable[[Sequence[str]], str]) -> Callable[[re.Match[str]], str]:
    return lambda verb: " " + swap([verb[0].strip()])


@dataclass(frozen=True)
class Typing(Rule):
    """Typing errors in one word of `one_in`, at least in one; never in a word of under four letters, nor in its first
    letter."""

    errors: list[str]
    one_in: int = 6

    ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    ERRORS = ("swap", "drop", "double", "neighbour", "vowel", "insert")

    def __post_init__(self) -> None:
        _texts("errors", self.errors, self.ERRORS)
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


RULES: dict[str, type[Rule]] = {
    "spelling": Spelling,
    "case": Case,
    "endings": Endings,
    "frames": Frames,
    "synonyms": Synonyms,
    "templates": Templates,
    "number": Number,
    "typing": Typing,
}
