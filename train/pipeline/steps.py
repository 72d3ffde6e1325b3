"""The steps of a stage: counted, reproducible one by one, resumed where a killed run was, and stopped where numbers are
no longer finite."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from core.config import config_hash
from core.release.state import damaged, load_state, save_state
from core.tensors import not_finite, tensors_in

from .run import Run
from .settings import smaller

_STATE_SECONDS = 20.0
_STATE_SHARE = 20  # times as long as a saving takes: gigabytes are not written all the time
_LOOK_EVERY = 50  # steps, on a GPU: it need not be waited for at each
_WARM_UP = 3  # steps that find their kernels and take their memory


class Stateful(Protocol):
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict) -> Any: ...


class RunningMean:
    """Exponential mean of a noisy loss. Part of a stage's state, so that a resumed stage reports the same number."""

    def __init__(self, decay: float = 0.99) -> None:
        self.decay, self.total, self.weight = decay, 0.0, 0.0

    def update(self, x: float) -> None:
        self.total = self.decay * self.total + (1 - self.decay) * x
        self.weight = self.decay * self.weight + (1 - self.decay)

    @property
    def value(self) -> float:
        """The mean of what was seen, weighted by `decay`; NaN of nothing."""
        return self.total / self.weight if self.weight else math.nan

    def state_dict(self) -> dict[str, float]:
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.total, self.weight = state["total"], state["weight"]


class Watch:
    """Stops a stage whose numbers are no longer finite. Called at the end of every step, with the training tasks that
    it drew and what it computed; a GPU's numbers stay there until several steps are looked at together."""

    def __init__(
        self, run: Run, stage: str, total: int, state: Mapping[str, Stateful], settings: Sequence[str]
    ) -> None:
        self.run, self.stage, self.total, self.state, self.settings = run, stage, total, state, settings
        self.step = 0
        self.seen: list[tuple[int, torch.Tensor, dict[str, torch.Tensor]]] = []

    def __call__(self, rows: torch.Tensor, **numbers: torch.Tensor) -> None:
        """Note the numbers of this step, such as `loss`, with the rows (B,) of its training tasks."""
        self.seen.append((self.step, rows, {name: number.detach() for name, number in numbers.items()}))
        if self.run.device.type == "cpu" or len(self.seen) == _LOOK_EVERY:
            self.look()

    def look(self) -> None:
        """Raise a ValueError with the first step whose numbers are not finite, its tasks and what to change."""
        if not self.seen:
            return
        values = torch.stack([torch.stack([*numbers.values()]).float() for _, _, numbers in self.seen]).tolist()
        for (step, rows, numbers), own in zip(self.seen, values, strict=True):
            if not all(map(math.isfinite, own)):
                named = ", ".join(f"{name} {value}" for name, value in zip(numbers, own, strict=True))
                raise self._stopped(f"{named} at step {step + 1} of {self.total} (tasks: {self._questions(rows)})")
        self.seen.clear()

    def look_at_all(self) -> None:
        """The same for steps that were not looked at, and for the weights and all else that belongs to the state."""
        self.look()
        name = not_finite(tensors_in({name: item.state_dict() for name, item in self.state.items()}))
        if name is not None:
            raise self._stopped(f"{name} is not finite after step {self.step + 1} of {self.total}")

    def _questions(self, rows: torch.Tensor) -> str:
        tasks = self.run.train.tasks
        asked = list(dict.fromkeys(tasks[row].question for row in rows.tolist()))
        more = f" and {len(asked) - 3} more" if len(asked) > 3 else ""
        return ", ".join(map(repr, asked[:3])) + more

    def _stopped(self, what: str) -> ValueError:
        less = " or ".join(f"--set {smaller(self.run.preset, setting)}" for setting in self.settings)
        advice = f"; a smaller rate may do: {less}" if less else ""
        return ValueError(f"{self.stage}: {what}; it stops, and nothing is recorded as done{advice}")


def training_steps(
    run: Run, stage: str, total: int, state: Mapping[str, Stateful], settings: Sequence[str] = ()
) -> Iterator[tuple[Watch, torch.Generator]]:
    """Count a stage's steps, each with a random state of its own, survive being killed, and stop where numbers are no
    longer finite.

    With the random state comes a `Watch`, which is to be called at the end of the step. `settings` are the preset's
    names of the stage's rates, which a message then proposes to lower.

    `state` (model, optimizer, EMA ...) is saved every 20 seconds, a large one less often, and restored at the start.
    The global random state is reset each step too, for dropout. So a killed and resumed stage ends exactly where it
    would have; a damaged state is a ValueError. Nothing is saved after the last step: callers report the last step's
    loss, so a resumed stage must take it. On a GPU, matrices of float32 are multiplied in TF32 while the steps last,
    and nowhere else.

    `run.loops` says afterwards how many steps were made here and how long they took. Where `run.limits` ends them
    early, those that warm up are not among them.
    """
    path = run.state_path(stage)
    # A state of other settings, inputs or formats is no state of this run.
    key = config_hash(run.preset, run.seed, total, run.identities.get(stage), *run.begun_from(stage))
    start = _resumed(path, key, state, run.device) if path.is_file() else 0
    watch = Watch(run, stage, total, state, settings)
    entered = began = time.monotonic()
    save_at = began + _STATE_SECONDS
    limit, warm, made = run.limits.get(stage, math.inf), 0, 0
    bar = {"initial": start, "total": total, "disable": not run.processes.is_main}
    with _tensor_cores(run.device, not run.exact):
        for step in tqdm(range(start, total), stage, mininterval=2, leave=False, **bar):
            # Dropout: each process's own, and apart from what the step's random state draws.
            torch.manual_seed(run.rng(stage, step, "global", run.processes.rank).initial_seed())
            watch.step = step
            yield watch, run.rng(stage, step)
            made += 1
            if limit < math.inf:
                if made == _WARM_UP < total - start:
                    warm, began = made, settled(run.device)
                if made > _WARM_UP and time.monotonic() - entered >= limit:
                    break
            if run.processes.is_main and step + 1 < total and time.monotonic() >= save_at:
                saving = time.monotonic()
                watch.look_at_all()
                save_state(path, {"step": step + 1, "key": key, "state": {n: i.state_dict() for n, i in state.items()}})
                now = time.monotonic()
                save_at = now + max(_STATE_SECONDS, _STATE_SHARE * (now - saving))
    run.loops[stage] = (made - warm, settled(run.device) - began)
    watch.look_at_all()
    if stage not in run.identities and run.processes.is_main:  # a script alone: nobody else forgets its state
        path.unlink(missing_ok=True)


def _resumed(path: Path, key: str, state: Mapping[str, Stateful], device: torch.device) -> int:
    """The step to go on at, with everything as it was then; 0 for a state of another run."""
    saved = load_state(path, device)
    if saved.get("key") != key:
        return 0
    try:
        for name, item in state.items():
            item.load_state_dict(saved["state"][name])
        return int(saved["step"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise damaged(path, error) from None


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
