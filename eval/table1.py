"""Table 1: zero-shot accuracy of every row on the test tasks, between plain CLIP and the few-shot ceiling.

Needs a release directory (the shipped weights by default); encodes the test images on the first use, then caches them.
Test tasks of families that training knew and of new families are reported apart. About two minutes on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from core.data.emoji.dataset import EmojiVQA
from core.data.emoji.questions import phrasings
from core.data.tasks import TaskSet
from core.data.without_images import image_disjoint
from core.generator import AdapterGenerator
from eval.harness import figures
from eval.harness.common import open_release, parser, write_results
from eval.harness.metrics import paired_bootstrap
from eval.harness.rows import FEW_SHOT, ROWS, Row, accuracy, available
from train.pipeline.run import Run

_WHOLE = ("all", "image_disjoint")  # sets of all tasks that were evaluated


def sets_of_tasks(run: Run, test: TaskSet) -> dict[str, Tensor]:
    """The sets of test tasks (T,) that Table 1 has figures of. In Emoji-VQA, tasks of known families are parted by
    whether training asks the same in other words ("asked") or not ("unasked")."""
    sets = figures.masks(test)
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
    tasks = run.dataset.tasks
    trained = {image for task in tasks if task.split != "test" for image in task.examples("all")[0]}
    query = {image for task in tasks if task.split == "test" for image in task.query[0]}
    seen = query & trained
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
    """One record per row, set of tasks and share of descriptors, with accuracies `per_task` (seeds, T). Without the
    query examples of images that were `seen`, there is one set, "image_disjoint"."""
    test, prompted = evaluated_tasks(run, limit, seen), evaluated_tasks(run, limit, seen, prompted=True)
    sets = {"image_disjoint": torch.ones(len(test), dtype=torch.bool)} if seen else sets_of_tasks(run, test)
    support, query = test.batch(part="support").to(run.device), test.batch(part="query").to(run.device)
    with_prompts = prompted.batch(part="query").to(run.device)
    records = []
    shares = sorted({g.config.get("descriptors", 1.0) for g in generators}, reverse=True)
    for row, share in ((row, share) for row in rows for share in shares):
        chosen = with_prompts if row.id == "clip_prompted" else query
        owners = [g for g in generators if available(row, g) and g.config.get("descriptors", 1.0) == share]
        if not owners:
            continue
        scores = torch.stack([accuracy(row, g, support, chosen) for g in owners])  # (seeds, T)
        seeds = [g.config["seed"] for g in owners]
        for summary in figures.summaries(scores, test, seeds, sets):
            records.append(
                {
                    "row": row.id,
                    "label": row.label,
                    **_choices(row, owners),
                    "descriptors": share,
                    **summary,
                    "paper": row.paper,
                    "per_task": scores[:, sets[summary["tasks"]]],
                }
            )
    return records


def _choices(row: Row, generators: Sequence[AdapterGenerator]) -> dict[str, Any]:
    """What a row's gamma is, and what validation tasks chose for it, by training seed: these may differ."""
    found: dict[str, Any] = {"gamma": row.gamma}
    if row.method == "hyperldm" and row.gamma is None:
        found["gammas"] = [g.config["choices"][row.id]["gamma"] for g in generators]
        if len(set(found["gammas"])) == 1:
            found["gamma"] = found["gammas"][0]
    if row.id == "few_shot_ceiling":
        found["ceilings"] = [g.config["choices"]["few_shot_ceiling"]["row"] for g in generators]
    return found


def label_of(records: Sequence[dict[str, Any]]) -> str:
    """The label of a row with what validation tasks chose for it, seed by seed where seeds differ; from its records of
    all shares of descriptors. Result files from before the choices of all seeds were kept have the first seed's."""
    notes = {}
    for record in records:
        chosen = record.get("gammas") or record.get("ceilings") or []
        if not chosen and record["label"].endswith("gamma of validation"):
            chosen = [record["gamma"]]
        if chosen:
            shown = [_few_shot_label(value) if isinstance(value, str) else f"{value:g}" for value in chosen]
            notes[record["descriptors"]] = ", ".join(shown if len(set(shown)) > 1 else shown[:1])
    words = [
        note if share == 1.0 else f"{100 * share:g}% Q.: {note}"
        for share, note in notes.items()
        if share == 1.0 or note != notes.get(1.0)
    ]
    return records[0]["label"] + (f" ({'; '.join(words)})" if words else "")


def _few_shot_label(row: str) -> str:
    return next((known.label for known in FEW_SHOT if known.id == f"few_shot_{row}"), row)


def per_task(records: Sequence[dict[str, Any]], test: TaskSet) -> pd.DataFrame | None:
    """Accuracy of every row on each test task, of the release of seed 0 that was told all questions; None without."""
    columns = {
        r["label"]: r["per_task"][r["seeds"].index(0)].tolist()
        for r in records
        if r["tasks"] in _WHOLE and r["descriptors"] == 1.0 and 0 in r["seeds"]
    }
    if not columns:
        return None
    questions = [task.question for task in test.tasks]
    return pd.DataFrame({"question": questions} | columns).rename_axis("task").round(4)


