"""Simulated features at the scale of Meta-VQA, for timing and memory. Never a result about vision.

Questions, answers and splits are Meta-VQA's own if a directory with its published split files is given, else an index
drawn with the same statistics: 870 + 373 tasks, about 58 support and 26 query examples and 9 answers each, with the
same long tails. Images are features from the start, there are no pixels: each is a sum of facts, one for every task it
occurs in, read through a map that is part shared with the texts, part the kind of question's and part the task's own.
So plain zero-shot sees a part of an answer, a question tells more and examples tell most. The strengths are set such
that zero-shot is near 45% and few-shot near 60%, as in the paper.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones import Pooling
from ..config import to_dict
from .base import DatasetConfig
from .tasks import Task

VERSION = "simulated v1"
_FACTS = 64  # dimensions of what an answer means
_IMAGES = 64_000  # that a drawn index points into; a task's images are distinct, tasks share some
_KINDS = 60  # of questions in a drawn index
_WORDS = 400  # answers that one kind of question can have
# Sizes of what an image is the sum of; the crowding of CLIP's embeddings is one vector that all images share.
_COMMON, _NOISE = 1.0, 0.9
_SHARED, _KIND, _OWN = 0.052, 0.2, 0.2  # of a fact: read by the texts' own map, by the kind's, by the task's


@dataclass(frozen=True)
class SimulatedConfig(DatasetConfig):
    """Size of the dataset; `splits`, a directory with meta_train.json and meta_test.json, replaces the drawn index."""

    train_tasks: int = 870
    val_tasks: int = 87
    test_tasks: int = 373
    dim: int = 768
    seed: int = 0
    splits: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.val_tasks < self.train_tasks:
            raise ValueError(f"val_tasks {self.val_tasks} must lie between 0 and train_tasks {self.train_tasks}")
        if self.dim < 1 or self.test_tasks < 1:
            raise ValueError(f"dim {self.dim} and test_tasks {self.test_tasks} must be positive")

    def open(self) -> SimulatedVQA:
        return SimulatedVQA(self)


class SimulatedVQA:
    """The dataset: `tasks`, and features by image. Everything is a pure function of the config."""

    def __init__(self, config: SimulatedConfig | None = None) -> None:
        self.config = config or SimulatedConfig()
        if self.config.splits:
            self.tasks, self.num_images = _published(self.config)
        else:
            self.tasks, self.num_images = _drawn(self.config), _IMAGES

    @property
    def identity(self) -> dict[str, object]:
        """What labels and features depend on; with split files, their content and not their place."""
        config = to_dict(self.config)
        if self.config.splits:
            config["splits"] = hashlib.sha256(repr(self.tasks).encode()).hexdigest()[:16]
        return {"name": VERSION, "config": config}

    def backbone(self) -> SimulatedBackbone:
        """What stands for the backbone: see `core.data.base.BringsBackbone`."""
        return SimulatedBackbone(self.config.dim, self.config.seed)

    def load_arrays(self, indices: Sequence[int]) -> Tensor:
        """Features (len(indices), D), which `SimulatedBackbone.encode_images` passes on."""
        return self._features[torch.as_tensor(list(indices), dtype=torch.long)]

    @functools.cached_property
    def _features(self) -> Tensor:
        """All images (num_images, D), unit, float16."""
        backbone, dim = self.backbone(), self.config.dim
        rng = _rng(self.config.seed, "images")
        x = torch.randn(self.num_images, dim, generator=rng).mul_(_NOISE / dim**0.5)
        x += _COMMON * F.normalize(torch.randn(dim, generator=rng), dim=0)
        for task in self.tasks:
            meaning = backbone.meanings(task.answers)  # (C, facts)
            own = _map(self.config.seed, dim, "task", task.question)
            read = _SHARED * backbone.text_map + _KIND * backbone.kind_map(task.question) + _OWN * own  # (D, facts)
            images, labels = (torch.tensor(row) for row in task.examples("all"))
            x.index_add_(0, images, (meaning @ read.mT)[labels])
        return F.normalize(x, dim=-1).half()


class SimulatedBackbone:
    """Stands for a CLIP whose images are features already; texts get theirs from their own words.

    An answer's is the map that all texts share, of what the answer means. A question's tells its kind, which is its
    first three words, and itself.
    """

    logit_scale = 100.0  # as CLIP's

    def __init__(self, dim: int, seed: int) -> None:
        self.dim, self.seed = dim, seed
        self.identity = {"model": VERSION, "dim": str(dim), "seed": str(seed)}
        self.text_map = _map(seed, dim, "texts")
        self._kind_maps: dict[str, Tensor] = {}

    def kind_map(self, question: str) -> Tensor:
        """How images show the answers to this kind of question, (D, facts)."""
        kind = _kind(question)
        if kind not in self._kind_maps:
            self._kind_maps[kind] = _map(self.seed, self.dim, "kind", kind)
        return self._kind_maps[kind]

    def meanings(self, answers: Sequence[str]) -> Tensor:
        """(len(answers), facts), unit."""
        rows = [torch.randn(_FACTS, generator=_rng(self.seed, "answer", answer)) for answer in answers]
        return F.normalize(torch.stack(rows), dim=-1)

    def encode_images(self, images: Tensor) -> Tensor:
        return images.float()

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings (B, D) of answers."""
        common = F.normalize(torch.randn(self.dim, generator=_rng(self.seed, "text")), dim=0)
        return F.normalize(common + self.meanings(texts) @ self.text_map.mT, dim=-1)

    def encode_questions(self, questions: Sequence[str], pooling: Pooling = "eos") -> Tensor:
        """Unit embeddings (B, D): half what all questions share, the rest their kind and their own."""
        draw = lambda *key: F.normalize(torch.randn(self.dim, generator=_rng(self.seed, *key)), dim=0)
        common = draw("question")
        rows = [common + 0.7 * draw("question", _kind(q)) + 0.5 * draw("question", q) for q in questions]
        return F.normalize(torch.stack(rows), dim=-1)


