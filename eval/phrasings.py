"""Ask it as people ask: accuracy when the test questions are put in other words, and one word apart.

Puts every test question in other words, kind by kind, from two files that anyone can extend: train/phrasings.toml has
the kinds that training may use, eval/phrasings.toml those kept for the test. A kind is judged on the questions that it
changes, beside the same questions as they are. Then minimal pairs: questions of the dataset that differ by one word and
mean another adapter, from the lists of opposites in the second file.

Needs a release directory (the shipped weights by default). Encodes the test images on the first use, then caches them.
`--show N` prints N examples of each kind, and needs no release. About a quarter of an hour a release on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that `python eval/phrasings.py` works from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import argparse
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from core.data.phrasings import Phrasings
from core.generator import AdapterGenerator
from eval.harness import figures, pairs, tables
from eval.harness.origins import descriptors
from eval.harness.phrasings import (
    ASKED_ROWS,
    FILES,
    accuracy_asked,
    asked_in_other_words,
    read_files,
    shown,
)
from eval.harness.releases import open_release, print_missing
from eval.harness.results import write_results
from eval.harness.rows import available, choices_of
from train.pipeline.flags import preset_with_data
from train.pipeline.run import Run

COLOURS = {"clip": "#9aa5b1", "cond_multitask": "#f0a35e", "hvae_hyperclip": "#db2777", "hvae_hyperldm": "#4f46e5"}


def evaluate(
    run: Run, generators: Sequence[AdapterGenerator], groups: dict[str, Phrasings], draws: int, limit: int | None
) -> list[dict[str, Any]]:
    """Records of every row, share of descriptors and kind of phrasing. `mean`, `sd` and `per_seed` are of the questions
    put in other words, `as_it_is` is the mean of the same questions as they are, `difference` that between them."""
    test = run.task_set("test")
    if limit is not None:
        test = test.select(range(limit))
    query = test.batch(part="query").to(run.device)
    kinds = list(asked_in_other_words([task.question for task in test.tasks], groups, draws))
    records = []
    for row in ASKED_ROWS:
        for share in sorted({descriptors(g) for g in generators}, reverse=True):
            owners = [g for g in generators if available(row, g) and descriptors(g) == share]
            if not owners:
                continue
            what = {"row": row.id, "label": row.label, **choices_of(row, owners), "descriptors": share}
            seeds = [g.config["seed"] for g in owners]
            plain = [accuracy_asked(row, g, query, kinds[0]) for g in owners]
            for asked in tqdm(kinds, desc=row.label, leave=False):
                before = [each[list(asked.rows)] for each in plain]
                reads = asked is not kinds[0] and row.method != "clip"  # plain CLIP reads no question
                reached = [accuracy_asked(row, g, query, asked) for g in owners] if reads else before
                values, same = ([float(each.double().mean()) for each in some] for some in (reached, before))
                mean, as_it_is = (sum(some) / len(some) for some in (values, same))
                records.append(
                    what
                    | {"group": asked.group, "kind": asked.kind, "tasks": "all"}
                    | tables.over_seeds(values, seeds)
                    | {"as_it_is": round(as_it_is, 4), "difference": round(mean - as_it_is, 4)}
                    | {"n_tasks": len(asked.rows), "example": asked.example}
                )
    return records


def judge_pairs(
    run: Run, generators: Sequence[AdapterGenerator], opposites: Sequence[Sequence[str]], limit: int | None
) -> list[dict[str, Any]]:
    """Records of minimal pairs, by row, share of descriptors and list of opposites; see `pairs.summary`. None without
    pairs."""
    test = run.task_set("test")
    if limit is not None:
        test = test.select(range(limit))
    found, records = pairs.minimal_pairs(test.tasks, run.dataset.tasks, opposites), []
    for row in ASKED_ROWS if found else ():
        for share in sorted({descriptors(g) for g in generators}, reverse=True):
            owners = [g for g in generators if available(row, g) and descriptors(g) == share]
            if owners and row.method != "clip":  # which has one adapter for all questions
                judged = [pairs.judge(row, g, test, found) for g in owners]
                what = {"row": row.id, "label": row.label, **choices_of(row, owners), "descriptors": share}
                what["seeds"] = [g.config["seed"] for g in owners]
                records += [what | record for record in pairs.summary(found, judged)]
    return records


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """A line for every kind, a dot for every row: accuracy on the questions put so; a small bar where the same
    questions are as they are."""
    plt = figures.pyplot()
    shown = [r for r in records if r["descriptors"] == 1.0]
    lines = list(dict.fromkeys((r["group"], r["kind"]) for r in shown))
    figure, axis = plt.subplots(figsize=(7.2, 1.2 + 0.27 * len(lines)))
    for row, own in tables.by_label(shown).items():
        colour = COLOURS[own[0]["row"]]
        y = [-lines.index((r["group"], r["kind"])) for r in own]
        axis.scatter([100 * r["mean"] for r in own], y, s=26, color=colour, label=row, zorder=3)
        axis.scatter([100 * r["as_it_is"] for r in own], y, s=60, color=colour, marker="|", alpha=0.6, zorder=2)
    names = [kind if kind == group else f"{kind} ({group})" for group, kind in lines]
    axis.set_yticks([-i for i in range(len(lines))], names, fontsize=8)
    axis.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axis.set_xlabel("test accuracy, % (bar: the same questions as they are)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    figure.tight_layout()
    figures.save(figure, path)


def parser() -> argparse.ArgumentParser:
    result = figures.parser(__doc__)
    for group, path in FILES.items():
        help = f"the file of the kinds {'that training may use' if group == 'training' else 'kept for the test'}"
        result.add_argument(
            f"--{group}", type=Path, default=path, metavar="TOML", help=f"{help} (default: %(default)s)"
        )
    result.add_argument("--draws", type=int, default=3, help="draws of every kind, averaged (default: %(default)s)")
    result.add_argument("--show", type=int, metavar="N", help="print N examples of each kind, and stop")
    return result


def main(argv: list[str] | None = None) -> None:
    arguments = parser()
    args = arguments.parse_args(argv)
    try:
        groups = read_files({group: getattr(args, group) for group in FILES})
        for name in ("draws", "show"):
            if getattr(args, name) is not None and getattr(args, name) < 1:
                raise ValueError(f"--{name} {getattr(args, name)}; allowed: a whole number from 1")
        if args.show and not args.weights:
            tasks = preset_with_data(args.preset or "emoji", args.data).dataset.open().tasks
    except (OSError, ValueError) as error:
        arguments.error(str(error))
    if not (args.show and not args.weights):
        run, generators = open_release(arguments, args)
        tasks = run.dataset.tasks
    if args.show:
        questions = [task.question for task in tasks if task.split == "test"]
        print("\n".join(shown(questions, asked_in_other_words(questions, groups, args.draws), args.show)))
        return
    records = evaluate(run, generators, groups, args.draws, args.limit_tasks)
    print(tables.phrasings_table(records).to_string() + "\n")
    for group, kind, example in dict.fromkeys((r["group"], r["kind"], r["example"]) for r in records):
        print(f"{kind if kind == group else f'{group}, {kind}'}: {example}")
    print(
        f"\nIn %, query sets of {run.preset.name}'s test tasks whose question a kind changes, each task weighing the "
        f"same; behind\nit the difference to the same questions as they are, in points. Mean of {args.draws} draws."
    )
    of_pairs = judge_pairs(run, generators, groups["kept"].opposites, args.limit_tasks)
    print("\n" + (tables.pairs_table(of_pairs).to_string() if of_pairs else "No two questions differ by an opposite."))
    print_missing(run, sorted({row.id for row in ASKED_ROWS} - {record["row"] for record in records}))
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/phrasings.py", pairs=of_pairs, draws=args.draws)
    if args.plot:
        plot(records, args.plot)


if __name__ == "__main__":
    main()
