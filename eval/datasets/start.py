"""What `train/run_all.py --start` is worth to somebody with few questions of their own.

Stands in for somebody's photographs: the test questions of preset photos with at least eight pairs are divided at
random into 12 to train on, 4 that validate and the others, held out; each division is a dataset of its own. Rows are
trained on it from nothing, and from the shipped release with a share of the steps; they are judged on the held-out
questions, beside the release as it is. A pair counts once, with the mean of the divisions that hold out its question.

Needs weights/photos, which brings the pictures' features. Prints accuracy pooled over pairs, and differences to
training from nothing; writes the records with --json. What was trained before is taken from --work. Half an
hour on one CPU thread.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

import argparse
import random
from typing import Any

import torch
from torch import Tensor

from core.backbones.stored import read_index
from core.console import Parser
from core.data.built import Questions, image_names, read_dataset, write_dataset
from core.data.part import dealt_anew, left_out
from core.data.tasks import Split
from core.files import write_json
from core.generator import AdapterGenerator
from core.release.default import located
from core.tensors import load_tensors, save_tensors
from eval.harness import tables
from eval.harness.metrics import PooledPairs, PooledScores
from eval.harness.results import write_results
from eval.harness.rows import ROWS, answered
from train import run_all
from train.pipeline.environment import default_device
from train.pipeline.flags import open_run, parser
from train.pipeline.run import Run

RELEASE = "weights/photos"
TRAIN, VAL, LEAST = 12, 4, 8  # questions that train, and that validate; pairs of a question that takes part
ROWS_JUDGED = [
    row
    for row in ROWS
    if row.id in ("uncond_multitask", "cond_multitask") or (row.id, row.gamma) == ("hvae_hyperldm", 1)
]
ALL_STEPS = 1.0  # share of the steps, from nothing
NOTHING, AS_IT_IS = "from nothing", "the release as it is"
Counts = dict[tuple[str, str], tuple[Tensor, Tensor]]


def taking_part(questions: Questions) -> Questions:
    """The questions with at least `LEAST` pairs, in order of their texts."""
    count = lambda entry: len(entry["train"]) + len(entry["test"])
    return {question: questions[question] for question in sorted(questions) if count(questions[question]) >= LEAST}


def divided(questions: Questions, division: int) -> dict[Split, Questions]:
    """The questions in new roles, at random: `TRAIN` train, `VAL` validate, the others test."""
    order = list(questions)
    random.Random(f"{division}/start").shuffle(order)
    parts: dict[Split, list[str]] = {
        "train": order[:TRAIN],
        "val": order[TRAIN : TRAIN + VAL],
        "test": order[TRAIN + VAL :],
    }
    return dealt_anew({split: {question: questions[question] for question in part} for split, part in parts.items()})


def build(source: Path, directory: Path, splits: dict[Split, Questions]) -> None:
    """Write the dataset of a division, with the features that the dataset `source` brings of its pictures."""
    _, full, prompts = read_dataset(source)
    identity = write_dataset(
        directory,
        splits,
        name="questions-of-ones-own",
        source=f"test questions of the photographs with at least {LEAST} pairs, divided at random",
        prompts=prompts,
        images=None,
        part=left_out(full, splits),
    )
    index = read_index(source / "features")
    shards = sorted((source / "features").glob("images-*.safetensors"))
    rows = torch.cat([load_tensors(shard, "features")["features"] for shard in shards])
    place = {name: i for i, name in enumerate(image_names(full.values()))}
    names = image_names(splits.values())
    save_tensors(directory / "features" / shards[0].name, {"features": rows[[place[name] for name in names]]})
    write_json(directory / "features" / "index.json", index | {"dataset": identity, "images": len(names)})


def train(args: argparse.Namespace, data: Path, work: Path, share: float | None) -> Run:
    """The run of a division, trained: from the release with a share of the steps, or from nothing with all."""
    flags = ["--preset", "photos", "--data", str(data), "--work", str(work), "--seed", str(args.seed)]
    flags += ["--device", args.device, "--steps-share", str(ALL_STEPS if share is None else share)]
    flags += [] if share is None else ["--start", str(located(Path(RELEASE)))]
    run_all.main([*flags, "--rows", *dict.fromkeys(row.id for row in ROWS_JUDGED)])
    return open_run(parser("").parse_args(flags))


def evaluate(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A record of every setting and row, after training what is not there yet."""
    source = located(Path(RELEASE)) / "data"
    questions = taking_part(read_dataset(source)[1]["test"])
    sizes = torch.tensor([len(entry["train"] + entry["test"]) for entry in questions.values()])
    question = torch.arange(len(sizes)).repeat_interleave(sizes)
    return records_of(judge(args, source, questions, sizes), question, args.seed)


