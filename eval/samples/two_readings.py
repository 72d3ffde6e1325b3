"""Questions with two readings: does sampling beat the mean latent?

Asks HyperLDM questions about drawn scenes that leave something open (ambiguous.py), and judges the adapters by either
reading: of the mean latent, of kernel ridge regression, of one sample, of the reading's own precise question; of
samples that a few examples of the intended reading choose or weight; of the mean latent, the chosen sample and the
mean training latent, each refined by the same examples. Says whether samples fall into the readings, and how often
some sample serves a reading as well as its precise question does. What rows have to choose is chosen on other
questions with two readings, with nine tries each.

Needs release directories of Emoji-VQA with HyperLDM of the HVAE and its table of latents (default: the shipped
weights); draws and encodes 6,000 scenes each time. Prints the tables; writes the records with --json, the picture with
--plot. About five minutes a release on one CPU core.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.data.emoji.dataset import EmojiVQA
from core.data.tasks import TaskBatch
from core.generator import AdapterGenerator
from core.methods import DEFAULT_GENERATOR
from core.release.checkpoint import load_model
from eval.harness import figures, tables
from eval.harness.metrics import crossed_bootstrap
from eval.harness.releases import open_release, require
from eval.harness.results import write_results
from eval.samples.ambiguous import Ambiguous, build, digest
from eval.samples.few_examples import VAL_DRAWS, chosen, reached
from eval.samples.learners import BEST_REFINED, LEARNERS, SAMPLES, SMOOTHING, Bench
from eval.sanity import lacks
from train.pipeline.run import Run
from train.regression import kernel_ridge

COUNTS, DRAWS = (1, 2, 5, 10), 5
WITH_EXAMPLES = ("best", "latents", "answers", "best_refined", "refined", "no_question")
WITHOUT = {
    "mean": "mean latent",
    "ridge": "kernel ridge regression",
    "one": "one sample, on average",
    "precise": "mean latent of the precise question",
    "other": "mean latent of the other reading's precise question",
}
CLOSE, SIDED = 0.05, 0.1  # of a reading that is covered; of samples on either side


def embedded(generator: AdapterGenerator, asked: Sequence[tuple[str, Sequence[str]]]) -> Tensor:
    """Task embeddings (T, E), on the device, of questions with their candidate answers."""
    texts, answers = zip(*asked, strict=True)
    return generator.embed_questions(texts, answers).to(generator.device)


def encoded(generator: AdapterGenerator, questions: Sequence[Ambiguous]) -> tuple[TaskBatch, TaskBatch]:
    """Support and query batches of 2 T rows: all questions by their first reading, then all by their second."""
    import numpy as np

    from core.data.emoji.scene import draw_array

    pixels = np.stack([draw_array(scene) for question in questions for scene in question.scenes])
    parts = [generator.backbone.encode_images(pixels[i : i + 256]).cpu() for i in range(0, len(pixels), 256)]
    images = torch.cat(parts).float().unflatten(0, (len(questions), -1)).repeat(2, 1, 1)  # (2 T, N, D)
    labels = torch.tensor([question.labels[i] for i in range(2) for question in questions])
    answers = [generator.embed_answers(question.answers).cpu() for question in questions]
    padded = pad_sequence(answers, batch_first=True).repeat(2, 1, 1)
    counts = torch.tensor([len(question.answers) for question in questions]).repeat(2)
    whole = TaskBatch(
        images=images,
        labels=labels,
        example_mask=torch.ones_like(labels, dtype=torch.bool),
        answers=padded,
        answer_mask=torch.arange(padded.shape[1]) < counts[:, None],
        question=generator.embed_questions(*zip(*((q.text, q.answers) for q in questions), strict=True))
        .cpu()
        .repeat(2, 1),
    ).to(generator.device)
    half = torch.arange(labels.shape[1], device=whole.labels.device) < labels.shape[1] // 2
    first = half.expand_as(whole.labels)
    return whole.with_mask(first).trimmed(), whole.with_mask(~first).trimmed()


def bench_of(generator: AdapterGenerator, questions: Sequence[Ambiguous], samples: int = SAMPLES) -> Bench:
    return Bench(generator, DEFAULT_GENERATOR, *encoded(generator, questions), samples)


@torch.no_grad()
def without_examples(run: Run, bench: Bench, questions: Sequence[Ambiguous]) -> dict[str, Tensor]:
    """Accuracy (2 T,) on every reading of rows that see no example."""
    generator, T = bench.generator, len(questions)
    _, tensors = load_model(generator.file(f"latents_{bench.name}"), "latents")
    ridge, _ = kernel_ridge.fitted(run, tensors["z"].to(run.device), bench.decode)
    precise = embedded(generator, [(q.readings[i], q.answers) for i in range(2) for q in questions])
    own = generator.weights(precise, "hyperldm", generator=bench.name)
    return {
        "mean": bench.accuracy(bench.w),
        "ridge": bench.accuracy(bench.decode(ridge.latents(bench.query.question))),
        "one": sample_accuracies(bench.pool.query, bench.query).mean(0),
        "precise": bench.accuracy(own),
        "other": bench.accuracy(own.roll(T, 0)),
    }


def sample_accuracies(answers: Tensor, batch: TaskBatch) -> Tensor:
    """Accuracy (S, 2 T) of samples that give probabilities (S, 2 T, M, C)."""
    right = (answers.argmax(-1) == batch.labels) & batch.example_mask
    return (right.sum(-1) / batch.example_mask.sum(-1)).cpu()


def spread(bench: Bench, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """By question (T,): whether samples fall on both sides, how few are on the lesser side, and whether a sample, or
    the mean latent, serves readings as their precise questions do, less `CLOSE`. All support examples choose the
    sample, the query examples judge it."""
    pool, T = bench.pool, len(bench.query) // 2
    first, second = sample_accuracies(pool.query, bench.query).unflatten(1, (2, T)).unbind(1)  # (S, T)
    sided = torch.stack([(first > second), (second > first)]).float().mean(1)  # (2, T)
    which = pool.best(bench.support.example_mask, among=len(pool.z), smoothing=SMOOTHING)
    best = bench.of_answers(pool.answers_of(which))
    enough = found["precise"] - CLOSE
    covered, by_mean = ((accuracy >= enough).view(2, T) for accuracy in (best, found["mean"]))
    return {
        "lesser_side": sided.amin(0),
        "both_sides": (sided.amin(0) >= SIDED).float(),
        "both_covered": covered.all(0).float(),
        "both_covered_by_mean": by_mean.all(0).float(),
        "readings_covered": covered.float().mean(0),
        "readings_covered_by_mean": by_mean.float().mean(0),
        "best_of_all": best.view(2, T).mean(0),
        "better_reading_of_mean": found["mean"].view(2, T).amax(0),
        "worse_reading_of_mean": found["mean"].view(2, T).amin(0),
    }


def measure(run: Run, generators: Sequence[AdapterGenerator], draws: int) -> tuple[list[dict], list[dict], str]:
    """Records of rows by number of examples, of the spread of samples, and the digest of the test questions."""
    asked = {task.question for task in run.dataset.tasks if task.split != "test"}
    parts = {part: build(run.dataset.world, asked, part) for part in ("val", "test")}
    questions, seeds = parts["test"], [g.config["seed"] for g in generators]
    benches = [tuple(bench_of(g, parts[part]) for part in ("val", "test")) for g in generators]
    plain = [without_examples(run, test, questions) for _, test in benches]
    spreads = [spread(test, found) for (_, test), found in zip(benches, plain, strict=True)]
    kinds = {"all": torch.ones(len(questions), dtype=torch.bool)}
    kinds |= {
        kind: torch.tensor([q.kind == kind for q in questions]) for kind in dict.fromkeys(q.kind for q in questions)
    }
    by_question = lambda values: torch.stack([v.double().view(2, -1).mean(0) for v in values])  # (seeds, T)
    mean = by_question([found["mean"] for found in plain])

    def record(row: str, label: str, scores: Tensor, against: dict[str, Tensor], **more: Any) -> list[dict[str, Any]]:
        result = []
        for name, mask in kinds.items():
            own = scores[:, mask]
            result.append(
                {"row": row, "label": label, "gamma": None, "descriptors": 1.0, "tasks": name, **more}
                | tables.over_seeds(scores[:, mask].mean(1).tolist(), seeds)
                | {"n_tasks": int(mask.sum()), "interval": crossed_bootstrap(own).rounded()[1:]}
                | {key: crossed_bootstrap(own - other[:, mask]).rounded() for key, other in against.items()}
            )
        return result

    records = []
    for row, label in WITHOUT.items():
        scores = by_question([found[row] for found in plain])
        records += record(row, label, scores, {} if row == "mean" else {"against_mean": mean}, count=0)
    by_id = {learner.id: learner for learner in (*LEARNERS, BEST_REFINED)}
    for count in COUNTS:
        found, options = {}, {}
        for row in ("refined", *(row for row in WITH_EXAMPLES if row != "refined")):
            options[row] = [chosen(by_id[row], val, count, VAL_DRAWS)[0] for val, _ in benches]
            found[row] = by_question(
                [
                    reached(by_id[row], test, count, draws, option)
                    for (_, test), option in zip(benches, options[row], strict=True)
                ]
            )
        for row in WITH_EXAMPLES:
            against = {"against_mean": mean} | ({} if row == "refined" else {"against_refined": found["refined"]})
            shown = [by_id[row].option(option) for option in options[row]]
            records += record(row, by_id[row].label, found[row], against, count=count, options=shown)
    spread_records = []
    for key in spreads[0]:
        spread_records += record(
            key, key.replace("_", " "), torch.stack([s[key].double() for s in spreads]), {}, count=0
        )
    return records, spread_records, digest(questions)


def count_label(record: dict[str, Any]) -> str:
    """The head of a column: how many examples of the intended reading."""
    return str(record["count"] or "none")


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy over the number of examples of the intended reading; what sees none as lines across."""
    records = [r for r in records if r["tasks"] == "all"]
    figure, axis = figures.pyplot().subplots(figsize=(7.2, 3.8))
    for r in (r for r in records if r["row"] in ("precise", "mean", "one", "ridge")):
        style = {"precise": "-", "mean": "--", "one": ":", "ridge": "-."}[r["row"]]
        axis.axhline(100 * r["mean"], color="#6b7280", linestyle=style, linewidth=1, label=r["label"])
    for row in WITH_EXAMPLES:
        points = [r for r in records if r["row"] == row]
        low, high = ([100 * abs(r["interval"][i] - r["mean"]) for r in points] for i in (0, 1))
        xs, ys = [r["count"] for r in points], [100 * r["mean"] for r in points]
        axis.errorbar(xs, ys, [low, high], fmt="-o", markersize=3, capsize=2, label=points[0]["label"])
    axis.set_xscale("log")
    axis.set_xticks(COUNTS, map(str, COUNTS))
    axis.minorticks_off()
    axis.set_xlabel("labelled examples of the intended reading")
    axis.set_ylabel("accuracy on the intended reading, %")
    figures.save_with_legend(figure, axis, path)


