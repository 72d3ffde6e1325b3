"""A page's state in its address: the world, question, answers, methods, gamma and seed of a shared link."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .ask import check_question, read_answers

MAX_GAMMA, MAX_SEED = 3.0, 2**31 - 1
_QUOTED = 60  # characters of an address that a complaint repeats

_WRITE_JS = """(question, answers, methods, gamma, seed) => {
  const url = new URL(window.location);
  const state = {WORLD, question, answers, method: methods.join(","), gamma, seed: seed || 0};
  for (const [name, value] of Object.entries(state)) url.searchParams.set(name, value);
  window.history.replaceState(null, "", url);
}"""
# Runs in the browser when another world is chosen: a question of the one before is not one of this.
WORLD_JS = """world => {
  const url = new URL(window.location);
  for (const name of ["question", "answers", "method", "gamma", "seed"]) url.searchParams.delete(name);
  url.searchParams.set("world", world);
  window.history.replaceState(null, "", url);
}"""


def write_js(world: str) -> str:
    """What runs in the browser after an answer in a world, on the components in the order of `Shared`; the world is
    named if it has a name."""
    return _WRITE_JS.replace("WORLD, ", f"world: {json.dumps(world)}, " if world else "")


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
            complaints.append(f"the link's {name} {query[name][:_QUOTED]!r} is left out: {error}")

    take("question", "question", check_question)
    take("answers", "answers", lambda text: ", ".join(read_answers(text)) if text.strip() else "")
    take("method", "methods", lambda text: _methods(text, default.methods))
    take("gamma", "gamma", lambda text: _number(text, float, 0.0, MAX_GAMMA))
    take("seed", "seed", lambda text: _number(text, int, 0, MAX_SEED))
    return state, complaints


def read_world(query: Mapping[str, str], keys: Sequence[str]) -> tuple[str, list[str]]:
    """The world that an address names, the first unless it names one of `keys`, and a complaint if it names another."""
    named = query.get("world", keys[0])
    if named in keys:
        return named, []
    return keys[0], [f"the link's world {named[:_QUOTED]!r} is left out: it is none of {', '.join(keys)}"]


def _methods(text: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    chosen = [method.strip() for method in text.split(",")]
    unknown = [method for method in chosen if method not in allowed]
    if unknown:
        raise ValueError(f"{unknown[0][:_QUOTED]!r} is none of {', '.join(allowed)}")
    return tuple(method for method in allowed if method in chosen)


def _number(text: str, kind: type[int] | type[float], low: float, high: float) -> float:
    """The number that a text is; a ValueError that does not repeat the text, which may be of any length."""
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        whole = "whole numbers from " if kind is int else ""
        raise ValueError(f"allowed: {whole}{low:.10g} to {high:.10g}")
    return value
