"""A file of kinds of phrasing, and questions put in other words by them."""

from __future__ import annotations

import dataclasses
import random
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .rule import Rule
from .sentences import Case, Endings, Frames, Templates
from .typing_errors import Typing
from .words import Number, Spelling, Synonyms

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


class Phrasings:
    """Kinds of phrasing by name. Each has a rule, one of `RULES`, and the lists that this rule needs.

    A file looks like this; the docstrings of the rules say what their keys mean:

        opposites = [["left of", "right of"]]   # optional: words of which one can stand for another

        [kinds.polite]
        rule = "frames"
        frames = ["Could you tell me {i}?"]
    """

    def __init__(self, rules: Mapping[str, Rule], opposites: tuple[tuple[str, ...], ...] = ()) -> None:
        self.rules, self.opposites = dict(rules), opposites

    @classmethod
    def read(cls, path: Path | str) -> Phrasings:
        """The kinds of a TOML file. A ValueError names the file, the key and what is allowed."""
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: no TOML ({error})") from None
        try:
            return cls._of(document)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def _of(cls, document: dict[str, Any]) -> Phrasings:
        if unknown := sorted(set(document) - {"kinds", "opposites"}):
            raise ValueError(f"key {unknown[0]!r}; allowed: kinds, opposites")
        kinds = document.get("kinds")
        if not isinstance(kinds, dict) or not kinds:
            raise ValueError(f"kinds = {kinds!r}; allowed: tables [kinds.NAME]")
        rules = {}
        for name, table in kinds.items():
            try:
                rules[name] = _rule(table)
            except ValueError as error:
                raise ValueError(f"kinds.{name}: {error}") from None
        opposites = document.get("opposites", [])
        for group in opposites if isinstance(opposites, list) else [opposites]:
            if (
                not isinstance(group, list)
                or len(set(map(str, group))) < 2
                or not all(isinstance(w, str) for w in group)
            ):
                raise ValueError(f"opposites has {group!r}; allowed: lists of two or more different words")
        return cls(rules, tuple(map(tuple, opposites)))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the kinds, in the order of the file."""
        return tuple(self.rules)

    def put(self, question: str, kind: str, rng: random.Random) -> str | None:
        """The question in other words, drawn by `rng`; None where the kind does not change this question."""
        return self._named(kind).put(question, rng)

    def all(self, question: str, kind: str) -> list[str]:
        """All ways of a kind to put the question, without the question itself. A ValueError for kinds that are drawn
        (typing errors)."""
        return self._named(kind).all(question)

    def _named(self, kind: str) -> Rule:
        if kind not in self.rules:
            raise ValueError(f"kind {kind!r}; allowed: {', '.join(self.kinds)}")
        return self.rules[kind]


def _rule(table: object) -> Rule:
    """The rule that a table describes."""
    if not isinstance(table, dict):
        raise ValueError(f"{table!r}; allowed: a table with the key rule")
    name = table.get("rule")
    if not isinstance(name, str) or name not in RULES:
        raise ValueError(f"rule = {name!r}; allowed: {', '.join(RULES)}")
    fields = {field.name: field for field in dataclasses.fields(RULES[name])}
    if unknown := sorted(set(table) - {"rule", *fields}):
        raise ValueError(f"key {unknown[0]!r}; allowed: rule, {', '.join(fields)}")
    needed = [key for key, field in fields.items() if field.default is dataclasses.MISSING]
    if missing := [key for key in needed if key not in table]:
        raise ValueError(f"lacks {missing[0]!r}; a rule {name!r} has: {', '.join(fields)}")
    return RULES[name](**{key: value for key, value in table.items() if key != "rule"})
