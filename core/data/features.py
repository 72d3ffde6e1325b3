"""Frozen features on disk: images and texts encoded once, for whatever trains or evaluates on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..backbones import Backbone
from ..backbones.questions import QuestionEncoder
from ..backbones.stored import StoredBackbone, note_encoder, read_index
from ..config import config_hash
from ..files import read_json, write_json
from ..tensors import load_tensors, save_tensors
from .tasks import Task

SHARD = 4096  # images
_ARRAYS = 256  # images a batch, made at the backbone's size
_PICTURES = 64  # read from files: 64 of 336 pixels are 87 MB, and every worker process holds a few batches


class ImageSource(Protocol):
    """What `FeatureStore` needs of a dataset: `load_image(index)`, or `load_arrays(indices)` for all pixels at once;
    `pixels`, a dictionary, if these depend on something besides `identity`."""

    identity: dict[str, object]
    num_images: int
    tasks: list[Task]


class Progress(Protocol):
    """Counts images; `tqdm` is one."""

    def update(self, n: int) -> Any: ...
    def close(self) -> None: ...


class EarlierBuild(ValueError):
    """Features of a dataset of pictures that was built anew since, or of pictures as they were read before."""


class FeatureStore:
    """A directory of features: `index.json`, `images-00000.safetensors`, ... of 4,096 rows each, float16, and
    `texts-HASH.safetensors`, one list of texts each, float32.

    Shards are encoded when first needed and written atomically, so an interrupted run loses at most one, and an
    evaluation on test tasks encodes only theirs. Images that cannot be read are listed in `unreadable.json`; their
    rows are zeros, and the next store tries them again. The index records what everything depends on: dataset (with
    its prompts), backbone and transform, and of pictures in files how they become pixels. A `StoredBackbone` reads what
    is there: nothing is drawn or encoded.
    """

    def __init__(self, directory: Path | str, dataset: ImageSource, backbone: Backbone, workers: int = 0) -> None:
        """Open or begin a store. `workers` processes prepare pixels; with 0, this one does.

        Raises:
            EarlierBuild: the directory holds features of an earlier build of the dataset.
            ValueError: the directory holds features of another dataset or backbone, or its index is damaged.
        """
        self.directory, self.dataset, self.backbone, self.workers = Path(directory), dataset, backbone, workers
        self._tried_again = isinstance(backbone, StoredBackbone)
        index = self.directory / "index.json"
        stored = read_index(self.directory) if index.is_file() else None
        carried = isinstance(backbone, StoredBackbone) and stored is not None
        identity = {
            "dataset": (stored["dataset"] if carried else getattr(dataset, "pixels", {})) | dataset.identity,
            "backbone": backbone.identity,
            "images": dataset.num_images,
            "dim": backbone.dim,
            "shard": SHARD,
        }
        if not hasattr(dataset, "load_arrays"):
            identity["reading"] = stored.get("reading") if carried else _reading()
        identity = json.loads(json.dumps(identity))
        if stored is not None:
            different = [key for key in identity if stored.get(key) != identity[key]]
            if different:
                rebuilt = "reading" in identity and stored["dataset"].get("name") == dataset.identity["name"]
                kind = (
                    EarlierBuild if rebuilt and {"dataset", "images", "reading"}.issuperset(different) else ValueError
                )
                raise kind(
                    f"{self.directory}: made for another {different[0]} "
                    f"({_difference(stored.get(different[0]), identity[different[0]])}); "
                    "remove the directory or choose another"
                )
        else:
            write_json(index, identity)

    @property
    def unreadable(self) -> dict[int, str]:
        """Images that could not be read when their shard was encoded, with the reason; zeros stand for them."""
        path = self.directory / "unreadable.json"
        if not path.is_file():
            return {}
        anew = f"remove {self.directory}, and the next run encodes everything again"
        listed = read_json(path, dict, anew)
        if not all(index.isdecimal() for index in listed):
            raise ValueError(f"{path}: damaged (its keys are no numbers of images); {anew}")
        return {int(index): reason for index, reason in listed.items()}

    def images(self, indices: Iterable[int], progress: Callable[[int], Progress] | None = None) -> Tensor:
        """A table (num_images, D) float16 in which the rows of `indices` are filled; others may be zeros.

        `progress` is called with the number of images to encode, if there are any.
        """
        wanted = sorted({index // SHARD for index in indices})
        table = torch.zeros(self.dataset.num_images, self.backbone.dim, dtype=torch.float16)
        missing = [shard for shard in wanted if not self._path(shard).is_file()]
        if not self._tried_again:
            self._try_again()
        if missing:
            self._encode(missing, progress)
        for shard in wanted:
            place = table[shard * SHARD : (shard + 1) * SHARD]
            place[:] = self._load(self._path(shard), *place.shape)
        return table

    def put_images(self, table: Tensor) -> None:
        """Store rows (num_images, D) that were encoded elsewhere."""
        if table.shape != (self.dataset.num_images, self.backbone.dim):
            expected = (self.dataset.num_images, self.backbone.dim)
            raise ValueError(f"image features of shape {tuple(table.shape)}; expected {expected}")
        for shard, rows in enumerate(table.half().split(SHARD)):
            self._save(self._path(shard), rows)

    def answers(self, answers: Sequence[str]) -> Tensor:
        """Unit embeddings (rows, D), float32, of answers as they are to be read, bare or in their prompts."""
        return self._texts(answers, lambda: self.backbone.encode_texts(answers), "answers")

    def questions(self, questions: Sequence[str], encoder: QuestionEncoder) -> Tensor:
        """Embeddings (rows, Q), float32, of questions."""
        note_encoder(self.directory, encoder.identity)
        return self._texts(questions, lambda: encoder.encode(questions), encoder.identity)

    def candidates(self, answers: Sequence[Sequence[str]], encoder: QuestionEncoder) -> Tensor:
        """Embeddings (rows, E - Q), float32, of sets of candidate answers; (rows, 0) if the encoder reads none."""
        encode = lambda: encoder.candidates(answers)
        return self._texts(answers, encode, encoder.identity) if encoder.reads_answers else encode()

    def _texts(self, texts: Sequence[Any], encode: Callable[[], Tensor], way: Any) -> Tensor:
        path = self.directory / f"texts-{config_hash(list(texts), way)}.safetensors"
        if not path.is_file():
            self._save(path, encode())
        return self._load(path, len(texts))

    def _path(self, shard: int) -> Path:
        return self.directory / f"images-{shard:05d}.safetensors"

    def _save(self, path: Path, rows: Tensor) -> None:
        save_tensors(path, {"features": rows})

    def _load(self, path: Path, count: int, size: int | None = None) -> Tensor:
        rows = load_tensors(path, "features")["features"]
        if rows.ndim != 2 or rows.shape != (count, size or rows.shape[1]):
            raise ValueError(f"{path}: damaged (shape {tuple(rows.shape)}, not {(count, size or 'any')}); remove it")
        return rows

    def _try_again(self) -> None:
        """Read what could not be read when its shard was encoded: its owner may have mended it since."""
        self._tried_again = True
        unreadable = self.unreadable
        for index in [index for index in unreadable if self._path(index // SHARD).is_file()]:
            try:
                pixels, reasons = _Pixels(self.dataset, self.backbone.transform, [range(index, index + 1)])[0]
            except ValueError:  # the pictures are not at hand, which their features do without
                return
            if reasons:
                continue
            shard = index // SHARD
            path = self._path(shard)
            rows = self._load(path, min(SHARD, self.dataset.num_images - shard * SHARD))
            rows[index % SHARD] = self.backbone.encode_images(pixels)[0].half()
            self._save(path, rows)
            del unreadable[index]
            write_json(self.directory / "unreadable.json", {str(i): reason for i, reason in unreadable.items()})

    def _encode(self, shards: Sequence[int], progress: Callable[[int], Progress] | None) -> None:
        """Encode and write shards, in order, from one stream of batches."""
        if isinstance(self.backbone, StoredBackbone):  # before anything is drawn
            raise self.backbone.lacks(f"images, of {self._path(shards[0]).name}")
        stops = {shard: min((shard + 1) * SHARD, self.dataset.num_images) for shard in shards}
        size = _ARRAYS if hasattr(self.dataset, "load_arrays") else _PICTURES
        batches = [
            range(i, min(i + size, stop)) for shard, stop in stops.items() for i in range(shard * SHARD, stop, size)
        ]
        loader = DataLoader(
            _Pixels(self.dataset, getattr(self.backbone, "transform", None), batches),
            batch_size=None,
            num_workers=min(self.workers, len(batches)),
            generator=torch.Generator(),  # else it takes a number from the global one
        )
        bar = progress(sum(map(len, batches))) if progress else None
        rows: list[Tensor] = []
        failed: dict[int, str] = {}
        for batch, (pixels, reasons) in zip(batches, loader, strict=True):
            failed |= reasons
            encoded = torch.zeros(len(batch), self.backbone.dim, dtype=torch.float16)
            readable = [i for i, index in enumerate(batch) if index not in reasons]
            if readable:
                encoded[readable] = self.backbone.encode_images(pixels).half()
            rows.append(encoded)
            if bar:
                bar.update(len(batch))
            shard = batch.start // SHARD
            if batch.stop == stops[shard]:
                count = stops[shard] - shard * SHARD
                if len(failed) == count >= min(_PICTURES, self.dataset.num_images):  # a disk is away
                    raise ValueError(f"none of {count} images can be read: {failed[batch.start]}")
                if failed:  # first, so that no shard is without its list
                    everything = {**self.unreadable, **failed}
                    write_json(self.directory / "unreadable.json", {str(i): everything[i] for i in sorted(everything)})
                self._save(self._path(shard), torch.cat(rows))
                rows, failed = [], {}
        if bar:
            bar.close()


def _reading() -> str:
    """How pictures become pixels, by the module that reads them; it needs Pillow, which stored features do without."""
    from .images import READING

    return READING


def _difference(stored: Any, now: Any) -> str:
    """Two unlike values in words; of dictionaries, what differs."""
    if isinstance(stored, dict) and isinstance(now, dict):
        keys = [key for key in {**stored, **now} if stored.get(key) != now.get(key)]
        return ", ".join(f"{key} {stored.get(key)!r}, now {now.get(key)!r}" for key in keys)
    return f"{stored!r}, now {now!r}"


class _Pixels(torch.utils.data.Dataset):
    """Batches of an image source, ready for the encoder, with the reason for each image that cannot be read."""

    def __init__(self, source: ImageSource, transform: Callable | None, batches: Sequence[range]) -> None:
        self.source, self.transform, self.batches = source, transform, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> tuple[np.ndarray | Tensor, dict[int, str]]:
        if hasattr(self.source, "load_arrays"):
            return self.source.load_arrays(self.batches[i]), {}
        from .images import PictureError, as_shown

        pixels, reasons = [], {}
        for index in self.batches[i]:
            try:
                pixels.append(self.transform(as_shown(self.source.load_image(index))))
            except (OSError, PictureError) as error:
                reasons[index] = str(error)
        return torch.stack(pixels) if pixels else torch.empty(0), reasons
