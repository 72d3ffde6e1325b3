"""What fields of a JSON file may hold: checks to be put together, for files that anyone may have made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Check = Callable[[Any, str], None]  # (value, its name): a ValueError that names both and says what is allowed

_SHOWN = 60  # characters of a value in a message


def refuse(value: Any, name: str, allowed: str) -> ValueError:
    """What to raise for a field that must not hold `value`."""
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]} ..."
    return ValueError(f"{name} is {shown}; allowed: {allowed}")


def text(longest: int = 10_000, least: int = 1) -> Check:
    """A text of so many characters."""

    def check(value: Any, name: str) -> None:
        if not isinstance(value, str) or not least <= len(value) <= longest:
            raise refuse(value, name, f"a text of {least:,} to {longest:,} characters")

    return check


def number(least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf) -> Check:
    """A finite number from `least` to `most`, and more than `above`."""
    bounds = (f"more than {above:g}" if above > -math.inf else f"{least:g} or more") + (
        f", up to {most:g}" if most < math.inf else ""
    )
    allowed = "a finite number" + (f", {bounds}" if max(least, above) > -math.inf or most < math.inf else "")

    def check(value: Any, name: str) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise refuse(value, name, allowed)
        if not (least <= value <= most and above < value and abs(value) < math.inf):
            raise refuse(value, name, allowed)

    return check


def whole(least: int, most: int) -> Check:
    """A whole number from `least` to `most`."""

    def check(value: Any, name: str) -> None:
        if type(value) is not int or not least <= value <= most:
            raise refuse(value, name, f"a whole number from {least:,} to {most:,}")

    return check


def yes(value: Any, name: str) -> None:
    """True, for a field that is left out otherwise."""
    if value is not True:
        raise refuse(value, name, "true, or no such field")


def one_of(names: Iterable[str]) -> Check:
    """One of these texts."""
    names = tuple(names)

    def check(value: Any, name: str) -> None:
        if not isinstance(value, str) or value not in names:
            raise refuse(value, name, ", ".join(names))

    return check


def nullable(check: Check) -> Check:
    """Null, or what `check` allows."""
    return lambda value, name: None if value is None else check(value, name)


def listed(check: Check, least: int = 0) -> Check:
    """A list of at least so many values that `check` allows."""

    def check_list(value: Any, name: str) -> None:
        if not isinstance(value, list) or len(value) < least:
            raise refuse(value, name, f"a list of {least} or more")
        for i, item in enumerate(value):
            check(item, f"{name}[{i}]")

    return check_list


def mapping(check: Check) -> Check:
    """An object whose values `check` allows, whatever they are called."""

    def check_mapping(value: Any, name: str) -> None:
        if not isinstance(value, dict):
            raise refuse(value, name, "an object")
        for key, item in value.items():
            check(item, _inside(name, key))

    return check_mapping


def record(needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with all fields that are `needed`; those that neither mapping names may hold anything."""
    checks = {**needed, **(optional or {})}

    def check(value: Any, name: str) -> None:
        if not isinstance(value, dict):
            raise refuse(value, name, "an object")
        for key, own in checks.items():
            if key in value:
                own(value[key], _inside(name, key))
            elif key in needed:
                raise ValueError(f"{_inside(name, key)} is missing")

    return check


def _inside(name: str, key: str) -> str:
    """The name of a field of an object, which has none itself at the top of a file."""
    return f"{name}.{key}" if name else key
