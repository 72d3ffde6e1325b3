"""What every stage script shares: the run it belongs to (preset, seed, folders), its data, resumable steps, a log."""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from core.backbones import Backbone, load_backbone
from core.config import config_hash, override
from core.data import BringsBackbone, Dataset, open_dataset
from core.data.features import FeatureStore, build_task_set
from core.data.meta_vqa import MetaVQAConfig
from core.data.tasks import TaskBatch, TaskSet, TaskTable
from core.networks.adapter import adapter_logits, task_accuracy
from core.release.checkpoint import load_state, save_state
from train.pipeline.processes import Processes
from train.presets import PRESET_NAMES, Preset, get_preset, shortened

_STATE_SECONDS = 20.0
_VALUES_AT_ONCE = 2**26  # of image features, in an evaluation: 256 MB, and a few times that for what comes of them

Weights = torch.Tensor | Callable[[torch.Tensor], torch.Tensor]  # w (T, P), or what makes the rows that are asked for


class Stateful(Protocol):
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict) -> Any: ...


class RunningMean:
    """Exponential mean of a noisy loss. Part of a stage's state, so that a resumed stage reports the same number."""

    def __init__(self, decay: float = 0.99, value: float = 1.0) -> None:
        self.decay, self.value = decay, value

    def update(self, x: float) -> None:
        self.value = self.decay * self.value + (1 - self.decay) * x

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.value = state["value"]


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
    flags: tuple[str, ...] = ()  # what chose preset, dataset and settings, to say how a release was made
    processes: Processes = field(default_factory=Processes)
    loops: dict[str, tuple[int, float]] = field(default_factory=dict)  # by stage: steps made here, and their seconds
    identities: dict[str, str] = field(default_factory=dict)  # by stage, set by run_all.py: see `graph.identities`

    @property
    def scratch(self) -> Path:
        """Work files of this seed."""
        return self.work / f"seed-{self.seed}"

    def generator(self, *key: object) -> torch.Generator:
        """A CPU generator that depends on the seed and `key` alone, so a resumed stage draws what it would have."""
        digest = hashlib.sha256("/".join(map(str, (self.seed, *key))).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def log(self, stage: str, metric: str, value: float) -> None:
        """Append one metric to `metrics.jsonl`."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        line = {"time": round(time.time(), 1), "stage": stage, "metric": metric, "value": round(float(value), 6)}
        with (self.scratch / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def steps(self, stage: str, total: int, state: Mapping[str, Stateful]) -> Iterator[tuple[int, torch.Generator]]:
        """Count a stage's steps, each with a generator of its own, and survive being killed.

        `state` (model, optimizer, EMA ...) is saved every 20 seconds, a large one less often, and restored at the
        start. The global random state is reset each step too, for dropout. So a killed and resumed stage ends exactly
        where it would have. Nothing is saved after the last step: callers report the last step's loss, so a resumed
        stage must take it.
        """
        path = self.state_path(stage)
        # A state of other settings, inputs or formats is no state of this run.
        key = config_hash(self.preset, self.seed, total, self.identities.get(stage))
        start = 0
        if path.is_file():
            saved = load_state(path, self.device)
            if saved["key"] == key:
                for name, item in state.items():
                    item.load_state_dict(saved["state"][name])
                start = saved["step"]
        began = time.monotonic()
        save_at = began + _STATE_SECONDS
        bar = {"initial": start, "total": total, "disable": not self.processes.is_main}
        for step in tqdm(range(start, total), stage, mininterval=2, leave=False, **bar):
            generator = self.generator(stage, step)
            # Dropout, and noise on questions: each process's own, and apart from what the generator draws.
            torch.manual_seed(self.generator(stage, step, "global", self.processes.rank).initial_seed())
            yield step, generator
            if self.processes.is_main and step + 1 < total and time.monotonic() >= save_at:
                saving = time.monotonic()
                save_state(path, {"step": step + 1, "key": key, "state": {n: i.state_dict() for n, i in state.items()}})
                now = time.monotonic()
                save_at = now + max(_STATE_SECONDS, 20 * (now - saving))  # gigabytes are not written all the time
        self.loops[stage] = (total - start, time.monotonic() - began)

    def state_path(self, stage: str) -> Path:
        return self.scratch / f"state{self.variant}" / f"{stage}.pt"

    def autocast(self) -> torch.autocast:
        """Mixed precision for large networks: bfloat16 on a GPU, none on a CPU. Losses and statistics stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    # -- data ----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def dataset(self) -> Dataset:
        return open_dataset(self.preset.dataset)

    @functools.cached_property
    def backbone(self) -> Backbone:
        """The frozen CLIP, or what stands for it where a dataset brings features."""
        if isinstance(self.dataset, BringsBackbone):
            return self.dataset.backbone()
        return load_backbone(self.preset.backbone, self.device)

    @functools.cached_property
    def store(self) -> FeatureStore:
        return open_store(self)

    def task_set(self, *splits: str, prompted: bool = False) -> TaskSet:
        """Tasks of some splits with features, encoding what is not yet on disk."""
        tasks = [task for task in self.dataset.tasks if task.split in splits]
        return build_task_set(
            self.store,
            tasks,
            prompted=prompted,
            pooling=self.preset.question_pooling,
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
    def val_support(self) -> TaskBatch:
        return self.val.batch(part="support").to(self.device)

    @functools.cached_property
    def val_query(self) -> TaskBatch:
        return self.val.batch(part="query").to(self.device)

    @functools.cached_property
    def described(self) -> torch.Tensor:
        """Rows (long) of the training tasks whose question is known; which ones is fixed by the seed."""
        order = list(range(len(self.train)))
        random.Random(f"{self.seed}/descriptors").shuffle(order)
        return torch.tensor(sorted(order[: max(2, round(self.preset.descriptors * len(order)))]))

    @torch.no_grad()
    def accuracy(self, w: Weights | None, batch: TaskBatch | TaskTable) -> float:
        """Mean over tasks of per-task accuracy of weights w (T, P), or of plain CLIP. So many tasks at once as fit."""
        T, N = batch.labels.shape
        result = []
        at_once = max(1, _VALUES_AT_ONCE // (N * self.preset.adapter.dim))
        for rows in torch.arange(T, device=batch.labels.device).split(at_once):
            tasks = batch[rows].trimmed()
            chosen = w if w is None else w(rows) if callable(w) else w[rows]
            result.append(task_accuracy(adapter_logits(chosen, tasks, self.preset.adapter), tasks))
        return float(torch.cat(result).mean())


def parser(doc: str, epilog: str = "") -> argparse.ArgumentParser:
    """The flags that all stage scripts have."""
    result = argparse.ArgumentParser(
        description=doc, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--preset", default="emoji", choices=PRESET_NAMES, help="sizes and schedules (default: emoji)")
    result.add_argument(
        "--data", type=Path, metavar="DIR", help="a dataset built by train/make_data.py, instead of the preset's own"
    )
    result.add_argument("--seed", type=int, default=0, help="seed of everything but the dataset (default: 0)")
    result.add_argument(
        "--descriptors", type=float, default=1.0, help="share of training tasks whose question is known (default: 1)"
    )
    result.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change settings of the preset, as named in train/presets.py: --set hvae_training.steps=300",
    )
    result.add_argument(
        "--steps-share",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="make only this share of every stage's training steps, to try a run out (default: 1)",
    )
    result.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    result.add_argument(
        "--output", type=Path, help="release files (default: weights/PRESET for seed 0 of emoji, else under --work)"
    )
    result.add_argument("--work", type=Path, help="work files: features, resume states, metrics (default: runs/PRESET)")
    return result


def release_directory(preset: str, seed: int, variant: str, work: Path) -> Path:
    """Where a run's release goes unless --output says otherwise."""
    if preset == "emoji" and seed == 0 and not variant:
        return Path("weights") / preset
    return work / f"seed-{seed}" / f"weights{variant}"


def variant(changed: str, descriptors: float) -> str:
    """What is added to the names of a run's folders: for changed settings, and for a share of descriptors below 1."""
    return changed + (f"-{100 * descriptors:g}" if descriptors < 1.0 else "")


def open_run(args: argparse.Namespace, processes: Processes | None = None) -> Run:
    """The run that parsed flags describe; a ValueError for a bad setting, or a device that does not exist. `processes`
    are those of another run in this process, if there was one."""
    if not 0.0 < args.descriptors <= 1.0:
        raise ValueError(f"--descriptors {args.descriptors}; allowed: more than 0, up to 1")
    base = preset_with_data(args.preset, args.data)
    preset = override(shortened(base, args.steps_share), args.set)
    changed = "" if preset == base else f"-{config_hash(preset)[:8]}"
    preset = replace(preset, descriptors=args.descriptors)
    suffix = variant(changed, args.descriptors)
    work = args.work or Path("runs") / preset.name
    default = release_directory(preset.name, args.seed, suffix, work)
    flags = ["--preset", args.preset]
    flags += ["--data", str(args.data)] if args.data else []
    flags += ["--steps-share", str(args.steps_share)] if args.steps_share != 1.0 else []
    flags += ["--set", *args.set] if args.set else []
    processes = processes or Processes(usable_device(args.device))
    if processes.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
    return Run(
        preset, args.seed, args.output or default, work, processes.device, suffix, tuple(flags), processes=processes
    )


def preset_with_data(name: str, directory: Path | None) -> Preset:
    """The preset called `name`, its dataset replaced by the one built in `directory`; a ValueError if there is none.

    It is named after both, so that its work files and releases lie apart from the preset's own. What a built dataset
    holds is pinned, so that stages see when it was built anew.
    """
    preset = get_preset(name)
    if directory is not None:
        own = MetaVQAConfig.at(directory)
        return replace(preset, name=f"{name}-{directory.resolve().name}", dataset=own)
    if isinstance(preset.dataset, MetaVQAConfig):
        return replace(preset, dataset=preset.dataset.pinned())
    return preset


def open_store(run: Run, workers: int | None = None) -> FeatureStore:
    """The features of a run. `workers` processes read and prepare images (default: none on a CPU, which is busy with
    encoding, and up to 8 beside a GPU)."""
    if workers is None:
        workers = min(8, os.cpu_count() or 1) if run.device.type == "cuda" else 0
    return FeatureStore(run.work / "features", run.dataset, run.backbone, workers)


def encoding_bar(total: int) -> tqdm:
    """Progress of encoding, with images per second."""
    return tqdm(total=total, desc="encoding images", unit=" images", mininterval=2)


def usable_device(name: str) -> torch.device:
    """The device called `name`; a ValueError if there is none here."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name!r} is not usable here: {error}") from None
    return device


def commit() -> str:
    """The repository's commit, with a mark if code differs from it; "unknown" outside git."""
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno", "--", "*.py", "requirements.txt"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+changes" if dirty else "")
