"""Arguments of programs, as JSON has them, to what a function's annotations say; or a message that names them."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

_SHOWN = 60  # characters of a value that a message repeats


def read_arguments(signature: inspect.Signature, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name, each of the kind of its annotation: a text, a number (which may come as a text), a file's path,
    or a list of these. None stands for a default.

    Raises:
        ValueError: a value of another kind; the message names the argument, what it got and what is allowed.
    """
    result = {}
    for name, value in given.items():
        parameter = signature.parameters[name]
        if value is None and parameter.default is not inspect.Parameter.empty:
            result[name] = parameter.default
        else:
            result[name] = _READERS[parameter.annotation](name, value)
    return result


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "a text")
    return value


def _word(name: str, value: Any) -> str:
    """A text of a list, where numbers are texts, too: how many, which year."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _wrong(name, value, "texts and numbers")
    return str(value)


def _number(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(name, value, "a number")
    return number


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != int(number):
        raise _wrong(name, value, "a whole number")
    return value if isinstance(value, int) else int(number)


def _path(name: str, value: Any) -> str:
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise _wrong(name, value, "an uploaded file; with gradio_client, wrap its path in handle_file(...)")
    return value["path"]


def _list(reader: Callable[[str, Any], Any], what: str) -> Callable[[str, Any], list[Any]]:
    def read(name: str, value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise _wrong(name, value, f"a list of {what}")
        return [reader(f"{name}[{i}]", part) for i, part in enumerate(value)]

    return read


def _wrong(name: str, value: Any, allowed: str) -> ValueError:
    shown = repr(value)
    return ValueError(f"{name} {shown[:_SHOWN]}{'...' if len(shown) > _SHOWN else ''}; allowed: {allowed}")


_READERS: dict[Any, Callable[[str, Any], Any]] = {
    str: _text,
    int: _whole,
    float: _number,
    float | None: _number,
    list[str]: _list(_word, "texts"),
    gr.FileData: _path,
    list[gr.FileData]: _list(_path, "uploaded files"),
}
