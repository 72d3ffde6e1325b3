"""Reading and writing files: a crash leaves the old one or the new one, never half of one; what is read is said to be
what it is, or refused by name."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn


def temporary(path: Path) -> Path:
    """Where a process writes a file before it moves it to its place: two may write the same file."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def write_json(path: Path | str, value: Any) -> None:
    """Write indented JSON atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary(path)
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def parse_json(text: str) -> Any:
    """What JSON says; anyone may have written it.

    Raises:
        ValueError: no JSON, numbers that are none or infinite, or lists in lists beyond what Python reads.
    """
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("lists in lists, too many to read") from None


def read_json(path: Path | str) -> Any:
    """What a file of JSON says.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is damaged, as `parse_json` has it; the message names the file.
    """
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such
        raise ValueError(f"{path} is damaged ({error})") from None


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. A file is read once in a process, and again when it has changed."""
    stat = path.stat()
    return _digest(path.resolve(), (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@functools.lru_cache(maxsize=1024)
def _digest(path: Path, state: tuple[int, ...]) -> str:
    """`digest_of_file` of a file in a state."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a number")
    return value
