"""Train HyperCLIP, the CLIP encoder of weights (Section 4.1, Algorithm 1).

Needs adaptations and their generator (hvae or hnet_maml); writes OUTPUT/hyperclip_GENERATOR.safetensors. Contrasts
weights with the embeddings of their questions: fine-tuned weights as in the paper, with `decoded` also decoded ones.
A minute on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that the script runs from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


import torch
from torch import Tensor

from core.checkpoint import save_module
from core.hyperclip import HyperCLIP, hyperclip_loss
from core.metrics import ranks
from train.adaptations import GENERATORS, Adaptations, load_adaptations
from train.latents import load_generator, training_latents
from train.optim import adam, cosine_decay
from train.run import Run, open_run, parser


def run(run: Run, generator: str) -> dict[str, float]:
    """Train on the weights of one generator's adaptations; returns loss and top-1 of matching within training tasks."""
    training, stage = run.preset.hyperclip_training[generator], f"hyperclip_{generator}"
    config = run.preset.hyperclip[generator]
    module, decode = load_generator(run, generator)
    latents = training_latents(run, generator)  # (draws, T, Z)
    spread = latents.flatten(0, 1).std(0)
    adapted = decoded = Adaptations(latents.unbind(), run.device, module)
    if generator == "hvae":
        adapted = Adaptations(load_adaptations(run, generator), run.device)
    share = config.decoded_share if config.decoded else 0.0
    rows, question = run.described, run.train_batch.question
    torch.manual_seed(run.generator(stage, "init").initial_seed())
    model = HyperCLIP(config, run.preset.adapter.num_params, run.preset.adapter.dim).to(run.device)
    model.set_statistics(*_mixed_moments(adapted, decoded, share), question[rows])
    optimizer = adam(model.parameters(), training.lr, training.weight_decay)
    schedule = cosine_decay(optimizer, training.steps)
    state = {"model": model, "optimizer": optimizer, "schedule": schedule}
    for _, rng in run.steps(stage, training.steps, state):
        chosen = rows[
            torch.randperm(len(rows), generator=rng)[: training.batch]
        ]  # a task at most once: no false negatives
        draw = torch.randint(len(adapted), (len(chosen),), generator=rng)
        noisy = round(share * len(chosen))  # these are decoded with noise, the others as they were fine-tuned
        w = adapted(draw[noisy:], chosen[noisy:])
        if noisy:
            amount = torch.rand(noisy, 1, generator=rng)
            noise = (amount * torch.randn(noisy, len(spread), generator=rng)).to(run.device)
            with torch.no_grad():
                w = torch.cat([decode(latents[draw[:noisy], chosen[:noisy]] + spread * noise), w])
        with run.autocast():
            embedded, asked = model(w), model.embed_questions(question[chosen])
        loss = hyperclip_loss(embedded.float(), asked.float(), model.logit_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        cosine = model(adapted.tasks(0, rows)) @ model.embed_questions(question[rows]).mT
    rank = ranks(cosine, torch.arange(len(rows), device=run.device)).float()
    metrics = {"loss": float(loss.detach()), "train_top1": float((rank == 1).float().mean())}
    save_module(run.output / f"{stage}.safetensors", model, {"row": stage, "seed": run.seed, **metrics})
    return metrics


def _mixed_moments(adapted: Adaptations, decoded: Adaptations, share: float) -> tuple[Tensor, Tensor]:
    """Mean and s.d. (P,) of weights of which a share is decoded."""
    if share in (0.0, 1.0) or adapted is decoded:
        return (decoded if share == 1.0 else adapted).moments()
    (mean_a, std_a), (mean_d, std_d) = adapted.moments(), decoded.moments()
    mean = share * mean_d + (1 - share) * mean_a
    square = share * (std_d**2 + mean_d**2) + (1 - share) * (std_a**2 + mean_a**2)
    return mean, (square - mean**2).clamp(min=0).sqrt()


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--generator", choices=GENERATORS, default="hvae", help="whose weights to learn from")
    args = arguments.parse_args(argv)
    print(args.generator, run(open_run(args), args.generator))


if __name__ == "__main__":
    main()
