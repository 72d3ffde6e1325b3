"""What a run will take, stage by stage, before anything starts: time and memory as measured, disk by arithmetic.

Measured costs are those of eval/results/bench.json, which `eval/bench.py --costs` takes from the records of real runs,
shortened ones too: seconds a step, seconds besides, and peak memory, by kind of device and by the settings that they
depend on, which are a stage's own but for its number of steps. Where nothing was measured, memory is arithmetic too.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.config import config_hash
from core.data import SimulatedConfig
from core.networks.hvae import HVAE
from core.networks.hyperclip import HyperCLIP
from core.networks.hyperldm import HyperLDM
from core.networks.hypernet import FilmAdapter, HyperNet
from train.choose import denoiser_steps, sampling_options
from train.pipeline.graph import Stage
from train.presets import Preset

COSTS = Path(__file__).resolve().parents[2] / "eval" / "results" / "bench.json"


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
        return "" if not self.disk else f"{self.disk:.2f} GiB"


def duration(seconds: float | None) -> str:
    """For people."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def steps_of(preset: Preset, stage: str) -> int:
    """Steps that a stage counts: of training, of adaptation, or of the denoiser on validation tasks; 0 if none."""
    if stage.startswith("adaptations_"):
        config = preset.adaptations[stage.removeprefix("adaptations_")]
        return config.draws * config.steps
    if stage == "choose":
        return len(preset.adaptations) * sum(denoiser_steps(option) for option in sampling_options(preset.sampling))
    if stage in preset.multitask or stage in preset.maml:
        return {**preset.multitask, **preset.maml}[stage].steps
    if stage == "hvae":
        return preset.hvae_training.steps
    if stage.startswith("hyperclip_"):
        return preset.hyperclip_training[stage.removeprefix("hyperclip_")].steps
    return preset.diffusion.steps if stage.endswith("_hyperldm") else 0


def cost_key(preset: Preset, stage: str) -> str:
    """What a stage's cost depends on: its own sizes and settings, less its number of steps and the origin of data."""
    once = lambda config, **more: replace(config, steps=1, **more)
    generator = stage.removeprefix("adaptations_").removeprefix("hyperclip_").removeprefix("latents_").split("_")[0]
    decoder = {"hvae": preset.hvae, "hnet": preset.hnet}.get(generator)
    own: list[Any] = [preset.adapter]
    if stage in preset.multitask or stage in preset.maml:
        own.append(once({**preset.multitask, **preset.maml}[stage]))
        networks = {"hnet_maml": preset.hnet, "cond_multitask_film": preset.film, **preset.cond_hnet}
        own += [networks[stage]] if stage in networks else []
    elif stage.startswith("adaptations_"):
        own += [once(preset.adaptations[generator], draws=1), preset.hnet if generator == "hnet" else None]
    elif stage == "hvae":
        own += [decoder, once(preset.hvae_training)]
    elif stage.startswith("hyperclip_"):
        own += [decoder, preset.hyperclip[generator], once(preset.hyperclip_training[generator])]
    elif stage.startswith("latents_"):
        own.append(decoder)
    elif stage.endswith("_hyperldm"):
        own += [decoder, preset.hyperldm, once(preset.diffusion)]
    elif stage == "choose":
        own += [preset.hvae, preset.hnet, preset.cond_hnet, preset.hyperldm, preset.hyperclip]
    elif stage == "features":
        own = [preset.backbone]
    return config_hash(stage, own)


def _module(preset: Preset, stage: str) -> nn.Module | None:
    """The network that a stage trains, without memory for it."""
    P, D = preset.adapter.num_params, preset.adapter.dim
    makers = {
        "hnet_maml": lambda: HyperNet(preset.hnet, preset.adapter),
        "cond_hnet_maml": lambda: HyperNet(preset.cond_hnet[stage], preset.adapter),
        "cond_multitask": lambda: HyperNet(preset.cond_hnet[stage], preset.adapter),
        "cond_multitask_film": lambda: FilmAdapter(preset.film, preset.adapter),
        "hvae": lambda: HVAE(preset.hvae, P),
        "hyperclip_hvae": lambda: HyperCLIP(preset.hyperclip["hvae"], P, D),
        "hyperclip_hnet": lambda: HyperCLIP(preset.hyperclip["hnet"], P, D),
        "hvae_hyperldm": lambda: HyperLDM(replace(preset.hyperldm, latent=preset.hvae.latent)),
        "hnet_hyperldm": lambda: HyperLDM(replace(preset.hyperldm, latent=preset.hnet.input_dim)),
    }
    if stage not in makers:
        return None
    with torch.device("meta"):
        return makers[stage]()


