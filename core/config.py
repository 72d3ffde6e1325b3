"""Strict, hashable configuration: frozen dataclasses to and from plain dictionaries."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A frozen dataclass as JSON-able nested dictionaries (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """Build the dataclass `cls` from a mapping, refusing what it does not know.

    Raises:
        ValueError: unknown key, missing key without default, or a value of the wrong type; the message names
            the key, the value and what is allowed.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{cls.__name__}: expected a mapping, got {type(data).__name__}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ValueError(f"{cls.__name__}: unknown key {unknown[0]!r}; allowed: {', '.join(fields)}")
    values = {name: _convert(hints[name], value, f"{cls.__name__}.{name}") for name, value in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}") from None


def override(config: T, assignments: Sequence[str]) -> T:
    """The dataclass `config` with `a.b.c=VALUE` assignments applied; VALUE is JSON, or else taken as text.

    Raises:
        ValueError: no "=", an unknown key, or a value of the wrong type; the message names it and what is allowed.
    """
    parsed: list[_Assignment] = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r}: expected KEY=VALUE")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        parsed.append((key, key.split("."), value))
    return _assigned(config, parsed) if parsed else config


_Assignment = tuple[str, Sequence[str], Any]  # the key as given, the names that lead on from here, the value


def _assigned(node: Any, assignments: Sequence[_Assignment]) -> Any:
    """A copy of a dataclass or dictionary with all assignments at once: settings that only go together are checked
    together. A whole group is assigned before its parts."""
    own = (
        node
        if isinstance(node, dict)
        else {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    )
    groups = [name for name, entry in own.items() if isinstance(entry, dict) or dataclasses.is_dataclass(entry)]
    new: dict[str, Any] = {}
    inner: dict[str, list[_Assignment]] = {}
    for key, (name, *rest), value in assignments:
        if rest and name not in groups:
            raise ValueError(f"{key}: no group {name!r}; groups here: {', '.join(groups)}")
        if name not in own:
            raise ValueError(f"{key}: unknown key {name!r}; allowed: {', '.join(own)}")
        if rest:
            inner.setdefault(name, []).append((key, rest, value))
        elif isinstance(node, dict):
            new[name] = _convert(type(own[name]), value, key)
        else:
            new[name] = _convert(typing.get_type_hints(type(node))[name], value, f"{type(node).__name__}.{name}")
    for name, parts in inner.items():
        new[name] = _assigned(new.get(name, own[name]), parts)
    return {**own, **new} if isinstance(node, dict) else dataclasses.replace(node, **new)


def place(default: str) -> Any:
    """A dataclass field that says where something lies. Moving it changes no result: `config_hash` does not see it."""
    return dataclasses.field(default=default, metadata={"place": True})


def later(default: Any) -> Any:
    """A dataclass field that joined after results were made without it. `config_hash` sees it only where it is not at
    its default, which must mean what was done before: so what was made is still known as done."""
    return dataclasses.field(default=default, metadata={"later": True})


def config_hash(*parts: Any) -> str:
    """16 hexadecimal digits identifying JSON-able values (dataclasses allowed); dictionary order is ignored."""
    text = json.dumps([_traced(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _traced(value: Any) -> Any:
    """What `config_hash` sees: plain values, less the fields that are a place, or joined later and are at their
    default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        seen = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if _counts(field, value)}
        return {name: _traced(item) for name, item in seen.items()}
    if isinstance(value, Mapping):
        return {key: _traced(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_traced(item) for item in value]
    return value


def _counts(field: dataclasses.Field, config: Any) -> bool:
    """Whether a field of `config` is a part of its hash."""
    unused = field.metadata.get("later") and getattr(config, field.name) == field.default
    return not (unused or field.metadata.get("place"))


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [option for option in args if option is not type(None)]
        for option in options:
            try:
                return _convert(option, value, where)
            except ValueError:
                continue
        raise ValueError(f"{where}: {value!r} is none of {', '.join(str(o) for o in options)}")
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(f"{where}: {value!r} is not one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: expected a list, got {value!r}")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], item, where) for item in value)
        if len(args) != len(value):
            raise ValueError(f"{where}: expected {len(args)} values, got {value!r}")
        return tuple(_convert(arg, item, where) for arg, item in zip(args, value, strict=True))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected a mapping, got {value!r}")
        return {_convert(args[0], k, where): _convert(args[1], v, where) for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any:
        return value
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value
