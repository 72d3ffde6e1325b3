"""Train the multitask baselines: uncond_multitask, cond_multitask, cond_multitask_film (Algorithms 2, 5, 6).

Needs features (made on the first use) and writes OUTPUT/ROW.safetensors. Up to seven minutes a row on one CPU thread.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that the script runs from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


import torch

from core.data.tasks import subsample
from core.networks.adapter import adapter_logits, init_adapter, task_loss
from core.networks.hypernet import FilmAdapter, HyperNet
from core.release.checkpoint import save_adapter, save_module
from train.pipeline.optim import adam, cosine_decay
from train.pipeline.run import Run, open_run, parser

ROWS = ("uncond_multitask", "cond_multitask", "cond_multitask_film")


def run(run: Run, row: str) -> dict[str, float]:
    """Train one row; returns its accuracy on validation tasks."""
    config, adapter = run.preset.multitask[row], run.preset.adapter
    batch = run.train_batch
    generator = run.generator(row, "init")
    torch.manual_seed(generator.initial_seed())
    if row == "uncond_multitask":
        model = torch.nn.ParameterDict({"w": init_adapter(adapter, generator)}).to(run.device)
        rows = torch.arange(len(batch))

        def weights(e: torch.Tensor) -> torch.Tensor:
            return model["w"].expand(len(e), -1)
    else:
        if row == "cond_multitask":
            model = HyperNet(run.preset.cond_hnet[row], adapter, generator).to(run.device)
        else:
            model = FilmAdapter(run.preset.film, adapter, generator).to(run.device)
        rows = run.described
        model.condition.fit(batch.question[rows])
        weights = model

    optimizer = adam(model.parameters(), config.lr, config.weight_decay)
    schedule = cosine_decay(optimizer, config.steps)
    for _, generator in run.steps(row, config.steps, {"model": model, "optimizer": optimizer, "schedule": schedule}):
        chosen = rows[torch.randint(len(rows), (config.tasks,), generator=generator)]
        tasks = subsample(batch[chosen], config.examples, generator)[run.processes.share(config.tasks)]
        loss = task_loss(adapter_logits(weights(tasks.question), tasks, adapter), tasks).mean()
        optimizer.zero_grad()
        loss.backward()
        run.processes.average(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        schedule.step()

    model.eval()
    with torch.no_grad():
        accuracy = run.accuracy(weights(run.val_query.question), run.val_query)
    metrics = {"loss": run.processes.mean(loss), "val_accuracy": accuracy}
    path = run.output / f"{row}.safetensors"
    if not run.processes.is_main:
        return metrics
    if row == "uncond_multitask":
        save_adapter(path, model["w"].detach(), adapter, {"row": row, "seed": run.seed, **metrics})
    else:
        save_module(path, model, {"row": row, "seed": run.seed, **metrics})
    return metrics


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--row", choices=ROWS, required=True, help="which baseline to train")
    args = arguments.parse_args(argv)
    print(args.row, run(open_run(args), args.row))


if __name__ == "__main__":
    main()
