"""Meta-train the MAML rows: mnet_maml, mnet_fomaml, hnet_maml, cond_hnet_maml (Algorithms 3, 4, 7).

Needs features (made on the first use); writes OUTPUT/ROW.safetensors. Up to eleven minutes a row on one CPU thread
(hnet_maml); 17 for cond_hnet_maml.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import torch
from torch import Tensor

from core.adaptation.few_shot import few_shot_weights
from core.adaptation.inner_loop import maml_loss
from core.adaptation.weights import loss_on, maml_weights_loss
from core.data.tasks import TaskBatch, split_support_query, subsample
from core.ending import in_one_line
from core.networks.base import BaseNetwork
from core.networks.ema import EMA
from core.networks.hypernet import CondHyperNet, HNet
from core.networks.weight_model import SharedWeights, WeightModel
from core.release.checkpoint import save_module
from train.pipeline.adapted import everything, inferring, taught
from train.pipeline.flags import parser, training_run
from train.pipeline.optim import adam, clip, cosine_decay
from train.pipeline.run import Run
from train.pipeline.settings import MamlConfig, Preset, once
from train.pipeline.stage import TRAINED, Stage, parameters_of, release_file
from train.pipeline.steps import training_steps

ROWS = ("mnet_maml", "mnet_fomaml", "hnet_maml", "cond_hnet_maml")
READING = ("cond_hnet_maml",)  # those that read the question


def build(preset: Preset, row: str, network: BaseNetwork, rng: torch.Generator | None = None) -> WeightModel:
    """The model that a row trains: what the inner loop adapts, where it starts, how it becomes weights (Table 2)."""
    if row == "hnet_maml":
        return HNet(preset.hnet, network=network, rng=rng)
    if row in READING:
        dim = preset.question_dim(network.dim)
        return CondHyperNet(preset.cond_hnet[row], network=network, question_dim=dim, rng=rng)
    return SharedWeights(network=network, rng=rng)


def own_settings(preset: Preset, row: str) -> tuple[object, ...]:
    """The settings of the network that a row trains besides the base network."""
    if row == "hnet_maml":
        return (preset.hnet,)
    return (preset.cond_hnet[row],) if row in READING else ()


def stages(preset: Preset) -> list[Stage]:
    """A stage a row."""
    result = []
    for row, config in preset.maml.items():
        settings = (*preset.network_settings, config, *own_settings(preset, row))
        needs, inferred = inferring(preset, config) if row in READING else ((), ())
        questions = (*preset.question_settings, *inferred) if row in READING else ()
        result.append(
            Stage(
                row,
                functools.partial(run, row=row),
                needs=("features", *needs),
                config=(*settings, *questions, preset.few_shot_steps),
                outputs=release_file(row),
                steps=config.steps,
                cost=once(*settings),
                values=parameters_of(lambda network, row=row: build(preset, row, network)),
                format=TRAINED,
                shared=True,
            )
        )
    return result


def query_loss(
    model: WeightModel, support: TaskBatch, query: TaskBatch, noise: Tensor, steps: Tensor, config: MamlConfig
) -> Tensor:
    """Query loss (T,) after adaptation on support sets (Eq. 1, 3); `steps` (T,) falls from task to task."""
    inner = {"steps": steps, "lr": config.inner_lr, "first_order": config.first_order}
    if isinstance(model, SharedWeights):
        return maml_weights_loss(model.network, model.w, support, query, **inner)
    decode = model.repeated()
    losses = (loss_on(model.network, tasks, decode) for tasks in (support, query))
    return maml_loss(model.initial(support.question, noise), *losses, falling=True, **inner)


def run(run: Run, row: str) -> dict[str, float]:
    """Meta-train one row; returns its accuracy on validation tasks, before and after 50 steps on their support sets."""
    config, batch = run.preset.maml[row], run.train_batch
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
    rates = [f"maml.{row}.lr", f"maml.{row}.inner_lr"]
    for watch, rng in training_steps(run, row, config.steps, state, rates):
        chosen = learned.draw(config.tasks, rng)
        tasks = subsample(replace(batch[chosen], question=learned.asked.draw(chosen, rng)), config.examples, rng)
        support, query = split_support_query(tasks, support_fraction=config.support_fraction, rng=rng)
        inner_steps = torch.randint(config.max_inner_steps + 1, (len(tasks),), generator=rng)
        noise = torch.randn(config.tasks, model.condition_dim, generator=rng)
        mine = torch.arange(config.tasks)[run.processes.share(config.tasks)]
        mine = mine[inner_steps[mine].argsort(descending=True, stable=True)]  # those that are done drop out at the end
        on_device = mine.to(run.device)
        loss = query_loss(
            model,
            support[on_device],
            query[on_device],
            noise[mine].to(run.device),
            inner_steps[mine].to(run.device),
            config,
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        run.processes.average(model)
        # before the step, so that it has an effect
        norm = clip(model.parameters(), config.clip)
        optimizer.step()
        schedule.step()
        ema.update(model)
        watch(chosen, loss=loss, gradient=norm)

    model = ema.shipped()
    support, query = run.val_support, run.val_query
    few_shot = few_shot_weights(run.network, model, support, steps=run.preset.few_shot_steps, lr=config.inner_lr)
    metrics = {
        "loss": run.processes.mean(loss),
        "val_accuracy": run.accuracy(model.weights(run.val_judged.question), run.val_judged),
        "val_few_shot": run.accuracy(few_shot, query),
    }
    if run.processes.is_main:
        made = {"row": row, "seed": run.seed, "inner_lr": config.inner_lr}
        save_module(run.output / f"{row}.safetensors", model, made | metrics)
    return metrics


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--row", choices=ROWS, required=True, help="which row to train")
    args = arguments.parse_args(argv)
    print(args.row, run(training_run(args), args.row))


if __name__ == "__main__":
    main()
