"""Tensors: whether they are finite, and files of them (safetensors), which anyone may have made.

No number is read before what a file says of itself is checked, infinity and NaN are refused, and the time is linear in
the size of the file.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .files import parse_json, replacing

MAX_HEADER = 1024 * 1024  # bytes; this project's own have up to 50 thousand
_DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}
_DIGEST = "sha256"  # in a file's metadata, alone: of several the order is random


def tensors_in(value: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors in nested dictionaries and lists, by the keys that lead to them."""
    if isinstance(value, Tensor):
        return {name: value}
    if not isinstance(value, (Mapping, list, tuple)):
        return {}
    found: dict[str, Tensor] = {}
    for key, own in value.items() if isinstance(value, Mapping) else enumerate(value):
        found |= tensors_in(own, f"{name}.{key}" if name else str(key))
    return found


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a value that is infinite or not a number; None if there is none."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        # the extremes tell, and need no memory; they are no numbers where one value is none
        if not bool(torch.stack(torch.aminmax(tensor.detach())).isfinite().all()):
            return name
    return None


def check_finite(path: Path | str, tensors: Mapping[str, Tensor]) -> None:
    """A ValueError that names the file that `tensors` are of, or meant for, if they are not finite."""
    name = not_finite(tensors)
    if name is not None:
        raise ValueError(f"{path}: some values of {name!r} are infinite or not numbers")


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors atomically, with a digest of what the file holds and is called.

    Raises:
        ValueError: values that are not finite; nothing is written then.
        OSError: see `core.files.replacing`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    check_finite(path, tensors)
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={_DIGEST: digest_of_tensors(tensors, Path(path).name)})


def load_tensors(path: Path | str, *names: str) -> dict[str, Tensor]:
    """The tensors of a file that `save_tensors` wrote, or one without a digest, as they are stored.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: damaged, or without one of `names`; says what to do.
    """
    path = Path(path)
    try:
        metadata, shapes = read_header(path)
        if lacking := [name for name in names if name not in shapes]:
            raise ValueError(f"{path}: damaged (no {lacking[0]!r} in it)")
        tensors = read_all(path)
        if metadata.get(_DIGEST) not in (None, digest_of_tensors(tensors, path.name)):
            raise ValueError(f"{path}: damaged (its content is not what was written under this name)")
        check_finite(path, tensors)
    except ValueError as error:
        raise ValueError(f"{error}; remove it, and the next run makes it again") from None
    return tensors


def read_header(path: Path) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Metadata of a file, and the shapes of its tensors by name; no tensor is read.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: not a safetensors file, or one with a header beyond `MAX_HEADER` or with numbers of a kind that this
            project does not use.
    """
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > MAX_HEADER:
                raise ValueError(f"a header of {size:,} bytes, {MAX_HEADER:,} are allowed")
            header = parse_json(file.read(size).decode("utf-8"))
        metadata = header.pop("__metadata__", {})
        shapes = {name: entry["shape"] for name, entry in header.items()}
        kinds = {entry["dtype"] for entry in header.values()}
        if unknown := kinds - _DTYPES:
            raise ValueError(f"numbers of kind {min(unknown)}; allowed: {', '.join(sorted(_DTYPES))}")
        if not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("its metadata are no texts")
        if not all(type(size) is int and size >= 0 for shape in shapes.values() for size in shape):
            raise ValueError("sizes that are no whole numbers")
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"{path}: damaged or not a safetensors file ({error})") from None
    return metadata, shapes


def read_all(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, as they are stored; a ValueError that names a damaged one."""
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path}: damaged or not a safetensors file ({error})") from None


def digest_of_tensors(tensors: Mapping[str, Tensor], about: Any) -> str:
    """SHA-256 of tensors with their names, kinds and shapes, and of a JSON-able value that belongs to them."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
