"""Train the HVAE on adapted weights (Section 3, Algorithm 8).

Needs the adaptations of the MNet-MAML initialisation; writes OUTPUT/hvae*.safetensors. About five minutes on one
CPU thread. What it reaches is reported as task accuracy: of adapted weights, and of the same weights encoded and
decoded, on query examples of training and of validation tasks.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that the script runs from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import functools

import torch
from torch.nn import functional as F

from core.adaptation.subspace import adapt_adapters
from core.data.tasks import subsample
from core.networks.adapter import adapter_logits, task_loss
from core.networks.hvae import HVAE
from core.release.checkpoint import load_adapter, save_module
from train.adaptations import Adaptations, load_adaptations
from train.pipeline.optim import adam, cosine_decay
from train.pipeline.run import Run, open_run, parser


def run(run: Run) -> dict[str, float]:
    """Train the HVAE; returns losses and the accuracy of decoded weights."""
    config, training, adapter = run.preset.hvae, run.preset.hvae_training, run.preset.adapter
    w = Adaptations(load_adaptations(run, "hvae"), run.device)
    T = len(run.train_batch)
    torch.manual_seed(run.generator("hvae", "init").initial_seed())
    model = HVAE(config, adapter.num_params).to(run.device)
    model.set_statistics(*w.moments())
    optimizer = adam(model.parameters(), training.lr)
    schedule = cosine_decay(optimizer, training.steps)
    terms: dict[str, torch.Tensor] = {}
    for _, generator in run.steps(
        "hvae", training.steps, {"model": model, "optimizer": optimizer, "schedule": schedule}
    ):
        rows = torch.randint(T, (training.batch,), generator=generator)
        draw = torch.randint(len(w), (training.batch,), generator=generator)
        noise = torch.randn(training.batch, config.latent, generator=generator)
        mine = run.processes.share(training.batch)
        sample = w(draw[mine], rows[mine])
        with run.autocast():
            terms, decoded = model.losses(sample, noise[mine].to(run.device))
        if config.behaviour_weight:
            tasks = subsample(run.train_batch[rows], training.examples, generator)[mine]
            logits = adapter_logits(decoded, tasks, adapter)
            if config.behaviour == "labels":
                behaviour = task_loss(logits, tasks)
            else:
                with torch.no_grad():
                    wanted = adapter_logits(sample, tasks, adapter).softmax(-1)  # (B, N, C)
                given = logits.log_softmax(-1).masked_fill(wanted == 0, 0.0)
                divergence = F.kl_div(given, wanted, reduction="none").sum(-1)  # (B, N)
                behaviour = (divergence * tasks.example_mask).sum(1) / tasks.example_mask.sum(1)
            terms["behaviour"] = config.behaviour_weight * behaviour
        loss = sum(term.mean() for term in terms.values())
        optimizer.zero_grad()
        loss.backward()
        run.processes.average(model)
        for part in (model.encoder, model.decoder):
            torch.nn.utils.clip_grad_norm_(part.parameters(), training.clip)
        optimizer.step()
        schedule.step()

    model.eval()
    metrics = {name: run.processes.mean(term.mean()) for name, term in terms.items()}
    first = functools.partial(w.tasks, 0)
    metrics["train_adapted"] = run.accuracy(first, run.train_batch)
    metrics["train_decoded"] = run.accuracy(lambda rows: model.decode(model.encode(first(rows))[0]), run.train_batch)
    start, _, _ = load_adapter(run.output / "mnet_maml.safetensors")
    support, query = run.val_support, run.val_query
    adaptation = run.preset.adaptations["hvae"]
    adapted = adapt_adapters(start.to(run.device), support, adapter, steps=adaptation.steps, lr=adaptation.lr)
    with torch.no_grad():
        metrics["val_adapted"] = run.accuracy(adapted, query)
        metrics["val_accuracy"] = run.accuracy(model.decode(model.encode(adapted)[0]), query)
    if run.processes.is_main:
        save_module(run.output / "hvae.safetensors", model, {"row": "hvae", "seed": run.seed, **metrics})
    return metrics


def main(argv: list[str] | None = None) -> None:
    print("hvae", run(open_run(parser(__doc__).parse_args(argv))))


if __name__ == "__main__":
    main()
