"""A run: a preset with a seed, its folders, its random state, its data."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from tqdm import tqdm

from core.backbones import Backbone, embedding_dim, load_backbone
from core.backbones.questions import QuestionEncoder, beside, candidates_part, open_question_encoder
from core.backbones.stored import STORED, StoredBackbone, StoredQuestions, read_index
from core.data.base import BringsBackbone, Dataset
from core.data.features import EarlierBuild, FeatureStore
from core.data.phrasings import Phrasings
from core.data.task_sets import build_task_set
from core.data.tasks import TaskBatch, TaskSet, TaskTable
from core.files import check_writable, replacing
from core.networks.base import BaseNetwork, accuracies
from core.networks.weight_model import Saved
from core.release.manifest import encoder_directory

from .asked import RULES, Asked, other_words
from .processes import Processes
from .settings import Preset
from .start import Start

Weights = torch.Tensor | Callable[[torch.Tensor], torch.Tensor]  # w (T, P), or what makes the rows that are asked for


@dataclass(frozen=True)
class Run:
    """One run of a preset with a seed.

    `output` takes the files of a release (weights, config); `work` everything else: features (shared by seeds),
    adaptations, resume states and the log of metrics.
    """

    preset: Preset
    seed: int
    output: Path
    work: Path
    device: torch.device
    variant: str = ""  # what tells this run from the preset's own: changed settings, fewer descriptors
    origin: dict[str, object] = field(default_factory=dict)  # what chose preset, dataset, settings (`flags.origin_of`)
    start: Start | None = None  # the release that its models begin from
    processes: Processes = field(default_factory=Processes)
    loops: dict[str, tuple[int, float]] = field(default_factory=dict)  # by stage: steps made here, and their seconds
    identities: dict[str, str] = field(default_factory=dict)  # by stage, set by run_all.py: see `graph.identities`
    exact: bool = False  # float32 throughout, also where a GPU would take less precise numbers in training
    limits: dict[str, float] = field(default_factory=dict)  # by stage: seconds for its steps, to measure them

    def changed(self, **others: object) -> Run:
        """This run with other fields, and with what it has loaded: whoever calls this sees to it that nothing loaded
        depends on the fields that change."""
        result = replace(self, **others)
        own = {field.name for field in fields(self)}
        vars(result).update({name: value for name, value in vars(self).items() if name not in own})
        return result

    @property
    def scratch(self) -> Path:
        """Work files of this seed."""
        return self.work / f"seed-{self.seed}"

    def check_folders(self) -> None:
        """An OSError that names a folder of this run in which nothing can be written, before any work is done."""
        for folder in (self.output, self.work, self.work / "features", self.scratch):
            check_writable(folder)

    def rng(self, *key: object) -> torch.Generator:
        """A CPU random state that depends on the seed and `key` alone, so a resumed stage draws what it would have."""
        digest = hashlib.sha256("/".join(map(str, (self.seed, *key))).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def log(self, stage: str, metric: str, value: float) -> None:
        """Append one metric, a finite number, to `metrics.jsonl`: the whole line or, on a full disk, none of it."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        line = {"time": round(time.time(), 1), "stage": stage, "metric": metric, "value": round(float(value), 6)}
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        path = self.scratch / "metrics.jsonl"
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError as error:
                file.truncate(size)
                raise OSError(error.errno, error.strerror, str(path)) from None

    def state_path(self, stage: str) -> Path:
        return self.scratch / f"state{self.variant}" / f"{stage}.pt"

    def begin(self, model: Saved, stage: str) -> bool:
        """Whether a stage's fresh model begins from the run's start, whose parameters and statistics it then has. What
        is kept must not be fitted anew: parameters mean nothing to other statistics."""
        if self.start is None:
            return False
        begun = self.start.begin(model, stage)
        if self.processes.is_main:
            lacks = f"begins afresh: {self.start.directory} lacks it, or what it builds on"
            print(f"{stage}: {f'begins from {self.start.directory}' if begun else lacks}", flush=True)
        return begun

    def begun_from(self, stage: str) -> list[str]:
        """What the result of a stage depends on for its start: the digest of the model that it begins from, if any."""
        return [self.start.models[stage]] if self.start is not None and stage in self.start.models else []

    def autocast(self) -> torch.autocast:
        """Mixed precision for large networks: bfloat16 on a GPU, none on a CPU. Losses and statistics stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda" and not self.exact)

    # -- data ----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def dataset(self) -> Dataset:
        return self.preset.dataset.open()

    @functools.cached_property
    def backbone(self) -> Backbone:
        """The frozen CLIP, or what stands for it where a dataset brings features, or where they were carried here."""
        if isinstance(self.dataset, BringsBackbone):
            return self.dataset.backbone()
        if self.preset.backbone == STORED:
            return StoredBackbone(self.work / "features")
        return load_backbone(self.preset.backbone, self.device)

    @functools.cached_property
    def questions(self) -> QuestionEncoder:
        """What makes task embeddings e."""
        spec = self.preset.questions if self.start is None else {**self.start.questions}
        if self.preset.backbone == STORED and spec["encoder"] != "clip":
            return StoredQuestions(self.work / "features", spec)
        return open_question_encoder(spec, lambda: self.backbone, encoder_directory(self.output), self.device)

    @property
    def dim(self) -> int | None:
        """D without loading the backbone: from features that are there, the dataset, or the backbone's description."""
        index = self.work / "features" / "index.json"
        if index.is_file():
            return read_index(index.parent)["dim"]
        return getattr(self.preset.dataset, "dim", None) or embedding_dim(self.preset.backbone)

    @property
    def train_tasks(self) -> int | None:
        """How many training tasks there are, without opening the dataset; None where its config does not say."""
        config = self.preset.dataset
        return config.train_tasks - config.val_tasks if hasattr(config, "train_tasks") else None

    @functools.cached_property
    def network(self) -> BaseNetwork:
        """The base network, on embeddings of the backbone's size."""
        return self.preset.base_network(self.backbone.dim)

    @functools.cached_property
    def store(self) -> FeatureStore:
        return self.open_store()

    def open_store(self, workers: int | None = None) -> FeatureStore:
        """The features of this run. `workers` processes read and prepare images (default: none on a CPU, which is busy
        with encoding, and up to 8 beside a GPU)."""
        if workers is None:
            workers = min(8, os.cpu_count() or 1) if self.device.type == "cuda" else 0
        self._take_features()
        directory = self.work / "features"
        try:
            return FeatureStore(directory, self.dataset, self.backbone, workers)
        except EarlierBuild as earlier:
            print(f"{str(earlier).partition(';')[0]}; they are encoded anew", flush=True)
            shutil.rmtree(directory)
            self._take_features()
            return FeatureStore(directory, self.dataset, self.backbone, workers)

    def _take_features(self) -> None:
        """Begin with the features that a dataset brings, if they are of this backbone."""
        brought, own = getattr(self.dataset, "features", None), self.work / "features"
        if brought is None or not (brought / "index.json").is_file() or (own / "index.json").is_file():
            return
        if read_index(brought)["backbone"] == self.backbone.identity:
            copy_features(brought, own)

    def task_set(self, *splits: str, prompted: bool = False) -> TaskSet:
        """Tasks of some splits with features, encoding what is not yet on disk."""
        tasks = [task for task in self.dataset.tasks if task.split in splits]
        return build_task_set(
            self.store,
            tasks,
            prompted=prompted,
            questions=self.questions,
            progress=encoding_bar,
        )

    @functools.cached_property
    def train(self) -> TaskSet:
        return self.task_set("train")

    @functools.cached_property
    def val(self) -> TaskSet:
        return self.task_set("val")

    @functools.cached_property
    def train_batch(self) -> TaskTable:
        """All training tasks, on the device; index it by task."""
        return self.train.table().to(self.device)

    @functools.cached_property
    def asked(self) -> Asked:
        """The training questions on the device, as they are and, if the preset says so, in other words."""
        e, share = self.train_batch.question[:, None], self.preset.other_words
        if share:
            forms = other_words([task.question for task in self.train.tasks], Phrasings.read(RULES))
            flat = self.store.questions([form for own in forms for form in own], self.questions)
            forms = flat.unflatten(0, (len(e), -1)).to(e)
            e = torch.cat([e, beside(forms, candidates_part(e, self.questions))], dim=1)
        return Asked(e, share)

    @functools.cached_property
    def val_support(self) -> TaskBatch:
        return self.val.batch(part="support").to(self.device)

    @functools.cached_property
    def val_query(self) -> TaskBatch:
        return self.val.batch(part="query").to(self.device)

    @functools.cached_property
    def val_judged(self) -> TaskBatch:
        """The validation examples that zero-shot weights are judged by: query sets, or all where accuracy is pooled,
        for there are few and no support is needed."""
        return self.val.batch(part="all").to(self.device) if self.preset.pooled else self.val_query

    @functools.cached_property
    def described(self) -> torch.Tensor:
        """Rows (long) of the training tasks whose question is known; which ones is fixed by the seed."""
        order = list(range(len(self.train)))
        random.Random(f"{self.seed}/descriptors").shuffle(order)
        return torch.tensor(sorted(order[: max(2, round(self.preset.descriptors * len(order)))]))

    @functools.cached_property
    def task_weights(self) -> torch.Tensor:
        """How often each training task is drawn, relative to the others (T,), on the CPU with the random state: all
        alike, or as many examples as it has where accuracy is pooled over pairs."""
        examples = self.train_batch.example_mask.sum(1).float().cpu()
        return examples if self.preset.pooled else torch.ones_like(examples)

    def draw_tasks(self, count: int, rng: torch.Generator, rows: torch.Tensor | None = None) -> torch.Tensor:
        """`count` training tasks, among `rows` (default: all)."""
        weights = self.task_weights if rows is None else self.task_weights[rows]
        chosen = drawn(weights, count, rng)
        return chosen if rows is None else rows[chosen]

    def accuracy(self, w: Weights | None, batch: TaskBatch | TaskTable) -> float:
        """Mean over tasks of per-task accuracy of weights w (T, P), or of plain CLIP; over all tasks' examples alike if
        the preset pools them."""
        found = accuracies(self.network, w, batch)
        if not self.preset.pooled:
            return float(found.mean())
        count = batch.example_mask.sum(1)
        return float((found * count).sum() / count.sum())

    def shares(self, batch: TaskBatch | TaskTable) -> torch.Tensor:
        """The share (T,) of each task in `accuracy` on a batch; on the CPU, in double precision."""
        count = batch.example_mask.sum(1).cpu().double()
        count = count if self.preset.pooled else torch.ones_like(count)
        return count / count.sum()


def copy_features(source: Path, own: Path) -> None:
    """Copy a folder of features; the index last, for it says that they are there."""
    shutil.copytree(source, own, dirs_exist_ok=True, ignore=shutil.ignore_patterns("index.json"))
    with replacing(own / "index.json") as partial:
        shutil.copyfile(source / "index.json", partial)


def drawn(weights: torch.Tensor, count: int, rng: torch.Generator) -> torch.Tensor:
    """`count` indices, drawn as often as `weights` (T,) say."""
    if bool((weights == weights[0]).all()):
        return torch.randint(len(weights), (count,), generator=rng)
    return torch.multinomial(weights, count, replacement=True, generator=rng)


def encoding_bar(total: int) -> tqdm:
    """Progress of encoding, with images per second."""
    return tqdm(total=total, desc="encoding images", unit=" images", mininterval=2)
