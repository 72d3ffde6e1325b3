"""A page's state in its address: the world, question, answers and settings of a shared link."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from ..methods import MAX_SAMPLES
from ..texts import join_answers
from .ask import check_question, read_answers
from .limits import MAX_SEED

MAX_GAMMA, MAX_STEPS = 3.0, 100  # of the page's sliders, unless validation tasks chose more
_QUOTED = 60  # characters of an address that a complaint repeats
_USUAL = ("decoder", "steps", "samples")  # named by a link only where they are not the default
_NAMES = ("question", "answers", "method", "gamma", "seed", *_USUAL)

_SHOW_JS = """const show = (world, link) => {
    const url = new URL(window.location);
    for (const name of NAMES) url.searchParams.delete(name);
    if (world) url.searchParams.set("world", world);
    for (const [name, value] of new URLSearchParams(link)) url.searchParams.set(name, value);
    window.history.replaceState(null, "", url);
  };""".replace("NAMES", json.dumps(_NAMES))
_ANSWERED_JS = """(link, shown) => {
  SHOW
  if (!link) return;
  (window.answered ??= {})[WORLD] = link;
  if (OPENED || (shown ?? WORLD) !== WORLD) return;
  show(WORLD, link);
}"""
# Runs in the browser when another world is chosen: a question of the one before is not one of this.
WORLD_JS = """world => {
  SHOW
  show(world, (window.answered ?? {})[world] ?? "");
}""".replace("SHOW", _SHOW_JS)


def write_js(world: str, opened: bool = False) -> str:
    """What runs in the browser after a world was asked, on the link of its latest answer and the world that is shown:
    the link is remembered for when this world is shown again, and becomes the address if it is shown now. The first
    answer of a page that was `opened` leaves the address as it was typed."""
    named = {"SHOW": _SHOW_JS, "WORLD": json.dumps(world), "OPENED": json.dumps(opened)}
    text = _ANSWERED_JS
    for name, value in named.items():
        text = text.replace(name, value)
    return text


@dataclass(frozen=True)
class Shared:
    """What a link can say; `answers` is empty where they are to be suggested. `decoder` is a weight generator's name;
    none can be chosen where it is empty, and no numbers of steps or samples where these are 0."""

    question: str
    answers: str
    methods: tuple[str, ...]
    gamma: float
    seed: int
    decoder: str = ""
    steps: int = 0
    samples: int = 0


def write_link(shared: Shared, default: Shared) -> str:
    """The query of an address that asks for this state, as `read_link` reads it with the same default."""
    query = {
        "question": shared.question,
        "answers": shared.answers,
        "method": ",".join(shared.methods),
        "gamma": f"{shared.gamma:.10g}",
        "seed": shared.seed,
    }
    unusual = [name for name in _USUAL if getattr(shared, name) != getattr(default, name)]
    return urlencode(query | {name: getattr(shared, name) for name in unusual})


def read_link(query: Mapping[str, str], default: Shared, decoders: Sequence[str] = ()) -> tuple[Shared, list[str]]:
    """The state that an address asks for, and complaints about the parts of it that make no sense (left at default).

    Args:
        decoders: names of weight generators that can be chosen.
    """
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
    take("answers", "answers", lambda text: join_answers(read_answers(text)) if text.strip() else "")
    take("method", "methods", lambda text: _methods(text, default.methods))
    take("gamma", "gamma", lambda text: _number(text, float, 0.0, max(MAX_GAMMA, default.gamma)))
    take("seed", "seed", lambda text: _number(text, int, 0, MAX_SEED))
    take("decoder", "decoder", lambda text: _methods(text, tuple(decoders))[0])
    take("steps", "steps", lambda text: _number(text, int, 1, max(MAX_STEPS, default.steps)))
    take("samples", "samples", lambda text: _number(text, int, 1, MAX_SAMPLES))
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