def add_comparisons(records: list[dict[str, Any]]) -> None:
    """Paired bootstrap over tasks of every row against Cond. Multitask; share of the way from floor to ceiling."""
    for name, share in {(r["tasks"], r["descriptors"]) for r in records}:
        here = {(r["row"], r["label"]): r for r in records if (r["tasks"], r["descriptors"]) == (name, share)}
        by_id = {row: record for (row, _), record in here.items()}
        reference, floor, ceiling = by_id.get("cond_multitask"), by_id.get("clip"), by_id.get("few_shot_ceiling")
        for record in here.values():
            if reference is not None and record["row"] != "cond_multitask":
                d = paired_bootstrap(record["per_task"].mean(0), reference["per_task"].mean(0))
                record["vs_cond_multitask"] = [round(x, 4) for x in (d.mean, d.low, d.high)]
            if floor is not None and ceiling is not None and ceiling["mean"] > floor["mean"]:
                record["closed"] = round((record["mean"] - floor["mean"]) / (ceiling["mean"] - floor["mean"]), 3)
    for record in records:
        record.pop("per_task")


def add_losses(records: Sequence[dict[str, Any]]) -> None:
    """The points that each row loses with fewer descriptors, by paired bootstrap over tasks, where both shares were
    trained with the same seeds. Needs the accuracies `per_task`, which `add_comparisons` takes away."""
    told_all = {(r["label"], r["tasks"]): r for r in records if r["descriptors"] == 1.0}
    for record in records:
        full = told_all.get((record["label"], record["tasks"]))
        if record["descriptors"] < 1.0 and full is not None and full["seeds"] == record["seeds"]:
            d = paired_bootstrap(full["per_task"].mean(0), record["per_task"].mean(0))
            record["loss"] = [round(x, 4) for x in (d.mean, d.low, d.high)]


def as_table(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows by label; accuracies in percent."""
    table: dict[str, dict[str, str]] = {}
    of_row: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        of_row.setdefault(record["label"], []).append(record)
    labels = {label: label_of(own) for label, own in of_row.items()}
    for record in records:
        line = table.setdefault(labels[record["label"]], {})
        spread = "" if record["sd"] is None else f" ({100 * record['sd']:.2f})"
        if record["descriptors"] < 1.0:
            if record["tasks"] in _WHOLE:
                share = f"{100 * record['descriptors']:g}% Q."
                line[f"{record['tasks']}, {share}"] = f"{100 * record['mean']:.2f}{spread}"
                if "loss" in record:
                    line[f"loss, {share} [95%]"] = "{:.2f} [{:.2f}, {:.2f}]".format(*(100 * v for v in record["loss"]))
            continue
        line[f"{record['tasks']} ({record['n_tasks']})"] = f"{100 * record['mean']:.2f}{spread}"
        if record["tasks"] in ("known", "image_disjoint"):
            line["closed"] = f"{100 * record['closed']:.0f}%" if "closed" in record else ""
        if record["tasks"] in _WHOLE:
            versus = record.get("vs_cond_multitask")
            line["vs Cond. Multitask [95%]"] = (
                "" if versus is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * v for v in versus))
            )
        line["paper"] = "" if record["paper"] is None else f"{100 * record['paper']:.2f}"
    return pd.DataFrame.from_dict(table, orient="index").fillna("")


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
    try:
        seen = seen_images(run) if args.image_disjoint else frozenset()
    except ValueError as error:
        arguments.error(str(error))
    if args.per_task and (0, 1.0) not in {(g.config["seed"], figures.descriptors(g)) for g in generators}:
        arguments.error("--per-task: the release of seed 0 that was told all questions is not among these")
    rows = [row for row in ROWS if row.baseline or not args.baselines_only]
    records = evaluate(run, generators, args.limit_tasks, rows, seen)
    tasks = per_task(records, evaluated_tasks(run, args.limit_tasks, seen)) if args.per_task else None
    add_losses(records)
    add_comparisons(records)
    table = as_table(records)
    print(table.to_string())
    seeds = {g.config["seed"] for g in generators}
    asked = "asked, unasked: known families, the same question in other words in training or not; "
    more = asked if any(r["tasks"] == "asked" for r in records) else ""
    more += "image_disjoint: query examples whose image training does not show; " if seen else ""
    print(
        f"\nAccuracy in %, query sets of {args.preset}'s test tasks, mean (s.d. over {len(seeds)} training seeds "
        "where there are several).\nKnown: families with training questions; new: families that training never saw; "
        f"{more}\nclosed: share of the way from plain CLIP to "
        "the few-shot ceiling, on known families; loss: against all questions\nknown, in points. The paper's column is "
        "Meta-VQA: another dataset."
    )
    missing = {row.id for row in rows} - {record["row"] for record in records}
    for row in sorted(missing):
        print(f"missing: {row}; python train/run_all.py --preset {args.preset} makes it")
    if args.json:
        write_results(args.json, args.preset, records, "eval/table1.py")
    if args.csv:
        table.to_csv(args.csv)
    if tasks is not None:
        tasks.to_csv(args.per_task)
    if args.markdown:
        args.markdown.write_text(_markdown(table))


def _markdown(table: pd.DataFrame) -> str:
    lines = ["| row | " + " | ".join(table.columns) + " |", "|---" * (len(table.columns) + 1) + "|"]
    lines += [
        "| " + " | ".join([label, *map(str, values)]) + " |"
        for label, values in zip(table.index, table.values, strict=True)
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
