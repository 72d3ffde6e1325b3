"""Yes/no questions turned around: "Is there a dog?" and "Is there no dog?" have opposite answers.

Rules for plain English, without a parser; what they do not understand they leave as it is.
"""

from __future__ import annotations

import re

from .word_order import body

_PRONOUNS = "it|he|she|they|this|that|these|those|you|we|there"
_ARTICLES = "a|an|the"
_THINGS = {  # by the word of a positive question, that of a negated one
    "anything": "nothing",
    "something": "nothing",
    "anybody": "nobody",
    "somebody": "nobody",
    "anyone": "no one",
    "someone": "no one",
}
_POSITIVE = {"nothing": "anything", "nobody": "anybody", "no one": "anyone", "none": "any"}
_ANY = rf"\b(?:{'|'.join(_THINGS)}|an|a|any|some)\b"
_NONE = rf"\b(?:{'|'.join(_POSITIVE)}|no|not|never)\b"
_UNTIL = re.compile(r"\b(?:no|not any) (?:longer|more|less|fewer)\b|\bnot only\b", re.IGNORECASE)  # no plain denials
# What "not" goes before: amounts, and all of something.
_COUNTED = re.compile(
    r"(?:only|just|exactly|more|less|fewer|at|over|one|two|three|four|five|\d+|all|every|everything|everyone|everybody|"
    r"each|both|most|many|much|enough|several)\b",
    re.IGNORECASE,
)
_BE = re.compile(r"(?:is|are|was|were)\b", re.IGNORECASE)
_ASKS = re.compile(r"(?:is|are|was|were|do|does|did|has|have|can|could|will|would)\b", re.IGNORECASE)
# Where the subject may end: before an article, a verb in -ing, a participle or a preposition; not before "red", "king".
_PREDICATE = re.compile(
    rf"(?:{_ARTICLES}|in|on|at|under|behind|near|with|of|from|made|covered|filled|\w{{3,}}ing|\w{{3,}}ed)\Z",
    re.IGNORECASE,
)


def opposite(question: str) -> str | None:
    """The question whose answer is no where that of `question` is yes: the negated form of a positive one and the other
    way around, with a capital and a question mark.

    None where the rules cannot tell: no yes/no question, two denials, or a contraction ("Isn't it red?", to which "yes"
    says that it is).
    """
    text = body(question)
    if not _ASKS.match(text) or _UNTIL.search(text):
        return None
    denials = re.findall(_NONE, text, re.IGNORECASE)
    if len(denials) > 1:
        return None
    found = _affirmed(text) if denials else _negated(text)
    return None if found is None else found[:1].upper() + found[1:] + "?"


def _affirmed(text: str) -> str:
    """A question without its denial."""
    plural = re.match(r"(?:are|were|do|have|can)\b", text, re.IGNORECASE)

    def positive(found: re.Match[str]) -> str:
        word = found[0].lower()
        if word != "no":
            return _POSITIVE.get(word, "")
        after = text[found.end() :].lstrip()
        return "any" if plural or not _BE.match(text) else "an" if after[:1].lower() in "aeiou" else "a"

    return " ".join(re.sub(_NONE, positive, text, flags=re.IGNORECASE).split())


def _negated(text: str) -> str | None:
    """A positive question with a denial: "no" for its "a" or "any", or "not" between subject and predicate."""
    verb, _, rest = text.partition(" ")
    none = lambda found: _THINGS.get(found[0].lower(), "no")
    if not _BE.match(text):  # "does the man wear a hat", "can you see anything"
        changed, count = re.subn(_ANY, none, rest, count=1, flags=re.IGNORECASE)
        return f"{verb} {changed}" if count else None
    there, rest = ("there ", rest[6:]) if rest.lower().startswith("there ") else ("", rest)
    if _COUNTED.match(rest):  # "are there two dogs", "are all plates empty"
        return f"{verb} {there}not {rest}"
    if re.match(_ANY, rest, re.IGNORECASE):  # "is there a dog", "is anything red"
        return f"{verb} {there}{re.sub(_ANY, none, rest, count=1, flags=re.IGNORECASE)}"
    if there:  # "is there water"
        return f"{verb} {there}no {rest}"
    words = rest.split()
    if len(words) < 2:
        return None
    at = _subject_ends(words)
    return " ".join([verb, *words[:at], "not", *words[at:]])


def _subject_ends(words: list[str]) -> int:
    """Of how many of the words after "is" the subject consists, by a rule of thumb."""
    if re.fullmatch(_PRONOUNS, words[0], re.IGNORECASE) and (len(words) == 2 or _PREDICATE.match(words[1])):
        return 1
    for at in range(2, len(words)):
        if _PREDICATE.match(words[at]):
            return at
    return len(words) - 1
