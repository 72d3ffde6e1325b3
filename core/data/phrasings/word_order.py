"""The word order of a question inside a sentence: "what colour is the dog" becomes "what colour the dog is".

A rule of thumb by word lists, without a parser: it knows the questions that people ask of pictures, and says None where
it cannot tell where the subject ends.
"""

from __future__ import annotations

import re

_PRONOUNS = "he|she|it|they|you|we|this|that|these|those"
_DETERMINERS = "the|a|an|this|that|these|those|his|her|its|their|your|my|our|both|all|most"
_PREPOSITIONS = "on|in|with|of|at|for|to|from|under|behind|near|by|off|over|into|through|around"
_PARTICIPLES = "made|called|covered|filled|shown|pictured|located|parked|decorated|dressed|taken"
# words in -ing that are things, so that no verb goes before them
_THINGS = "thing|building|ceiling|painting|clothing|bowling|string|wing|ring|king|furnishing|lightning|railing|awning"

_QUESTION_WORD = r"(?:(?:in|on|at|to|from|for|with) )?(?:what|which|where|when|who|whose|how|why)\b"
_BE = re.compile(rf"(?P<ask>{_QUESTION_WORD}.*?) (?P<verb>is|are|was|were) (?P<rest>.+)", re.IGNORECASE)
_DO = re.compile(rf"(?P<ask>{_QUESTION_WORD}.*?) (?P<verb>does|do) (?P<rest>.+)", re.IGNORECASE)
_CAN = re.compile(
    rf"(?P<ask>{_QUESTION_WORD}.*?) (?P<verb>can|could|will|would|should) (?P<who>{_PRONOUNS}) (?P<rest>.+)",
    re.IGNORECASE,
)
_THERE = re.compile(r"(?P<verb>is|are|was|were) there (?P<rest>.+)", re.IGNORECASE)
_SUBJECT = re.compile(rf"(?:{_DETERMINERS}|{_PRONOUNS}|there)\b", re.IGNORECASE)
_INSIDE = re.compile(  # what follows the verb "is" and is not part of the subject
    rf"(?P<subject>.+?) (?P<tail>(?:(?!(?:{_THINGS})s?\b)(?<!the )(?<!a )\w+ing\b.*)|(?:(?:{_PARTICIPLES})\b.*)"
    rf"|(?:{_PREPOSITIONS}))",
    re.IGNORECASE,
)
_PRONOUN = re.compile(rf"(?P<who>{_PRONOUNS}|there)(?P<rest>\b.*)", re.IGNORECASE)
_IRREGULAR = {"have": "has", "do": "does", "go": "goes", "be": "is"}


def body(question: str) -> str:
    """A question without its mark, with a small first letter: what stands inside a sentence."""
    text = question.strip().rstrip("?.! ")
    first = text.split(" ", 1)[0]
    keeps = first == "I" or first.startswith("I'") or (len(first) > 1 and first.isupper())
    return text if keeps else text[:1].lower() + text[1:]


def indirect(question: str) -> str | None:
    """A question as a clause inside a sentence, without its mark: "what colour the badge behind the dog is", "if there
    is a cat". None where the rule cannot tell."""
    text = body(question)
    text, comma, aside = text.partition(",")
    if found := _THERE.fullmatch(text):
        return f"if there {found['verb'].lower()} {found['rest']}{comma}{aside}"
    clause = _do_clause(text) or _can_clause(text) or _be_clause(text)
    if clause is None:
        if not re.match(_QUESTION_WORD, text, re.IGNORECASE) or re.search(r"\bdid\b", text):
            return None
        clause = text  # the question word is the subject: "which corner holds the dog"
    return clause + comma + aside


def _be_clause(text: str) -> str | None:
    found = _BE.fullmatch(text)
    if not found or not _SUBJECT.match(found["rest"]):
        return None
    ask, verb, rest = found["ask"], found["verb"], found["rest"]
    if pronoun := _PRONOUN.fullmatch(rest):  # "this" may stand alone or before its noun
        alone = pronoun["who"].lower() not in ("this", "that", "these", "those")
        if alone or not pronoun["rest"]:
            return f"{ask} {pronoun['who']} {verb}{pronoun['rest']}"
    if inside := _INSIDE.fullmatch(rest):
        return f"{ask} {inside['subject']} {verb} {inside['tail']}"
    return f"{ask} {rest} {verb}"


def _do_clause(text: str) -> str | None:
    """ "what category does the dog belong to" becomes "what category the dog belongs to"."""
    found = _DO.fullmatch(text)
    if not found or found["rest"].startswith("not "):
        return None
    if found["verb"].lower() == "do":
        return f"{found['ask']} {found['rest']}"
    words = found["rest"].split()
    at = len(words) - 1
    while at > 0 and re.fullmatch(_PREPOSITIONS, words[at], re.IGNORECASE):
        at -= 1
    words[at] = _third_person(words[at])
    return f"{found['ask']} {' '.join(words)}"


def _can_clause(text: str) -> str | None:
    found = _CAN.fullmatch(text)
    return f"{found['ask']} {found['who']} {found['verb']} {found['rest']}" if found else None


def _third_person(verb: str) -> str:
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    return plural(verb)


def plural(word: str) -> str:
    """The regular plural of a noun, which is also how a verb takes its s."""
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + ("es" if re.search(r"(?:s|x|z|ch|sh)$", word) else "s")
