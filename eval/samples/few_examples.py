"""How many labelled examples is a sentence worth? Accuracy over the number of examples, with and without the question.

With the question: HyperLDM draws samples, and the examples choose the best one, weight them all, guide the sampler
(Eq. 11) or refine the mean latent by gradient descent; or they are Tip-Adapter's cache beside the generated adapter.
Without it: the mean training latent refined, MNet-MAML adapted, Tip-Adapter on plain CLIP. Every row makes nine tries
for every number of examples, on validation tasks alone. Where a row without the question reaches the accuracy of the
question alone, a sentence is worth as many examples.

Needs release directories with HyperLDM of the HVAE, its table of latents and MNet-MAML (default: the shipped weights);
encodes images on the first use, then caches them. Prints the tables; writes the records with --json, the picture with
--plot. About ten minutes a release on one CPU core.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from core.data.tasks import TaskSet
from core.generator import AdapterGenerator
from core.methods import DEFAULT_GENERATOR
from eval.harness import figures, tables
from eval.harness.metrics import crossed_bootstrap
from eval.harness.releases import open_release, require, require_sets
from eval.harness.results import write_results
from eval.samples.choosing import first_of
from eval.samples.learners import LEARNERS, SAMPLES, Bench, Learner
from eval.samples.worth import worth
from eval.sanity import lacks
from train.pipeline.run import Run

COUNTS = (1, 2, 5, 10, 20, 0)  # 0: all of the support set
DRAWS, VAL_DRAWS = 5, 2
ALONE, ALONE_LABEL = "question", "the question alone"


def bench_of(generator: AdapterGenerator, tasks: TaskSet, samples: int) -> Bench:
    device = generator.device
    support, query = tasks.batch(part="support").to(device), tasks.batch(part="query").to(device)
    return Bench(generator, DEFAULT_GENERATOR, support, query, samples)


def chosen(learner: Learner, bench: Bench, count: int, draws: int) -> tuple[tuple[float, ...], float]:
    """The option of a row that does best with `count` examples on validation tasks, and its accuracy there."""
    totals: dict[tuple[float, ...], float] = {}
    for seed in range(draws if count else 1):
        seen = first_of(bench.support.example_mask, count, seed)
        for option, accuracy in learner.tried(bench, seen, learner.options):
            totals[option] = totals.get(option, 0.0) + float(accuracy.mean())
    best = max(totals, key=totals.__getitem__)
    return best, totals[best] / (draws if count else 1)


def reached(learner: Learner, bench: Bench, count: int, draws: int, option: tuple[float, ...]) -> Tensor:
    """Accuracy (T,) with `count` examples, the mean over draws of these."""
    found = []
    for seed in range(draws if count else 1):
        seen = first_of(bench.support.example_mask, count, seed)
        found += [accuracy for _, accuracy in learner.tried(bench, seen, [option])]
    return torch.stack(found).mean(0)


def measure(run: Run, generators: Sequence[AdapterGenerator], limit: int | None, draws: int, samples: int = SAMPLES):
    """Records of all rows by number of examples, and what a sentence is worth by row without the question."""
    test = run.task_set("test")
    test = test if limit is None else test.select(range(min(limit, len(test))))
    shown = {count: torch.tensor([min(count or 10**6, len(t.support[0])) for t in test.tasks]) for count in COUNTS}
    mean_shown = {count: float(number.double().mean()) for count, number in shown.items()}
    benches = [(bench_of(g, run.val, samples), bench_of(g, test, samples)) for g in generators]
    seeds = [g.config["seed"] for g in generators]
    alone = torch.stack([bench.accuracy(bench.w) for _, bench in benches]).double()  # (seeds, T)
    common = {"gamma": None, "descriptors": 1.0}
    records = [
        {
            "row": ALONE,
            "label": ALONE_LABEL,
            "reads_question": True,
            "count": None,
            "examples": 0.0,
            **common,
            **summary,
        }
        for summary in tables.summaries(alone, test, seeds)
    ]
    values = []
    for learner in tqdm(LEARNERS, desc="rows", leave=False):
        curve = []
        for count in COUNTS:
            options = [chosen(learner, val, count, VAL_DRAWS) for val, _ in benches]
            scores = torch.stack(
                [
                    reached(learner, bench, count, draws, option)
                    for (_, bench), (option, _) in zip(benches, options, strict=True)
                ]
            ).double()
            curve.append(scores)
            for summary in tables.summaries(scores, test, seeds):
                mask = tables.masks(test)[summary["tasks"]]
                own = scores[:, mask]
                records.append(
                    {
                        "row": learner.id,
                        "label": learner.label,
                        "reads_question": learner.reads_question,
                        "count": count,
                        "examples": round(mean_shown[count], 1),
                        **common,
                        **summary,
                        "interval": crossed_bootstrap(own).rounded()[1:],
                        "against_question": crossed_bootstrap(own - alone[:, mask]).rounded(),
                        "options": [learner.option(option) for option, _ in options],
                        "val_accuracy": [round(accuracy, 4) for _, accuracy in options],
                    }
                )
        if not learner.reads_question:
            found = worth(torch.stack(curve, 1), list(mean_shown.values()), alone)
            values.append(
                {"row": learner.id, "label": learner.label, "most": round(max(mean_shown.values()), 1)} | found
            )
    return records, values


def lacking(generator: AdapterGenerator) -> list[str]:
    """What a release lacks of what is compared, in words."""
    return lacks(generator, DEFAULT_GENERATOR) + ([] if generator.has("mnet_maml") else ["MNet-MAML"])


def count_label(record: dict[str, Any]) -> str:
    """The head of a column: how many examples."""
    count = record["count"]
    return "none" if count is None else f"all ({record['examples']:.0f})" if count == 0 else str(count)


def worth_label(value: dict[str, Any]) -> str:
    """ "6.1 [4.0, 9.2]", ends that are not reached as "> 61"."""
    show = lambda x: f"> {value['most']:.0f}" if x is None else f"{x:.3g}"
    return f"{show(value['examples'])} [{show(value['low'])}, {show(value['high'])}]"


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy over the number of examples, rows that read the question solid, others dashed."""
    records = [r for r in records if r["tasks"] == "all"]
    figure, axis = figures.pyplot().subplots(figsize=(7.2, 4.2))
    alone = next(r for r in records if r["row"] == ALONE)
    axis.axhline(100 * alone["mean"], color="black", linestyle=":", linewidth=1, label=alone["label"])
    for label in dict.fromkeys(r["label"] for r in records if r["row"] != ALONE):
        points = [r for r in records if r["label"] == label]
        axis.plot(
            [r["examples"] for r in points],
            [100 * r["mean"] for r in points],
            "-o" if points[0]["reads_question"] else "--s",
            markersize=3,
            label=label,
        )
    axis.set_xscale("log")
    ticks = sorted({r["examples"] for r in records if r["examples"]})
    axis.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("labelled examples")
    axis.set_ylabel("test accuracy, %")
    figures.save_with_legend(figure, axis, path)


