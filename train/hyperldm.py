"""Train HyperLDM, the diffusion model of latents conditional on questions (Section 5, Algorithms 12 and 13).

Needs adaptations and their generator; writes OUTPUT/GENERATOR_hyperldm.safetensors, the EMA weights. About 40 seconds
on one CPU thread.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import torch
from torch import Tensor

from core.data.tasks import subsample
from core.diffusion.guidance import classifier_free
from core.diffusion.samplers import SAMPLERS, standard_normal
from core.diffusion.schedule import diffusion_loss
from core.ending import in_one_line
from core.networks.base import BaseNetwork
from core.networks.ema import EMA
from core.networks.hyperldm import HyperLDM, drop_condition
from core.networks.weight_generator import WEIGHT_GENERATORS
from core.release.checkpoint import save_module
from train.pipeline.adapted import described_weights, inferring, load_generator, questions, training_latents
from train.pipeline.flags import parser, training_run
from train.pipeline.optim import adam, clip, cosine_decay
from train.pipeline.run import Run, drawn
from train.pipeline.settings import Preset, once
from train.pipeline.stage import TRAINED, Stage, parameters_of, release_file
from train.pipeline.steps import RunningMean, training_steps


def stages(preset: Preset) -> list[Stage]:
    """A stage for every weight generator of the preset."""
    _, inferred = inferring(preset, preset.diffusion)
    settings = (preset.hyperldm, preset.diffusion)
    return [
        Stage(
            f"{name}_hyperldm",
            functools.partial(run, name=name),
            needs=(WEIGHT_GENERATORS[name].checkpoint, f"adaptations_{name}"),
            config=(*settings, *preset.question_settings, *inferred),
            outputs=release_file(f"{name}_hyperldm"),
            steps=preset.diffusion.steps,
            cost=once(*preset.network_settings, *settings),
            values=parameters_of(functools.partial(build, preset, name)),
            format=TRAINED,
            shared=True,
        )
        for name in preset.adaptations
    ]


def build(preset: Preset, name: str, network: BaseNetwork) -> HyperLDM:
    """The model for one generator's latents."""
    dim = preset.question_dim(network.dim)
    return HyperLDM(preset.hyperldm, latent=preset.latent(name), dim=dim)


def run(run: Run, name: str) -> dict[str, float]:
    """Train on one generator's latents; returns the loss and the accuracy on validation tasks at gamma 1."""
    training, stage, network = run.preset.diffusion, f"{name}_hyperldm", run.network
    latents = training_latents(run, name)  # (draws, T, Z)
    draws, _, Z = latents.shape
    asked = questions(run, training.infer_descriptors, latents.mean(0))
    torch.manual_seed(run.rng(stage, "init").initial_seed())
    model = build(run.preset, name, network).to(run.device)
    if not run.begin(model, stage):
        model.set_statistics(latents.flatten(0, 1), asked.all(run.described))
    schedule = model.schedule
    weights = described_weights(run, training)
    generator = load_generator(run, name)
    optimizer = adam(model.parameters(), training.lr, training.weight_decay)
    rate = cosine_decay(optimizer, training.steps)
    ema = EMA(model, training.ema)
    running = RunningMean()
    state = {"model": model, "optimizer": optimizer, "rate": rate, "ema": ema, "running": running}
    model.train()

    def predict(z_t: Tensor, t: Tensor, e: Tensor, noise: Tensor) -> Tensor:
        with run.autocast():
            return model.predict(z_t, t, e, noise).float()

    for watch, rng in training_steps(run, stage, training.steps, state, ["diffusion.lr"]):
        rows = drawn(weights, training.batch, rng)
        z0 = model.standardise(latents[torch.randint(draws, (training.batch,), generator=rng), rows])
        e = drop_condition(asked.draw(rows, rng), training.drop_condition, rng)
        t = torch.randint(schedule.num_steps, (training.batch,), generator=rng).to(run.device)
        eps = torch.randn(training.batch, Z, generator=rng).to(run.device)
        noise = torch.randn(training.batch, model.dim, generator=rng).to(run.device)
        mine = run.processes.share(training.batch)
        rows, z0, e, t, eps, noise = (x[mine] for x in (rows, z0, e, t, eps, noise))
        denoise = functools.partial(predict, e=e, noise=noise)
        loss, out, z_t = diffusion_loss(denoise, model.target(z0, t, eps), z0, t, eps, schedule)
        if training.behaviour_weight:
            some = slice(training.behaviour_tasks // run.processes.count)
            tasks = subsample(run.train_batch[rows[some]], training.behaviour_examples, rng)
            w = generator.decode(model.unstandardise(model.to_z0(out[some], z_t[some], t[some])))
            loss = loss + training.behaviour_weight * network.loss(w, tasks).mean()
        optimizer.zero_grad()
        loss.backward()
        run.processes.average(model)
        norm = clip(model.parameters(), 10.0)
        optimizer.step()
        rate.step()
        ema.update(model)
        watch(rows, loss=loss, gradient=norm)
        running.update(run.processes.mean(loss))

    model = ema.shipped()
    query, sampling = run.val_judged, run.preset.sampling
    noise = standard_normal(run.rng(stage, "val"))
    z_T = noise(torch.empty(len(query), Z, device=run.device))
    with torch.no_grad():
        eps_fn = classifier_free(model, query.question, 1.0)
        z = SAMPLERS[sampling.sampler](eps_fn, z_T, schedule, steps=sampling.steps, noise=noise)
        accuracy = run.accuracy(generator.decode(model.unstandardise(z)), query)
    metrics = {"loss": running.value, "val_accuracy": accuracy}
    if run.processes.is_main:
        made = {"row": stage, "seed": run.seed, "generator": name}
        save_module(run.output / f"{stage}.safetensors", model, made | metrics)
    return metrics


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    names = WEIGHT_GENERATORS.names()
    arguments.add_argument("--generator", choices=names, default="hvae", help="whose latents to learn (default: hvae)")
    args = arguments.parse_args(argv)
    print(args.generator, run(training_run(args), args.generator))


if __name__ == "__main__":
    main()
