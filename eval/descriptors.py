"""How well descriptors are inferred for training tasks that have none, for 50% Q. and 10% Q.

The inference is core/adaptation/descriptors.py.

For every undescribed task, ranks all training questions by the cosine of their whitened embeddings with the inferred
one: the task's own should come first, or at least one of its family. R^2 is the share of the variance of whitened
embeddings that is inferred. Needs runs of train/run_all.py with --descriptors and their adaptations; with --json writes
the results. Half a minute a run on one CPU core.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that `python eval/descriptors.py` works from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import argparse
import shlex
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.networks.whitening import Whitening
from eval.harness.results import write_results
from eval.harness.tables import grid, over_seeds, percent
from eval.task_inference import METRICS, chance, judge
from train.hyperldm import questions
from train.latents import training_latents
from train.pipeline.run import Run, open_run, parser


def evaluate(run: Run) -> dict[str, dict[str, Tensor]]:
    """By row ("inferred", "chance") and metric: a value for every undescribed task; R^2 is one for all."""
    inferred, described = questions(run, training_latents(run, "hvae").mean(0))
    e, missing = run.train_batch.question, (~described).nonzero().squeeze(1)
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
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="several (default: --seed)")
    arguments.add_argument("--shares", nargs="+", type=float, default=[0.5, 0.1], help="instead of --descriptors")
    arguments.add_argument("--json", type=Path, help="write the results here")
    args = arguments.parse_args(argv)
    if args.descriptors != 1.0 or args.output:
        arguments.error("--shares instead of --descriptors; --output is not needed")
    if wrong := [share for share in args.shares if not 0 < share < 1]:
        arguments.error(f"--shares {wrong[0]:g}; allowed: more than 0, less than 1")
    seeds, found = args.seeds or [args.seed], []
    for share in args.shares:
        runs = [open_run(argparse.Namespace(**vars(args) | {"seed": seed, "descriptors": share})) for seed in seeds]
        for run in runs:
            if not run.preset.diffusion.infer_descriptors:
                arguments.error("these settings infer none; --set diffusion.infer_descriptors=true does")
            if not (run.output / "latents_hvae.safetensors").is_file():
                flags = shlex.join([*run.flags, "--seed", str(run.seed), "--descriptors", f"{share:g}"])
                arguments.error(f"no latents in {run.output}; python train/run_all.py {flags} makes them")
        found += records([evaluate(run) for run in runs], share, seeds)
    table = grid(
        found,
        lambda r: f"{100 * r['descriptors']:g}% Q., {r['row']} ({r['n_tasks']})",
        lambda r: r["metric"],
        lambda r: f"{r['mean']:.3f}" if r["metric"] == "R^2" else percent(r),
    )
    print(table.to_string())
    print("\nIn % of the undescribed training tasks, among all training questions; R^2 as a share of 1.")
    if args.json:
        write_results(args.json, args.preset, found, "eval/descriptors.py")


if __name__ == "__main__":
    main()
