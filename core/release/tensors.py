"""Files of tensors (safetensors), read as anyone may have made them: no number is read before what the file says of
itself is checked, none comes through that is none, and the time is linear in the size of the file."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import parse_json, temporary

MAX_HEADER = 1024 * 1024  # bytes; this project's own have up to 50 thousand
_DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}
_DIGEST = "sha256"  # in a file's metadata


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a file atomically, with a digest of all that it holds in its metadata."""
    tensors, metadata = {name: tensor.contiguous() for name, tensor in tensors.items()}, dict(metadata or {})
    partial = temporary(path)
    save_file(tensors, partial, metadata=metadata | {_DIGEST: digest_of_tensors(tensors, metadata)})
    os.replace(partial, path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file as they are stored, and its metadata.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: what `read_header` refuses, numbers that are none, or another content than was written; the message
            names the file. A file without a digest (safetensors as others write it) has its content taken as it is.
    """
    metadata, _ = read_header(path)
    tensors = read_all(path)
    written = metadata.pop(_DIGEST, None)
    if written is not None and written != digest_of_tensors(tensors, metadata):
        raise ValueError(f"{path}: damaged, it holds something else than was written")
    check_finite(tensors, path)
    return tensors, metadata


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


def check_finite(tensors: Mapping[str, Tensor], where: Path | str) -> None:
    """A ValueError that names the first tensor with a number that is infinite or none."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
            raise ValueError(f"{where}: tensor {name!r} holds numbers that are infinite or none (NaN)")
