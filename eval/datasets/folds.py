"""Five-fold validation: accuracy on training questions that a run was not trained on, to choose settings by.

Deals the training questions of a preset, validation questions among them, into folds. For each one makes the photo
tower, if the preset makes one, and trains rows on the others; then judges them on the fold's pairs: every pair counts
the same where the preset pools, else every question. Test questions are not looked at. With --set KEY=VALUE a setting
is tried; with --also KEY=VALUE it is tried beside the others, and what it gains is paired, question by question. The
fold also chooses what stands in a release's choices: steps of HyperCLIP guidance, HyperLDM's
steps and samples (its gamma is fixed), the gradient's scale, and kernel ridge regression's two settings. So these rows
are a little too good.

Needs the dataset's pictures where the tower is made (or what an earlier run read of them, WORK/photo_tower). Prints
accuracy by kind of question with intervals; writes the records with --json. For preset photos and rows clip and
cond_multitask five minutes on one CPU thread, for preset emoji and row hvae_hyperldm about an hour, with --also twice
that, of each fold of --first N a fifth; what was trained before is taken from --work.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from core.data.tasks import Task
from core.generator import AdapterGenerator
from eval.harness import tables
from eval.harness.comparison.records import summary
from eval.harness.metrics import PooledPairs, PooledScores, Scores, TaskScores
from eval.harness.results import write_results
from eval.harness.rows import ROWS, Row, answered, available, choices_of
from train import run_all
from train.pipeline.flags import flags_of, open_run, parser
from train.pipeline.run import Run, copy_features

# Kinds of Meta-VQA's questions, by beginnings of words they hold; a question is of the first that fits.
KINDS = {
    "colour": ("color",),
    "count": ("how many",),
    "room, sport, animal, activity": ("room", "sport", "animal", "doing"),
}
OTHER = "other"


def kind_of(question: str) -> str:
    """The first of `KINDS` that a question fits; `OTHER` if none."""
    fitting = (kind for kind, words in KINDS.items() if re.search(rf"\b({'|'.join(words)})", question.lower()))
    return next(fitting, OTHER)


def rows_to_judge(ids: Sequence[str]) -> list[Row]:
    """The zero-shot rows of these ids, without HyperLDM at the gamma of validation: that would be chosen by the very
    pairs that it is judged on."""
    rows = [row for row in ROWS if row.id in ids and not row.few_shot]
    return [row for row in rows if row.method != "hyperldm" or row.gamma is not None]


def open_fold(args: Any, fold: int, folds: int, also: Sequence[str] = ()) -> Run:
    """The run of one fold, with settings `also`, in a work folder of its own, with a tower of its own if the preset
    makes one."""
    base = open_run(args)
    work = (args.work or Path("runs") / "folds") / str(fold)
    own = [f"dataset.folds={folds}", f"dataset.fold={fold}"]
    read = base.work / "photo_tower"
    if base.preset.photo_tower is not None and read.is_dir() and not (work / read.name).is_dir():
        shutil.copytree(read, work / read.name)  # what the trunk read is the same in all folds
    features = work.parent / "0" / "features"
    own_features = work / "features"
    if base.preset.photo_tower is None and (features / "index.json").is_file() and not own_features.is_dir():
        copy_features(features, own_features)  # folds part the questions, not the pictures
    copy = type(args)(**{**vars(args), "set": [*own, *args.set, *also], "work": work, "output": None})
    return open_run(copy)


def train_fold(run: Run, args: Any, rows: Sequence[str]) -> AdapterGenerator:
    """Train what some rows need of a fold; returns the release."""
    run_all.main(
        [
            *flags_of(run),
            *("--work", str(run.work), "--device", args.device, "--seed", str(args.seed), "--rows", *rows),
        ]
    )
    return AdapterGenerator.from_pretrained(run.output, device=run.device)


def judge(
    tasks: Sequence[Task],
    right: dict[str, torch.Tensor],
    heads: dict[str, dict],
    seed: int,
    pooled: bool = True,
) -> list[dict]:
    """Records of all rows, of which pairs (M,) they answer `right`: on all pairs of all folds, and by kind of question;
    or, not `pooled`, the mean over questions. A head that names another row under `against` gets the difference to it.
    """
    question = torch.arange(len(tasks)).repeat_interleave(torch.tensor([len(t.examples("all")[0]) for t in tasks]))
    if not pooled:
        scores = {row: by_question(values, question) for row, values in right.items()}
        return [{**head, "tasks": "all", **found} for head, found in records_of(scores, heads, seed)]
    kinds = [kind_of(task.question) for task in tasks]
    masks = {"all": torch.ones(len(question), dtype=torch.bool)}
    masks |= {kind: torch.tensor([kinds[i] == kind for i in question.tolist()]) for kind in (*KINDS, OTHER)}
    records = []
    for name, mask in masks.items():
        if mask.any():
            pairs = PooledPairs(question, mask)
            scores = {row: PooledScores(values[None, mask], pairs) for row, values in right.items()}
            records += [{**head, "tasks": name, **found} for head, found in records_of(scores, heads, seed)]
    return records


def by_question(right: torch.Tensor, question: torch.Tensor) -> TaskScores:
    """The share of its pairs that each question's `right` (M,) has."""
    total = torch.zeros(int(question.max()) + 1, dtype=torch.float64).index_add(0, question, right.double())
    return TaskScores((total / question.bincount())[None])


