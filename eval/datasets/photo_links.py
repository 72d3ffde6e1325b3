"""Link by link, pooled over pairs: where accuracy is lost between adapters of a question's pairs and of its sentence.

As eval/links.py, for presets whose accuracy is pooled. Training and validation questions are judged on their query
sets. Test questions have no support sets: those with at least ten pairs are cross-fitted, as in photo_few_shot.py.

Needs release directories with HVAE + HyperLDM, MNet-MAML and the few-shot choices; encodes images on the first use,
then caches them. Prints the table; writes the records with --json. Half a minute a release on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from core.data.tasks import Task, TaskBatch, TaskSet
from core.generator import AdapterGenerator
from core.networks.base import right_answers
from eval.datasets.photo_few_shot import FOLDS, folds
from eval.datasets.photo_kinds import frequent
from eval.harness import tables
from eval.harness.metrics import PooledPairs, PooledScores
from eval.harness.releases import open_release, parser, require
from eval.harness.results import write_results
from eval.links import CHUNK, lacks, weights_of_links
from train.pipeline.run import Run


def cross_fits(test: TaskSet) -> tuple[TaskBatch, list[TaskBatch], list[TaskBatch]]:
    """All pairs of test tasks; for every fold its support and its query pairs."""
    batch = test.batch(part="all")
    fold = folds(batch.example_mask)
    return (
        batch,
        [batch.with_mask((fold != held_out) & (fold >= 0)) for held_out in range(FOLDS)],
        [batch.with_mask(fold == held_out) for held_out in range(FOLDS)],
    )


def answered(
    generator: AdapterGenerator, parts: Iterable[tuple[TaskBatch, TaskBatch]], device: torch.device
) -> dict[str, Tensor]:
    """Which examples (T, N), bool, every link answers right, after each (support, query) in turn."""
    right: dict[str, Tensor] = {}
    for support, query in parts:
        found: dict[str, list[Tensor]] = {}
        for first in range(0, len(query), CHUNK):
            rows = slice(first, first + CHUNK)
            s, q = support[rows].trimmed().to(device), query[rows].to(device)
            for link, w in weights_of_links(generator, s, q).items():
                with torch.no_grad():
                    found.setdefault(link, []).append(right_answers(generator.network.logits(w, q), q).cpu())
        for link, chunks in found.items():
            right[link] = right.get(link, torch.zeros(())).bool() | torch.cat(chunks)
    return right


def evaluate(run: Run, generators: Sequence[AdapterGenerator], limit: int | None) -> list[dict[str, Any]]:
    """Records of every link on training, validation and test questions."""
    wanted = set(frequent(run.dataset.tasks))

    def is_judged(task: Task, split: str) -> bool:
        return task.question in wanted if split == "test" else bool(task.support[0] and task.query[0])

    records = []
    for split in ("train", "val", "test"):
        tasks = run.task_set(split)
        judged = [i for i, task in enumerate(tasks.tasks) if is_judged(task, split)]
        tasks = tasks.select(judged[:limit])
        if not len(tasks):
            continue
        if split == "test":
            batch, supports, queries = cross_fits(tasks)
        else:
            batch = tasks.batch(part="query")
            supports, queries = [tasks.batch(part="support")], [batch]
        found = [answered(g, zip(supports, queries, strict=True), run.device) for g in generators]
        mask = batch.example_mask
        pairs = PooledPairs(torch.arange(len(tasks))[:, None].expand_as(mask)[mask])
        for link in found[0]:
            scores = PooledScores(torch.stack([right[link] for right in found])[:, mask], pairs)
            reached = tables.pooled_record(scores, [g.config["seed"] for g in generators])
            records.append({"row": link, "tasks": split, **reached})
    return records


def main(argv: list[str] | None = None) -> None:
    args = (arguments := parser(__doc__)).parse_args(argv)
    run, generators = open_release(arguments, args, one_share=True)
    require(arguments, run, generators, lacks)
    records = evaluate(run, generators, args.limit_tasks)
    print(tables.grid(records, lambda r: r["row"], tables.tasks_column).to_string())
    print(
        "\nAccuracy in % (s.d. over training seeds) [95% interval], pooled over pairs. Training questions were seen by "
        f"every\nmodel, with these pairs. Test questions: those with at least ten pairs, cross-fitted in {FOLDS} folds."
    )
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/datasets/photo_links.py")


if __name__ == "__main__":
    main()
