"""Parts about yes/no questions of simple shapes: what rows answer, and what reading of the question it takes."""

from __future__ import annotations

from dataclasses import replace

import torch

from eval.harness.comparison.answers import JudgedTasks, read_answers
from eval.harness.comparison.records import records_of
from eval.harness.results import RESULTS, made, read_results
from eval.harness.shapes import questions
from eval.harness.tables import grid, grid_markdown, interval, markdown, short_percent, without_interval

_KINDS = ("positive", "negated", "other form in training", "no form in training")
_HIDDEN = ("few_shot_ceiling", "clip_prompted")  # validation chose a row that stands there; "yes" has no prompt


def shapes_table1() -> str:
    """Rows on the test questions about shapes, by form of the question and by what training knows of it."""
    document = read_results("shapes_table1.json")
    records = {r["label"]: r for r in document["results"] if r["tasks"] == "all" and r["row"] not in _HIDDEN}
    tasks, lines = read_answers(RESULTS / "shapes_table1")
    split = records_of(_by_kind(tasks), [line for line in lines if line.label in records])
    column = lambda r: f"{r['tasks']} ({r['n_tasks']})"
    table = grid(split, lambda r: r["label"], column, lambda r: short_percent(without_interval(r)))
    table.insert(0, f"all ({len(tasks.questions)}) [95%]", [short_percent(records[label]) for label in table.index])
    against = [records[label].get("vs_cond_multitask") for label in table.index]
    table["against Cond. Multitask"] = ["" if found is None else interval(found, "+.1f") for found in against]
    seeds = records["Cond. Multitask"]["seeds"]
    return grid_markdown(table) + (
        f"\n\nAccuracy in %, query pictures of the test questions, training seeds {', '.join(map(str, seeds))}, ± "
        "their s.d.; chance, and the\ncommonest answer: 50. *Against*: in points, tasks and seeds resampled. "
        f"{made(document)}"
    )


def _by_kind(tasks: JudgedTasks) -> JudgedTasks:
    """Tasks parted by form of the question, and by whether training asks the other form."""
    every = {question.text: question for question in questions(seed=0)}
    own = [every[text] for text in tasks.questions]
    negated = torch.tensor([question.negated for question in own])
    told = torch.tensor([every[question.partner].split == "train" for question in own])
    return replace(tasks, sets=dict(zip(_KINDS, (~negated, negated, told, ~told), strict=True)))


def shapes_readings() -> str:
    """What reading of a yes/no question about shapes it takes."""
    document = read_results("shapes_readings.json")
    best: dict[str, dict] = {}
    for record in document["results"]:
        best[record["reading"]] = max(best.get(record["reading"], record), record, key=lambda r: r["mean"])
    rows = [
        [name, f"{100 * record['mean']:.1f}", f"{record['upside_down']}", f"{record['ridge']:g}"]
        for name, record in best.items()
    ]
    agreed = ", ".join(f"{100 * share:.0f}%" for share in document["agreement"])
    return markdown(["how a question is read", "accuracy", "upside down", "ridge"], rows) + (
        "\n\nIn %, of the best of three ridges each. *Upside down*: questions below 40%, of "
        f"{document['questions']}. The learned sign is that\nof the denial for {agreed} of the held-out questions, by "
        f"fold.\n\n{made(document)}"
    )