def records_of(scores: dict[str, Scores], heads: dict[str, dict], seed: int) -> Iterator[tuple[dict, dict]]:
    """Every row's head, and its scores as a record with an interval and the difference that the head asks for."""
    for row, own in scores.items():
        head = {key: value for key, value in heads[row].items() if key != "against"} | {"descriptors": 1.0}
        found = summary(own, [seed])
        if "against" in heads[row]:
            found["vs_without"] = own.minus(scores[heads[row]["against"]]).rounded()
        yield head, found


def evaluate(args: Any, rows: Sequence[Row], folds: int) -> list[dict[str, Any]]:
    """One record a row, settings tried and kind of question, over all folds."""
    tasks: list[Task] = []
    right: dict[str, list[torch.Tensor]] = {}
    heads: dict[str, dict] = {}
    for fold in range(args.first or folds):
        for also in ((), args.also) if args.also else ((),):
            run = open_fold(args, fold, folds, also)
            generator = train_fold(run, args, sorted({row.id for row in rows}))
            every = run.val.batch(part="all").to(run.device)
            tasks += [] if also else run.val.tasks
            for row in rows:
                if not available(row, generator):
                    raise ValueError(f"row {row.id!r}: preset {args.preset!r} does not make it")
                label = "; ".join((row.label, *also))
                own = answered(row, generator, every, every)[every.example_mask.cpu()]
                right.setdefault(label, []).append(own)
                head = {"row": row.id, "label": label, **choices_of(row, [generator])}
                heads[label] = {**head, "against": row.label} if also else head
    found = {label: torch.cat(parts) for label, parts in right.items()}
    return judge(tasks, found, heads, args.seed, pooled=run.preset.pooled)


def cell(record: tables.Record) -> str:
    """A printed cell: accuracy, and in points what settings tried beside others gain."""
    gained = record.get("vs_without")
    return tables.percent(record) + ("" if gained is None else f", {tables.interval(gained, '+.2f')}")


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.set_defaults(preset="photos")
    known = sorted({row.id for row in ROWS if not (row.few_shot or row.members) and row.id != "clip_prompted"})
    arguments.add_argument("--rows", nargs="+", default=["clip"], choices=known, help="which rows (default: clip)")
    arguments.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="judge every row with these settings on top, too, and give the difference",
    )
    arguments.add_argument("--folds", type=int, default=5, help="default: 5")
    arguments.add_argument("--first", type=int, metavar="N", help="train and judge only the first N of them")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the records")
    args = arguments.parse_args(argv)
    if args.descriptors != 1.0 or args.output:
        arguments.error(
            "--descriptors and --output have no place: folds are of all questions, each in a folder of --work"
        )
    if any(change.startswith("dataset.") for change in args.also):
        arguments.error("--also changes no setting of the dataset: rows are compared on the same questions")
    if args.folds < 2:
        arguments.error(f"--folds {args.folds}; allowed: 2 or more")
    if args.first is not None and not 1 <= args.first <= args.folds:
        arguments.error(f"--first {args.first}; allowed: 1 to {args.folds}, the number of folds")
    try:
        records = evaluate(args, rows_to_judge(args.rows), args.folds)
    except (ValueError, OSError) as error:
        arguments.error(str(error))
    table = tables.grid(records, lambda record: tables.label_of([record]), tables.tasks_column, cell)
    print(table.to_string())
    judged = "all folds" if args.first is None else f"the first {args.first} of {args.folds} folds"
    print(
        f"\nAccuracy in %, over {judged} [95% interval: questions resampled, of pooled accuracies then their pairs]"
        f"{'; behind it what --also gains, in points' if args.also else ''}."
    )
    if args.json:
        write_results(args.json, args.preset, records, "eval/datasets/folds.py")


if __name__ == "__main__":
    main()