def judge(args: argparse.Namespace, source: Path, questions: Questions, sizes: Tensor) -> Counts:
    """By setting and row: how often each pair was answered right, and how often it was held out; both (M,), of all
    pairs, question after question. `sizes` counts the pairs of each."""
    first = dict(zip(questions, (sizes.cumsum(0) - sizes).tolist(), strict=True))
    found: Counts = {}
    for division in range(args.divisions):
        work = args.work / str(division)
        data = work / "data"
        build(source, data, divided(questions, division))
        runs = {NOTHING: train(args, data, work, None)}
        runs |= {f"--steps-share {share:g}": train(args, data, work, share) for share in args.shares}
        held_out = runs[NOTHING].task_set("test")
        batch = held_out.batch(part="all").to(runs[NOTHING].device)
        releases = {name: run.output for name, run in runs.items()} | {AS_IT_IS: located(Path(RELEASE))}
        for name, directory in releases.items():
            generator = AdapterGenerator.from_pretrained(directory, device=runs[NOTHING].device)
            for row in ROWS_JUDGED:
                right, times = found.setdefault(
                    (name, row.id), (torch.zeros(int(sizes.sum())), torch.zeros(int(sizes.sum())))
                )
                answers = answered(row, generator, batch, batch)
                for task, values, mask in zip(held_out.tasks, answers, batch.example_mask.cpu(), strict=True):
                    place = slice(first[task.question], first[task.question] + int(mask.sum()))
                    right[place] += values[mask]
                    times[place] += 1
    return found


def records_of(found: Counts, question: Tensor, seed: int) -> list[dict[str, Any]]:
    """A record for every setting and row: accuracy pooled over the pairs that some division held out, and its
    difference to training from nothing."""
    records = []
    for (name, row_id), (right, times) in found.items():
        seen = times > 0
        pairs = PooledPairs(question, seen)
        scores, before = (
            PooledScores((r[seen] / times[seen])[None], pairs) for r in (right, found[NOTHING, row_id][0])
        )
        label = next(row.label for row in ROWS_JUDGED if row.id == row_id)
        records.append(
            {"row": row_id, "label": label, "setting": name, "tasks": "held out", "descriptors": 1.0}
            | tables.pooled_record(scores, [seed])
            | ({} if name == NOTHING else {"vs_nothing": scores.minus(before).rounded()})
        )
    return records


def main(argv: list[str] | None = None) -> None:
    arguments = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--shares",
        nargs="+",
        type=float,
        default=[0.05],
        metavar="SHARE",
        help="of the steps, from the release (default: %(default)s)",
    )
    arguments.add_argument(
        "--divisions", type=int, default=10, help="of the questions, at random (default: %(default)s)"
    )
    arguments.add_argument("--seed", type=int, default=0, help="of training (default: %(default)s)")
    arguments.add_argument("--device", default=default_device(), help="torch device (default: %(default)s)")
    arguments.add_argument(
        "--work", type=Path, default=Path("runs/start"), help="what is trained (default: %(default)s)"
    )
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the records")
    args = arguments.parse_args(argv)
    if args.divisions < 1:
        arguments.error(f"--divisions {args.divisions}; allowed: 1 or more")
    if wrong := [share for share in args.shares if not 0 < share <= 1]:
        arguments.error(f"--shares {wrong[0]:g}; allowed: more than 0, up to 1")
    try:
        records = evaluate(args)
    except (ValueError, OSError) as error:
        arguments.error(str(error))
    print(tables.grid(records, lambda r: (r["label"], r["setting"]), tables.tasks_column, tables.percent).to_string())
    for record in (record for record in records if "vs_nothing" in record):
        mean, low, high = (100 * value for value in record["vs_nothing"])
        print(f"{record['label']}, {record['setting']}: {mean:+.1f} [{low:+.1f}, {high:+.1f}] over training {NOTHING}")
    print(f"\nAccuracy in %, pooled over the pairs of {records[0]['n_tasks']} questions [95%: questions, then pairs].")
    if args.json:
        write_results(args.json, "photos", records, "eval/datasets/start.py", divisions=args.divisions)


if __name__ == "__main__":
    main()
