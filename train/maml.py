"""Meta-train the MAML rows: mnet_maml, mnet_fomaml, hnet_maml, cond_hnet_maml (Algorithms 3, 4, 7).

Needs features (made on the first use) and writes OUTPUT/ROW.safetensors. Up to eleven minutes a row on one CPU thread
(hnet_maml); 17 for cond_hnet_maml.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that the script runs from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


import torch
from torch import Tensor

from core.adaptation.inner_loop import adapt, maml_loss
from core.adaptation.subspace import adapt_adapters, maml_adapter_loss
from core.data.tasks import TaskBatch, split_support_query, subsample
from core.networks.adapter import adapter_logits, init_adapter, task_loss
from core.networks.hypernet import HyperNet
from core.release.checkpoint import save_adapter, save_module
from train.pipeline.optim import adam, cosine_decay
from train.pipeline.run import Run, open_run, parser

ROWS = ("mnet_maml", "mnet_fomaml", "hnet_maml", "cond_hnet_maml")


def run(run: Run, row: str) -> dict[str, float]:
    """Meta-train one row; returns its accuracy on validation tasks, before and after 50 steps on their support sets."""
    config, adapter = run.preset.maml[row], run.preset.adapter
    batch = run.train_batch
    if config.subspace and row not in ("mnet_maml", "mnet_fomaml"):
        raise ValueError(f"maml.{row}.subspace: only rows that adapt adapter weights themselves have it")
    generator = run.generator(row, "init")
    torch.manual_seed(generator.initial_seed())
    rows = torch.arange(len(batch))
    # What the inner loop adapts, where it starts, and how it becomes weights (Table 2).
    if row in ("mnet_maml", "mnet_fomaml"):
        model = torch.nn.ParameterDict({"w": init_adapter(adapter, generator)}).to(run.device)

        def start(tasks: TaskBatch) -> Tensor:
            return model["w"].expand(len(tasks), -1)

        def decode(w: Tensor) -> Tensor:
            return w
    elif row == "hnet_maml":
        model = decode = HyperNet(run.preset.hnet, adapter, generator).to(run.device)

        def start(tasks: TaskBatch) -> Tensor:
            return model.z0.expand(len(tasks), -1)
    else:
        model = HyperNet(run.preset.cond_hnet[row], adapter, generator).to(run.device)
        rows = run.described
        model.condition.fit(batch.question[rows])
        decode = model.decode

        def start(tasks: TaskBatch) -> Tensor:  # the inner loop moves the whitened embedding
            return model.condition(tasks.question)

    def loss_on(tasks: TaskBatch):
        def loss(z: Tensor) -> Tensor:
            """Of z (n, K), for the first n tasks."""
            first = tasks[: len(z)] if len(z) < len(tasks) else tasks
            return task_loss(adapter_logits(decode(z), first, adapter), first)

        return loss

    optimizer = adam(model.parameters(), config.lr)
    schedule = cosine_decay(optimizer, config.steps)
    for _, generator in run.steps(row, config.steps, {"model": model, "optimizer": optimizer, "schedule": schedule}):
        chosen = rows[torch.randint(len(rows), (config.tasks,), generator=generator)]
        tasks = subsample(batch[chosen], config.examples, generator)
        support, query = split_support_query(tasks, support_fraction=config.support_fraction, generator=generator)
        inner_steps = torch.randint(config.max_inner_steps + 1, (len(tasks),), generator=generator).to(run.device)
        mine = torch.arange(config.tasks)[run.processes.share(config.tasks)].to(run.device)
        mine = mine[inner_steps[mine].argsort(descending=True, stable=True)]  # those that are done drop out at the end
        support, query = support[mine], query[mine]
        inner = {"steps": inner_steps[mine], "lr": config.inner_lr, "first_order": config.first_order}
        if config.subspace:
            loss = maml_adapter_loss(model["w"], support, query, adapter, **inner).mean()
        else:
            losses = maml_loss(start(tasks[mine]), loss_on(support), loss_on(query), falling=True, **inner)
            loss = losses.mean()
        optimizer.zero_grad()
        loss.backward()
        run.processes.average(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)  # before the step, so that it has an effect
        optimizer.step()
        schedule.step()

    model.eval()
    support, query = run.val_support, run.val_query
    with torch.no_grad():
        before = start(query)
        zero_shot = run.accuracy(decode(before), query)
    few_shot = {"steps": run.preset.few_shot_steps, "lr": config.inner_lr}
    if config.subspace:
        after = adapt_adapters(model["w"].detach(), support, adapter, **few_shot)
    else:
        after = adapt(before, loss_on(support), **few_shot)
    with torch.no_grad():
        adapted = run.accuracy(decode(after), query)
    metrics = {"loss": run.processes.mean(loss), "val_accuracy": zero_shot, "val_few_shot": adapted}
    path = run.output / f"{row}.safetensors"
    if not run.processes.is_main:
        return metrics
    if isinstance(model, HyperNet):
        save_module(path, model, {"row": row, "seed": run.seed, "inner_lr": config.inner_lr, **metrics})
    else:
        save_adapter(
            path, model["w"].detach(), adapter, {"row": row, "seed": run.seed, "inner_lr": config.inner_lr, **metrics}
        )
    return metrics


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--row", choices=ROWS, required=True, help="which row to train")
    args = arguments.parse_args(argv)
    print(args.row, run(open_run(args), args.row))


if __name__ == "__main__":
    main()
