"""Train the multitask baselines: uncond_multitask, cond_multitask, cond_multitask_film (Algorithms 2, 5, 6), and
cond_bottleneck, which is HyperLDM and HVAE as one network that learns from the task's loss alone.

Needs features (made on the first use); writes OUTPUT/ROW.safetensors. Up to seven minutes a row on one CPU thread.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import torch

from core.data.tasks import subsample
from core.ending import in_one_line
from core.networks.base import BaseNetwork
from core.networks.ema import EMA
from core.networks.film import FilmModel
from core.networks.hypernet import CondBottleneck, CondHyperNet
from core.networks.weight_model import SharedWeights, WeightModel
from core.release.checkpoint import save_module
from train.pipeline.adapted import everything, inferring, taught
from train.pipeline.flags import parser, training_run
from train.pipeline.optim import adam, clip, cosine_decay
from train.pipeline.run import Run
from train.pipeline.settings import Preset, once
from train.pipeline.stage import TRAINED, Stage, parameters_of, release_file
from train.pipeline.steps import training_steps

# Rows that read the question: the model that each trains, and its settings.
READING: dict[str, tuple[type[WeightModel], Callable[[Preset], Any]]] = {
    "cond_multitask": (CondHyperNet, lambda preset: preset.cond_hnet["cond_multitask"]),
    "cond_multitask_film": (FilmModel, lambda preset: preset.film),
    "cond_bottleneck": (CondBottleneck, lambda preset: preset.cond_bottleneck),
}
ROWS = ("uncond_multitask", *READING)


def build(preset: Preset, row: str, network: BaseNetwork, rng: torch.Generator | None = None) -> WeightModel:
    """The model that a row trains."""
    if row not in READING:
        return SharedWeights(network=network, rng=rng)
    model, settings = READING[row]
    return model(settings(preset), network=network, question_dim=preset.question_dim(network.dim), rng=rng)


def stages(preset: Preset) -> list[Stage]:
    """A stage a row; no FiLM row for a base network without hidden units."""
    result = []
    for row, config in preset.multitask.items():
        if row == "cond_multitask_film" and not preset.base_network(dim=1).film_units:
            continue
        own = READING[row][1](preset) if row in READING else None
        settings = (*preset.network_settings, config, own)
        needs, inferred = inferring(preset, config) if own else ((), ())
        questions = (*preset.question_settings, *inferred) if own else ()
        result.append(
            Stage(
                row,
                functools.partial(run, row=row),
                needs=("features", *needs),
                config=(*settings, *questions),
                outputs=release_file(row),
                steps=config.steps,
                cost=once(*settings),
                values=parameters_of(lambda network, row=row: build(preset, row, network)),
                format=TRAINED,
                shared=True,
            )
        )
    return result


def run(run: Run, row: str) -> dict[str, float]:
    """Train one row; returns its accuracy on validation tasks."""
    config, batch = run.preset.multitask[row], run.train_batch
    rng = run.rng(row, "init")
    torch.manual_seed(rng.initial_seed())
    model = build(run.preset, row, run.network, rng).to(run.device)
    learned = taught(run, config) if model.condition_dim else everything(run)
    if not run.begin(model, row):
        model.fit(run.asked.all(run.described))

    optimizer = adam(model.parameters(), config.lr, config.weight_decay)
    schedule = cosine_decay(optimizer, config.steps)
    ema = EMA(model, config.ema)
    state = {"model": model, "optimizer": optimizer, "schedule": schedule, "ema": ema}
    for watch, rng in training_steps(run, row, config.steps, state, [f"multitask.{row}.lr"]):
        chosen = learned.draw(config.tasks, rng)
        mine = run.processes.share(config.tasks)
        tasks = subsample(batch[chosen], config.examples, rng)[mine]
        noise = torch.randn(config.tasks, model.condition_dim, generator=rng)[mine].to(run.device)
        e = learned.asked.draw(chosen, rng)[mine]
        loss = run.network.loss(model.weights(e, noise), tasks).mean()
        optimizer.zero_grad()
        loss.backward()
        run.processes.average(model)
        norm = clip(model.parameters(), config.clip)
        optimizer.step()
        schedule.step()
        ema.update(model)
        watch(chosen, loss=loss, gradient=norm)

    model = ema.shipped()
    with torch.no_grad():
        accuracy = run.accuracy(model.weights(run.val_judged.question), run.val_judged)
    metrics = {"loss": run.processes.mean(loss), "val_accuracy": accuracy}
    if run.processes.is_main:
        save_module(run.output / f"{row}.safetensors", model, {"row": row, "seed": run.seed, **metrics})
    return metrics


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--row", choices=ROWS, required=True, help="which baseline to train")
    args = arguments.parse_args(argv)
    print(args.row, run(training_run(args), args.row))


if __name__ == "__main__":
    main()
