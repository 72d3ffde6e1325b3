"""What frozen encoders share: a digest that names their weights, and arithmetic that a GPU and a CPU do alike."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


def digest_of(state: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 of tensors with their names, in the order of names, and of a text that belongs to them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    digest.update(text.encode())
    return digest.hexdigest()


class _Precise:
    """How many threads want no TF32 now, and what held before the first came: the switch is one for the process."""

    lock = threading.Lock()
    inside = 0
    before = ("highest", False)


@contextmanager
def no_tf32() -> Iterator[None]:
    """No TF32 inside, which a GPU else uses for convolutions, and for products where training has allowed it: features
    of a GPU and of a CPU are then the same up to rounding. Threads may overlap: the last one out restores."""
    with _Precise.lock:
        if _Precise.inside == 0:
            _Precise.before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
        _Precise.inside += 1
    try:
        yield
    finally:
        with _Precise.lock:
            _Precise.inside -= 1
            if _Precise.inside == 0:
                torch.set_float32_matmul_precision(_Precise.before[0])
                torch.backends.cudnn.allow_tf32 = _Precise.before[1]
