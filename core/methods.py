"""The ways from a question to weights, by name, and what may be asked of them.

Imports nothing that loads PyTorch, so that the command line shows its help at once.
"""

from __future__ import annotations

import math
from typing import Any

SEARCHES = ("hyperldm", "hyperclip")  # the paper's two (Sections 5 and 4): they search the latents of a generator
REGRESSIONS = ("latent_regression", "kernel_ridge")  # a function from a question to a latent of the default generator
METHODS = (
    *SEARCHES,
    *REGRESSIONS,
    "cond_bottleneck",
    "cond_multitask",
    "cond_multitask_film",
    "cond_hnet_maml",
    "uncond_multitask",
    "mnet_maml",
    "mnet_fomaml",
    "hnet_maml",
    "clip",
)
# Table 4's rows: what is adapted is a row's own parameter (Table 2), for multitask rows that of their MAML counterpart.
FEW_SHOT_ROWS = (
    "clip",
    "uncond_multitask",
    "mnet_maml",
    "mnet_fomaml",
    "hnet_maml",
    "cond_multitask",
    "cond_hnet_maml",
)
DEFAULT_GENERATOR = "hvae"
# Choices for HyperLDM's samples that HyperCLIP's gradient guides besides (Eq. 11): beside gamma, and without (gamma 0).
GUIDED, ALONE = "hvae_hyperldm_hyperclip", "hvae_hyperldm_hyperclip_alone"
MAX_GAMMA, MAX_SAMPLES, MAX_STEPS, MAX_SEED = 10.0, 64, 1000, 2**63 - 1


def row_of(method: str, generator: str = DEFAULT_GENERATOR) -> str:
    """The row of a method: "hvae_hyperldm" for a search, else the method's own name."""
    return f"{generator}_{method}" if method in SEARCHES else method


def decoder_of(method: str, generator: str = DEFAULT_GENERATOR) -> str | None:
    """The weight generator that decodes what a method finds: the one that is searched, the default one for a
    regression; None for a method that finds no latent."""
    if method in SEARCHES:
        return generator
    return DEFAULT_GENERATOR if method in REGRESSIONS else None


def method_of(row: str) -> tuple[str, str]:
    """(method, generator) of a row, the inverse of `row_of`; rows without a generator get the default one."""
    from .networks.weight_generator import WEIGHT_GENERATORS

    name, _, method = row.rpartition("_")
    return (method, name) if method in SEARCHES and name in WEIGHT_GENERATORS else (row, DEFAULT_GENERATOR)


def unread(method: str, given: dict[str, Any]) -> list[str]:
    """Of `given` arguments of `generate`, those that are set and that a method does not read; a seed harms none."""
    read = {"hyperldm": ("generator", "gamma", "steps", "samples", "sampler"), "hyperclip": ("generator", "steps")}
    return [name for name, value in given.items() if value is not None and name not in (*read.get(method, ()), "seed")]


def guided_by(choice: dict[str, Any]) -> dict[str, Any]:
    """What a choice says of gradient guidance, as `ReleaseModels.weights` takes it; nothing in an empty one."""
    return {name: choice[name] for name in ("gamma", "steps", "samples", "gradient_scale")} if choice else {}


def check_request(
    method: str,
    generator: str,
    gamma: float | None,
    steps: int | None,
    samples: int | None,
    seed: int = 0,
    gradient_scale: float = 0.0,
    sampler: str | None = None,
) -> None:
    """ValueErrors that name the argument, its value and what is allowed."""
    from .diffusion.samplers import SAMPLERS
    from .networks.weight_generator import WEIGHT_GENERATORS

    if method not in METHODS:
        raise ValueError(f"method {method!r}; allowed: {', '.join(METHODS)}")
    if generator not in WEIGHT_GENERATORS:
        raise ValueError(f"generator {generator!r}; allowed: {', '.join(WEIGHT_GENERATORS.names())}")
    if gamma is not None and not (isinstance(gamma, (int, float)) and 0.0 <= gamma <= MAX_GAMMA):
        raise ValueError(f"gamma {gamma!r}; allowed: 0 to {MAX_GAMMA:g}")
    if steps is not None and not (isinstance(steps, int) and 1 <= steps <= MAX_STEPS):
        raise ValueError(f"steps {steps!r}; allowed: whole numbers from 1 to {MAX_STEPS}")
    if samples is not None and not (isinstance(samples, int) and 1 <= samples <= MAX_SAMPLES):
        raise ValueError(f"samples {samples!r}; allowed: whole numbers from 1 to {MAX_SAMPLES}")
    if not (isinstance(seed, int) and 0 <= seed <= MAX_SEED):
        raise ValueError(f"seed {seed!r}; allowed: whole numbers from 0 to {MAX_SEED}")
    if sampler is not None and sampler not in SAMPLERS:
        raise ValueError(f"sampler {sampler!r}; allowed: {', '.join(SAMPLERS)}")
    if not 0.0 <= gradient_scale < math.inf:
        raise ValueError(f"gradient_scale {gradient_scale}; allowed: 0 or more")
    if gradient_scale and method != "hyperldm":
        raise ValueError(
            f"gradient_scale {gradient_scale}: method {method!r} has no samples to guide; allowed: 'hyperldm'"
        )
