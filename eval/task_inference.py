"""Task inference (Figure 3): which question do given weights answer? HyperCLIP ranks the candidates.

Fine-tunes weights on the support set of every test task, as those were that HyperCLIP saw in training: from the
MNet-MAML initialisation for its encoder beside the HVAE, the latent of HNet-MAML for that beside the HNet. Beside
these, takes weights that HyperLDM generates from the task's question, as in the demo. Ranks the test questions, and
those of training, validation and test together.

Needs release directories (default: the shipped weights); encodes images on the first use, then caches them. Prints the
table; writes the records with --json, the picture with --plot. Under a minute a release on one CPU core.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from core.data.tasks import TaskBatch, TaskSet
from core.generator import AdapterGenerator
from core.networks.hyperclip import ranks
from eval.harness import figures, tables
from eval.harness.origins import descriptors
from eval.harness.releases import open_release, print_missing, require_sets
from eval.harness.results import write_results
from eval.harness.rows import INFERENCE_LABELS, INFERENCE_ROWS, InferenceRow, adapted_weights, can_adapt

CHUNK = 128
METRICS = ("top-1", "top-5", "reciprocal rank", "family of top-1")


COLOURS = {
    "hvae_hyperclip": "#4f46e5",
    "hvae_hyperclip_generated": "#a5a0f3",
    "hnet_hyperclip": "#0d9488",
    "hnet_hyperclip_generated": "#86cbc4",
    "chance": "#9aa5b1",
}


def available(generator: AdapterGenerator, row: InferenceRow) -> bool:
    """Whether a release holds an encoder, and what makes weights for it."""
    if not generator.has("hyperclip", row.generator):
        return False
    return can_adapt(generator, row.generator) if row.fine_tuned else generator.has("hyperldm", row.generator)


def probabilities(generator: AdapterGenerator, row: InferenceRow, support: TaskBatch, questions: Tensor) -> Tensor:
    """Probability (T, Q) of every question e (Q, D) for weights fine-tuned on support sets, or generated."""
    result = []
    for first in tqdm(range(0, len(support), CHUNK), desc=row.label, leave=False):
        tasks = support[first : first + CHUNK]
        if row.fine_tuned:
            w = adapted_weights(generator, tasks, row.generator)
        else:
            w = generator.weights(tasks.question, "hyperldm", generator=row.generator)
        result.append(generator.task_probabilities(w, questions, row.generator))
    return torch.cat(result).cpu()


def judge(probability: Tensor, family: Tensor) -> Tensor:
    """The metrics (4, T) of rankings (T, Q) in which question t is the right one for task t; family (Q,) by number."""
    own = torch.arange(len(probability))
    rank = ranks(probability, own)
    right_family = family[probability.argmax(1)] == family[own]
    return torch.stack([rank == 1, rank <= 5, 1 / rank, right_family]).double()


def chance(tasks: int, family: Tensor) -> Tensor:
    """What `judge` gives on average for rankings drawn at random, (4, T)."""
    Q = len(family)
    right_family = (family == family[:tasks, None]).double().mean(1)
    same = torch.tensor([1 / Q, min(5, Q) / Q, float((1 / torch.arange(1, Q + 1)).mean())], dtype=torch.float64)
    return torch.cat([same[:, None].expand(-1, tasks), right_family[None]])


def evaluate(run, generators: list[AdapterGenerator], limit: int | None) -> list[dict[str, Any]]:
    """Records of every line and share of descriptors, and of chance: each metric among each set of candidates."""
    test = run.task_set("test")
    candidates = [*test.tasks, *run.train.tasks, *run.val.tasks]  # test tasks first: task t's question is candidate t
    questions = torch.cat([s.question_features for s in (test, run.train, run.val)]).float().to(run.device)
    names = sorted({task.family for task in candidates})
    family = torch.tensor([names.index(task.family) for task in candidates])
    counts = {"test": len(test), "all": len(candidates)}
    test = test.select(range(limit or len(test)))
    support = test.batch(part="support").to(run.device)
    records = []
    shares = sorted({descriptors(g) for g in generators}, reverse=True)
    for row, share in ((row, share) for row in INFERENCE_ROWS for share in shares):
        owners = [g for g in generators if available(g, row) and descriptors(g) == share]
        if not owners:
            continue
        found = [probabilities(g, row, support, questions) for g in owners]
        seeds = [g.config["seed"] for g in owners]
        for which, Q in counts.items():
            scores = torch.stack([judge(probability[:, :Q], family[:Q]) for probability in found])  # (seeds, 4, T)
            records += _records(row.id, share, which, Q, scores, seeds, test)
    for which, Q in counts.items():
        records += _records("chance", 1.0, which, Q, chance(len(test), family[:Q])[None], [], test)
    return records


def _records(
    row: str, share: float, which: str, count: int, scores: Tensor, seeds: list[int], test: TaskSet
) -> list[dict[str, Any]]:
    return [
        {
            "row": row,
            "gamma": None,
            "descriptors": share,
            "candidates": which,
            "n_candidates": count,
            "metric": metric,
            **summary,
        }
        for metric, values in zip(METRICS, scores.unbind(1), strict=True)
        for summary in tables.summaries(values, test, seeds)
    ]


def _label(record: dict[str, Any]) -> str:
    share = "" if record["descriptors"] == 1.0 else f", {100 * record['descriptors']:g}% Q."
    return INFERENCE_LABELS[record["row"]] + share


def as_table(records: list[dict[str, Any]]) -> pd.DataFrame:
    """A line for every set of candidates, set of tasks and row, a column for every metric."""
    order = list(dict.fromkeys(r["tasks"] for r in records))
    table = tables.grid(
        sorted(records, key=lambda r: (r["n_candidates"], order.index(r["tasks"]))),
        lambda r: (f"{r['candidates']} ({r['n_candidates']})", tables.tasks_column(r), _label(r)),
        lambda r: r["metric"],
    )
    return table.rename_axis(["candidates", "tasks", "row"])


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Bars of every metric on all test tasks, a panel for every set of candidates."""
    records = [record for record in records if record["tasks"] == "all"]
    labels = list(dict.fromkeys(_label(record) for record in records))
    sets = list(dict.fromkeys((record["candidates"], record["n_candidates"]) for record in records))
    figure, axes = figures.pyplot().subplots(1, len(sets), figsize=(10, 3.6), sharey=True)
    width = 0.8 / len(labels)
    for axis, (which, count) in zip(axes, sets, strict=True):
        for number, label in enumerate(labels):
            shown = [r for r in records if r["candidates"] == which and _label(r) == label]
            axis.bar(
                [x + width * (number - (len(labels) - 1) / 2) for x in range(len(METRICS))],
                [100 * r["mean"] for r in shown],
                width,
                yerr=None if shown[0]["sd"] is None else [100 * r["sd"] for r in shown],
                color=COLOURS[shown[0]["row"]],
                alpha=0.4 + 0.6 * shown[0]["descriptors"],
                label=label,
            )
        axis.set_title(f"among {'the test' if which == 'test' else 'all'} questions ({count})", fontsize=10)
        axis.set_xticks(range(len(METRICS)), METRICS, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test tasks, %")
    axes[-1].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figures.save(figure, path)


def main(argv: list[str] | None = None) -> None:
    arguments = figures.parser(__doc__)
    args = arguments.parse_args(argv)
    run, generators = open_release(arguments, args)
    require_sets(arguments, run, ("test", "support"))
    records = evaluate(run, generators, args.limit_tasks)
    print(as_table(records).to_string())
    print(
        f"\nIn %, weights fine-tuned on the support sets of {run.preset.name}'s test tasks or generated from their "
        "questions, mean (s.d. over\ntraining seeds where there are several). Candidates: the questions that are "
        "ranked; family of top-1: the question\nranked first is of the right family, if not the right one."
    )
    found = {record["row"] for record in records}
    print_missing(run, [row.label for row in INFERENCE_ROWS if row.id not in found])
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/task_inference.py")
    if args.plot:
        plot(records, args.plot)


if __name__ == "__main__":
    main()
