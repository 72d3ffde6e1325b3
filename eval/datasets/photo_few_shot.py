"""Few-shot accuracy on test questions that have no support sets, by cross-fitting within each of them.

The pairs of every test question with at least ten fall into five folds: weights adapt to four and are judged on the
fifth, in turn, so that every pair is judged once. Rows are those of Table 4, each at the rate that validation tasks
chose, beside zero-shot rows on the same questions. Accuracy is pooled over pairs.

Needs release directories; encodes the test images on the first use, then caches them. Prints the table; writes the
records with --json. Two minutes a release on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.data.tasks import TaskBatch
from core.generator import AdapterGenerator
from eval.datasets.photo_kinds import ZERO_SHOT, frequent
from eval.harness import tables
from eval.harness.metrics import PooledPairs, PooledScores
from eval.harness.origins import descriptors
from eval.harness.releases import open_release, parser, print_missing
from eval.harness.results import write_results
from eval.harness.rows import FEW_SHOT, Row, answered, available, choices_of
from train.pipeline.run import Run

FOLDS = 5


def folds(mask: Tensor, count: int = FOLDS, seed: int = 0) -> Tensor:
    """A random fold (T, N), 0 to `count` - 1, of every example in `mask` (T, N), of equal sizes up to one in each task;
    -1 for padding."""
    noise = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)).to(mask.device)
    rank = noise.masked_fill(~mask, 2.0).argsort(1).argsort(1)  # padding ranks last
    return (rank % count).masked_fill(~mask, -1)


def cross_fitted(row: Row, generator: AdapterGenerator, batch: TaskBatch, fold: Tensor) -> Tensor:
    """Which examples (T, N), bool, a few-shot row answers right after adapting to the other folds of their task."""
    right = torch.zeros_like(batch.example_mask).cpu()
    for held_out in range(FOLDS):
        support = batch.with_mask(fold != held_out).trimmed()
        right |= answered(row, generator, support, batch.with_mask(fold == held_out))
    return right


def evaluate(run: Run, generators: Sequence[AdapterGenerator], least: int) -> list[dict[str, Any]]:
    """Records of zero-shot and few-shot rows on the test questions with at least `least` pairs.

    Raises:
        ValueError: there are none.
    """
    test, wanted = run.task_set("test"), set(frequent(run.dataset.tasks, least))
    test = test.select([i for i, task in enumerate(test.tasks) if task.question in wanted])
    if not len(test):
        raise ValueError(f"--least-pairs {least}: no test question has so many")
    batch = test.batch(part="all").to(run.device)
    fold, mask = folds(batch.example_mask), batch.example_mask.cpu()
    pairs = PooledPairs(torch.arange(len(test))[:, None].expand_as(mask)[mask])
    records, scores = [], {}
    for row in (*ZERO_SHOT, *FEW_SHOT):
        owners = [g for g in generators if available(row, g)]
        if not owners:
            continue
        judged = [cross_fitted(row, g, batch, fold) if row.few_shot else answered(row, g, batch, batch) for g in owners]
        scores[row.id] = PooledScores(torch.stack(judged)[:, mask], pairs)
        records.append(
            {
                "row": row.id,
                "label": row.label,
                **choices_of(row, owners),
                "descriptors": descriptors(owners[0]),
                "tasks": "frequent",
                "few_shot": row.few_shot,
                **tables.pooled_record(scores[row.id], [g.config["seed"] for g in owners]),
                "paper": row.paper,
            }
        )
    for record in records:
        if "uncond_multitask" in scores and record["row"] != "uncond_multitask":
            difference = scores[record["row"]].minus(scores["uncond_multitask"])
            record["vs_uncond_multitask"] = difference.rounded()
    return records


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__, limit=False)
    arguments.add_argument(
        "--least-pairs", type=int, default=10, metavar="N", help="of a test question that is judged (default: 10)"
    )
    args = arguments.parse_args(argv)
    if args.least_pairs < FOLDS:
        arguments.error(f"--least-pairs {args.least_pairs}; allowed: {FOLDS} or more, one for each fold")
    run, generators = open_release(arguments, args)
    if len({descriptors(g) for g in generators}) > 1:
        arguments.error("--descriptors: one share at a time")
    try:
        records = evaluate(run, generators, args.least_pairs)
    except ValueError as error:
        arguments.error(str(error))
    shots = {True: "few-shot", False: "zero-shot"}
    print(tables.grid(records, lambda r: (shots[r["few_shot"]], tables.label_of([r]))).to_string())
    print(
        f"\nAccuracy in % (s.d. over training seeds) [95% interval], pooled over the pairs of {records[0]['n_tasks']} "
        f"test questions; few-shot rows adapt to {FOLDS - 1} of {FOLDS} folds."
    )
    found = {record["row"] for record in records}
    print_missing(run, [row.id for row in (*ZERO_SHOT, *FEW_SHOT) if row.id not in found])
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/datasets/photo_few_shot.py")


if __name__ == "__main__":
    main()
