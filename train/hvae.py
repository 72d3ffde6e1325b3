"""Train the HVAE on adapted weights (Section 3, Algorithm 8).

Needs the adaptations of the MNet-MAML initialisation; writes OUTPUT/hvae*.safetensors. About five minutes on one
CPU thread. What it reaches is reported as task accuracy: of adapted weights, and of the same weights encoded and
decoded, on query examples of training and of validation tasks.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import torch
from torch import Tensor
from torch.nn import functional as F

from core.adaptation.few_shot import adapt_model
from core.data.tasks import TaskBatch, subsample
from core.ending import in_one_line
from core.networks.base import BaseNetwork
from core.networks.hvae import HVAE
from core.release.checkpoint import save_module
from train.pipeline.adapted import AdaptedWeights, load_draws, load_model
from train.pipeline.flags import parser, training_run
from train.pipeline.optim import adam, clip, cosine_decay
from train.pipeline.run import Run
from train.pipeline.settings import Preset, once
from train.pipeline.stage import TRAINED, Stage, parameters_of, release_file
from train.pipeline.steps import training_steps


def stages(preset: Preset) -> list[Stage]:
    """One stage, where the preset makes its training data."""
    if HVAE.name not in preset.adaptations:
        return []
    settings = (preset.hvae, preset.hvae_training)
    return [
        Stage(
            HVAE.checkpoint,
            run,
            needs=(f"adaptations_{HVAE.name}",),
            config=settings,
            outputs=release_file(HVAE.checkpoint),
            steps=preset.hvae_training.steps,
            cost=once(*preset.network_settings, *settings),
            values=parameters_of(lambda network: HVAE(preset.hvae, num_params=network.num_params)),
            format=TRAINED,
            shared=True,
        )
    ]


def behaviour_loss(kind: str, network: BaseNetwork, decoded: Tensor, sample: Tensor, tasks: TaskBatch) -> Tensor:
    """What decoded weights (B, P) do on their tasks, (B,): the task's own loss ("labels"), or the KL from the answers
    of the weights (B, P) that they were encoded from ("answers")."""
    if kind == "labels":
        return network.loss(decoded, tasks)
    with torch.no_grad():
        wanted = network.logits(sample, tasks).softmax(-1)  # (B, N, C)
    given = network.logits(decoded, tasks).log_softmax(-1).masked_fill(wanted == 0, 0.0)
    divergence = F.kl_div(given, wanted, reduction="none").sum(-1)  # (B, N)
    return (divergence * tasks.example_mask).sum(1) / tasks.example_mask.sum(1)


def run(run: Run) -> dict[str, float]:
    """Train the HVAE; returns losses and the accuracy of decoded weights."""
    config, training, network = run.preset.hvae, run.preset.hvae_training, run.network
    w = AdaptedWeights(load_draws(run, HVAE.name), run.device)
    torch.manual_seed(run.rng("hvae", "init").initial_seed())
    model = HVAE(config, num_params=network.num_params).to(run.device)
    if not run.begin(model, HVAE.checkpoint) and training.standardise:
        model.set_statistics(*w.moments())
    optimizer = adam(model.parameters(), training.lr)
    schedule = cosine_decay(optimizer, training.steps)
    terms: dict[str, Tensor] = {}
    state = {"model": model, "optimizer": optimizer, "schedule": schedule}
    for watch, rng in training_steps(run, HVAE.checkpoint, training.steps, state, ["hvae_training.lr"]):
        rows = run.draw_tasks(training.batch, rng)
        draw = torch.randint(len(w), (training.batch,), generator=rng)
        noise = torch.randn(training.batch, config.latent, generator=rng)
        mine = run.processes.share(training.batch)
        sample = w(draw[mine], rows[mine])
        with run.autocast():
            terms, decoded = model.losses(sample, noise[mine].to(run.device))
        if config.behaviour_weight:
            tasks = subsample(run.train_batch[rows], training.examples, rng)[mine]
            behaviour = behaviour_loss(config.behaviour, network, decoded, sample, tasks)
            terms["behaviour"] = config.behaviour_weight * behaviour
        loss = sum(term.mean() for term in terms.values())
        optimizer.zero_grad()
        loss.backward()
        run.processes.average(model)
        parts = (model.encoder, model.decoder)
        norms = [clip(part.parameters(), training.clip) for part in parts]
        optimizer.step()
        schedule.step()
        watch(rows, loss=loss, gradient=sum(norms))

    model.requires_grad_(False)
    metrics = {name: run.processes.mean(term.mean()) for name, term in terms.items()}
    first = functools.partial(w.tasks, 0)
    metrics["train_adapted"] = run.accuracy(first, run.train_batch)
    metrics["train_decoded"] = run.accuracy(lambda rows: model.decode(model.encode(first(rows))), run.train_batch)
    adaptation = run.preset.adaptations[HVAE.name]
    start = load_model(run, HVAE.adapted_row)
    adapted = adapt_model(network, start, run.val_support, steps=adaptation.steps, lr=adaptation.lr)
    metrics["val_adapted"] = run.accuracy(adapted, run.val_query)
    metrics["val_accuracy"] = run.accuracy(model.decode(model.encode(adapted)), run.val_query)
    if run.processes.is_main:
        save_module(run.output / "hvae.safetensors", model, {"row": "hvae", "seed": run.seed, **metrics})
    return metrics


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    print("hvae", run(training_run(parser(__doc__).parse_args(argv))))


if __name__ == "__main__":
    main()
