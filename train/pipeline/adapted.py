"""Fine-tuned weights or latents of all training tasks, as the generative models learn from them, and the questions of
tasks that have none of their own, which these tell."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.adaptation import descriptors
from core.backbones.questions import beside, candidates_part, question_part
from core.config import config_hash
from core.methods import DEFAULT_GENERATOR
from core.networks.weight_generator import WEIGHT_GENERATORS, WeightGenerator
from core.networks.weight_model import WeightModel
from core.release.checkpoint import checkpoint_path, files_of, load_module
from core.tensors import load_tensors

from .asked import Asked
from .run import Run, drawn
from .settings import Preset, QuestionTraining, RowTraining

Decode = Callable[[Tensor, slice | None], Tensor]  # (B, K) to weights (B, P), or some coordinates of them
_VALUES_AT_ONCE = 2**26  # float32 values of adaptations held at a time: 256 MB


def load_model(run: Run, row: str) -> WeightModel:
    """The model that a row of this run trained."""
    return load_module(checkpoint_path(run.output, row), run.device)


def load_generator(run: Run, name: str) -> WeightGenerator:
    """The weight generator called `name`, as this run trained it."""
    return load_module(checkpoint_path(run.output, WEIGHT_GENERATORS[name].checkpoint), run.device)


def draws_folder(run: Run, name: str) -> Path:
    """Where the draws of a generator's training data are kept. The folder's name says what they depend on, so that
    draws of another start or rate, left by a run that was killed, are never taken for this one's."""
    source = files_of(checkpoint_path(run.output, WEIGHT_GENERATORS[name].adapted_row))
    start = hashlib.sha256(b"".join(file.read_bytes() for file in source)).hexdigest() if source else ""
    preset = run.preset
    settings: list[Any] = [preset.adaptations[name], preset.network, preset.network_config, preset.logit_scale]
    key = config_hash(*settings, preset.dataset, run.seed, start)
    return run.scratch / "adaptations" / f"{name}-{key}"


def draw_path(run: Run, name: str, draw: int) -> Path:
    return draws_folder(run, name) / f"draw-{draw:03d}.safetensors"


def load_draws(run: Run, name: str) -> list[Tensor]:
    """All draws, (T, K) float16 each, mapped from disk; row t belongs to training task t.

    Raises:
        ValueError: they are of another number of tasks.
    """
    draws = run.preset.adaptations[name].draws
    found = [load_tensors(draw_path(run, name, draw), "adapted")["adapted"] for draw in range(draws)]
    if other := {len(draw) for draw in found} - {len(run.train)}:
        raise ValueError(
            f"{draws_folder(run, name)} holds fine-tuned weights of {other.pop()} training tasks, and there are "
            f"{len(run.train)}: pictures were mended since, or lost; --retrain makes all anew"
        )
    return found


