"""Ask it as people ask: accuracy on the test questions put in other words.

Every kind of phrasing in train/phrasings.toml, whose other frames and words training uses, and in eval/phrasings.toml,
which is kept for the test and shares no frame and no word with it, is put to all test questions that it changes, in
three draws. Beside each accuracy stands that of the same questions as they are.

Needs a release directory (the shipped weights by default). With --json and --plot writes the results. About two minutes
on two CPU cores once the test images are encoded. --show needs no release.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that `python eval/phrasings.py` works from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from core.data.tasks import TaskBatch
from core.generator import AdapterGenerator
from eval.harness import figures, tables
from eval.harness.phrasings import AS_THEY_ARE, LABELS, Form, forms
from eval.harness.releases import open_release
from eval.harness.results import write_results
from eval.harness.rows import ROWS, accuracy, available
from train.pipeline.run import Run
from train.presets import get_preset

DRAWS = 3
SHOWN = {  # rows by label, and their colours
    "HVAE + HyperLDM, gamma 1": "#4f46e5",
    "HVAE + HyperCLIP guidance": "#db2777",
    "Cond. Multitask": "#f0a35e",
    "CLIP, bare answers": "#9aa5b1",
}


def evaluate(run: Run, generators: Sequence[AdapterGenerator], limit: int | None) -> list[dict[str, Any]]:
    """Records of every row and kind of phrasing; `plain` is the accuracy of the same questions as they are."""
    test = run.task_set("test")
    if limit is not None:
        test = test.select(range(limit))
    support, query = test.batch(part="support").to(run.device), test.batch(part="query").to(run.device)
    asked = [task.question for task in test.tasks]
    drawn = [forms(asked, draw) for draw in range(DRAWS)]
    records = []
    for row in tqdm([row for row in ROWS if row.label in SHOWN], desc="rows", leave=False):
        owners = [g for g in generators if available(row, g)]
        reads = row.method != "clip"
        plain = [accuracy(row, g, support, query) for g in owners]
        for kinds in zip(*drawn, strict=True):
            reached, before = [], []
            for g, as_it_is in zip(owners, plain, strict=True):
                some = kinds if reads and kinds[0].group != AS_THEY_ARE else kinds[:1]
                found = [
                    _accuracy(row, g, support, query, form) if reads else as_it_is[list(form.rows)] for form in some
                ]
                reached.append(float(torch.cat(found).mean()))
                before.append(float(torch.cat([as_it_is[list(form.rows)] for form in some]).mean()))
            if owners:
                seeds = [g.config["seed"] for g in owners] if reads else []
                records.append(
                    {"row": row.id, "label": row.label, "gamma": row.gamma}
                    | {"group": kinds[0].group, "kind": kinds[0].kind, "n_tasks": len(kinds[0].rows)}
                    | tables.over_seeds(reached if reads else reached[:1], seeds)
                    | {"plain": round(sum(before) / len(before), 4)}
                )
    return records


def _accuracy(row: Any, release: AdapterGenerator, support: TaskBatch, query: TaskBatch, form: Form) -> Tensor:
    """Query accuracy of a row on the questions of a form, asked in its words."""
    rows = torch.tensor(form.rows, device=query.labels.device)
    e = release.embed_questions(form.questions).to(query.question)
    return accuracy(row, release, support[rows], replace(query[rows], question=e))


def table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A line a kind of phrasing: the questions that it changes, and of each row accuracy and, in brackets, what the
    words cost on the same questions."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        line = lines.setdefault((LABELS[record["group"]], record["kind"]), {"questions": record["n_tasks"]})
        cost = "" if record["group"] == AS_THEY_ARE or record["row"] == "clip" else _points(record)
        line[record["label"]] = tables.short_percent(record) + cost
    frame = pd.DataFrame(lines.values(), index=pd.MultiIndex.from_tuples(lines, names=["", "kind"]))
    return frame.fillna("")


def _points(record: dict[str, Any]) -> str:
    return f" ({100 * (record['mean'] - record['plain']):+.1f})"


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy of every row by kind of phrasing, kinds that training uses above those that are kept."""
    plt = figures.pyplot()
    kinds = list(dict.fromkeys((record["group"], record["kind"]) for record in records))
    figure, axis = plt.subplots(figsize=(7.5, 0.8 + 0.27 * len(kinds)))
    for record in records:
        y = -kinds.index((record["group"], record["kind"]))
        axis.scatter(100 * record["mean"], y, color=SHOWN[record["label"]], s=34, zorder=2)
        axis.plot([100 * record["plain"], 100 * record["mean"]], [y, y], color=SHOWN[record["label"]], linewidth=1)
    for label, colour in SHOWN.items():
        axis.scatter([], [], color=colour, label=label)
    axis.set_yticks(
        [-i for i in range(len(kinds))], [kind if g == AS_THEY_ARE else f"{kind} ({g})" for g, kind in kinds]
    )
    axis.set_xlabel("test accuracy, %; the line leads from the same questions as they are")
    axis.grid(axis="x", color="#e5e7eb", zorder=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    figure.tight_layout()
    figures.save(figure, path)


def show(count: int) -> None:
    """Print some test questions of Emoji-VQA in every kind of other words."""
    asked = [task.question for task in get_preset("emoji").dataset.open().tasks if task.split == "test"]
    for form in forms(asked)[1:]:
        print(f"{form.group}, {form.kind} ({len(form.rows)} of {len(asked)} questions)")
        for i in random.Random(0).sample(range(len(form.rows)), min(count, len(form.rows))):
            print(f"  {asked[form.rows[i]]}\n    {form.questions[i]}")


def main(argv: list[str] | None = None) -> None:
    arguments = figures.parser(__doc__)
    arguments.add_argument("--show", type=int, metavar="N", help="print N examples of each kind, and nothing else")
    args = arguments.parse_args(argv)
    if args.show is not None:
        if args.show < 1:
            arguments.error(f"--show {args.show}; allowed: 1 or more")
        show(args.show)
        return
    run, generators = open_release(arguments, args)
    records = evaluate(run, generators, args.limit_tasks)
    print(table(records).to_string())
    print(
        f"\nAccuracy in %, query sets of {run.preset.name}'s test tasks that a kind changes, mean of {DRAWS} draws\n"
        "(s.d. over training seeds where there are several); in brackets: against the same questions as they are."
    )
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/phrasings.py", draws=DRAWS)
    if args.plot:
        plot(records, args.plot)


if __name__ == "__main__":
    main()
