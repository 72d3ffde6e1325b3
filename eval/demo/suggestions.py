"""What the page makes of a question before any picture: the answers it suggests, and whether it calls it strange.

For the test questions, as they are and in every kind of other words (train/phrasings.toml, eval/phrasings.toml): how
often the suggested answers are of the right kind, what share of the right answers is among them, and how often the page
warns though it knows such questions. For the questions of eval/other_world.txt: how often it does not warn. Thresholds
are the release's, chosen on validation questions.

Needs a release directory (the shipped weights by default) and no pictures. Prints the table; writes it with --json.
About a minute on one CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that `python eval/demo/suggestions.py` works from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd
from tqdm import tqdm

from core.data.tasks import Task
from core.demo.novelty import QuestionNovelty
from core.generator import AdapterGenerator
from eval.harness import releases
from eval.harness.phrasings import FILES, asked_in_other_words, read_files
from eval.harness.results import write_results
from train.pipeline.environment import ROOT

OTHER_WORLD = ROOT / "eval" / "other_world.txt"


def answers_of_kinds(tasks: Sequence[Task]) -> dict[str, set[str]]:
    """By family: all answers that its questions have. A task without a family is one of its own."""
    found: dict[str, set[str]] = defaultdict(set)
    for task in tasks:
        found[task.family or task.question] |= set(task.answers)
    return found


def is_right_kind(suggested: Sequence[str], task: Task, kinds: dict[str, set[str]]) -> bool:
    """Whether most of the suggested answers are ones that questions of the task's family have, and most of the task's
    own answers, by how often its pictures carry them, are among the suggested."""
    of_kind = sum(answer in kinds[task.family or task.question] for answer in suggested)
    return bool(suggested) and 2 * of_kind > len(suggested) and 2 * share_found(suggested, task) > 1


def share_found(suggested: Sequence[str], task: Task) -> float:
    """The share of the task's pictures whose right answer is among the suggested ones."""
    counts = Counter(task.answers[label] for label in task.query[1] or task.support[1])
    return sum(counts[answer] for answer in suggested) / sum(counts.values())


def evaluate(release: AdapterGenerator, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Records: `right_kind`, `answers_found` and `false_warnings` by kind of phrasing, `missed_warnings` of another
    world."""
    novelty, records = QuestionNovelty(release), []
    test, kinds = [task for task in tasks if task.split == "test"], answers_of_kinds(tasks)
    put = asked_in_other_words([task.question for task in test], read_files(FILES), draws=1)
    for form in tqdm(put, desc="kinds of phrasing", leave=False):
        asked, questions = [test[i] for i in form.rows], form.texts[0]
        suggested = release.suggest_answers_to(questions)
        for row, values in (
            ("right_kind", [is_right_kind(*pair, kinds) for pair in zip(suggested, asked, strict=True)]),
            ("answers_found", [share_found(*pair) for pair in zip(suggested, asked, strict=True)]),
            ("false_warnings", novelty.are_strange(questions)),
        ):
            records.append(_record(row, form.group, form.kind, values))
    far = [line for line in OTHER_WORLD.read_text(encoding="utf-8").splitlines() if line]
    missed = [not strange for strange in novelty.are_strange(far)]
    records.append(_record("missed_warnings", "another world", "another world", missed))
    return records


def _record(row: str, group: str, kind: str, values: Sequence[float]) -> dict[str, Any]:
    mean = round(sum(values) / len(values), 4)
    return {"row": row, "group": group, "kind": kind, "mean": mean, "n_questions": len(values)}


def table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A line a kind of phrasing, shares in %."""
    frame = pd.DataFrame(records)
    frame["mean"] *= 100
    wide = frame.pivot_table(index=["group", "kind"], columns="row", values="mean", sort=False)
    wide.insert(0, "questions", frame.groupby(["group", "kind"], sort=False)["n_questions"].first())
    return wide.round(1)


def main(argv: list[str] | None = None) -> None:
    arguments = releases.parser(__doc__, limit=False)
    args = arguments.parse_args(argv)
    run, (release, *others) = releases.open_release(arguments, args)
    if others:
        arguments.error("one release at a time: suggestions depend on its questions, which all seeds share")
    if len(release.known_questions) <= 5:
        arguments.error(f"{release.directory} knows too few questions")
    records = evaluate(release, run.dataset.tasks)
    print(table(records).to_string(na_rep=""))
    print(
        "\nIn %. right_kind: most suggested answers are of the question's kind, and most of its right answers are "
        "among them;\nanswers_found: share of the right answers; false_warnings, missed_warnings: of the page."
    )
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/demo/suggestions.py")


if __name__ == "__main__":
    main()
