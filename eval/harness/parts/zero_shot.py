"""Parts made of Table 1's records: the table, half of the questions, questions asked before, the weakest families."""

from __future__ import annotations

import pandas as pd

from core.data.emoji.questions import QUESTIONS
from eval.harness.results import RESULTS, read_results, source
from eval.harness.tables import by_label, interval, label_of, markdown, short_percent, tasks_column
from train.presets import get_preset

_OURS = "HVAE + HyperLDM, gamma 1"
_ASKED_ROWS = (  # of Table 1
    "CLIP, bare answers",
    "Cond. Multitask",
    "Cond. Multitask FiLM",
    "Cond. HNet-MAML",
    "HVAE + HyperCLIP guidance",
    "HNet + HyperLDM, gamma 1",
    _OURS,
    "Few-shot ceiling: the best row of Table 4 on validation",
)
_ASKED_SETS = {
    "asked": "asked in training, in other words",
    "unasked": "not asked, known family",
    "new": "not asked, new family",
}
_WEAKEST_COLUMNS = {  # of Table 1's rows
    "CLIP, bare answers": "CLIP",
    "Cond. Multitask": "Cond. Multitask",
    "HVAE + HyperCLIP guidance": "HVAE + HyperCLIP",
    "HNet + HyperLDM, gamma 1": "HNet + HyperLDM",
    _OURS: "HVAE + HyperLDM",
    "Few-shot, MNet-MAML": "Few-shot, MNet-MAML",
    "Few-shot, MNet-MAML through the HVAE (ours)": "... through the HVAE",
    "Few-shot ceiling: the best row of Table 4 on validation": "Few-shot ceiling",
}


def table1() -> str:
    """Table 1 by row: known families, new families, all; share of the way to the ceiling; difference to a baseline."""
    document, preset = read_results("table1.json"), get_preset("emoji")
    rows, halves = [], []
    for records in by_label(document["results"]).values():
        own = {r["tasks"]: r for r in records if r["descriptors"] == 1.0}
        if not own:
            continue
        half = next((r for r in records if r["descriptors"] == 0.5 and r["tasks"] == "all"), None)
        versus, paper = own["all"].get("vs_cond_multitask"), own["known"]["paper"]
        halves.append(short_percent(half))
        rows.append(
            [
                label_of(records),
                *(short_percent(own.get(name)) for name in ("known", "new", "all")),
                f"{100 * own['known']['closed']:.0f}%" if "closed" in own["known"] else "",
                "" if versus is None else interval(versus, "+.1f"),
                "" if paper is None else f"{100 * paper:.1f}",
            ]
        )
    first = {r["tasks"]: r for r in document["results"]}
    header = ["row", *(tasks_column(first[name]) for name in ("known", "new", "all"))]
    header += ["way to the ceiling", "against Cond. Multitask", "paper, Meta-VQA"]
    if any(halves):
        header.insert(4, "all, 50% Q.")
        for row, half in zip(rows, halves, strict=True):
            row.insert(4, half)
    seeds = sorted({seed for record in document["results"] for seed in record["seeds"]})
    return markdown(header, rows) + (
        "\n\nAccuracy in % on the query images of the test tasks; ± is the s.d. over training seeds "
        f"{', '.join(map(str, seeds))}.\n"
        "*Known*: families with training questions; *new*: families that training never saw. *50% Q.*: trained with\n"
        "the question text of half of the training tasks. *Way to the ceiling*: from plain CLIP (0%) to the few-shot\n"
        "ceiling (100%), on known families. *Against Cond. Multitask*: mean difference over all tasks, with its 95%\n"
        "interval (paired bootstrap over tasks, 10,000 draws). The paper's column is on another dataset. Few-shot\n"
        f"rows take {preset.few_shot_steps} steps, the one through the HVAE {preset.adaptations['hvae'].steps}, as "
        "its training data.\n\n"
        f"Made by {source(document)}."
    )


