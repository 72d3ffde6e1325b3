"""Figure 5: HyperLDM's accuracy over the strength of guidance, and over the share of tasks whose question is known.

Part A sweeps gamma from 0 to 3 on the test tasks, for both generators, beside plain CLIP and Cond. Multitask. HyperLDM
averages as many samples as validation tasks chose. Part B compares releases that were trained with 10, 50 and 100% of
the questions (`train/run_all.py --descriptors`), as many as there are, and names the others; regression to the same
latents is among its rows. `--parts samples` is part A with one sample, with the mean latent and with an average of
samples, each for several noise seeds, on all releases; it compares gamma 1.5 with 1.

Needs release directories (default: the shipped weights); encodes the test images on the first use, then caches them.
Prints the tables; writes the records with --json, the picture with --plot. About four minutes a release on one CPU
core, for `samples` five.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

from collections.abc import Sequence
from typing import Any

import pandas as pd
from tqdm import tqdm

from core.generator import AdapterGenerator
from eval.harness import figures, tables
from eval.harness.comparison.evaluation import judged_tasks, lines_of
from eval.harness.comparison.records import records_of, without_scores
from eval.harness.origins import descriptors
from eval.harness.releases import command_for, open_release, print_missing
from eval.harness.results import write_results
from eval.harness.rows import GENERATORS, ROWS, Row, hyperldm_row
from eval.samples import gammas
from eval.samples.gammas import GAMMAS

SHARES = (0.1, 0.5, 1.0)
COLOURS = {
    "hvae_hyperldm": "#4f46e5",
    "hnet_hyperldm": "#0d9488",
    "cond_multitask": "#f0a35e",
    "latent_regression": "#be185d",
}


def _baseline(name: str) -> Row:
    return next(row for row in ROWS if row.id == name)


PARTS: dict[str, tuple[Row, ...]] = {
    "A": (
        _baseline("clip"),
        _baseline("cond_multitask"),
        *(hyperldm_row(generator=name, gamma=gamma) for name in GENERATORS for gamma in GAMMAS),
    ),
    "B": (
        _baseline("uncond_multitask"),
        _baseline("cond_multitask"),
        _baseline("latent_regression"),
        *(hyperldm_row(generator=name, gamma=gamma) for name in GENERATORS for gamma in (1.0, 1.5)),
    ),
}


def measure(run, generators: Sequence[AdapterGenerator], limit: int | None, rows: Sequence[Row]) -> list[dict]:
    """Records of rows on the test tasks, as in Table 1."""
    if not generators:
        return []
    lines = lines_of(run, generators, tqdm(rows, desc="rows", leave=False), limit)
    records = without_scores(records_of(judged_tasks(run, limit), lines))
    return [{key: value for key, value in r.items() if key not in ("paper", "interval")} for r in records]


def part_of(records: list[dict[str, Any]], part: str) -> list[dict[str, Any]]:
    """The records that a part shows, in its order, the smallest share first. Both parts show some of the same."""
    labels = [row.label for row in PARTS[part]]
    shown = [r for r in records if r["label"] in labels and (part == "B" or r["descriptors"] == 1.0)]
    return sorted(shown, key=lambda r: (labels.index(r["label"]), r["descriptors"]))


def as_table(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows by label, a column for every set of tasks and share of questions; accuracies in percent."""
    share = lambda r: "" if r["descriptors"] == 1.0 else f", {100 * r['descriptors']:g}% Q."
    return tables.grid(records, lambda r: r["label"], lambda r: tables.tasks_column(r) + share(r))


