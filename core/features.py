"""Frozen features on disk: images encoded once, in shards, for whatever trains or evaluates on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.backbone import Pooling
from core.checkpoint import write_json
from core.tasks import Task, TaskSet

SHARD = 4096  # images


class Encoder(Protocol):
    """What `FeatureStore` needs of `core.backbone.Backbone`."""

    identity: dict[str, str]
    dim: int

    def encode_images(self, images: Sequence[Image.Image] | np.ndarray) -> Tensor: ...
    def encode_texts(self, texts: Sequence[str]) -> Tensor: ...
    def encode_questions(self, questions: Sequence[str], pooling: Pooling) -> Tensor: ...


class ImageSource(Protocol):
    """What `FeatureStore` needs of a dataset."""

    identity: dict[str, object]
    num_images: int
    tasks: list[Task]

    def load_arrays(self, indices: Sequence[int]) -> np.ndarray: ...


class FeatureStore:
    """A directory of image features, `index.json` and `images-00000.safetensors`, ... of 4,096 rows each, float16.

    Shards are encoded when first needed and written atomically, so an interrupted run loses at most one, and an
    evaluation on test tasks encodes only theirs.
    """

    def __init__(self, directory: Path | str, dataset: ImageSource, backbone: Encoder) -> None:
        """Open or begin a store.

        Raises:
            ValueError: the directory holds features of another dataset or backbone.
        """
        self.directory, self.dataset, self.backbone = Path(directory), dataset, backbone
        identity = {
            "dataset": dataset.identity,
            "backbone": backbone.identity,
            "images": dataset.num_images,
            "dim": backbone.dim,
            "shard": SHARD,
        }
        identity = json.loads(json.dumps(identity))
        index = self.directory / "index.json"
        if index.is_file():
            stored = json.loads(index.read_text())
            different = [key for key in identity if stored.get(key) != identity[key]]
            if different:
                raise ValueError(
                    f"{self.directory}: made for another {different[0]} ({stored.get(different[0])!r}, now "
                    f"{identity[different[0]]!r}); remove the directory or choose another"
                )
        else:
            write_json(index, identity)

    def images(self, indices: Iterable[int], progress: Callable[[Iterable], Iterable] | None = None) -> Tensor:
        """A table (num_images, D) float16 in which the rows of `indices` are filled; others may be zeros."""
        wanted = sorted({index // SHARD for index in indices})
        table = torch.zeros(self.dataset.num_images, self.backbone.dim, dtype=torch.float16)
        missing = [shard for shard in wanted if not self._path(shard).is_file()]
        for shard in progress(missing) if progress and missing else missing:
            self._encode(shard)
        for shard in wanted:
            rows = load_file(self._path(shard))["features"]
            table[shard * SHARD : shard * SHARD + len(rows)] = rows
        return table

    def _path(self, shard: int) -> Path:
        return self.directory / f"images-{shard:05d}.safetensors"

    def _encode(self, shard: int, batch: int = 256) -> None:
        stop = min((shard + 1) * SHARD, self.dataset.num_images)
        rows = [
            self.backbone.encode_images(self.dataset.load_arrays(range(i, min(i + batch, stop)))).half()
            for i in range(shard * SHARD, stop, batch)
        ]
        temporary = self._path(shard).with_suffix(".tmp")
        save_file({"features": torch.cat(rows)}, temporary)
        temporary.replace(self._path(shard))


def build_task_set(
    store: FeatureStore,
    tasks: Sequence[Task],
    *,
    prompted: bool = False,
    pooling: Pooling = "eos",
    progress: Callable[[Iterable], Iterable] | None = None,
) -> TaskSet:
    """Tasks with their features; equal answer texts share a row.

    Args:
        prompted: embed answers in their question's cloze prompt instead of bare.
        pooling: of questions, see `Backbone.encode_questions`.
    """
    used = {index for task in tasks for index in task.examples("all")[0]}
    images = store.images(used, progress)
    texts = [[task.prompt.format(a) if prompted and task.prompt else a for a in task.answers] for task in tasks]
    row: dict[str, int] = {}
    for text in (text for answers in texts for text in answers):
        row.setdefault(text, len(row))
    return TaskSet(
        tasks=tuple(tasks),
        image_features=images,
        answer_features=store.backbone.encode_texts(list(row)),
        question_features=store.backbone.encode_questions([task.question for task in tasks], pooling),
        answer_rows=tuple(tuple(row[text] for text in answers) for answers in texts),
    )
