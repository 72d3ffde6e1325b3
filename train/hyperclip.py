"""Train HyperCLIP, the CLIP encoder of weights (Section 4.1, Algorithm 1).

Needs adaptations and their generator (hvae or hnet_maml); writes OUTPUT/hyperclip_GENERATOR.safetensors. Contrasts
weights with the embeddings of their questions: fine-tuned weights as in the paper, with `decoded` also decoded ones,
and with `components` their principal components. A minute on two CPU cores.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

if __package__ in (None, ""):  # so that the script runs from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


import torch
from torch import Tensor

from core.networks.hyperclip import HyperCLIP, hyperclip_loss
from core.release.checkpoint import save_module
from eval.harness.metrics import ranks
from train.adaptations import GENERATORS, Adaptations, load_adaptations
from train.latents import load_generator, training_latents
from train.pipeline.optim import adam, cosine_decay
from train.pipeline.run import Run, open_run, parser

_COMPONENT_DRAWS = 2  # of all tasks: what principal components are taken of


class TrainingWeights:
    """What HyperCLIP learns from: adapted weights, and in their stead, for a share, what a generator decodes from
    their latents with noise of up to one s.d. on these."""

    def __init__(self, run: Run, generator: str) -> None:
        config = run.preset.hyperclip[generator]
        module, self.decode = load_generator(run, generator)
        self.latents = training_latents(run, generator)  # (draws, T, Z)
        self.spread = self.latents.flatten(0, 1).std(0)
        self.adapted = self.decoded = Adaptations(self.latents.unbind(), run.device, module)
        if generator == "hvae":
            self.adapted = Adaptations(load_adaptations(run, generator), run.device)
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
        return torch.cat([self.decode(self.latents[draw[:noisy], task[:noisy]] + self.spread * noise), w])

    def sample(self, rng: torch.Generator) -> Tensor:
        """Some draws of all tasks, in random order."""
        draws, tasks = self.latents.shape[:2]
        order = lambda: torch.randperm(tasks, generator=rng)
        return torch.cat([self(torch.full((tasks,), d), order(), rng) for d in range(min(_COMPONENT_DRAWS, draws))])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and s.d. (P,) without noise."""
        if self.share in (0.0, 1.0) or self.adapted is self.decoded:
            return (self.decoded if self.share == 1.0 else self.adapted).moments()
        (mean_a, std_a), (mean_d, std_d) = self.adapted.moments(), self.decoded.moments()
        mean = self.share * mean_d + (1 - self.share) * mean_a
        square = self.share * (std_d**2 + mean_d**2) + (1 - self.share) * (std_a**2 + mean_a**2)
        return mean, (square - mean**2).clamp(min=0).sqrt()


def run(run: Run, generator: str) -> dict[str, float]:
    """Train on the weights of one generator's adaptations; returns loss and top-1 of matching within training tasks."""
    training, stage = run.preset.hyperclip_training[generator], f"hyperclip_{generator}"
    weights = TrainingWeights(run, generator)
    rows, question = run.described, run.train_batch.question
    model = _model(run, generator, weights)
    optimizer = adam(model.parameters(), training.lr, training.weight_decay)
    schedule = cosine_decay(optimizer, training.steps)
    state = {"model": model, "optimizer": optimizer, "schedule": schedule}
    for _, rng in run.steps(stage, training.steps, state):
        # a task at most once: no false negatives
        chosen = rows[torch.randperm(len(rows), generator=rng)[: training.batch]]
        w = weights(torch.randint(weights.latents.shape[0], (len(chosen),), generator=rng), chosen, rng)
        with run.autocast():
            embedded, asked = model(w), model.embed_questions(question[chosen])
        loss = hyperclip_loss(embedded.float(), asked.float(), model.logit_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        cosine = model(weights.adapted.tasks(0, rows)) @ model.embed_questions(question[rows]).mT
    rank = ranks(cosine, torch.arange(len(rows), device=run.device)).float()
    metrics = {"loss": float(loss.detach()), "train_top1": float((rank == 1).float().mean())}
    save_module(run.output / f"{stage}.safetensors", model, {"row": stage, "seed": run.seed, **metrics})
    return metrics


def _model(run: Run, generator: str, weights: TrainingWeights) -> HyperCLIP:
    """A fresh model with the statistics of the training weights and questions."""
    config, stage = run.preset.hyperclip[generator], f"hyperclip_{generator}"
    questions, sample = run.train_batch.question[run.described], None
    if config.components:
        sample = weights.sample(run.generator(stage, "components"))
        # A small dataset cannot tell so many apart.
        config = replace(config, components=min(config.components, len(sample) // 2, sample.shape[1]))
    torch.manual_seed(run.generator(stage, "init").initial_seed())
    model = HyperCLIP(config, run.preset.adapter.num_params, run.preset.adapter.dim).to(run.device)
    if sample is None:
        model.set_statistics(*weights.moments(), questions)
    else:
        model.set_components(sample, questions)
    return model


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--generator", choices=GENERATORS, default="hvae", help="whose weights to learn from")
    args = arguments.parse_args(argv)
    print(args.generator, run(open_run(args), args.generator))


if __name__ == "__main__":
    main()
