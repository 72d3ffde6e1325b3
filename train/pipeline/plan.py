"""What a run will take, stage by stage, before anything starts: time and memory as measured, disk by arithmetic.

Measured costs are those of eval/results/bench.json, which `eval/bench.py --costs` takes from the records of real runs,
shortened ones too, and eval/results/gpu.json, which `eval/gpu_check.py` writes: seconds a step, seconds besides, and
peak memory, by kind of device and by the settings that they depend on. What nobody measured is a question mark.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environment import ROOT
from .run import Run
from .stage import Stage

COSTS = ROOT / "eval" / "results" / "bench.json"
GPU_COSTS = ROOT / "eval" / "results" / "gpu.json"


@dataclass(frozen=True)
class Estimate:
    """Seconds, peak GiB, and GiB added to the disk; None where it is not known. `more` if it is at least so much."""

    seconds: float | None
    memory: float | None
    disk: float | None
    more: bool = False

    @classmethod
    def total(cls, stages: Sequence[Estimate]) -> Estimate:
        """One after the other: times and disk add up, memory is the largest."""
        known = lambda name: [value for stage in stages if (value := getattr(stage, name)) is not None]
        more = len(known("seconds")) < len(stages)
        return cls(sum(known("seconds")), max(known("memory"), default=None), sum(known("disk")), more)

    @property
    def time_text(self) -> str:
        return ("> " if self.more else "") + duration(self.seconds)

    @property
    def memory_text(self) -> str:
        return "?" if self.memory is None else f"{self.memory:.2f} GiB"

    @property
    def disk_text(self) -> str:
        return "?" if self.disk is None else f"{self.disk:.2f} GiB" if self.disk else ""


def duration(seconds: float | None) -> str:
    """For people."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def estimates(run: Run, stages: dict[str, Stage]) -> dict[str, Estimate]:
    """The estimate of every stage."""
    table, result = costs().get(run.device.type, {}), {}
    for name, stage in stages.items():
        measured = table.get(stage.cost_key(run.dim))
        seconds = memory = None
        if measured is not None:
            seconds = measured["rest_seconds"] + measured["step_seconds"] * stage.steps
            memory = measured["memory"]
        result[name] = Estimate(seconds, memory, _disk(run, stage))
    return result


def _disk(run: Run, stage: Stage) -> float | None:
    """GiB that a stage leaves: models and adaptations in half precision. None where the backbone's size or the number
    of tasks is not known before they are read."""
    if stage.values is None:
        return None if stage.name == "features" else 0.0
    dim, tasks = run.dim, run.train_tasks
    if dim is None or tasks is None:
        return None
    return 2 * stage.values(run.preset.base_network(dim), tasks) / 2**30


@functools.cache
def costs() -> dict[str, dict[str, Any]]:
    """Measured costs by kind of device and cost key."""
    result: dict[str, dict[str, Any]] = {}
    for path in (COSTS, GPU_COSTS):
        if path.is_file():
            for kind, entries in _read(path).get("costs", {}).items():
                result.setdefault(kind, {}).update(entries)
    return result


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
