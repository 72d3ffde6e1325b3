"""Is a row as often right as it is sure? Expected calibration error of every zero-shot row on the test tasks.

Judges the rows twice: before, with cosines times the scale of training for all of them, and after, with the scale that
the release names for each (plain CLIP: the backbone's own; others: chosen on validation tasks). Accuracy is the same.

Needs a release directory (the shipped weights by default), one without scales for "before" alone. Encodes the test
images on the first use, then caches them. With --json and --plot writes the results, and a reliability diagram: the
accuracy of answers by their confidence. About two minutes on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that `python eval/calibration.py` works from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import functools
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from core.generator import AdapterGenerator
from eval.harness import figures, tables
from eval.harness.calibration import (
    BINS,
    Answers,
    answers_of,
    calibration_error,
    pooled,
    reliability,
    scale_of,
    scales_of,
    training_scale,
)
from eval.harness.origins import descriptors
from eval.harness.releases import command_for, open_release, print_missing
from eval.harness.results import write_results
from eval.harness.rows import ROWS, available, choices_of, cosines_of
from train.pipeline.run import Run

PLOTTED = {  # rows by label, and their colours
    "CLIP, bare answers": "#9aa5b1",
    "Uncond. Multitask": "#b45309",
    "Cond. Multitask": "#f0a35e",
    "HVAE + HyperCLIP guidance": "#db2777",
    "HNet + HyperLDM, gamma 1": "#0d9488",
    "HVAE + HyperLDM, gamma 1": "#4f46e5",
}
PANELS = {
    "before": ("upper left", "before: the scale of training"),
    "after": ("lower right", "after: the scale chosen"),
}
JUDGED = [row for row in ROWS if not row.few_shot and not row.members]  # an ensemble has no scale of its own
MIN_SHARE = 0.005  # of all answers: the accuracy of fewer is chance


def evaluate(run: Run, generators: Sequence[AdapterGenerator], limit: int | None) -> list[dict[str, Any]]:
    """Records of every row, share of descriptors and set of tasks, before and after; "after" of the releases that have
    scales. `mean`, `sd` and `per_seed` are of the calibration error; see `_reached`."""
    test, prompted = run.task_set("test"), run.task_set("test", prompted=True)
    if limit is not None:
        test, prompted = test.select(range(limit)), prompted.select(range(limit))
    support, query = test.batch(part="support").to(run.device), test.batch(part="query").to(run.device)
    with_prompts = prompted.batch(part="query").to(run.device)
    masks, records = tables.masks(test), []
    shares = sorted({descriptors(g) for g in generators}, reverse=True)
    for row in tqdm(JUDGED, desc="rows", leave=False):
        chosen = with_prompts if row.id == "clip_prompted" else query
        for share in shares:
            owners = [g for g in generators if available(row, g) and descriptors(g) == share]
            cosines = {g: list(cosines_of(row, g, support, chosen)) for g in owners}
            for when, scale, some in (
                ("before", training_scale, owners),
                ("after", functools.partial(scale_of, row), [g for g in owners if scales_of(g)]),
            ):
                scales = {g: scale(g) for g in some}
                what = {"row": row.id, "label": row.label, **choices_of(row, some), "descriptors": share}
                what |= {"when": when, "scales": list(scales.values())}
                for tasks, mask in masks.items() if some else ():
                    answers = [answers_of(cosines[g], scales[g], mask, by_example=run.preset.pooled) for g in some]
                    reached = _reached(answers, [g.config["seed"] for g in some])
                    bins = {"bins": _bins(answers)} if tasks == "all" else {}
                    records.append(what | {"tasks": tasks, **reached, "n_tasks": int(mask.sum())} | bins)
    return records


def _reached(answers: Sequence[Answers], seeds: Sequence[int]) -> dict[str, Any]:
    """The part of a record that says what the answers of each seed come to: `mean` and the like are those of the
    calibration error, `confidence` and `accuracy` are means over seeds."""
    errors = [calibration_error(reliability(each)) for each in answers]
    together = pooled(answers)
    means = {name: float((together.weight * getattr(together, name)).sum()) for name in ("confidence", "right")}
    named = {"confidence": round(means["confidence"], 4), "accuracy": round(means["right"], 4)}
    return tables.over_seeds(errors, seeds) | named


def _bins(answers: Sequence[Answers]) -> dict[str, list[float]]:
    """The reliability of all seeds' answers, bin by bin."""
    found = reliability(pooled(answers))
    return {name: [round(x, 4) for x in getattr(found, name).tolist()] for name in ("share", "confidence", "accuracy")}


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Reliability diagrams, before and after side by side: accuracy over confidence, a point for every bin that holds
    some answers, its area by how many."""
    plt = figures.pyplot()
    shown = [r for r in records if r["tasks"] == "all" and r["descriptors"] == 1.0 and r["label"] in PLOTTED]
    sides = list(dict.fromkeys(r["when"] for r in shown))
    figure, axes = plt.subplots(1, len(sides), figsize=(1.5 + 4.2 * len(sides), 4.4), sharey=True, squeeze=False)
    for axis, when in zip(axes[0], sides, strict=True):
        axis.plot([0, 100], [0, 100], color="#9aa5b1", linestyle=":", linewidth=1)
        for record in (r for r in shown if r["when"] == when):
            bins = zip(*(record["bins"][name] for name in ("share", "confidence", "accuracy")), strict=True)
            points = [(share, 100 * x, 100 * y) for share, x, y in bins if share >= MIN_SHARE]
            share, x, y = zip(*points, strict=True)
            colour, label = PLOTTED[record["label"]], f"{record['label']} ({100 * record['mean']:.1f})"
            axis.plot(x, y, color=colour, linewidth=1, label=label)
            axis.scatter(x, y, s=[4 + 250 * part for part in share], color=colour, alpha=0.6, linewidths=0)
        place, title = PANELS[when]
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("confidence, %")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False, title="row (ECE, %)", title_fontsize=7, loc=place)
    axes[0][0].set_ylabel("test accuracy, %")
    figure.tight_layout()
    figures.save(figure, path)


def main(argv: list[str] | None = None) -> None:
    arguments = figures.parser(__doc__)
    args = arguments.parse_args(argv)
    run, generators = open_release(arguments, args)
    records = evaluate(run, generators, args.limit_tasks)
    print(tables.calibration_table(records).to_string())
    weighs = "pair of picture and question" if run.preset.pooled else "task"
    print(
        f"\nIn %, query sets of all {run.preset.name}'s test tasks, each {weighs} weighing the same. ECE: expected "
        f"calibration error,\n{BINS} bins of confidence, mean (s.d. over training seeds where there are several). "
        "Before: cosines times the\nscale of training; after: times the scale that the release names for the row."
    )
    found = {record["row"] for record in records}
    print_missing(run, sorted({row.id for row in JUDGED} - found))
    for generator in generators:
        if not scales_of(generator):
            print(f"missing: the scales of {generator.directory}; {command_for(run, generator)} chooses them")
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/calibration.py", bins=BINS)
    if args.plot:
        plot(records, args.plot)


if __name__ == "__main__":
    main()
