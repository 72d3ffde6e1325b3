"""Train HyperCLIP, the CLIP encoder of weights (Section 4.1, Algorithm 1).

Needs adaptations and their generator; writes OUTPUT/GENERATOR_hyperclip.safetensors. Contrasts weights with the
embeddings of their questions: fine-tuned weights as in the paper, with `decoded` also decoded ones, and with
`components` their principal components. A minute on two CPU cores.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import torch
from torch import Tensor

from core.ending import in_one_line
from core.networks.base import BaseNetwork
from core.networks.ema import EMA
from core.networks.hyperclip import HyperCLIP, HyperCLIPConfig, hyperclip_loss, ranks
from core.networks.weight_generator import WEIGHT_GENERATORS
from core.release.checkpoint import save_module
from train.pipeline.adapted import AdaptedWeights, inferring, load_draws, load_generator, taught, training_latents
from train.pipeline.flags import parser, training_run
from train.pipeline.optim import adam, cosine_decay
from train.pipeline.run import Run
from train.pipeline.settings import Preset, once
from train.pipeline.stage import TRAINED, Stage, parameters_of, release_file
from train.pipeline.steps import training_steps

_COMPONENT_DRAWS = 2  # of all tasks: what principal components are taken of


def stages(preset: Preset) -> list[Stage]:
    """A stage for every weight generator of the preset."""
    result = []
    for name in preset.adaptations:
        settings = (preset.hyperclip[name], preset.hyperclip_training[name])
        _, inferred = inferring(preset, settings[1])
        make = lambda network, config=settings[0]: build(preset, config, network)
        result.append(
            Stage(
                f"{name}_hyperclip",
                functools.partial(run, name=name),
                needs=(WEIGHT_GENERATORS[name].checkpoint, f"adaptations_{name}"),
                config=(*settings, *preset.question_settings, *inferred),
                outputs=release_file(f"{name}_hyperclip"),
                steps=settings[1].steps,
                cost=once(*preset.network_settings, *settings),
                values=parameters_of(make),
                format=TRAINED,
            )
        )
    return result


def build(preset: Preset, config: HyperCLIPConfig, network: BaseNetwork) -> HyperCLIP:
    """The model for weights of a base network."""
    return HyperCLIP(config, num_params=network.num_params, dim=preset.question_dim(network.dim))


class TrainingWeights:
    """What HyperCLIP learns from: adapted weights, and in their stead, for a share, what a generator decodes from
    their latents with noise of up to one s.d. on these."""

    def __init__(self, run: Run, name: str) -> None:
        config = run.preset.hyperclip[name]
        self.generator = load_generator(run, name)
        self.latents = training_latents(run, name)  # (draws, T, Z)
        self.spread = self.latents.flatten(0, 1).std(0)
        self.adapted = AdaptedWeights(load_draws(run, name), run.device, self.generator.adapted_weights)
        self.decoded = AdaptedWeights(self.latents.unbind(), run.device, self.generator.decode)
        self.share = config.decoded_share if config.decoded else 0.0

    @torch.no_grad()
    def __call__(self, draw: Tensor, task: Tensor, rng: torch.Generator) -> Tensor:
        """Weights (B, P): row b is draw `draw[b]` of training task `task[b]`; the first ones are decoded with noise."""
        noisy = round(self.share * len(task))
        w = self.adapted(draw[noisy:], task[noisy:])
        if not noisy:
            return w
        amount = torch.rand(noisy, 1, generator=rng)
        noise = (amount * torch.randn(noisy, len(self.spread), generator=rng)).to(w.device)
        z = self.latents[draw[:noisy], task[:noisy]] + self.spread * noise
        return torch.cat([self.generator.decode(z), w])

    def sample(self, rng: torch.Generator) -> Tensor:
        """Some draws of all tasks, in random order."""
        draws, tasks = self.latents.shape[:2]
        order = lambda: torch.randperm(tasks, generator=rng)
        return torch.cat([self(torch.full((tasks,), d), order(), rng) for d in range(min(_COMPONENT_DRAWS, draws))])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and s.d. (P,) without noise."""
        if self.share in (0.0, 1.0):
            return (self.decoded if self.share else self.adapted).moments()
        (mean_a, std_a), (mean_d, std_d) = self.adapted.moments(), self.decoded.moments()
        mean = self.share * mean_d + (1 - self.share) * mean_a
        square = self.share * (std_d**2 + mean_d**2) + (1 - self.share) * (std_a**2 + mean_a**2)
        return mean, (square - mean**2).clamp(min=0).sqrt()


def run(run: Run, name: str) -> dict[str, float]:
    """Train on the weights of one generator's adaptations; returns loss and top-1 of matching within training tasks."""
    training, stage = run.preset.hyperclip_training[name], f"{name}_hyperclip"
    weights = TrainingWeights(run, name)
    learned = taught(run, training, weights.latents.mean(0))
    rows = learned.rows
    model = _model(run, name, weights)
    optimizer = adam(model.parameters(), training.lr, training.weight_decay)
    schedule = cosine_decay(optimizer, training.steps)
    ema = EMA(model, training.ema)
    state = {"model": model, "optimizer": optimizer, "schedule": schedule, "ema": ema}
    rates = [f"hyperclip_training.{name}.lr"]
    for watch, rng in training_steps(run, stage, training.steps, state, rates):
        # a task at most once: no false negatives
        chosen = rows[torch.randperm(len(rows), generator=rng)[: training.batch]]
        w = weights(torch.randint(weights.latents.shape[0], (len(chosen),), generator=rng), chosen, rng)
        noise = torch.randn(len(chosen), model.dim, generator=rng).to(run.device)
        with run.autocast():
            embedded, asked = model(w), model.embed_questions(learned.asked.draw(chosen, rng), noise)
        loss = hyperclip_loss(embedded.float(), asked.float(), model.logit_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        ema.update(model)
        watch(chosen, loss=loss)
    model = ema.shipped()
    with torch.no_grad():
        cosine = model(weights.adapted.tasks(0, rows)) @ model.embed_questions(learned.asked.e[rows, 0]).mT
    rank = ranks(cosine, torch.arange(len(rows), device=run.device)).float()
    metrics = {"loss": float(loss.detach()), "train_top1": float((rank == 1).float().mean())}
    save_module(run.output / f"{stage}.safetensors", model, {"row": stage, "seed": run.seed, **metrics})
    return metrics


def _model(run: Run, name: str, weights: TrainingWeights) -> HyperCLIP:
    """The model to train: that of the run's start, or a fresh one with the statistics of training weights and
    questions."""
    config, stage = run.preset.hyperclip[name], f"{name}_hyperclip"
    questions, sample = run.asked.all(run.described), None
    if config.components:
        sample = weights.sample(run.rng(stage, "components"))
        # A small dataset cannot tell so many apart; a start has its own.
        given = None if run.start is None else run.start.setting(stage, "components")
        config = replace(config, components=given or min(config.components, len(sample) // 2, sample.shape[1]))
    torch.manual_seed(run.rng(stage, "init").initial_seed())
    model = build(run.preset, config, run.network).to(run.device)
    if run.begin(model, stage):
        return model
    if sample is None:
        model.set_statistics(*weights.moments(), questions)
    else:
        model.set_components(sample, questions)
    return model


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    names = WEIGHT_GENERATORS.names()
    arguments.add_argument("--generator", choices=names, default="hvae", help="whose weights to learn from")
    args = arguments.parse_args(argv)
    print(args.generator, run(training_run(args), args.generator))


if __name__ == "__main__":
    main()
