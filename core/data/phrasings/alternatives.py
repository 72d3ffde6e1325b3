"""Answers that a question names itself: "Is this a cat or a dog?" asks for one of two, "Is it raining?" for yes or no.

Rules for plain English, for the suggestions of a page; what they do not understand they leave to the known questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...texts import folded

YES_OR_NO = ["yes", "no"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ASKING = _words("what what's which where where's who who's whom whose when why how")
_AUXILIARY = _words(
    "is isn't are aren't was wasn't were weren't am do does doesn't did didn't has hasn't have haven't had can can't "
    "could will would should shall may might must"
)
_BEFORE = _words("so please hey hi hello ok okay well um and but now just quick question say")
_TELLING = re.compile(
    r"^(can|could|would|will|may|might|do|does|is) "
    r"(you|i|we|anyone|anybody|somebody|someone|it)( please| kindly| possibly| perhaps| maybe)? "
    r"(be (able|possible|so)|tell|say|name|show|identify|describe|guess|work|find|figure|help|know|mind|ask|have|"
    r"happen|possible|let|give|explain|read|determine|look|check|point)\b"
)
_WHETHER = re.compile(r"\bwhether\b|\b(wonder|know|tell|say|see|check|sure)( me| us)? if\b")
_NOT_A_CHOICE = re.compile(r" or (not|no|so|something|anything|anyone|what|whatever|other|another|else|both)\b")
_ARTICLES = ("a", "an", "the", "some", "any")
_PREPOSITIONS = _words(
    "in on at of behind under over above below beside near next with by from to for inside outside between among into "
    "here there"
)
_PRONOUNS = _words("it this that these those he she they there you we i")


def asks_yes_or_no(question: str) -> bool:
    """Whether a question can be answered by yes or no alone: "Is there a dog?", "Tell me whether it rains"."""
    text = _plain(question)
    words = text.split()
    if not words or _ASKING.intersection(words) or _choice(text) is not None:
        return False
    if _WHETHER.search(text):
        return True
    begin = next(i for i, word in enumerate([*words, ""]) if word.strip(",:") not in _BEFORE)  # "So, is it ..."
    words = words[begin:]
    if len(words) < 3 or words[0] not in _AUXILIARY or words[1] in _AUXILIARY:  # "Were is the dog?" lacks a letter
        return False
    return not _TELLING.match(" ".join(words))


def named_answers(question: str, known: Iterable[str] = ()) -> list[str]:
    """The answers between which a question lets one choose: those beside its last "or", yes and no where it asks for
    these; none if it names none. Of words that may belong to an answer or not, those of a `known` answer do."""
    choice = _choice(_plain(question))
    if choice is None:
        return list(YES_OR_NO) if asks_yes_or_no(question) else []
    names = {folded(answer): answer for answer in known}
    head, *others = choice
    found = [_ending(head.split(), others[-1].split(), names)]
    found += [_without_article(text.split()) for text in others[:-1]]
    found.append(_beginning(others[-1].split(), names))
    answers = list(dict.fromkeys(names.get(" ".join(words), " ".join(words)) for words in found))
    return answers if len(answers) == len(found) and all(answers) else []


def _plain(question: str) -> str:
    """Lower case, without marks but commas, colons and dashes, which part a list."""
    text = folded(question).replace("’", "'")
    return " ".join(re.sub(r"[^\w',:-]", " ", text).split())


def _choice(text: str) -> list[str] | None:
    """The texts beside the last "or" and the commas before it; the first begins too early, the last ends too late."""
    if " or " not in text or _NOT_A_CHOICE.search(text):
        return None
    words = text.split()
    asking = [i for i, word in enumerate(words) if word.strip(",:") in _ASKING]
    if asking:  # "Which is bigger, the cat or the dog?", but not "How many cats or dogs are there?"
        rest = " ".join(words[asking[-1] :])
        parted = re.split(r"[,:]| -+ ", rest, maxsplit=1)
        if len(parted) < 2 or " or " not in parted[1]:
            return None
        text = parted[1]
    else:
        begin = next((i for i, word in enumerate(words) if word.strip(",:") in _AUXILIARY), None)
        text = text if begin is None else " ".join(words[begin + 1 :])
    left, _, right = text.rpartition(" or ")
    parts = [part.strip() for part in (*left.split(","), right.strip(" ,:")) if part.strip()]
    return parts if len(parts) > 1 else None


def _ending(words: list[str], other: list[str], names: dict[str, str]) -> list[str]:
    """The answer at the end of `words`, of which the beginning asks: a known one, what follows an article that answers
    have, or as many words as the `other` answer has ("Is the man young or old?")."""
    for start in range(len(words)):
        if " ".join(words[start:]) in names:
            return words[start:]
    articles = [i for i, word in enumerate(words) if word in _ARTICLES]
    if articles and (other[0] in _ARTICLES or words[articles[-1]] != "the"):
        return words[articles[-1] + 1 :]
    found = words[-len(_beginning(other, names)) :]
    return [word for word in found if word not in _PRONOUNS]


def _beginning(words: list[str], names: dict[str, str]) -> list[str]:
    """The answer at the beginning of `words`: a known one, or what stands before a preposition."""
    words = _without_article(words)
    for end in range(len(words), 0, -1):
        if " ".join(words[:end]) in names:
            return words[:end]
    end = next((i for i, word in enumerate(words) if i and word in _PREPOSITIONS), len(words))
    return words if words and words[0] in _PREPOSITIONS else words[:end]


def _without_article(words: list[str]) -> list[str]:
    return words[1:] if words and words[0] in _ARTICLES else words