def _disk(preset: Preset, stage: str) -> float | None:
    """GiB that a stage leaves: models and adaptations in half precision. None for features of unknown images."""
    dataset = preset.dataset
    if stage == "features":
        images = 66_000 if isinstance(dataset, SimulatedConfig) else None
        return images and images * preset.adapter.dim * 2 / 2**30
    if stage.startswith("adaptations_"):
        name = stage.removeprefix("adaptations_")
        size = preset.adapter.num_params if name == "hvae" else preset.hnet.input_dim
        tasks = getattr(dataset, "train_tasks", 870) - getattr(dataset, "val_tasks", 87)
        return preset.adaptations[name].draws * tasks * size * 2 / 2**30
    module = _module(preset, stage)
    return 2 * _parameters(module) / 2**30 if module is not None else 4 * preset.adapter.num_params / 2**30


def _parameters(module: nn.Module | None) -> int:
    return sum(parameter.numel() for parameter in module.parameters()) if module is not None else 0


def _memory(preset: Preset, stage: str, device: torch.device) -> float:
    """Peak GiB by arithmetic: what the process holds anyway, models and their optimizers, and weights of a batch of
    tasks, as often as measurements say that a stage holds them."""
    train_tasks = getattr(preset.dataset, "train_tasks", 870)
    generator = stage.removeprefix("adaptations_").removeprefix("hyperclip_").removeprefix("latents_").split("_")[0]
    frozen = _parameters(_module(preset, {"hvae": "hvae", "hnet": "hnet_maml"}.get(generator, "")))
    draw = train_tasks * preset.adapter.num_params  # values of one draw of adapted weights
    draws = draw * preset.adaptations["hvae"].draws / 2 if "hvae" in preset.adaptations else 0  # float32 values' room

    own = _parameters(_module(preset, stage))
    values = 4.0 * own  # weights, gradients and two moments
    copies = 0.0  # of the weights of all tasks of a batch
    if stage in preset.multitask and own:
        copies = 6 * preset.multitask[stage].tasks
    elif stage in preset.maml and own:
        copies = 8 * preset.maml[stage].tasks * preset.maml[stage].max_inner_steps
    elif stage == "hvae":
        values += draws
        copies = 10 * preset.hvae_training.batch
    elif stage.startswith("hyperclip_"):
        values += frozen + (draws if generator == "hvae" else 0)
        copies = 6 * preset.hyperclip_training[generator].batch + 2 * train_tasks  # these are ranked at the end
        copies += 4 * train_tasks if preset.hyperclip[generator].components else 0
    elif stage.endswith("_hyperldm"):
        values += own + frozen + (draws if generator == "hvae" else 0)  # and the average of the denoiser
        copies = 8 * preset.diffusion.behaviour_tasks if preset.diffusion.behaviour_weight else 2 * 87
    elif stage == "adaptations_hvae":
        values += 2 * draw
    elif stage == "adaptations_hnet":
        values += frozen
        copies = 6 * preset.adaptations["hnet"].tasks
    elif stage.startswith("latents_"):
        values += frozen + (draws if generator == "hvae" else 0)
        copies = 1.6 * train_tasks
    elif stage == "choose":
        parts = ("hvae", "hnet_maml", "cond_multitask", "cond_hnet_maml", "hyperclip_hvae", "hyperclip_hnet")
        values += sum(_parameters(_module(preset, part)) for part in (*parts, "hvae_hyperldm", "hnet_hyperldm"))
        copies = 8 * 87
    base = 1.75 if device.type == "cpu" else 0.75
    return base + 4 * (values + copies * preset.adapter.num_params) / 2**30


def estimates(preset: Preset, stages: dict[str, Stage], device: torch.device) -> dict[str, Estimate]:
    """The estimate of every stage."""
    table = _costs().get(device.type, {})
    result = {}
    for name in stages:
        measured = table.get(cost_key(preset, name))
        seconds, memory = None, _memory(preset, name, device)
        if measured is not None:
            seconds = measured["rest_seconds"] + measured["step_seconds"] * steps_of(preset, name)
            memory = measured["memory"]
        result[name] = Estimate(seconds, memory, _disk(preset, name))
    return result


@functools.cache
def _costs() -> dict[str, dict[str, Any]]:
    return json.loads(COSTS.read_text())["costs"] if COSTS.is_file() else {}
