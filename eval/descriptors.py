"""How well descriptors are inferred for training tasks that have none, for 50% Q. and 10% Q.

For every undescribed task, ranks all training questions by the cosine of their whitened embeddings with the one that
core/adaptation/descriptors.py infers: the task's own should come first, or at least one of its family. R^2 is the share
of the variance of whitened embeddings that is inferred.

Needs releases that were trained with --descriptors (default: those of the preset with 50% and 10%), and the adaptations
in their work folder. Prints the table; writes the records with --json. Half a minute a release on one CPU core.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.networks.whitening import Whitening
from eval.harness.releases import command_for, open_runs, parser
from eval.harness.results import write_results
from eval.harness.tables import grid, over_seeds, percent
from eval.task_inference import METRICS, chance, judge
from train.pipeline.adapted import draw_path, questions, training_latents
from train.pipeline.run import Run


def evaluate(run: Run) -> dict[str, dict[str, Tensor]]:
    """By row ("inferred", "chance") and metric: a value for every undescribed task; R^2 is one for all."""
    inferred = questions(run, True, training_latents(run, "hvae").mean(0)).e[:, 0]  # every question as it is
    e, described = run.train_batch.question, torch.zeros(len(run.train), dtype=torch.bool, device=run.device)
    described[run.described] = True
    missing = (~described).nonzero().squeeze(1)
    whitening = Whitening(e.shape[1]).to(e.device)
    whitening.fit(e[described])
    found, own, mean = whitening(inferred[missing]), whitening(e[missing]), whitening(e[described]).mean(0)
    r2 = 1 - (found - own).square().sum() / (own - mean).square().sum()
    candidates = torch.cat([missing, described.nonzero().squeeze(1)]).tolist()  # task t's own question is candidate t
    families = sorted({task.family for task in run.train.tasks})
    family = torch.tensor([families.index(run.train.tasks[i].family) for i in candidates])
    cosine = F.normalize(found - mean, dim=-1) @ F.normalize(whitening(e[candidates]) - mean, dim=-1).mT
    rows = {"inferred": judge(cosine.cpu(), family), "chance": chance(len(missing), family)}
    result = {row: dict(zip(METRICS, scores, strict=True)) for row, scores in rows.items()}
    return {"inferred": {"R^2": r2[None].double().cpu()} | result["inferred"], "chance": result["chance"]}


def records(found: list[dict[str, dict[str, Tensor]]], share: float, seeds: list[int]) -> list[dict[str, Any]]:
    """Records of one share of descriptors, over seeds."""
    result = []
    for row, metrics in found[0].items():
        for metric in metrics:
            reached = over_seeds([float(f[row][metric].mean()) for f in found], seeds)
            count = len(found[0]["chance"]["top-1"])
            result.append({"row": row, "descriptors": share, "metric": metric, **reached, "n_tasks": count})
    return result


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__, shares=(0.5, 0.1), limit=False)
    args = arguments.parse_args(argv)
    runs, generators = open_runs(arguments, args)
    if told_all := [run for run in runs if run.preset.descriptors == 1.0]:
        arguments.error(f"{told_all[0].output} was told all questions; allowed: releases with --descriptors below 1")
    if not runs[0].preset.diffusion.infer_descriptors:
        arguments.error(f"{runs[0].output}: its settings infer none; --set diffusion.infer_descriptors=true does")
    for run, generator in zip(runs, generators, strict=True):
        for needed in (run.output / "latents_hvae.safetensors", draw_path(run, "hvae", 0)):
            if not needed.is_file():
                arguments.error(f"{needed} is missing; {command_for(run, generator)} makes it")
    found = []
    for share in dict.fromkeys(run.preset.descriptors for run in runs):
        own = [run for run in runs if run.preset.descriptors == share]
        found += records([evaluate(run) for run in own], share, [run.seed for run in own])
    table = grid(
        found,
        lambda r: f"{100 * r['descriptors']:g}% Q., {r['row']} ({r['n_tasks']})",
        lambda r: r["metric"],
        lambda r: f"{r['mean']:.3f}" if r["metric"] == "R^2" else percent(r),
    )
    print(table.to_string())
    print("\nIn % of the undescribed training tasks, among all training questions; R^2 as a share of 1.")
    if args.json:
        write_results(args.json, runs[0].preset.name, found, "eval/descriptors.py")


if __name__ == "__main__":
    main()
