"""Train HyperCLIP, the CLIP encoder of weights (Section 4.1, Algorithm 1).

Needs adaptations and their generator (hvae or hnet_maml); writes OUTPUT/hyperclip_GENERATOR.safetensors. Contrasts
weights with the embeddings of their questions: fine-tuned weights as in the paper, or decoded ones (`decoded`). Half a
minute on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that the script runs from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


import torch

from core.checkpoint import save_module
from core.hyperclip import HyperCLIP, hyperclip_loss
from core.metrics import ranks
from train.adaptations import GENERATORS, Adaptations, load_adaptations
from train.latents import load_generator, training_latents
from train.optim import adam, cosine_decay
from train.run import Run, open_run, parser


def run(run: Run, generator: str) -> dict[str, float]:
    """Train on the weights of one generator's adaptations; returns loss and top-1 of matching within training tasks."""
    training, stage = run.preset.hyperclip_training, f"hyperclip_{generator}"
    config = run.preset.hyperclip[generator]
    module, decode = load_generator(run, generator)
    latents = training_latents(run, generator)  # (draws, T, Z)
    spread = latents.flatten(0, 1).std(0)
    if config.decoded or generator == "hnet":
        adapted = Adaptations(latents.unbind(), run.device, module)
    else:
        adapted = Adaptations(load_adaptations(run, generator), run.device)
    rows, question = run.described, run.train_batch.question
    torch.manual_seed(run.generator(stage, "init").initial_seed())
    model = HyperCLIP(config, run.preset.adapter.num_params, run.preset.adapter.dim).to(run.device)
    model.set_statistics(*adapted.moments(), question[rows])
    optimizer = adam(model.parameters(), training.lr, training.weight_decay)
    schedule = cosine_decay(optimizer, training.steps)
    state = {"model": model, "optimizer": optimizer, "schedule": schedule}
    for _, rng in run.steps(stage, training.steps, state):
        chosen = rows[
            torch.randperm(len(rows), generator=rng)[: training.batch]
        ]  # a task at most once: no false negatives
        draw = torch.randint(len(adapted), (len(chosen),), generator=rng)
        if config.decoded:
            amount = torch.rand(len(chosen), 1, generator=rng)
            noise = (amount * torch.randn(len(chosen), len(spread), generator=rng)).to(run.device)
            with torch.no_grad():
                w = decode(latents[draw, chosen] + spread * noise)
        else:
            w = adapted(draw, chosen)
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


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--generator", choices=GENERATORS, default="hvae", help="whose weights to learn from")
    args = arguments.parse_args(argv)
    print(args.generator, run(open_run(args), args.generator))


if __name__ == "__main__":
    main()