def plot(records: list[dict[str, Any]], parts: Sequence[str], path: Path) -> None:
    """A row of panels for every part, one panel for every set of tasks."""
    columns = list(dict.fromkeys((r["tasks"], r["n_tasks"]) for r in records))
    figure, axes = figures.pyplot().subplots(
        len(parts), len(columns), figsize=(4.2 * len(columns), 3.6 * len(parts)), squeeze=False
    )
    for line, part in zip(axes, parts, strict=True):
        for axis, (tasks, count) in zip(line, columns, strict=True):
            _panel(axis, part, [r for r in part_of(records, part) if r["tasks"] == tasks])
            axis.set_title(f"{part}. {tasks} tasks ({count})", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel("test accuracy, %")
        line[-1].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figures.save(figure, path)


def _panel(axis, part: str, records: list[dict[str, Any]]) -> None:
    """Accuracy over gamma (A) or over the share of known questions (B)."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for r in records:
        lines.setdefault(r["label"].split(", gamma")[0] if part == "A" else r["label"], []).append(r)
    for label, points in lines.items():
        row, gamma = points[0]["row"], points[0]["gamma"]
        colour = COLOURS.get(row, "#9aa5b1")
        if part == "A" and gamma is None:
            axis.axhline(100 * points[0]["mean"], color=colour, linestyle="--", label=label)
            continue
        axis.errorbar(
            [r["gamma"] if part == "A" else 100 * r["descriptors"] for r in points],
            [100 * r["mean"] for r in points],
            [100 * (r["sd"] or 0.0) for r in points] if any(r["sd"] for r in points) else None,
            color=colour,
            fmt=":s" if part == "B" and gamma == 1.0 else "-o",
            markersize=3,
            capsize=2,
            label=label,
        )
    if part == "B":
        axis.set_xticks(sorted({100 * r["descriptors"] for r in records}))
    axis.set_xlabel("gamma" if part == "A" else "training tasks with a known question, %")


def _one_and_many(run, generators: Sequence[AdapterGenerator], args) -> None:
    """Part A with one sample, the mean latent and an average of samples."""
    records, contrasts = gammas.measure(run, generators, args.limit_tasks, args.noise_seeds)
    column = lambda r: f"gamma {r['gamma']:g}"
    print(tables.grid([r for r in records if r["tasks"] == "all"], gammas.line, column).to_string())
    more, less = gammas.COMPARED
    print(f"\nGamma {more:g} less gamma {less:g}, points\n{gammas.contrast_table(contrasts).to_string()}\n")
    print(
        f"Accuracy in % on all of {run.preset.name}'s test tasks, mean of {args.noise_seeds} noise seeds (s.d. over "
        "training seeds where there are\nseveral). Differences are paired over tasks, noise seeds averaged, with 95% "
        "intervals over tasks and training\nseeds."
    )
    print_missing(
        run, [label for name, label in GENERATORS.items() if not any(g.has("hyperldm", name) for g in generators)]
    )
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/figure5.py", contrasts=contrasts)
    if args.plot and records:
        gammas.plot(records, args.plot)


def main(argv: list[str] | None = None) -> None:
    arguments = figures.parser(__doc__)
    arguments.add_argument(
        "--parts",
        nargs="+",
        choices=(*PARTS, "samples"),
        default=list(PARTS),
        help="A, B or both (default), or samples",
    )
    arguments.add_argument(
        "--noise-seeds", type=int, default=gammas.NOISE_SEEDS, metavar="N", help="for samples (default: %(default)s)"
    )
    args = arguments.parse_args(argv)
    if "samples" in args.parts and len(set(args.parts)) > 1:
        arguments.error("--parts samples stands alone; its records are a file of their own")
    if args.noise_seeds < 1:
        arguments.error(f"--noise-seeds {args.noise_seeds}; allowed: 1 or more")
    run, generators = open_release(arguments, args)
    if "samples" in args.parts:
        _one_and_many(run, generators, args)
        return
    found = [(generator.config["seed"], descriptors(generator)) for generator in generators]
    full = [generator for generator in generators if descriptors(generator) == 1.0]
    if "A" in args.parts and not full:
        shares = ", ".join(f"{share:g}" for _, share in found)
        arguments.error(f"--weights with descriptors {shares}; allowed for part A: 1 (--parts B takes any)")
    rows = list(dict.fromkeys(row for part in args.parts for row in PARTS[part]))
    records = measure(run, full, args.limit_tasks, rows)
    if "B" in args.parts:
        records += measure(run, [g for g in generators if g not in full], args.limit_tasks, PARTS["B"])
    for part in args.parts:
        print(f"Part {part}\n{as_table(part_of(records, part)).to_string()}\n")
    print(
        f"Accuracy in %, query sets of {run.preset.name}'s test tasks, mean (s.d. over training seeds where there are "
        "several).\nKnown: families with training questions; new: families that training never saw; Q.: share of the "
        "training tasks\nwhose question is known, all unless it says otherwise."
    )
    labels = {record["label"] for record in records}
    print_missing(run, [row.label for row in rows if row.label not in labels])
    if "B" in args.parts:
        for seed in sorted({seed for seed, _ in found}):
            for share in SHARES:
                if (seed, share) not in found:
                    command = f"{command_for(run)} --seed {seed} --descriptors {share:g}"
                    print(f"missing: {100 * share:g}% of the questions, seed {seed}; {command} makes it")
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/figure5.py")
    if args.plot and records:
        plot(records, args.parts, args.plot)


if __name__ == "__main__":
    main()
