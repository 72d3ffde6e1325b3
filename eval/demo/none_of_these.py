"""How often the page says "none of these", and whether it is right to.

On the test questions, by method: the share of right answers and of wrong ones that are below the release's threshold;
and that of pictures which belong to another question, paired by seed. Many of these have an answer all the same (any
room has a wall of some colour), so no method can refuse all of them. The threshold was chosen on validation questions,
on HyperLDM's answers, of which it refuses one right one in ten.

Needs a release directory with `thresholds.answer` (weights/photos). Prints the table; writes it with --json. A minute
on one CPU.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

from typing import Any

import torch

from core.data.tasks import TaskBatch
from core.generator import AdapterGenerator
from core.methods import row_of
from core.networks.base import right_answers
from eval.harness import releases, tables
from eval.harness.results import write_results

METHODS = {"hyperldm": "HyperLDM", "hyperclip": "HyperCLIP guidance", "cond_multitask": "Cond. Multitask"}


def other_pictures(batch: TaskBatch, seed: int) -> TaskBatch:
    """The same questions about pictures of others: all pictures in random order, none at a question of its own."""
    rng = torch.Generator().manual_seed(seed)
    mask = batch.example_mask
    own = torch.arange(len(batch))[:, None].expand(mask.shape)[mask]  # whose each picture is
    order = torch.randperm(len(own), generator=rng)
    order = order[own[order].argsort(stable=True)]  # by question, random within
    shift = int(own.bincount().max())  # farther than the largest question reaches
    if 2 * shift > len(own):
        raise ValueError("one question has more than half of all pictures: there are not enough others")
    images = batch.images.clone()
    images[own[order], _place(own)[order]] = batch.images[mask][order.roll(shift)]
    return replace(batch, images=images)


def _place(own: torch.Tensor) -> torch.Tensor:
    """Which example of its question each one is, where `own` (M,) rises."""
    count = own.bincount()
    return torch.arange(len(own)) - (count.cumsum(0) - count)[own]


@torch.no_grad()
def refused(release: AdapterGenerator, method: str, batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Which examples (M,) have no answer at the threshold, and which are answered right."""
    w = release.weights(batch.question, method)
    scale, threshold = release.scale(row_of(method)), release.config["thresholds"]["answer"]
    best = release.network.logits(w, batch, scale=scale).softmax(-1).amax(-1)
    right = right_answers(release.network.logits(w, batch), batch)
    return (best < threshold)[batch.example_mask], right[batch.example_mask]


def evaluate(release: AdapterGenerator, batch: TaskBatch, seed: int) -> list[dict[str, Any]]:
    """A record a method and kind of pair: the share that is called none of these, and of how many."""
    foreign, records = other_pictures(batch, seed), []
    for method, label in METHODS.items():
        if not release.has(method):
            continue
        below, right = refused(release, method, batch)
        other, _ = refused(release, method, foreign)
        for kind, values in (("right", below[right]), ("wrong", below[~right]), ("another question's", other)):
            share = float(values.float().mean()) if len(values) else None
            head = {"row": row_of(method), "label": label, "answers": kind}
            records.append({**head, "mean": share, "n_pairs": len(values)})
    return records


def main(argv: list[str] | None = None) -> None:
    arguments = releases.parser(__doc__, limit=False)
    arguments.add_argument("--draw", type=int, default=0, help="seed of the pairing with other pictures (default: 0)")
    args = arguments.parse_args(argv)
    run, (release, *others) = releases.open_release(arguments, args)
    if others:
        arguments.error("one release at a time: the threshold is its own")
    if "answer" not in release.config.get("thresholds", {}):
        arguments.error(f"{release.directory} has no thresholds.answer: its page never says none of these")
    records = evaluate(release, run.task_set("test").batch(part="query").to(run.device), args.draw)
    shown = lambda r: "" if r["mean"] is None else f"{100 * r['mean']:.1f}"
    table = tables.grid(records, lambda r: r["label"], lambda r: r["answers"], shown)
    print(table.to_string())
    print(f"\nIn %: called none of these, below {release.config['thresholds']['answer']:.0%}.")
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/demo/none_of_these.py")


if __name__ == "__main__":
    main()
