"""A checkpoint as it lies on disk: which files it is, what their headers say, and whether that is true."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import parse_json
from ..tensors import check_finite, digest_of_tensors, read_all, read_header
from . import version1

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Stored:
    """A checkpoint of which the headers are read: `written` as it is in the files, `header` as format 2 has it;
    `pieces` lists by tensor the names of its pieces, in order."""

    path: Path
    files: list[Path]
    written: dict[str, Any]
    header: dict[str, Any]
    pieces: dict[str, list[str]]


def open_stored(path: Path | str, kind: str | None = None) -> Stored:
    """Read and check the headers of a checkpoint, and no tensor. Raises what `load_model` does."""
    path = Path(path)
    files = files_of(path)
    if not files:
        raise FileNotFoundError(f"{path}: no such checkpoint")
    shapes: dict[str, list[int]] = {}
    contents = set()
    for file in files:
        metadata, own = read_header(file)
        header = _read_header(metadata.get("header", "null"), file)
        contents.add(str(header.get("sha256", header.get("content"))))
        shapes |= own
    if len(contents) > 1:
        raise ValueError(f"{path}: its parts are of different savings; make or fetch all of them again")
    if kind is not None and header["kind"] != kind:
        raise ValueError(f"{path}: holds a {header['kind']!r}, expected a {kind!r}")
    if header["format_version"] > FORMAT_VERSION:
        raise ValueError(f"{path}: format {header['format_version']} is newer than this code's {FORMAT_VERSION}")
    pieces: dict[str, list[str]] = {}
    for name in sorted(shapes):
        pieces.setdefault(name.split("#")[0], []).append(name)
    announced = header["shapes"]
    for name, held in pieces.items():
        if name not in announced or len(held) > len(files):  # a file holds one piece of a tensor at most
            raise ValueError(f"{path}: unexpected {held[-1]!r}, which its header does not announce")
    for name, shape in announced.items():
        held = [shapes[piece] for piece in pieces.get(name, [])]
        joined = held if len(held) < 2 else [[sum(sum(own[:1]) for own in held), *held[0][1:]]]
        if joined != [shape]:
            raise ValueError(f"{path}: incomplete, {name!r} is missing or cut; are all its parts there?")
    try:
        now = version1.upgraded_header(header) if header["format_version"] == 1 else header
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Stored(path, files, header, now, pieces)


def read_stored(stored: Stored) -> dict[str, Tensor]:
    """The tensors of a checkpoint, as float32. Raises what `load_model` does."""
    path, held = stored.path, {}
    for file in stored.files:
        held |= read_all(file)
    try:
        whole = {
            name: held[names[0]] if len(names) == 1 else torch.cat([held[piece] for piece in names])
            for name, names in stored.pieces.items()
        }
    except RuntimeError as error:  # rows of a matrix that do not fit together
        raise ValueError(f"{path}: {error}") from None
    check_finite(path, whole)
    about = {key: value for key, value in stored.written.items() if key != "sha256"}
    if "sha256" in stored.written and stored.written["sha256"] != digest_of_tensors(whole, about):
        raise ValueError(f"{path}: damaged, it holds something else than was written")
    return {name: tensor.float() for name, tensor in whole.items()}


def files_of(path: Path) -> list[Path]:
    """The files of a checkpoint at `path`: itself or its numbered parts, in order; [] if there is neither. Parts win,
    since a split checkpoint has no whole."""
    parts = sorted(path.parent.glob(f"{glob.escape(path.stem)}-?????-of-?????{glob.escape(path.suffix)}"))
    return parts or ([path] if path.is_file() else [])


_HEADER: dict[str, type] = {"kind": str, "format_version": int, "config": dict, "shapes": dict, "metadata": dict}


def _read_header(text: str, file: Path) -> dict[str, Any]:
    """The header of one of our files, with all that `save_model` writes; anyone may have made the file."""
    try:
        header = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{file}: its header is damaged ({error})") from None
    if not isinstance(header, dict) or "kind" not in header:
        raise ValueError(f"{file}: a safetensors file, but not one of this project's checkpoints")
    for name, kind in _HEADER.items():
        if not isinstance(header.get(name), kind):
            got = f"got {type(header[name]).__name__}" if name in header else "it is missing"
            raise ValueError(f"{file}: {name!r} in its header must be {kind.__name__}, {got}")
    return header
