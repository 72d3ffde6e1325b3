"""What is computed once: properties, and embeddings of what was embedded lately, for people ask a question again, in
other methods, and of the same pictures."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")


class once(cached_property[T]):
    """A `cached_property` that threads compute once; from Python 3.12 on, `cached_property` itself has no lock.
    Properties that need each other must not do so in a circle."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        super().__init__(compute)
        self._own_lock = RLock()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        with self._own_lock:
            return super().__get__(instance, owner)


class EmbeddingCache:
    """The latest `size` embeddings by key; the one that was used longest ago goes first. Threads may share it."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, Lock()
        self._rows: OrderedDict[Hashable, Tensor] = OrderedDict()

    def __call__(
        self, items: Sequence[T], embed: Callable[[list[T]], Tensor], key: Callable[[T], Hashable] = lambda item: item
    ) -> Tensor:
        """Embeddings (B, D) of items; those that are not here are embedded at once, each of several alike once."""
        keys = [key(item) for item in items]
        with self._lock:
            found = {k: self._rows[k] for k in keys if k in self._rows}
        missing = {k: item for k, item in zip(keys, items, strict=True) if k not in found}
        if missing or not items:
            made = embed(list(missing.values()))
            if not items:
                return made
            found |= zip(missing, [row.clone() for row in made], strict=True)  # a view would keep the whole batch
        with self._lock:
            for k in keys:
                self._rows[k] = found[k]
                self._rows.move_to_end(k)
            while len(self._rows) > self._size:
                self._rows.popitem(last=False)
        return torch.stack([found[k] for k in keys])


def content_of(image: Image.Image) -> Hashable:
    """What tells a picture from others: its pixels."""
    return image.mode, image.size, hashlib.sha256(image.tobytes()).digest()