def _kind(question: str) -> str:
    return " ".join(question.lower().split()[:3])


def _rng(*key: object) -> torch.Generator:
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _map(seed: int, dim: int, *key: object) -> Tensor:
    """A random map (D, facts) that keeps lengths, on average."""
    return torch.randn(dim, _FACTS, generator=_rng(seed, "map", *key)) / dim**0.5


def _drawn(config: SimulatedConfig) -> list[Task]:
    """An index with the statistics of Meta-VQA: sizes are 21 plus a log-normal, answers follow sizes loosely, and
    within a task frequencies fall like 1 / rank."""
    rng = random.Random(f"{config.seed}/index")
    splits = ["val"] * config.val_tasks + ["train"] * (config.train_tasks - config.val_tasks)
    rng.shuffle(splits)
    tasks = []
    for i, split in enumerate(splits + ["test"] * config.test_tasks):
        total = min(1780, 21 + round(rng.lognormvariate(3.04, 1.55)))
        count = round(7 * (total / 42) ** 0.37 * rng.lognormvariate(0, 0.445))
        count = max(2, min(count, total // 2, 203))
        kind = rng.randrange(_KINDS)
        words = rng.sample(range(_WORDS), count)
        extra = rng.choices(range(count), [1 / (rank + 1) for rank in range(count)], k=total - 2 * count)
        labels = sorted([*range(count), *range(count), *extra])  # every answer at least twice
        images = rng.sample(range(_IMAGES), total)
        parts: dict[str, tuple[list[int], list[int]]] = {"support": ([], []), "query": ([], [])}
        for label in range(count):
            mine = [image for image, given in zip(images, labels, strict=True) if given == label]
            n_support = round(0.7 * len(mine))  # per answer, as in Meta-VQA
            for j, image in enumerate(mine):
                part = parts["support" if j < n_support else "query"]
                part[0].append(image)
                part[1].append(label)
        tasks.append(
            Task(
                question=f"What kind-{kind:02d} is thing-{i:04d}?",
                answers=tuple(f"answer-{kind:02d}-{word:03d}" for word in words),
                support=tuple(map(tuple, parts["support"])),
                query=tuple(map(tuple, parts["query"])),
                split=split,
                family=f"kind-{kind:02d}",
            )
        )
    return tasks


def _published(config: SimulatedConfig) -> tuple[list[Task], int]:
    """Tasks of the published split files, and the number of their images."""
    index: dict[str, int] = {}
    tasks = []
    for name, count in (("meta_train.json", config.train_tasks), ("meta_test.json", config.test_tasks)):
        path = Path(config.splits) / name
        if not path.is_file():
            raise ValueError(f"splits {config.splits!r}: no {name} there; leave it empty to draw an index instead")
        entries = list(json.loads(path.read_text(encoding="utf-8")).items())[:count]
        if len(entries) < count:
            raise ValueError(f"{path}: {len(entries)} tasks, {count} wanted")
        validation = set()
        if name == "meta_train.json":
            validation = set(random.Random(f"{config.seed}/validation").sample(range(count), config.val_tasks))
        for i, (question, entry) in enumerate(entries):
            label = {answer: k for k, answer in enumerate(entry["answers"])}
            parts = [
                (
                    tuple(index.setdefault(image, len(index)) for image, _ in entry[part]),
                    tuple(label[answer] for _, answer in entry[part]),
                )
                for part in ("train", "test")
            ]
            split = "test" if name == "meta_test.json" else "val" if i in validation else "train"
            tasks.append(Task(question, tuple(entry["answers"]), *parts, split=split, family=_kind(question)))
    return tasks, len(index)
