"""Table 1: zero-shot accuracy of every row on the test tasks, between plain CLIP and the few-shot ceiling.

Reports test tasks of families that training knew and of new families apart, and parts the known ones by whether
training asks the same in other words. Where a preset pools accuracy over pairs of picture and question, reports all of
them and those whose picture training does not show, with intervals that resample questions, then pairs within these.

Needs release directories (default: the shipped weights); encodes the test images on the first use, then caches them.
Prints the table; writes it with --csv and --markdown, the records with --json, accuracies by task with --per-task.
About two minutes a release on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from core.data.emoji.dataset import EmojiVQA
from core.data.emoji.questions import phrasings
from core.data.task_sets import image_disjoint, trained_images
from core.data.tasks import TaskSet
from core.generator import AdapterGenerator
from eval.harness import figures, tables
from eval.harness.metrics import PooledPairs, PooledScores, Scores, TaskScores
from eval.harness.origins import descriptors
from eval.harness.releases import open_release, parser, print_missing
from eval.harness.results import write_results
from eval.harness.rows import ROWS, Row, answered, available, choices_of, without_support
from train.pipeline.run import Run


def sets_of_tasks(run: Run, test: TaskSet) -> dict[str, Tensor]:
    """The sets of test tasks (T,) that Table 1 has figures of. In Emoji-VQA, tasks of known families are parted by
    whether training asks the same in other words ("asked") or not ("unasked")."""
    sets = tables.masks(test)
    if isinstance(run.dataset, EmojiVQA):
        trained = {task.question for task in run.dataset.tasks if task.split == "train"}
        asked = torch.tensor([not trained.isdisjoint(phrasings(task.question)) for task in test.tasks])
        new = torch.tensor([task.new_family for task in test.tasks])
        sets |= {name: mask for name, mask in (("asked", asked), ("unasked", ~asked & ~new)) if mask.any()}
    return sets


def seen_images(run: Run) -> set[int]:
    """Images of training and validation tasks that query examples of test tasks show too.

    Raises:
        ValueError: there are none, or no query example has another image.
    """
    query = {image for task in run.dataset.tasks if task.split == "test" for image in task.query[0]}
    seen = query & trained_images(run.dataset.tasks)
    if len(seen) in (0, len(query)):
        raise ValueError(f"--image-disjoint: {len(seen)} of {len(query)} query images of test tasks occur in training")
    return seen


def evaluated_tasks(run: Run, limit: int | None, seen: AbstractSet[int], *, prompted: bool = False) -> TaskSet:
    """The test tasks, or the first `limit` of them, less the query examples of images that were `seen`."""
    test = run.task_set("test", prompted=prompted)
    test = image_disjoint(test, seen) if seen else test
    return test if limit is None else test.select(range(min(limit, len(test))))


def evaluate(
    run: Run,
    generators: Sequence[AdapterGenerator],
    limit: int | None,
    rows: Sequence[Row],
    seen: AbstractSet[int] = frozenset(),
) -> list[dict[str, Any]]:
    """One record per row, set of tasks and share of descriptors, with its `scores`. Without the query examples of
    images that were `seen`, there is one set, "image_disjoint"."""
    test, prompted = evaluated_tasks(run, limit, seen), evaluated_tasks(run, limit, seen, prompted=True)
    if run.preset.pooled:
        sets = tables.pooled_sets(test.tasks, trained_images(run.dataset.tasks))
    else:
        sets = {"image_disjoint": torch.ones(len(test), dtype=torch.bool)} if seen else sets_of_tasks(run, test)
    support, query = test.batch(part="support").to(run.device), test.batch(part="query").to(run.device)
    with_prompts = prompted.batch(part="query").to(run.device)
    records = []
    shares = sorted({descriptors(g) for g in generators}, reverse=True)
    for row, share in ((row, share) for row in rows for share in shares):
        chosen = with_prompts if row.id == "clip_prompted" else query
        owners = [g for g in generators if available(row, g) and descriptors(g) == share]
        if not owners:
            continue
        right = torch.stack([answered(row, g, support, chosen) for g in owners])  # (seeds, T, N)
        seeds = [g.config["seed"] for g in owners]
        for summary, scores in summaries(right, chosen.example_mask.cpu(), test, seeds, sets):
            records.append(
                {
                    "row": row.id,
                    "label": row.label,
                    **choices_of(row, owners),
                    "descriptors": share,
                    **summary,
                    "paper": row.paper,
                    "scores": scores,
                }
            )
    return records


def summaries(
    right: Tensor, mask: Tensor, test: TaskSet, seeds: Sequence[int], sets: dict[str, Tensor] | dict[str, PooledPairs]
) -> Iterator[tuple[tables.Record, Scores]]:
    """What answers, `right` (seeds, T, N) or not, to the examples in `mask` (T, N) come to on every set."""
    accuracies = right.sum(-1) / mask.sum(-1).clamp(min=1)  # (seeds, T)
    for name, some in sets.items():
        if isinstance(some, PooledPairs):
            scores = PooledScores(right[:, mask][:, some.mask], some)
            yield {"tasks": name, **tables.pooled_record(scores, seeds)}, scores
        else:
            (summary,) = tables.summaries(accuracies, test, seeds, {name: some})
            yield summary, TaskScores(accuracies[:, some])


def per_task(records: Sequence[dict[str, Any]], test: TaskSet) -> pd.DataFrame | None:
    """Accuracy of every row on each test task, of the release of seed 0 that was told all questions; None without."""
    whole = next(name for name in tables.WHOLE if any(r["tasks"] == name for r in records))
    columns = {
        r["label"]: r["scores"].by_task()[r["seeds"].index(0)].tolist()
        for r in records
        if r["tasks"] == whole and r["descriptors"] == 1.0 and 0 in r["seeds"]
    }
    if not columns:
        return None
    questions = [task.question for task in test.tasks]
    return pd.DataFrame({"question": questions} | columns).rename_axis("task").round(4)


def add_comparisons(records: list[dict[str, Any]]) -> None:
    """Paired bootstrap of every row against Cond. Multitask, of pooled accuracies against Uncond. Multitask too; share
    of the way from floor to ceiling. Takes the `scores` away."""
    for name, share in {(r["tasks"], r["descriptors"]) for r in records}:
        here = {(r["row"], r["label"]): r for r in records if (r["tasks"], r["descriptors"]) == (name, share)}
        by_id = {row: record for (row, _), record in here.items()}
        floor, ceiling = by_id.get("clip"), by_id.get("few_shot_ceiling")
        for record in here.values():
            for row in tables.references(record):
                if row in by_id and record["row"] != row:
                    record[f"vs_{row}"] = record["scores"].minus(by_id[row]["scores"]).rounded()
            if floor is not None and ceiling is not None and ceiling["mean"] > floor["mean"]:
                record["closed"] = round((record["mean"] - floor["mean"]) / (ceiling["mean"] - floor["mean"]), 3)
    for record in records:
        record.pop("scores")


def add_losses(records: Sequence[dict[str, Any]]) -> None:
    """The points that each row loses with fewer descriptors, by paired bootstrap over tasks, where both shares were
    trained with the same seeds. Needs the `scores`, which `add_comparisons` takes away."""
    told_all = {(r["label"], r["tasks"]): r for r in records if r["descriptors"] == 1.0}
    for record in records:
        full = told_all.get((record["label"], record["tasks"]))
        if record["descriptors"] < 1.0 and full is not None and full["seeds"] == record["seeds"]:
            record["loss"] = full["scores"].minus(record["scores"]).rounded()


def note(run: Run, records: Sequence[dict[str, Any]], seeds: int) -> str:
    """What stands below the printed table."""
    found, name = {r["tasks"] for r in records}, run.preset.name
    spread = f"mean (s.d. over {seeds} training seeds where there are several)"
    disjoint = "image_disjoint: query examples whose image training does not show; "
    if run.preset.pooled:
        return (
            f"Accuracy in %, pooled over the query examples of {name}'s test tasks, {spread} [95% interval: questions\n"
            f"resampled, then pairs within them]. {disjoint if 'image_disjoint' in found else ''}differences, on all "
            "pairs, in points.\nThe paper's column is the mean over tasks on all of Meta-VQA."
        )
    asked = "asked, unasked: known families, the same question in other words in training or not; "
    more = (asked if "asked" in found else "") + (disjoint if "image_disjoint" in found else "")
    return (
        f"Accuracy in %, query sets of {name}'s test tasks, {spread}.\nKnown: families with training questions; new: "
        f"families that training never saw; {more}\nclosed: share of the way from plain CLIP to the few-shot ceiling, "
        "on known families; loss: against all questions\nknown, in points. The paper's column is Meta-VQA: another "
        "dataset."
    )


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars on known and new families, with the s.d. over seeds where there are several; of all questions known."""
    plt = figures.pyplot()
    records = [record for record in records if record["descriptors"] == 1.0]
    labels, baselines = list(tables.by_label(records)), {row.id for row in ROWS if row.baseline}
    value = {(record["label"], record["tasks"]): record for record in records}
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.32 * len(labels) + 1.2), sharey=True, sharex=True)
    for axis, tasks, title in zip(axes, ("known", "new"), ("known families", "new families"), strict=True):
        for i, label in enumerate(labels):
            record = value[label, tasks]
            few_shot, ours = record["row"].startswith("few_shot"), record["row"] not in baselines
            colour = "#9aa5b1" if few_shot else "#4f46e5" if ours else "#f0a35e"
            axis.barh(i, 100 * record["mean"], xerr=100 * (record["sd"] or 0.0), color=colour, height=0.7)
            axis.text(100 * record["mean"] + 0.8, i, f"{100 * record['mean']:.1f}", va="center", fontsize=8)
        axis.set_title(f"{title} ({value[labels[0], tasks]['n_tasks']} tasks)", fontsize=10)
        axis.set_xlabel("test accuracy, %")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(labels)), labels, fontsize=8)
    axes[0].invert_yaxis()
    axes[0].set_xlim(left=30)
    for colour, name in (("#f0a35e", "baselines"), ("#4f46e5", "from the question, ours"), ("#9aa5b1", "few-shot")):
        axes[1].barh([0], [0], color=colour, label=name)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="lower right", fontsize=8, frameon=False, ncols=3)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figures.save(figure, path)


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--baselines-only", action="store_true", help="leave out HyperCLIP and HyperLDM (to settle a benchmark)"
    )
    arguments.add_argument("--csv", type=Path, help="write the table as CSV")
    arguments.add_argument("--markdown", type=Path, help="write the table as Markdown")
    arguments.add_argument(
        "--per-task", type=Path, metavar="CSV", help="write the accuracies of seed 0, all questions known, task by task"
    )
    arguments.add_argument(
        "--image-disjoint",
        action="store_true",
        help="of the test tasks' query examples, only those whose image no training or validation task shows",
    )
    args = arguments.parse_args(argv)
    run, generators = open_release(arguments, args)
    if args.image_disjoint and run.preset.pooled:
        arguments.error(f"--image-disjoint: the table of {run.preset.name} has these pairs in a column of their own")
    try:
        seen = seen_images(run) if args.image_disjoint else frozenset()
    except ValueError as error:
        arguments.error(str(error))
    if args.per_task and (0, 1.0) not in {(g.config["seed"], descriptors(g)) for g in generators}:
        arguments.error("--per-task: the release of seed 0 that was told all questions is not among these")
    rows = [row for row in ROWS if row.baseline or not args.baselines_only]
    rows = without_support(rows, run.dataset.tasks)
    records = evaluate(run, generators, args.limit_tasks, rows, seen)
    tasks = per_task(records, evaluated_tasks(run, args.limit_tasks, seen)) if args.per_task else None
    add_losses(records)
    add_comparisons(records)
    table = tables.accuracy_table(records)
    print(table.to_string())
    print(f"\n{note(run, records, len({g.config['seed'] for g in generators}))}")
    print_missing(run, sorted({row.id for row in rows} - {record["row"] for record in records}))
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/table1.py")
    if args.csv:
        table.to_csv(args.csv)
    if tasks is not None:
        tasks.to_csv(args.per_task)
    if args.markdown:
        left = "-" * (len(table.columns) + 1)
        args.markdown.write_text(tables.grid_markdown(table, align=left) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
