"""Table 4: few-shot accuracy on the test tasks, after 50 steps of gradient descent on each support set.

Every row adapts what it is made of: weights, a latent, or the question's embedding. Validation tasks chose its rate.
The row through the HVAE alone takes the steps and rate of the weights that the HVAE learned from.

Needs release directories (default: the shipped weights); encodes the test images on the first use, then caches them.
Prints the table; writes it with --csv, the records with --json, what every row answers right with --per-task. About
two minutes a release on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

from eval.harness.comparison.answers import PER_TASK, write_answers
from eval.harness.comparison.evaluation import judged_tasks, lines_of, without_support
from eval.harness.comparison.records import records_of, without_scores
from eval.harness.releases import open_release, parser, print_missing
from eval.harness.results import write_results
from eval.harness.rows import FEW_SHOT
from eval.harness.tables import accuracy_table


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--csv", type=Path, help="write the table as CSV")
    arguments.add_argument("--per-task", type=Path, metavar="STEM", help=PER_TASK)
    args = arguments.parse_args(argv)
    run, generators = open_release(arguments, args)
    if not without_support(FEW_SHOT, [task for task in run.dataset.tasks if task.split == "test"]):
        arguments.error(f"test tasks of {run.preset.name} have no support sets; eval/datasets/photo_few_shot.py adapts")
    tasks, lines = judged_tasks(run, args.limit_tasks), list(lines_of(run, generators, FEW_SHOT, args.limit_tasks))
    records = without_scores(records_of(tasks, lines))
    table = accuracy_table(records)
    table = table[[name for name in table if name != "closed" and not name.startswith("vs ")]]  # Table 1's alone
    print(table.to_string())
    print(
        "\nAccuracy in % on query sets after 50 steps on support sets (through the HVAE: as many as its training data "
        "had),\nmean (s.d. over training seeds where there are several). The paper's column: Meta-VQA, another dataset."
    )
    found = {record["row"] for record in records}
    print_missing(run, [row.id for row in FEW_SHOT if row.id not in found])
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/table4.py")
    if args.csv:
        table.to_csv(args.csv)
    if args.per_task:
        write_answers(args.per_task, tasks, lines)


if __name__ == "__main__":
    main()