@torch.no_grad()
def training_latents(run: Run, name: str) -> Tensor:
    """Latents of all adaptations, (draws, T, Z): encoded means for the HVAE, adapted z for the HNet."""
    generator = load_generator(run, name)
    at_once = max(1, _VALUES_AT_ONCE // generator.num_params)  # tasks
    encode = lambda draw: torch.cat([generator.encode(x.to(run.device).float()) for x in draw.split(at_once)])
    return torch.stack([encode(draw) for draw in load_draws(run, name)])


def infers(preset: Preset, training: QuestionTraining) -> bool:
    """Whether a row infers the descriptors of tasks that lack one."""
    return training.infer_descriptors and preset.descriptors < 1.0


def inferring(preset: Preset, training: QuestionTraining) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The stages that a row needs to infer descriptors, and the part of its config that says how that is done; nothing
    for a row that infers none."""
    if not infers(preset, training):
        return (), ()
    return (WEIGHT_GENERATORS[DEFAULT_GENERATOR].checkpoint, f"adaptations_{DEFAULT_GENERATOR}"), (descriptors.FORMAT,)


def questions(run: Run, infer: bool, z: Tensor) -> Asked:
    """The training questions. Where a task is not described, its embedding is inferred, if asked for, from mean latents
    z (T, Z) and the tasks' data. Else it is zeros: such a task teaches an unconditional model alone.
    """
    e = run.asked.e
    described = torch.zeros(len(e), dtype=torch.bool, device=run.device)
    described[run.described] = True
    others = torch.zeros_like(e[:, 0])
    if infer and not described.all():
        encode = lambda texts: run.store.questions(texts, run.questions)
        batch = run.train_batch.trimmed()
        own = replace(batch, question=question_part(batch.question, run.questions))
        found = descriptors.describe(run.train, own, described, z, encode)
        others = beside(found, candidates_part(batch.question, run.questions))  # no task lacks its answers
    return replace(run.asked, e=e.where(described[:, None, None], others[:, None]))


@dataclass(frozen=True)
class Taught:
    """The training tasks that a row learns from: `rows` (n,) of them, drawn as often as `weights` (n,) say, on the CPU
    with the random state; and the questions of all tasks."""

    rows: Tensor
    weights: Tensor
    asked: Asked

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """`count` training tasks."""
        return self.rows[drawn(self.weights, count, rng)]


def everything(run: Run) -> Taught:
    """What a row that reads no question learns from: all training tasks."""
    return Taught(torch.arange(len(run.train_batch)), run.task_weights, run.asked)


def taught(run: Run, training: QuestionTraining, z: Tensor | None = None) -> Taught:
    """What a row that reads questions learns from: the described tasks, or all tasks if it infers what is missing, from
    mean latents z (T, Z) (default: those of the default generator)."""
    if not infers(run.preset, training):
        return Taught(run.described, run.task_weights[run.described], run.asked)
    z = training_latents(run, DEFAULT_GENERATOR).mean(0) if z is None else z
    weights = described_weights(run, training) if isinstance(training, RowTraining) else run.task_weights
    return Taught(torch.arange(len(z)), weights, questions(run, True, z))


def described_weights(run: Run, training: RowTraining) -> Tensor:
    """How often each training task is drawn (T,), the described ones `described_weight` times as often."""
    weights = run.task_weights.clone()
    weights[run.described] *= training.described_weight
    return weights


class AdaptedWeights:
    """Weights of all training tasks, some draws of each, as a generative model samples them.

    In half precision a draw of weights takes T x P x 2 bytes, at the paper's size 783 x 394,240 x 2 = 0.6 GB. On a CPU
    draws stay on disk, mapped, and only rows that are asked for are read and become float32; a GPU holds them if they
    fit in half of what it has free.
    """

    def __init__(self, draws: Sequence[Tensor], device: torch.device, decode: Decode | None = None) -> None:
        """`draws` of weights (T, P), row t for training task t; or of what `decode(x, some)` turns into weights, or
        into some coordinates of them."""
        if device.type == "cuda":
            size = sum(draw.numel() * draw.element_size() for draw in draws)
            draws = [draw.to(device) for draw in draws] if 2 * size < torch.cuda.mem_get_info(device)[0] else draws
        self.draws, self.device, self.decode = list(draws), device, decode

    def __len__(self) -> int:
        return len(self.draws)

    @torch.no_grad()
    def __call__(self, draw: Tensor, task: Tensor) -> Tensor:
        """Weights (B, P), float32, on the device: row b is draw `draw[b]` of training task `task[b]`."""
        rows = self.draws[0].new_empty(len(task), self.draws[0].shape[1])
        draw, task = draw.to(rows.device), task.to(rows.device)
        for i in draw.unique().tolist():
            rows[draw == i] = self.draws[i][task[draw == i]]
        rows = rows.to(self.device).float()
        return rows if self.decode is None else self.decode(rows, None)

    def tasks(self, draw: int, task: Tensor) -> Tensor:
        """One draw of the tasks `task` (B,): (B, P)."""
        return self(torch.full_like(task, draw), task)

    @torch.no_grad()
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (P,) over all draws and tasks, some coordinates at a time."""
        width = self.draws[0].shape[1] if self.decode is None else self(*torch.zeros(2, 1, dtype=torch.long)).shape[1]
        at_once = max(16, 2 * _VALUES_AT_ONCE // (len(self) * len(self.draws[0])) // 16 * 16)
        mean, std = [], []
        for start in range(0, width, at_once):
            some = slice(start, start + at_once)
            if self.decode is None:  # only these columns become float32
                values = torch.cat([draw[:, some].to(self.device).float() for draw in self.draws])
            else:
                values = torch.cat([self.decode(draw.to(self.device).float(), some) for draw in self.draws])
            mean.append(values.mean(0))
            std.append(values.std(0))
        return torch.cat(mean), torch.cat(std)
