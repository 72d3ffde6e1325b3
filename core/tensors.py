"""Tensors: whether they are finite, and files of them that one stage hands to the next, such as features."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .files import replacing

_DIGEST = "sha256"  # in a file's metadata


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
    """Write tensors atomically, with a digest of what they hold.

    Raises:
        ValueError: values that are not finite; nothing is written then.
        OSError: see `core.files.replacing`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    check_finite(path, tensors)
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={_DIGEST: _digest(tensors)})


def load_tensors(path: Path | str, *names: str) -> dict[str, Tensor]:
    """The tensors of a file that `save_tensors` wrote, or one without a digest, mapped from disk.

    Raises:
        ValueError: damaged, or without one of `names`; says what to do.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            expected = (opened.metadata() or {}).get(_DIGEST)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        lacking = [name for name in names if name not in tensors]
        if lacking:
            raise ValueError(f"no {lacking[0]!r} in it")
        if expected is not None and _digest(tensors) != expected:
            raise ValueError("its content is not what was written")
        if expected is None and (name := not_finite(tensors)):
            raise ValueError(f"some values of {name!r} are infinite or not numbers")
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it, and the next run makes it again") from None
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, kinds, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
