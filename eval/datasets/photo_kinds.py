"""Accuracy by kind of question: rooms, sports and animals against colours and counts.

Judges some zero-shot rows, and always giving a question's commonest answer, on the test questions of
eval/datasets/photo_kinds.toml: question by question, and by kind, on average over its questions and pooled over pairs.

Needs release directories; encodes the test images on the first use, then caches them. Prints the table; writes the
records with --json. A minute a release on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from core.data.tasks import Task
from core.generator import AdapterGenerator
from eval.datasets.floors import LABELS, commonest_answer
from eval.harness import tables
from eval.harness.metrics import PooledPairs, PooledScores
from eval.harness.origins import descriptors
from eval.harness.releases import open_release, parser, print_missing
from eval.harness.results import write_results
from eval.harness.rows import ROWS, answered, available, choices_of
from train.pipeline.run import Run

KINDS = Path(__file__).with_suffix(".toml")
ZERO_SHOT = tuple(  # HyperLDM at the gamma that validation chose
    row
    for row in ROWS
    if row.gamma is None and row.id in ("clip", "uncond_multitask", "cond_multitask", "hvae_hyperldm")
)
AVERAGES = {"questions": "on average", "pairs": "pooled"}  # what counts the same in a kind's accuracy


def read_kinds(path: Path) -> dict[str, list[str]]:
    """Questions by kind.

    Raises:
        ValueError: not TOML with a table `kinds` of lists of texts, or a question that stands there twice.
    """
    try:
        kinds = tomllib.loads(path.read_text(encoding="utf-8")).get("kinds")
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
    if not (isinstance(kinds, dict) and kinds and all(map(_is_list_of_texts, kinds.values()))):
        raise ValueError(f"{path}: kinds {kinds!r}; allowed: lists of questions by kind")
    asked = [question for questions in kinds.values() for question in questions]
    if twice := [question for question in asked if asked.count(question) > 1]:
        raise ValueError(f"{path}: {twice[0]!r} stands there twice")
    return kinds


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def frequent(tasks: Sequence[Task], least: int = 10) -> list[str]:
    """The test questions with at least so many pairs."""
    return [task.question for task in tasks if task.split == "test" and len(task.examples("all")[0]) >= least]


def sets_of_pairs(
    tasks: Sequence[Task], kinds: Mapping[str, Sequence[str]]
) -> list[tuple[dict[str, Any], PooledPairs]]:
    """The sets of query examples of these test tasks that have a line of the table, with what says which they are: of
    each kind, on average over questions and pooled, then question by question."""
    question = tables.question_of_pairs(tasks)
    row = {task.question: i for i, task in enumerate(tasks)}
    result = []
    for kind, asked in kinds.items():
        mask = torch.isin(question, torch.tensor([row[text] for text in asked]))
        for average in AVERAGES:
            pairs = PooledPairs(question, mask, by_question=average == "questions")
            result.append(({"kind": kind, "question": None, "average": average}, pairs))
        for text in asked:
            which = {"kind": kind, "question": text, "average": "pairs"}
            result.append((which, PooledPairs(question, question == row[text])))
    return result


def evaluate(
    run: Run, generators: Sequence[AdapterGenerator], kinds: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Records of all rows on each set of pairs.

    Raises:
        ValueError: a question of `kinds` is none of the test questions.
    """
    test = run.task_set("test")
    row = {task.question: i for i, task in enumerate(test.tasks)}
    wanted = [question for asked in kinds.values() for question in asked]
    if strange := [question for question in wanted if question not in row]:
        raise ValueError(f"{strange[0]!r} is none of the test questions")
    test = test.select([row[question] for question in wanted])
    sets, query = sets_of_pairs(test.tasks, kinds), test.batch(part="query").to(run.device)
    records = []

    def record(head: dict[str, Any], right: Tensor, seeds: Sequence[int]) -> None:
        for which, pairs in sets:
            found = tables.pooled_record(PooledScores(right[:, pairs.mask], pairs), seeds)
            records.append({**head, "tasks": "kinds", **which, **found})

    for r in ZERO_SHOT:
        if owners := [g for g in generators if available(r, g)]:
            right = torch.stack([answered(r, g, query, query)[query.example_mask.cpu()] for g in owners])
            head = {"row": r.id, "label": r.label, **choices_of(r, owners), "descriptors": descriptors(owners[0])}
            record(head, right, [g.config["seed"] for g in owners])
    best = torch.tensor([value for task in test.tasks for value in commonest_answer(task)])
    head = {"row": "commonest_answer", "label": LABELS["commonest_answer"], "gamma": None, "descriptors": 1.0}
    record(head, best[None], [])
    return records


def table(records: Sequence[dict[str, Any]], cell=tables.percent) -> pd.DataFrame:
    """A line a kind and average, and a line a question; a column a row."""
    labels = {label: tables.label_of(own) for label, own in tables.by_label(records).items()}

    def line(record: dict[str, Any]) -> tuple[str, str, int]:
        return record["kind"], record["question"] or AVERAGES[record["average"]], record["n_pairs"]

    return tables.grid(records, line, lambda record: labels[record["label"]], cell)


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__, limit=False)
    arguments.add_argument("--kinds", type=Path, default=KINDS, help="questions by kind, TOML (default: %(default)s)")
    args = arguments.parse_args(argv)
    run, generators = open_release(arguments, args)
    if len({descriptors(g) for g in generators}) > 1:
        arguments.error("--descriptors: one share at a time")
    try:
        records = evaluate(run, generators, read_kinds(args.kinds))
    except (ValueError, OSError) as error:
        arguments.error(str(error))
    print(table(records).to_string())
    print("\nAccuracy in % (s.d. over training seeds) [95% interval: questions resampled, then pairs within them].")
    print_missing(run, [row.id for row in ZERO_SHOT if row.id not in {r["row"] for r in records}])
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/datasets/photo_kinds.py")


if __name__ == "__main__":
    main()
