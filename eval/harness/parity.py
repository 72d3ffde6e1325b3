"""Whether a stage of training makes on a GPU what it makes on a CPU, from the same inputs."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from core.release.checkpoint import files_of
from train.pipeline.run import Run
from train.pipeline.stage import Stage

_STEPS = 5  # whose losses are compared in float32, one by one


@dataclass(frozen=True)
class Tolerance:
    """How far two devices may be apart: relative difference of a step's loss; of a tensor that the stage writes, by
    its norm; difference of a metric (an accuracy, or a loss in units of itself if that is above 1)."""

    losses: float
    tensors: float | None  # None: not compared
    metrics: float


# What preset `tiny` does when nothing but rounding changes, on one CPU: float32 products summed in float64 move losses
# by up to 1.1e-6 and tensors by 5e-5 (biases, which begin at zero). Another device also sums, divides and takes
# exponentials in its own way: a hundred times as much is allowed. A fault in a stage shows in the second step's loss,
# which is off by percents.
EXACT = Tolerance(losses=1e-4, tensors=5e-3, metrics=0.02)
# Factors cut to TF32's 10 bits, and bfloat16 where `Run.autocast` says so: 3e-3 and 8e-2, again biases; a share of the
# first gradients is so near to zero that Adam steps the other way. Five times as much.
MIXED = Tolerance(losses=2e-2, tensors=0.4, metrics=0.05)
# Principal components of HyperCLIP's weights begin with a random matrix drawn on the device, and small ones of like
# size turn among themselves: losses differ by 8e-2, and the network behind them sees other numbers.
TURNED = Tolerance(losses=0.3, tensors=None, metrics=0.3)


@dataclass(frozen=True)
class Made:
    """What a stage made: the loss of every step, metrics, and tensors by file and name."""

    losses: list[float]
    metrics: dict[str, float]
    tensors: dict[str, Tensor]


@contextlib.contextmanager
def recorded_losses() -> Iterator[list[Tensor]]:
    """What `backward` is called on while this lasts: the losses of training's steps."""
    losses: list[Tensor] = []
    backward = Tensor.backward

    def record(self: Tensor, *args: Any, **kwargs: Any) -> None:
        losses.append(self.detach())
        backward(self, *args, **kwargs)

    Tensor.backward = record
    try:
        yield losses
    finally:
        Tensor.backward = backward


def forget(stage: Stage, run: Run) -> None:
    """Remove what a stage made before."""
    run.state_path(stage.name).unlink(missing_ok=True)
    for folder in stage.work(run):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (file for path in stage.outputs(run) for file in files_of(path)):
        file.unlink()


def make(stage: Stage, run: Run) -> Made:
    """Run a stage anew."""
    forget(stage, run)
    with recorded_losses() as losses:
        metrics = stage.run(run)
    files = [file for path in stage.outputs(run) for file in files_of(path) if file.suffix == ".safetensors"]
    tensors = {f"{file.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}
    return Made([float(loss) for loss in losses], metrics, tensors)


def differences(own: Made, other: Made, tolerance: Tolerance, steps: int) -> dict[str, dict[str, Any]]:
    """How far what a device made is from what the CPU made: of losses (of the first `steps`), tensors and metrics the
    worst, with its name and what is allowed."""
    norm = lambda x: float(x.double().norm())
    losses = zip(own.losses[:steps], other.losses[:steps], strict=True)
    found = {
        "losses": {str(i): abs(a - b) / max(abs(b), 1e-12) for i, (a, b) in enumerate(losses)},
        "tensors": {
            name: norm(own.tensors[name].double() - x.double()) / max(norm(x), 1e-12)
            for name, x in other.tensors.items()
        },
        "metrics": {name: abs(own.metrics[name] - x) / max(1.0, abs(x)) for name, x in other.metrics.items()},
    }
    result = {}
    for kind, values in found.items():
        allowed = getattr(tolerance, kind)
        if values and allowed is not None:
            worst = max(values, key=lambda name: math.inf if math.isnan(values[name]) else values[name])
            result[kind] = {"worst": worst, "difference": values[worst], "allowed": allowed}
    return result


def compare(stage: Stage, cpu: Run, device: Run) -> dict[str, Any]:
    """Run a stage on the CPU and, from the CPU's inputs, on the device: in float32 throughout ("exact"), and as
    training does it ("mixed"). Stages without steps of training are the same in both ways, and run once.

    The CPU's outputs stay, for the stages that follow.
    """
    turned = {f"{name}_hyperclip" for name, config in cpu.preset.hyperclip.items() if config.components}
    plain = make(stage, cpu)
    result: dict[str, Any] = {"cpu": {"losses": plain.losses[:_STEPS], "metrics": plain.metrics}}
    for how, tolerance in (("exact", EXACT), ("mixed", MIXED)):
        if how == "mixed" and not plain.losses:
            continue
        copy_files(cpu, device)
        own = make(stage, device.changed(exact=how == "exact"))
        steps = _STEPS if how == "exact" else len(plain.losses)  # small differences grow
        found = differences(own, plain, TURNED if stage.name in turned else tolerance, steps)
        result[how] = {"losses": own.losses[:_STEPS], "metrics": own.metrics, "differences": found}
    result["agrees"] = all(
        entry["difference"] <= entry["allowed"]  # not so for NaN
        for how in ("exact", "mixed")
        if how in result
        for entry in result[how]["differences"].values()
    )
    return result


def copy_files(source: Run, target: Run) -> None:
    """Give a run the release and the work files of another, in place of its own."""
    for theirs, mine in ((source.output, target.output), (source.scratch, target.scratch)):
        shutil.rmtree(mine, ignore_errors=True)
        if theirs.is_dir():
            shutil.copytree(theirs, mine)
