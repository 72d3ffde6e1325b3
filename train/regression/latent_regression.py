"""Train the denoiser's trunk to predict latents from questions by squared error: HyperLDM without diffusion.

Needs what HyperLDM needs, adaptations and the HVAE, and learns from the same latents; writes
OUTPUT/latent_regression.safetensors. About a minute on one CPU thread.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that the script runs by its path

import torch

from core.ending import in_one_line
from core.methods import DEFAULT_GENERATOR
from core.networks.base import BaseNetwork
from core.networks.ema import EMA
from core.networks.regression import LatentRegression
from core.networks.weight_generator import WEIGHT_GENERATORS
from core.release.checkpoint import save_module
from train.pipeline.adapted import inferring, load_generator, taught, training_latents
from train.pipeline.flags import parser, training_run
from train.pipeline.optim import adam, clip, cosine_decay
from train.pipeline.run import Run
from train.pipeline.settings import Preset, once
from train.pipeline.stage import TRAINED, Stage, parameters_of, release_file
from train.pipeline.steps import RunningMean, training_steps

ROW = LatentRegression.name


def stages(preset: Preset) -> list[Stage]:
    """One stage, where the preset makes the latents."""
    if DEFAULT_GENERATOR not in preset.adaptations:
        return []
    _, inferred = inferring(preset, preset.regression)
    settings = (preset.latent_regression, preset.regression)
    return [
        Stage(
            ROW,
            run,
            needs=(WEIGHT_GENERATORS[DEFAULT_GENERATOR].checkpoint, f"adaptations_{DEFAULT_GENERATOR}"),
            config=(*settings, *preset.question_settings, *inferred),
            outputs=release_file(ROW),
            steps=preset.regression.steps,
            cost=once(*preset.network_settings, *settings),
            values=parameters_of(functools.partial(build, preset)),
            format=TRAINED,
            shared=True,
        )
    ]


def build(preset: Preset, network: BaseNetwork) -> LatentRegression:
    """The model for the default generator's latents."""
    dim = preset.question_dim(network.dim)
    return LatentRegression(preset.latent_regression, latent=preset.latent(DEFAULT_GENERATOR), dim=dim)


def run(run: Run) -> dict[str, float]:
    """Train it; returns the loss and the accuracy on validation tasks."""
    training = run.preset.regression
    latents = training_latents(run, DEFAULT_GENERATOR)  # (draws, T, Z)
    tasks = taught(run, training, latents.mean(0))
    torch.manual_seed(run.rng(ROW, "init").initial_seed())
    model = build(run.preset, run.network).to(run.device)
    if not run.begin(model, ROW):
        model.set_statistics(latents.flatten(0, 1), run.asked.all(run.described))
    optimizer = adam(model.parameters(), training.lr, training.weight_decay)
    rate = cosine_decay(optimizer, training.steps)
    ema, running = EMA(model, training.ema), RunningMean()
    state = {"model": model, "optimizer": optimizer, "rate": rate, "ema": ema, "running": running}
    model.train()
    for watch, rng in training_steps(run, ROW, training.steps, state, ["regression.lr"]):
        rows = tasks.draw(training.batch, rng)
        z = model.standardise(latents[torch.randint(len(latents), (training.batch,), generator=rng), rows])
        e = tasks.asked.draw(rows, rng)
        noise = torch.randn(training.batch, model.dim, generator=rng).to(run.device)
        mine = run.processes.share(training.batch)
        with run.autocast():
            out = model.predict(e[mine], noise[mine]).float()
        loss = (out - z[mine]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        run.processes.average(model)
        norm = clip(model.parameters(), 10.0)
        optimizer.step()
        rate.step()
        ema.update(model)
        watch(rows[mine], loss=loss, gradient=norm)
        running.update(run.processes.mean(loss))

    judged, model = run.val_judged, ema.shipped()
    with torch.no_grad():
        w = load_generator(run, DEFAULT_GENERATOR).decode(model.latents(judged.question))
        metrics = {"loss": running.value, "val_accuracy": run.accuracy(w, judged)}
    if run.processes.is_main:
        made = {"row": ROW, "seed": run.seed, "generator": DEFAULT_GENERATOR}
        save_module(run.output / f"{ROW}.safetensors", model, made | metrics)
    return metrics


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    print(ROW, run(training_run(parser(__doc__).parse_args(argv))))


if __name__ == "__main__":
    main()
