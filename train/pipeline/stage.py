"""A stage of training: its config, inputs, outputs, steps and cost, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.config import config_hash
from core.networks.base import BaseNetwork

if TYPE_CHECKING:
    from .run import Run

TRAINED = 3  # format of the stages that `train.pipeline.steps` trains


@dataclass(frozen=True)
class Stage:
    """One node of the graph. Every script of `train/` that makes something declares its own in `stages(preset)`.

    Args:
        run: does the work; returns what it reached, by name.
        needs: the stages whose outputs it reads.
        config: the settings that what it makes depends on, besides those of its inputs.
        outputs: the files that show that it is done; a path stands for its numbered parts too.
        steps: how many steps it counts, for its cost; 0 if none.
        cost: the settings that its cost depends on, less the number of steps; its config unless given.
        values: how many half-precision values it writes, given the base network and the number of training tasks; None
            where that is not known before.
        work: folders, besides outputs, that `--retrain` empties.
        format: raised when a change of code changes what the stage makes.
        release: it writes to the release directory and is what a run is for; the others make work files, needed only
            while something downstream must run.
        seeded: what it makes depends on the run's seed.
        shared: all processes of a run work on it; on the others, the main one while the rest wait.
    """

    name: str
    run: Callable[[Run], dict[str, float]]
    needs: tuple[str, ...]
    config: tuple[Any, ...]
    outputs: Callable[[Run], list[Path]]
    steps: int = 0
    cost: tuple[Any, ...] | None = None
    values: Callable[[BaseNetwork, int], int] | None = None
    work: Callable[[Run], list[Path]] = lambda run: []
    format: int = 1
    release: bool = True
    seeded: bool = True
    shared: bool = False

    def cost_key(self, dim: int | None) -> str:
        """Names what the cost of a step depends on, to find a measured one; `dim` is D."""
        return config_hash(self.name, self.config if self.cost is None else self.cost, dim)


def release_file(name: str) -> Callable[[Run], list[Path]]:
    """The outputs of a stage that writes one model to the release."""
    return lambda run: [run.output / f"{name}.safetensors"]


def parameters_of(make: Callable[[BaseNetwork], Any]) -> Callable[[BaseNetwork, int], int]:
    """`Stage.values` of a stage that writes the module that `make` builds for a base network."""

    def count(network: BaseNetwork, tasks: int) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in make(network).parameters())

    return count
