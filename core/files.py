"""Reading and writing files: a crash leaves the old one or the new one, never half of one; errors name the file."""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import hashlib
import itertools
import json
import math
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError

_count = itertools.count()


def temporary(path: Path) -> Path:
    """A new name beside `path`, to write to before the file moves to its place: two processes may write the same file,
    on one machine or on two that share a disk."""
    return path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}-{next(_count)}.tmp")


@contextlib.contextmanager
def replacing(path: Path | str, *, sweep: bool = True) -> Iterator[Path]:
    """Where to write a file that then takes the place of `path`. After an error or a signal nothing of it is left.

    Args:
        sweep: `remove_stale` before, which reads the whole folder: for one of very many files in a folder say no.

    Raises:
        OSError: it cannot be written, as on a full disk; names `path` and the reason, which libraries leave out.
    """
    path = Path(path)
    partial = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if sweep:
            remove_stale(path)
        yield partial
        os.replace(partial, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if not number:
            raise
        raise _failed(int(number[1]), path) from None
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        raise _failed(error.errno, path) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _failed(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def remove_stale(path: Path) -> None:
    """Remove what processes of this machine that were killed left of a file they were writing."""
    for partial in path.parent.glob(f"{glob.escape(f'{path.name}.{platform.node()}-')}*.tmp"):
        process = re.search(r"-(\d+)-\d+\.tmp$", partial.name)
        if process and not _lives(int(process[1])):
            partial.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    """Whether a process of this machine is there; True where that cannot be asked."""
    if os.name == "nt":  # there os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def write_text(path: Path | str, text: str) -> None:
    """Write a text, in UTF-8, atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write indented JSON atomically; a ValueError for a number that JSON has not (NaN, infinity)."""
    try:
        text = json.dumps(value, indent=1, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: not written: {error}") from None
    write_text(path, text + "\n")


def parse_json(text: str) -> Any:
    """What JSON says; anyone may have written it.

    Raises:
        ValueError: no JSON, numbers that are none or infinite, or lists in lists beyond what Python reads.
    """
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("lists in lists, too many to read") from None


def read_json(path: Path | str, kind: type = object, remedy: str = "") -> Any:
    """What a JSON file holds.

    Args:
        kind: what it must be, such as `dict`.
        remedy: what to do about a damaged one, for the message.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: damaged, as `parse_json` has it, or of another kind; names the file.
    """

    try:
        value = parse_json(Path(path).read_text(encoding="utf-8"))
        if not isinstance(value, kind):
            raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such
        raise ValueError(f"{path}: damaged ({error})" + (f"; {remedy}" if remedy else "")) from None
    return value


def check_writable(folder: Path | str) -> None:
    """An OSError that names the folder in the way if no file can be written to `folder`, which need not be there."""
    folder = Path(os.path.abspath(folder))
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no file can be written to this folder", str(there))


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
