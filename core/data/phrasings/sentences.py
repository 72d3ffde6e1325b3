"""Rules that change the sentence: capitals, marks, frames around the question, the order of its words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .rule import Rule, check_texts, find_words
from .word_order import body, indirect


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
        check_texts("forms", self.forms, tuple(self.FORMS))

    def _ways(self, question: str) -> Iterable[str]:
        return (self.FORMS[form](question) for form in self.forms)


@dataclass(frozen=True)
class Endings(Rule):
    """What stands at the end instead of the question mark."""

    endings: list[str]

    def __post_init__(self) -> None:
        check_texts("endings", self.endings, empty=True)

    def _ways(self, question: str) -> Iterable[str]:
        return (question.rstrip("?.! ") + ending for ending in self.endings)


@dataclass(frozen=True)
class Frames(Rule):
    """Sentences around the question. `{q}` is the question without its mark and capital, `{i}` the same in the word
    order of a clause ("what colour the dog is"; the frame is left out where the rule cannot tell), `{Q}` the question
    as it is."""

    frames: list[str]

    def __post_init__(self) -> None:
        check_texts("frames", self.frames)
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
            check_texts("match", [template["match"]])
            check_texts("put", template["put"])
            slots = set(_slots(template["match"]))
            for text in template["put"]:
                if unknown := set(re.findall(r"\{([^}]*)\}", text)) - slots:
                    allowed = ", ".join(f"{{{slot}}}" for slot in sorted(slots))
                    raise ValueError(f"put has {text!r} with the slot {{{min(unknown)}}}; allowed: {allowed}")
        if self.drop is not None:
            check_texts("drop", self.drop)

    def _ways(self, question: str) -> Iterable[str]:
        text = body(question)
        fitting = ((template["put"], _template(template["match"]).fullmatch(text)) for template in self.templates)
        puts, found = next(((puts, found) for puts, found in fitting if found), ([], None))
        return [self._without(re.sub(r"\{(\w+)\}", lambda slot: found[slot[1]], put)) for put in puts]

    def _without(self, text: str) -> str:
        """A text without the words to drop; else with a capital."""
        if self.drop is None:
            return text[:1].upper() + text[1:]
        return re.sub(r"\s+(?=,)|\s+(?=\s)", "", find_words(self.drop).sub("", text)).strip(" ,")


def _slots(match: str) -> list[str]:
    """The names of the slots of `match`, each there once."""
    names = re.findall(r"\{(\w+)(?::[^}]*)?\}", match)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"match has {match!r}; allowed: a text with different slots, as {{a}} or {{a:on|next to}}")
    return names


def _template(match: str) -> re.Pattern[str]:
    """A pattern with a named group for every slot; capitals and the mark at the end do not matter."""
    parts = re.split(r"\{(\w+)(?::([^}]*))?\}", match.rstrip("?"))
    pattern = re.escape(parts[0])
    for name, choices, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        inside = "|".join(map(re.escape, choices.split("|"))) if choices else ".+?"
        pattern += f"(?P<{name}>{inside})" + re.escape(literal)
    return re.compile(pattern, re.IGNORECASE)
