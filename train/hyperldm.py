"""Train HyperLDM, the diffusion model of latents conditional on questions (Section 5, Algorithms 12 and 13).

Needs adaptations and their generator (hvae or hnet_maml); writes OUTPUT/GENERATOR_hyperldm.safetensors, the EMA
weights. About 40 seconds on one CPU thread.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that the script runs from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from core.adaptation.descriptors import describe
from core.data.tasks import subsample
from core.diffusion.guidance import classifier_free
from core.diffusion.samplers import SAMPLERS, standard_normal
from core.diffusion.schedule import diffusion_loss
from core.networks.adapter import adapter_logits, task_loss
from core.networks.hyperldm import EMA, HyperLDM, drop_condition
from core.release.checkpoint import save_module
from train.adaptations import GENERATORS
from train.latents import load_generator, training_latents
from train.pipeline.optim import adam, cosine_decay
from train.pipeline.run import Run, RunningMean, open_run, parser


def questions(run: Run, z: Tensor) -> tuple[Tensor, Tensor]:
    """Task embeddings (T, D) of the training questions, and which tasks are described (T,) bool; the others' embeddings
    are inferred from mean latents z (T, Z) and the tasks' data if the preset says so, else not to be used."""
    e = run.train_batch.question
    described = torch.zeros(len(e), dtype=torch.bool, device=run.device)
    described[run.described] = True
    if run.preset.diffusion.infer_descriptors and not described.all():
        encode = lambda texts: run.store.questions(texts, run.preset.question_pooling)
        e = describe(run.train, run.train_batch.trimmed(), described, z, encode)
    return e, described


def run(run: Run, generator: str) -> dict[str, float]:
    """Train on one generator's latents; returns the loss and the accuracy on validation tasks at gamma 1."""
    training, stage = run.preset.diffusion, f"{generator}_hyperldm"
    latents = training_latents(run, generator)  # (draws, T, Z)
    draws, T, Z = latents.shape
    question, described = questions(run, latents.mean(0))
    torch.manual_seed(run.generator(stage, "init").initial_seed())
    model = HyperLDM(replace(run.preset.hyperldm, latent=Z)).to(run.device)
    model.set_statistics(latents.flatten(0, 1), question[described])
    schedule = model.schedule
    draw_weight = torch.ones(T)  # on the CPU, with the generators
    draw_weight[run.described] = training.described_weight
    evenly = training.described_weight == 1.0
    if training.infer_descriptors:
        described = torch.ones_like(described)  # one way or the other
    module, decode = load_generator(run, generator)
    module.eval().requires_grad_(False)
    optimizer = adam(model.parameters(), training.lr, training.weight_decay)
    rate = cosine_decay(optimizer, training.steps)
    ema = EMA(model, training.ema)
    running = RunningMean()
    state = {"model": model, "optimizer": optimizer, "rate": rate, "ema": ema, "running": running}
    model.train()

    def predict(z_t: Tensor, t: Tensor, e: Tensor) -> Tensor:
        with run.autocast():
            return model.predict(z_t, t, e).float()

    for _, rng in run.steps(stage, training.steps, state):
        if evenly:
            rows = torch.randint(T, (training.batch,), generator=rng)
        else:
            rows = torch.multinomial(draw_weight, training.batch, replacement=True, generator=rng)
        z0 = model.standardise(latents[torch.randint(draws, (training.batch,), generator=rng), rows])
        # Tasks without a descriptor, where none is inferred, still teach the unconditional model, as in the paper.
        e = drop_condition(question[rows] * described[rows, None], training.drop_condition, rng)
        t = torch.randint(schedule.num_steps, (training.batch,), generator=rng).to(run.device)
        eps = torch.randn(training.batch, Z, generator=rng).to(run.device)
        mine = run.processes.share(training.batch)
        rows, z0, e, t, eps = rows[mine], z0[mine], e[mine], t[mine], eps[mine]
        loss, out, z_t = diffusion_loss(partial(predict, e=e), model.target(z0, t, eps), z0, t, eps, schedule)
        if training.behaviour_weight:
            some = slice(training.behaviour_tasks // run.processes.count)
            tasks = subsample(run.train_batch[rows[some]], training.behaviour_examples, rng)
            w = decode(model.unstandardise(model.to_z0(out[some], z_t[some], t[some])))
            behaviour = task_loss(adapter_logits(w, tasks, run.preset.adapter), tasks).mean()
            loss = loss + training.behaviour_weight * behaviour
        optimizer.zero_grad()
        loss.backward()
        run.processes.average(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        rate.step()
        ema.update(model)
        running.update(run.processes.mean(loss))

    query = run.val_query
    noise = standard_normal(run.generator(stage, "val"))
    z_T = noise(torch.empty(len(query), Z, device=run.device))
    with torch.no_grad():
        sampler = SAMPLERS[run.preset.sampling.sampler]
        eps_fn = classifier_free(ema.model, query.question, 1.0)
        z = sampler(eps_fn, z_T, schedule, steps=run.preset.sampling.steps, noise=noise)
        accuracy = run.accuracy(decode(ema.model.unstandardise(z)), query)
    metrics = {"loss": running.value, "val_accuracy": accuracy}
    if not run.processes.is_main:
        return metrics
    save_module(
        run.output / f"{stage}.safetensors",
        ema.model,
        {
            "row": stage,
            "seed": run.seed,
            "generator": generator,
            **metrics,
        },
    )
    return metrics


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--generator", choices=GENERATORS, default="hvae", help="whose latents to learn")
    args = arguments.parse_args(argv)
    print(args.generator, run(open_run(args), args.generator))


if __name__ == "__main__":
    main()
