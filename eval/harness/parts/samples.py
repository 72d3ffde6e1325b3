"""Parts about samples: one or their average over gamma, what a sentence is worth, questions with two readings."""

from __future__ import annotations

from typing import Any

from eval.harness.results import made, read_results
from eval.harness.tables import grid, grid_markdown, interval, markdown
from eval.samples import few_examples as examples
from eval.samples import gammas
from eval.samples import two_readings as readings
from eval.samples.ambiguous import SCENES

_SHOWN = (0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 3.0)


def _points(record: dict[str, Any]) -> str:
    """A mean in percent, nothing besides."""
    return f"{100 * record['mean']:.1f}"


def figure5_samples() -> str:
    """Accuracy over gamma by way to take a latent, and gamma 1.5 less gamma 1."""
    document = read_results("figure5_samples.json")
    records = [r for r in document["results"] if r["tasks"] == "all" and r["gamma"] in _SHOWN]
    table = grid(records, gammas.line, lambda r: f"gamma {r['gamma']:g}", _points)
    table = table[[f"gamma {gamma:g}" for gamma in _SHOWN]]
    contrasts = [r for r in document["contrasts"] if r["tasks"] == "all"]
    contrast = gammas.contrast_table(contrasts).iloc[:, 0]
    table["1.5 less 1"] = [contrast[line] for line in table.index]
    seeds = sorted({seed for r in records for seed in r["seeds"]})
    over = "tasks and training seeds" if len(seeds) > 1 else "tasks"
    return grid_markdown(table) + (
        f"\n\nAccuracy in % on all test tasks, mean of {records[0]['noise_seeds']} noise seeds, training "
        f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}. *1.5 less 1*: in points,\npaired over "
        f"tasks, noise seeds averaged, with its 95% interval over {over}.\n"
        f"*One sample*: {gammas.draws.STEPS} steps. *Mean latent*: from {gammas.MEAN_NOISES} noises, averaged,"
        f"\nas releases sample. Bars: s.d. over training seeds, of one over noise seeds. {made(document)}"
    )


def few_examples() -> str:
    """Accuracy over the number of examples, the difference to the question alone, what a sentence is worth."""
    document = read_results("few_examples.json")
    records = [r for r in document["results"] if r["tasks"] == "all"]
    alone = next(r for r in records if r["row"] == examples.ALONE)
    rows = [r for r in records if r["row"] != examples.ALONE]
    plain = grid(rows, lambda r: r["label"], examples.count_label, _points)
    known = [r for r in rows if r["reads_question"]]
    against = grid(known, lambda r: r["label"], examples.count_label, lambda r: interval(r["against_question"], "+.1f"))
    worth = "; ".join(f"{value['label']} {examples.worth_label(value)}" for value in document["worth"])
    return (
        f"{grid_markdown(plain, 'labelled examples')}\n\nAccuracy in % on the query images of the test tasks; the "
        f"question alone: {_points(alone)}. Mean of {document['draws']} draws of the examples.\nThe last three rows do "
        f"not read the question.\n\n{grid_markdown(against, 'against the question alone')}\n\n"
        f"In points, with 95% intervals over tasks.\n\n**A sentence is worth so many examples** to a row without it "
        f"(95% intervals over tasks): {worth}.\n\n{made(document)}"
    )


def two_readings() -> str:
    """Accuracy on the intended reading by number of examples, and how samples spread, by kind of question."""
    document = read_results("two_readings.json")
    every = [r for r in document["results"] if r["tasks"] == "all"]
    accuracy = lambda r: f"{_points(r)} [{100 * r['interval'][0]:.1f}, {100 * r['interval'][1]:.1f}]"
    whole = grid(every, lambda r: r["label"], readings.count_label, accuracy)
    against = grid(
        [r for r in every if "against_refined" in r],
        lambda r: r["label"],
        readings.count_label,
        lambda r: interval(r["against_refined"], "+.1f"),
    )
    columns = {"both_sides": "samples on both sides", "both_covered": "both readings served by samples"}
    columns |= {"both_covered_by_mean": "... by the mean latent"}
    spread = {(r["row"], r["tasks"]): r for r in document["spread"]}
    found = {(r["row"], r["count"], r["tasks"]): r for r in document["results"]}
    kinds = list(dict.fromkeys(r["tasks"] for r in document["results"]))
    at = 5
    lines = [
        [
            f"{kind} ({found['mean', 0, kind]['n_tasks']})",
            *(_points(found[row, 0, kind]) for row in ("precise", "other", "mean", "one")),
            *(_points(found[row, at, kind]) for row in ("best", "refined")),
            *(f"{100 * spread[column, kind]['mean']:.0f}" for column in columns),
        ]
        for kind in kinds
    ]
    header = [
        "what is open",
        "precise question",
        "the other reading's",
        "mean latent",
        "one sample",
        f"best sample, {at} examples",
    ]
    header += [f"mean latent refined, {at}", *columns.values()]
    return (
        f"{grid_markdown(whole, 'examples of the intended reading')}\n\nAccuracy in % on the intended reading, mean of "
        f"both readings of {every[0]['n_tasks']} questions, with 95% intervals over questions;\n{document['draws']} "
        "draws of the examples. Against the refined mean latent, in points:\n\n"
        f"{grid_markdown(against, 'examples')}\n\n"
        f"{markdown(header, lines)}\n\n"
        f"In %. *On both sides*: questions of which at least {100 * readings.SIDED:.0f}% of the {readings.SAMPLES} "
        "samples are better on either reading.\n*Served*: questions with an adapter for each reading at most "
        f"{100 * readings.CLOSE:.0f} points below its precise question's; {SCENES // 2} examples\nchoose the sample, "
        "as many others judge it.\n\n"
        f"{made(document)}"
    )
