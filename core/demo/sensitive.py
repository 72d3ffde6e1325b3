"""Questions about what a picture cannot tell of a person: they get a notice on the page, not a refusal.

A short list of patterns for the commonest English forms. It is no filter, and knows nothing of what it does not list.
"""

from __future__ import annotations

import re

_PERSON = (
    r"\b(?:he|she|they|him|her|his|their|(?:gentle|police)?m[ae]n|wom[ae]n|lady|ladies|persons?|people|boys?|girls?"
    r"|child(?:ren)?|kids?|baby|babies|guys?|adults?|couples?|someone|somebody|everyone|everybody|family|mother|father"
    r"|player|driver|rider|skier|surfer|skateboarder|friends?|students?|workers?)\b"
)
_ORIGINS = r"\b(?:asian|african|caucasian|hispanic|latin[oa]|arab|jewish|indian|chinese|japanese|mexican)s?\b"
_FAITHS = r"\b(?:religio\w*|muslim|christian|jewish|hindu|buddhist|catholic|atheist)s?\b"
_STATES = (
    r"\b(?:(?:un)?healthy|sick|ill|disabled|pregnant|autistic|obese|overweight|drunk|mentally|depressed|blind|deaf"
    r"|disabilit\w+|disease\w*|illness|weigh\w*)\b"
)
_VERDICTS = r"\b(?:rich|poor|homeless|intelligent|attractive|beautiful|ugly|guilty|honest)\b"
# Patterns in lower case by what they ask for; `{person}` in one stands for any of the words above.
_ASKED = {
    "who somebody is": (
        r"\bwho(?:'s| is| are| was| were) (?:this|that|these|those|he|she|they|in)\b",
        r"\bwho (?:this|that|he|she|they|these people) (?:is|are)\b",
        r"\bwho(?:'s| is| are) the {person}\W*$",
        r"\bname\b.*{person}|{person}.*\bname\b",
        r"{person}.*\b(?:famous|celebrity)\b|\bidentity\b",
    ),
    "race or ethnicity": (
        r"\b(?:what|which) race\b|\brac(?:e|ial)\b.*{person}|{person}(?:'s)? race\b",
        r"\bethnic|\bnationalit|\bskin colou?r|\bcolou?r\b.*\bskin\b",
        rf"{{person}}.*{_ORIGINS}",
    ),
    "religion": (rf"{_FAITHS}.*{{person}}|{{person}}.*{_FAITHS}",),
    "health": (rf"{_STATES}.*{{person}}|{{person}}.*{_STATES}",),
    "sex, gender or sexual orientation": (
        r"\bgender\b|\bwhat sex\b|\bsexual|\b(?:gay|lesbian|bisexual|transgender)\b",
        r"\bmale or (?:a )?female\b|\bfemale or (?:a )?male\b",
    ),
    "age": (r"\bhow old\b.*{person}|\bage\b.*{person}|{person}(?:'s)? age\b",),
    "what somebody is like": (
        r"\bpolitical|\b(?:criminal|terrorist|democrat|republican)s?\b",
        rf"{{person}}.*{_VERDICTS}",
    ),
}
_PATTERNS = {
    subject: [re.compile(pattern.replace("{person}", _PERSON)) for pattern in patterns]
    for subject, patterns in _ASKED.items()
}


def subject(question: str) -> str:
    """What a question asks about a person that a picture cannot tell, such as "age"; empty if nothing."""
    text = " ".join(question.replace("’", "'").casefold().split())
    return next((name for name, patterns in _PATTERNS.items() if any(p.search(text) for p in patterns)), "")