def main(argv: list[str] | None = None) -> None:
    arguments = figures.parser(__doc__)
    arguments.add_argument("--draws", type=int, default=DRAWS, help="of the examples (default: %(default)s)")
    args = arguments.parse_args(argv)
    if args.draws < 1:
        arguments.error(f"--draws {args.draws}; allowed: 1 or more")
    if args.limit_tasks is not None:
        arguments.error("--limit-tasks: the questions are this script's own")
    run, generators = open_release(arguments, args, every_question=True)
    if not isinstance(run.dataset, EmojiVQA):
        arguments.error(f"{run.preset.name} has no drawn scenes; only releases of Emoji-VQA do")
    require(arguments, run, generators, lambda generator: lacks(generator, DEFAULT_GENERATOR))
    try:
        records, spreads, sha256 = measure(run, generators, args.draws)
    except ValueError as error:
        arguments.error(str(error))
    every = [r for r in records if r["tasks"] == "all"]
    print(tables.grid(every, lambda r: r["label"], count_label).to_string())
    print("\nAgainst the refined mean latent, points")
    chosen_rows = [r for r in every if "against_refined" in r]
    against = lambda r: tables.interval(r["against_refined"], "+.1f")
    print(tables.grid(chosen_rows, lambda r: r["label"], count_label, against).to_string())
    print("\nSpread of samples, %")
    print(tables.grid(spreads, lambda r: r["label"], lambda r: r["tasks"]).to_string())
    print(
        f"\nAccuracy in % on both readings of {every[0]['n_tasks']} questions, mean of {args.draws} draws of the "
        f"examples; {tables.drawn(every[0]['seeds'], 'questions')}.\nQuestions, scenes and answers: SHA-256 "
        f"{sha256[:12]}."
    )
    if args.json:
        more = {"spread": spreads, "draws": args.draws, "sha256": sha256}
        write_results(args.json, run.preset.name, records, "eval/samples/two_readings.py", **more)
    if args.plot:
        plot(records, args.plot)


if __name__ == "__main__":
    main()