def main(argv: list[str] | None = None) -> None:
    arguments = figures.parser(__doc__)
    arguments.add_argument("--draws", type=int, default=DRAWS, help="of the examples (default: %(default)s)")
    args = arguments.parse_args(argv)
    if args.draws < 1:
        arguments.error(f"--draws {args.draws}; allowed: 1 or more")
    run, generators = open_release(arguments, args, every_question=True)
    require_sets(arguments, run, ("val", "support"), ("val", "query"), ("test", "support"), ("test", "query"))
    require(arguments, run, generators, lacking)
    records, values = measure(run, generators, args.limit_tasks, args.draws)
    every = [r for r in records if r["tasks"] == "all"]
    print(tables.grid(every, lambda r: r["label"], count_label).to_string())
    print("\nAgainst the question alone, points")
    against = lambda r: tables.interval(r["against_question"], "+.1f")
    print(tables.grid([r for r in every if r["row"] != ALONE], lambda r: r["label"], count_label, against).to_string())
    print("\nThe question alone is worth so many examples to a row without it:")
    for value in values:
        print(f"  {value['label']:<32} {worth_label(value)}")
    print(f"\nAccuracy in %, mean of {args.draws} draws of the examples; {tables.drawn(every[0]['seeds'])}.")
    if args.json:
        write_results(
            args.json, run.preset.name, records, "eval/samples/few_examples.py", worth=values, draws=args.draws
        )
    if args.plot:
        plot(records, args.plot)


if __name__ == "__main__":
    main()
