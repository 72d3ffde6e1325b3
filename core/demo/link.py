"""A page's state in its address: the question, answers, methods, gamma and seed of a shared link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .ask import check_question, read_answers

MAX_GAMMA, MAX_SEED = 3.0, 2**31 - 1

# Runs in the browser after an answer, on the components in the order of `Shared`.
WRITE_JS = """(question, answers, methods, gamma, seed) => {
  const url = new URL(window.location);
  const state = {question, answers, method: methods.join(","), gamma, seed: seed || 0};
  for (const [name, value] of Object.entries(state)) url.searchParams.set(name, value);
  window.history.replaceState(null, "", url);
}"""


@dataclass(frozen=True)
class Shared:
    """What a link can say; `answers` is empty where they are to be suggested."""

    question: str
    answers: str
    methods: tuple[str, ...]
    gamma: float
    seed: int


def read_link(query: Mapping[str, str], default: Shared) -> tuple[Shared, list[str]]:
    """The state that an address asks for, and complaints about the parts of it that make no sense (left at default)."""
    state, complaints = default, []

    def take(name: str, field: str, read) -> None:
        nonlocal state
        if name not in query:
            return
        try:
            state = replace(state, **{field: read(query[name])})
        except ValueError as error:
            complaints.append(f"the link's {name} {query[name][:60]!r} is left out: {error}")

    take("question", "question", check_question)
    take("answers", "answers", lambda text: ", ".join(read_answers(text)) if text.strip() else "")
    take("method", "methods", lambda text: _methods(text, default.methods))
    take("gamma", "gamma", lambda text: _number(float(text), 0.0, MAX_GAMMA))
    take("seed", "seed", lambda text: int(_number(int(text), 0, MAX_SEED)))
    return state, complaints


def _methods(text: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    chosen = [method.strip() for method in text.split(",")]
    unknown = [method for method in chosen if method not in allowed]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(allowed)}")
    return tuple(method for method in allowed if method in chosen)


def _number(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(f"allowed: {low:g} to {high:g}")
    return value