def half_of_the_questions() -> str:
    """What the rows that read a question lose when half of the questions are missing in training.

    Raises:
        ValueError: nothing to compare.
    """
    document = read_results("table1.json")
    if not any("loss" in record for record in document["results"]):
        raise ValueError("table1.json: no row was evaluated with fewer descriptors and the same seeds")
    all_tasks = [r for r in document["results"] if r["tasks"] == "all"]
    told_all = {r["label"]: r for r in all_tasks if r["descriptors"] == 1.0}
    rows = []
    for record in all_tasks:
        if record["descriptors"] != 0.5 or not any(record.get("loss", ())):
            continue  # who reads no question loses exactly nothing
        full = told_all[record["label"]]
        by_seed = [before - after for before, after in zip(full["per_seed"], record["per_seed"], strict=True)]
        losses = [interval(record["loss"]), ", ".join(f"{100 * lost:.1f}" for lost in by_seed)]
        rows.append([record["label"], short_percent(full), short_percent(record), *losses])
    return markdown(["row", "100% Q.", "50% Q.", "loss", "by seed"], rows) + (
        "\n\nAccuracy in % on all test tasks; ± is the s.d. over training seeds. *Loss*: in points, with its 95%\n"
        f"interval (paired bootstrap over tasks, 10,000 draws). Rows of Table 1. Made by {source(document)}."
    )


def asked_before() -> str:
    """Test questions that a training question asks in other words, and those that none asks, with all and with half of
    the training questions known."""
    document = read_results("table1.json")
    found = {(r["label"], r["tasks"], r["descriptors"]): r for r in document["results"]}
    labels = [label for label in by_label(document["results"]) if label in _ASKED_ROWS]
    cells = lambda label: [short_percent(found.get((label, name, share))) for name in _ASKED_SETS for share in (1, 0.5)]
    header = [
        column
        for name, words in _ASKED_SETS.items()
        for column in (f"{words} ({found[labels[0], name, 1.0]['n_tasks']})", "50% Q.")
    ]
    leads = "; ".join(interval(found[_OURS, name, 1.0]["vs_cond_multitask"]) for name in _ASKED_SETS)
    losses = "; ".join(interval(found[_OURS, name, 0.5]["loss"]) for name in _ASKED_SETS)
    return markdown(["row", *header], [[label, *cells(label)] for label in labels]) + (
        "\n\nAccuracy in %; ± is the s.d. over training seeds. HVAE + HyperLDM at gamma 1, on the three sets of test\n"
        "tasks, with 95% intervals (paired bootstrap over tasks, 10,000 draws):\n\n"
        f"- ahead of Cond. Multitask by {leads} points;\n"
        f"- loses {losses} points with half of the questions.\n\n"
        f"Made by {source(document)}."
    )


def weakest() -> str:
    """The families of test questions on which HVAE + HyperLDM is furthest behind Cond. Multitask, by seed 0."""
    tasks = pd.read_csv(RESULTS / "table1_tasks.csv").rename(columns=_WEAKEST_COLUMNS)
    family = tasks["question"].map(lambda question: QUESTIONS[question].family).rename("family")
    means = tasks.groupby(family)[list(_WEAKEST_COLUMNS.values())].mean()
    behind = (means["HVAE + HyperLDM"] - means["Cond. Multitask"]).sort_values().index[:6]
    counts = family.value_counts()
    rows = [[f"{name} ({counts[name]})", *(f"{100 * value:.1f}" for value in means.loc[name])] for name in behind]
    for label, some in (
        ("all others", tasks[~family.isin(behind)]),
        ("all that ask for a place", tasks[family.str.startswith("place of ")]),
    ):
        rows.append([f"{label} ({len(some)})", *(f"{100 * some[name].mean():.1f}" for name in means)])
    return markdown(["family (test questions)", *means], rows) + (
        "\n\nAccuracy in % on query images, seed 0, from `eval/results/table1_tasks.csv` (Table 1's command makes it)."
    )
