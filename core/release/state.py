"""Resume states: what a stage of training needs to go on where it was killed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..files import replacing
from ..tensors import check_finite, tensors_in


def save_state(path: Path | str, state: dict[str, Any]) -> None:
    """Write resume state (optimizer, step ...) atomically.

    Raises:
        ValueError: a tensor is not finite.
        OSError: see `core.files.replacing`.
    """
    check_finite(path, tensors_in(state))
    with replacing(path) as partial, partial.open("wb") as file:
        sink = _Sink(file)
        try:
            torch.save(state, sink)
        except RuntimeError:  # PyTorch's word for whatever went wrong
            if sink.error is None:
                raise
            raise sink.error from None


def load_state(path: Path | str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `save_state` wrote; tensors and plain values only. A ValueError if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:  # PyTorch does not look at checksums
            member = archive.testzip()
        if member is not None:
            raise ValueError(f"the checksum of {member} is wrong")
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
        check_finite(path, tensors_in(state))
    except OSError:
        raise
    except Exception as error:  # whatever a pickle of unknown content leads to
        raise damaged(path, error) from None
    return state


def damaged(path: Path | str, error: Exception) -> ValueError:
    """What to raise for a resume state that is of no use."""
    reason = str(error).strip().split("\n")[0].removeprefix(f"{path}: ") or type(error).__name__
    return ValueError(f"{path}: damaged resume state ({reason}); remove it, and its stage begins anew")


class _Sink:
    """A file that PyTorch writes to, which remembers why that failed."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()
