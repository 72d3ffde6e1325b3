"""From questions straight to latents of the default generator: what diffusion and guidance must beat."""

from train.pipeline.settings import Preset
from train.pipeline.stage import Stage

from . import kernel_ridge, latent_regression


def stages(preset: Preset) -> list[Stage]:
    """A stage a regression."""
    return [*latent_regression.stages(preset), *kernel_ridge.stages(preset)]
