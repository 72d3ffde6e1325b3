"""Floors and a ceiling of pooled accuracy that need no picture: what answers alone are worth.

Chance: any of a question's candidates. The answer prior of the nearest training questions: the candidate that their
pairs carry most, each counted by how near its question's meaning is. The commonest answer of each test question, which
nobody may know. Candidates that are equally good share what they get.

Needs a release directory for its test and training questions (default: the shipped weights), and no pictures. Prints
the table; writes it with --json. Half a minute on one CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.data.task_sets import trained_images
from core.data.tasks import Task
from eval.harness import tables
from eval.harness.metrics import PooledScores
from eval.harness.releases import open_release, parser
from eval.harness.results import write_results

NEIGHBOURS = 10
LABELS = {
    "chance": "chance",
    "nearest_answer_prior": f"answer prior of the {NEIGHBOURS} nearest training questions",
    "commonest_answer": "the commonest answer of each test question, which nobody may know",
}


def always(best: Sequence[int], task: Task) -> list[float]:
    """How right it is to give any of the answers `best` to each query example of a task."""
    return [1 / len(best) if label in best else 0.0 for label in task.query[1]]


def largest(score: Sequence[float]) -> list[int]:
    """Where the largest scores are."""
    return [i for i, value in enumerate(score) if value == max(score)]


def chance(task: Task) -> list[float]:
    """How right a random candidate is for each query example."""
    return always(range(len(task.answers)), task)


def commonest_answer(task: Task) -> list[float]:
    """How right the answer is that most query examples carry."""
    counts = Counter(task.query[1])
    return always(largest([counts[label] for label in range(len(task.answers))])[:1], task)


def nearest_answer_prior(
    test: Sequence[Task], train: Sequence[Task], cosine: Tensor, k: int = NEIGHBOURS
) -> list[list[float]]:
    """How right the candidate is that the k nearest training questions' examples carry most.

    Args:
        cosine: (test tasks, training tasks), of the questions' meanings. An example counts as much as its question's.
    """
    counts = [Counter(task.answers[label] for label in task.examples("all")[1]) for task in train]
    near = cosine.double().topk(min(k, len(train)))
    result = []
    for task, weights, indices in zip(test, near.values.tolist(), near.indices.tolist(), strict=True):
        votes: Counter[str] = Counter()
        for weight, i in zip(weights, indices, strict=True):
            for answer, count in counts[i].items():
                votes[answer] += weight * count
        result.append(always(largest([votes[answer] for answer in task.answers]), task))
    return result


def evaluate(tasks: Sequence[Task], meaning: Tensor) -> list[dict[str, Any]]:
    """Records of all rows, by set of pairs.

    Args:
        meaning: (tasks, M), of the questions of all tasks: their cosines say how near questions are.
    """
    is_test = torch.tensor([task.split == "test" for task in tasks])
    test, train = ([task for task in tasks if (task.split == "test") == wanted] for wanted in (True, False))
    values = {
        "chance": [chance(task) for task in test],
        "nearest_answer_prior": nearest_answer_prior(test, train, meaning[is_test] @ meaning[~is_test].mT),
        "commonest_answer": [commonest_answer(task) for task in test],
    }
    sets = tables.pooled_sets(test, trained_images(tasks))
    records = []
    for row, by_task in values.items():
        flat = torch.tensor([value for of_task in by_task for value in of_task], dtype=torch.float64)
        for name, pairs in sets.items():
            found = tables.pooled_record(PooledScores(flat[None, pairs.mask], pairs), [])
            records.append(
                {"row": row, "label": LABELS[row], "gamma": None, "descriptors": 1.0, "tasks": name, **found}
            )
    return records


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__, limit=False)
    args = arguments.parse_args(argv)
    run, (generator, *_) = open_release(arguments, args)
    tasks = run.dataset.tasks
    encoder = generator.question_encoder
    meaning = encoder.meaning(encoder.encode([task.question for task in tasks]))
    records = evaluate(tasks, meaning.cpu())
    print(tables.grid(records, lambda r: r["label"]).to_string())
    print("\nAccuracy in %, pooled over pairs [95% interval].")
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/datasets/floors.py")


if __name__ == "__main__":
    main()
