"""Table 1: zero-shot accuracy of every row on the test tasks, between plain CLIP and the few-shot ceiling.

Reports test tasks of families that training knew and of new families apart, and parts the known ones by whether
training asks the same in other words. Where a preset pools accuracy over pairs of picture and question, reports all of
them and those whose picture training does not show. 95% intervals resample tasks (of pairs: questions, then pairs
within these) and training seeds where there are several. Every row is compared with the best baseline,
which test tasks themselves choose. Some rows are of releases of their own, trained with other settings (--variants).

Needs release directories (default: the shipped weights); encodes the test images on the first use, then caches them.
Prints the table; writes it with --csv and --markdown, the records with --json, what every row answers right with
--per-task: eval/comparison/intervals.py makes the records anew of that. About two minutes a release on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

from collections.abc import Sequence
from typing import Any

from core.data.task_sets import trained_images
from core.generator import AdapterGenerator
from core.methods import METHODS, row_of
from core.networks.weight_generator import WEIGHT_GENERATORS
from eval.harness import figures, tables
from eval.harness.comparison.answers import PER_TASK, write_answers
from eval.harness.comparison.evaluation import (
    evaluated_tasks,
    judged_tasks,
    lines_of,
    variant_lines,
    without_support,
)
from eval.harness.comparison.records import BASELINES, compared, records_of
from eval.harness.comparison.variants import VARIANTS, find_releases
from eval.harness.origins import run_of
from eval.harness.releases import open_release, parser, print_missing
from eval.harness.results import write_results
from eval.harness.rows import ROWS
from train.pipeline.run import Run


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


def held_rows(generator: AdapterGenerator) -> set[str]:
    """The zero-shot rows whose models a release holds."""
    pairs = [(method, name) for method in METHODS for name in WEIGHT_GENERATORS.names()]
    return {row_of(method, name) for method, name in pairs if generator.has(method, name)}


def note(run: Run, records: Sequence[dict[str, Any]], seeds: int, split: str) -> str:
    """What stands below the printed table."""
    kind = "test" if split == "test" else "validation"
    found, name = {r["tasks"] for r in records}, run.preset.name
    several = seeds > 1
    spread = f"mean {f'(s.d. over {seeds} training seeds) ' if several else 'of one training seed '}[95% interval"
    drawn = " and seeds" if several else ""
    disjoint = "image_disjoint: query examples whose image training does not show; "
    strongest = "vs strongest: against the best baseline on the same test tasks, in points"
    if run.preset.pooled:
        return (
            f"Accuracy in %, pooled over the query examples of {name}'s {kind} tasks,\n{spread}: questions{drawn} "
            f"resampled, then pairs within questions].\n{disjoint if 'image_disjoint' in found else ''}\n{strongest}.\n"
            "The paper's column is the mean over tasks on all of Meta-VQA."
        )
    asked = "asked, unasked: known families, the same question in other words in training or not; "
    more = (asked if "asked" in found else "") + (disjoint if "image_disjoint" in found else "")
    return (
        f"Accuracy in %, query sets of {name}'s {kind} tasks,\n{spread}: tasks{drawn} resampled].\n"
        f"Known: families with training questions; new: families that training never saw; {more}\n"
        f"closed: share of the way from plain CLIP to the few-shot ceiling, on known families; {strongest};\n"
        "loss: against all questions known, in points. The paper's column is Meta-VQA: another dataset."
    )


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars on known and new families, with the s.d. over seeds where there are several; of all questions known."""
    plt = figures.pyplot()
    records = [record for record in records if record["descriptors"] == 1.0]
    labels = list(tables.by_label(records))
    value = {(record["label"], record["tasks"]): record for record in records}
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.32 * len(labels) + 1.2), sharey=True, sharex=True)
    for axis, tasks, title in zip(axes, ("known", "new"), ("known families", "new families"), strict=True):
        for i, label in enumerate(labels):
            record = value[label, tasks]
            few_shot, ours = record["row"].startswith("few_shot"), record["row"] not in BASELINES
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
    arguments.add_argument("--per-task", type=Path, metavar="STEM", help=PER_TASK)
    arguments.add_argument(
        "--variants",
        nargs="+",
        type=Path,
        metavar="DIR",
        help=f"releases of {', '.join(v.id for v in VARIANTS)} (default: those that stand where training puts them)",
    )
    arguments.add_argument(
        "--image-disjoint",
        action="store_true",
        help="of the test tasks' query examples, only those whose image no training or validation task shows",
    )
    arguments.add_argument(
        "--validation", action="store_true", help="of the validation tasks, by which rows and settings are chosen"
    )
    args = arguments.parse_args(argv)
    run, generators = open_release(arguments, args)
    if args.image_disjoint and run.preset.pooled:
        arguments.error(f"--image-disjoint: the table of {run.preset.name} has these pairs in a column of their own")
    if args.image_disjoint and args.validation:
        arguments.error("--image-disjoint is about test tasks; without it --validation takes validation tasks")
    try:
        seen = seen_images(run) if args.image_disjoint else frozenset()
    except ValueError as error:
        arguments.error(str(error))
    rows = [row for row in ROWS if row.baseline or not args.baselines_only]
    which = (args.limit_tasks, seen, "val" if args.validation else "test")
    rows, tasks = without_support(rows, evaluated_tasks(run, *which).tasks), judged_tasks(run, *which)
    try:
        variants = [] if args.baselines_only and not args.variants else list(find_releases(run, generators, args))
        of_variants = [(variant, own, run_of(own[0], args)) for variant, own in variants if own]
    except ValueError as error:
        arguments.error(str(error))
    lines = list(lines_of(run, generators, rows, *which))
    for variant, own, its_run in of_variants:
        lines += variant_lines(its_run, variant, own, *which)
    records = compared(records_of(tasks, lines))
    table = tables.accuracy_table(records)
    print(table.to_string())
    print(f"\n{note(run, records, len({g.config['seed'] for g in generators}), which[-1])}")
    print_missing(run, sorted({row.id for row in rows} - {record["row"] for record in records}))
    if unjudged := sorted(held_rows(generators[0]) - {row.id for row in ROWS}):
        print(f"held, but judged by no row of eval/harness/rows.py: {', '.join(unjudged)}")
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/table1.py")
    if args.csv:
        table.to_csv(args.csv)
    if args.per_task:
        write_answers(args.per_task, tasks, lines)
    if args.markdown:
        left = "-" * (len(table.columns) + 1)
        args.markdown.write_text(tables.grid_markdown(table, align=left) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
