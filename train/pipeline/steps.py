"""The steps of a stage: counted, reproducible one by one, and resumed where a killed run was."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from tqdm import tqdm

from core.config import config_hash
from core.release.checkpoint import load_state, save_state

from .run import Run

_STATE_SECONDS = 20.0
_WARM_UP = 3  # steps that find their kernels and take their memory


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


def training_steps(
    run: Run, stage: str, total: int, state: Mapping[str, Stateful]
) -> Iterator[tuple[int, torch.Generator]]:
    """Count a stage's steps, each with a random state of its own, and survive being killed.

    `state` (model, optimizer, EMA ...) is saved every 20 seconds, a large one less often, and restored at the start.
    The global random state is reset each step too, for dropout. So a killed and resumed stage ends exactly where it
    would have. Nothing is saved after the last step: callers report the last step's loss, so a resumed stage must take
    it. On a GPU, matrices of float32 are multiplied in TF32 while the steps last, and nowhere else.

    `run.loops` says afterwards how many steps were made here and how long they took. Where `run.limits` ends them
    early, those that warm up are not among them.
    """
    path = run.state_path(stage)
    # A state of other settings, inputs or formats is no state of this run.
    key = config_hash(run.preset, run.seed, total, run.identities.get(stage), *run.begun_from(stage))
    start = 0
    if path.is_file():
        saved = load_state(path, run.device)
        if saved["key"] == key:
            for name, item in state.items():
                item.load_state_dict(saved["state"][name])
            start = saved["step"]
    entered = began = time.monotonic()
    save_at = began + _STATE_SECONDS
    limit, warm, made = run.limits.get(stage, math.inf), 0, 0
    bar = {"initial": start, "total": total, "disable": not run.processes.is_main}
    with _tensor_cores(run.device, not run.exact):
        for step in tqdm(range(start, total), stage, mininterval=2, leave=False, **bar):
            # Dropout: each process's own, and apart from what the step's random state draws.
            torch.manual_seed(run.rng(stage, step, "global", run.processes.rank).initial_seed())
            yield step, run.rng(stage, step)
            made += 1
            if limit < math.inf:
                if made == _WARM_UP < total - start:
                    warm, began = made, settled(run.device)
                if made > _WARM_UP and time.monotonic() - entered >= limit:
                    break
            if run.processes.is_main and step + 1 < total and time.monotonic() >= save_at:
                saving = time.monotonic()
                save_state(path, {"step": step + 1, "key": key, "state": {n: i.state_dict() for n, i in state.items()}})
                now = time.monotonic()
                save_at = now + max(_STATE_SECONDS, 20 * (now - saving))  # gigabytes are not written all the time
    run.loops[stage] = (made - warm, settled(run.device) - began)


def settled(device: torch.device) -> float:
    """The time, in seconds, at which all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


@contextlib.contextmanager
def _tensor_cores(device: torch.device, wanted: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda" and wanted:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
