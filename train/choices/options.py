"""Settings of HyperCLIP guidance and HyperLDM to choose from, and what trying one costs."""

from __future__ import annotations

from typing import Any

from core.networks.weight_generator import WEIGHT_GENERATORS
from train.pipeline.settings import Preset, SamplingConfig

SEEDS = 3  # a choice should not hang on one draw of noise


def guidance_options(preset: Preset, generator: str) -> list[dict[str, Any]]:
    """Settings of HyperCLIP guidance to choose from: where it starts, its steps and its rate."""
    base = preset.guidance[generator]
    return [
        {"start": start, "steps": steps, "lr": lr, "lam": base.lam, "optimizer": base.optimizer}
        for start in WEIGHT_GENERATORS[generator].guidance_starts
        for steps in (base.steps, 3 * base.steps)
        for lr in (base.lr / 3, base.lr, 3 * base.lr)
    ]


def sampling_options(sampling: SamplingConfig) -> list[dict[str, Any]]:
    """Settings of HyperLDM to choose from."""
    common = {"sampler": sampling.sampler, "steps": sampling.steps}
    return [{"gamma": gamma, "samples": n, **common} for n in sampling.samples for gamma in sampling.gammas]


def quick_options(sampling: SamplingConfig, gamma: float) -> list[dict[str, Any]]:
    """Cheaper settings of HyperLDM at a strength of guidance."""
    common = {"gamma": gamma, "sampler": sampling.sampler}
    return [{"samples": samples, "steps": steps, **common} for steps, samples in sampling.quick]


def gradient_options(sampling: SamplingConfig, gamma: float) -> list[dict[str, Any]]:
    """Strengths of HyperCLIP's gradient on HyperLDM's samples (Eq. 11), beside a strength of guidance."""
    common = {"samples": max(sampling.samples), "steps": sampling.steps, "sampler": sampling.sampler}
    return [{"gamma": gamma, "gradient_scale": scale, **common} for scale in sampling.gradient_scales]


def denoiser_steps(option: dict[str, Any]) -> int:
    """How often trying an option runs the denoiser on every validation task; a gradient through it counts as two."""
    once = SEEDS * option["samples"] * option["steps"] * (3 if "gradient_scale" in option else 1)
    return once * (1 if option["gamma"] in (0.0, 1.0) else 2)
