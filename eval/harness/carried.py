"""Features that are carried to a machine without an encoder, and runs on them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from core.backbones.stored import STORED
from core.data.features import SHARD
from train.pipeline.processes import Processes
from train.pipeline.run import Run
from train.pipeline.settings import Preset


def open_work(preset: Preset, work: Path, device: torch.device) -> Run:
    """Seed 0 of a preset, all its files below `work`."""
    return Run(preset, 0, work / "weights", work, device, processes=Processes(device))


def on_stored_features(preset: Preset) -> Preset:
    """The preset for a machine without its backbone."""
    return replace(preset, backbone=STORED, tiny_clip=None)


def load(run: Run) -> None:
    """Read all data that stages share, so that none of them is charged for it."""
    for name in ("network", "train_batch", "val_support", "val_query", "described"):
        getattr(run, name)


def pack(preset: Preset, target: Path, device: torch.device) -> str:
    """Encode what the stages of a preset read into TARGET/features: the shards of 4,096 images that hold one of a
    training or validation task, and these tasks' answers and questions. Returns what was written, in words."""
    run = open_work(preset, target, device)
    used = {index for task in (*run.train.tasks, *run.val.tasks) for index in task.examples("all")[0]}
    shards = {index // SHARD for index in used}
    rows = sum(min(SHARD, run.dataset.num_images - SHARD * shard) for shard in shards)
    return (
        f"{preset.name}: {rows:,} of {run.dataset.num_images:,} images ({len(shards)} shards with rows {min(used):,} "
        f"to {max(used):,}, those of training and validation tasks), D = {run.backbone.dim}, "
        f"{folder_mib(target / 'features'):.1f} MiB"
    )


def folder_mib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def unpack(source: Path, work: Path) -> None:
    """Copy SOURCE/features, which `pack` wrote, to WORK/features, unless they are there.

    Raises:
        ValueError: there are none.
    """
    if not (source / "features" / "index.json").is_file():
        raise ValueError(f"{source} holds no features; `python eval/gpu_check.py --pack DIR` makes them")
    if not (work / "features" / "index.json").is_file():
        shutil.copytree(source / "features", work / "features", dirs_exist_ok=True)
