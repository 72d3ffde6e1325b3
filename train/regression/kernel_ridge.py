"""Fit kernel ridge regression from questions to latents, its width and ridge chosen on validation tasks.

Needs the table of training latents; writes OUTPUT/kernel_ridge.safetensors. In closed form: seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that the script runs by its path

import torch
from torch import Tensor

from core.ending import in_one_line
from core.methods import DEFAULT_GENERATOR
from core.networks.regression import KernelRidge, KernelRidgeConfig
from core.networks.whitening import Whitening
from core.release.checkpoint import checkpoint_path, load_model, save_module
from train.pipeline.adapted import inferring, load_generator, taught
from train.pipeline.flags import parser, training_run
from train.pipeline.run import Run
from train.pipeline.settings import Preset
from train.pipeline.stage import Stage, release_file

ROW = KernelRidge.name
TABLE = f"latents_{DEFAULT_GENERATOR}"


def stages(preset: Preset) -> list[Stage]:
    """One stage, where the preset makes the latents."""
    if DEFAULT_GENERATOR not in preset.adaptations:
        return []
    _, inferred = inferring(preset, preset.kernel_ridge)
    return [
        Stage(
            ROW,
            run,
            needs=("features", TABLE),
            config=(preset.kernel_ridge, *preset.question_settings, *inferred),
            outputs=release_file(ROW),
            cost=preset.network_settings,
        )
    ]


@torch.no_grad()
def fitted(run: Run, z: Tensor, decode: Callable[[Tensor], Tensor]) -> tuple[KernelRidge, float]:
    """The regression to latents z (T, Z) of the training tasks with the width and ridge that do best on validation
    tasks, and its accuracy there."""
    search, judged = run.preset.kernel_ridge, run.val_judged
    tasks = taught(run, search, z)
    e, z = tasks.asked.e[tasks.rows, 0], z[tasks.rows]
    sizes = {"questions": len(e), "latent": z.shape[1], "dim": e.shape[1]}
    condition = Whitening(sizes["dim"], search.whitening).to(run.device)
    condition.fit(run.asked.all(run.described))
    found: list[tuple[float, KernelRidge]] = []
    for width in search.widths:
        for ridge in search.ridges:
            model = KernelRidge(KernelRidgeConfig(search.whitening, width, ridge), **sizes).to(run.device)
            model.fit(e, z, condition)
            found.append((run.accuracy(decode(model.latents(judged.question)), judged), model))
    accuracy, model = max(found, key=lambda pair: pair[0])
    return model, accuracy


def run(run: Run) -> dict[str, float]:
    """Fit it; returns what was chosen and the accuracy on validation tasks."""
    _, tensors = load_model(checkpoint_path(run.output, TABLE), "latents")
    model, accuracy = fitted(run, tensors["z"].to(run.device), load_generator(run, DEFAULT_GENERATOR).decode)
    metrics = {"width": model.config.width, "ridge": model.config.ridge, "val_accuracy": accuracy}
    made = {"row": ROW, "seed": run.seed, "generator": DEFAULT_GENERATOR}
    save_module(run.output / f"{ROW}.safetensors", model, made | metrics)
    return metrics


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    print(ROW, run(training_run(parser(__doc__).parse_args(argv))))


if __name__ == "__main__":
    main()
