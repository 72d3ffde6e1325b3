"""Parts about methods: few-shot, link by link, sanity rows, ablations, settings tried on validation tasks."""

from __future__ import annotations

import re
from typing import Any

from eval.harness.results import made, read_results
from eval.harness.tables import (
    Record,
    calibration_table,
    drawn,
    grid,
    grid_markdown,
    interval,
    markdown,
    paragraph,
    short_percent,
    without_interval,
)
from train.tune import chosen, method_of

_PERCENT = "Accuracy in % on the query images of the test tasks."
_SETS = ("known", "new", "all")


def table4() -> str:
    """Table 4: few-shot accuracy by row."""
    document = read_results("table4.json")
    table = grid([r for r in document["results"] if r["tasks"] in _SETS], lambda r: r["label"], cell=_cell)
    paper = {record["label"]: record["paper"] for record in document["results"]}
    table["paper, Meta-VQA"] = ["" if paper[label] is None else f"{100 * paper[label]:.1f}" for label in table.index]
    seeds = sorted({seed for record in document["results"] for seed in record["seeds"]})
    about = paragraph(f"{_PERCENT} {drawn(seeds)}.")
    return f"{grid_markdown(table, 'few-shot, 50 steps')}\n\n{about}\n\n{made(document)}"


def _cell(record: Record) -> str:
    """With its interval where it is of all tasks."""
    return short_percent(record if record["tasks"] == "all" else without_interval(record))


def links() -> str:
    """The link-by-link table."""
    document = read_results("links.json")
    table = grid(document["results"], lambda r: r["row"], cell=short_percent)
    return grid_markdown(table, "link") + (
        "\n\nAccuracy in % on query images. The column of the training tasks measures memory: training saw their\n"
        "query images.\n\n"
        f"{made(document)}"
    )


def sanity() -> str:
    """The sanity rows, and how far generated weights lie from the training ones."""
    document = read_results("sanity.json")
    table = grid([r for r in document["results"] if r["tasks"] in _SETS], lambda r: r["label"], cell=short_percent)
    distance = {r["row"]: r["mean"] for r in document["results"] if r["tasks"] == "distance"}
    return grid_markdown(table) + (
        f"\n\n{_PERCENT}\n\nGenerated weights lie "
        f"{distance['distance_to_training']:.0f} from the nearest training adapter (median, "
        "standardised), training\nadapters "
        f"{distance['distance_in_training']:.0f} from each other's nearest: a ratio of "
        f"{distance['distance_ratio']:.2f}, where copying would give 0.\n\n{made(document)}"
    )


def ablations() -> str:
    """What each departure from the paper is worth."""
    document = read_results("ablations.json")
    bold = lambda r: r["label"] if r["setting"] else f"**{r['label']}**"  # what the lines below it change
    line = lambda r: (r["row"], bold(r))  # several rows have changes of one name
    table = grid(document["results"], line, cell=short_percent)
    judged = {line(r): r["val_accuracy"] for r in document["results"]}
    rows = [[key[1], *cells, f"{100 * judged[key]:.1f}"] for key, cells in zip(table.index, table.values, strict=True)]
    # Lines are made in calls of their own; files from before every record said which have one source for all.
    commits = made(*(r if "commit" in r else document for r in document["results"]))
    header = ["row, and what changes", *table.columns, "validation (87)"]
    return f"{markdown(header, rows)}\n\nAccuracy in % on query images. {commits}"


def calibration() -> str:
    """Confidence against accuracy, before and after a scale was chosen for each row."""
    document = read_results("calibration.json")
    return grid_markdown(calibration_table(document["results"], short_percent)) + (
        "\n\n![accuracy over confidence, before and after](results/calibration.png)\n\n"
        "In %, on the query images of all test tasks, each task weighing the same.\n"
        f"*ECE*: expected calibration error, {document['bins']} bins of confidence. *Before*: the scale of "
        "training\nfor all rows. *After*: the backbone's own scale for plain CLIP, one chosen on validation tasks for "
        "the others.\n\n"
        f"{made(document)}"
    )


def tuning(name: str = "tuning.json") -> str:
    """The settings tried for every row, and which validation tasks chose."""
    document = read_results(name)
    by_row: dict[str, list[dict[str, Any]]] = {}
    for record in document["results"]:
        by_row.setdefault(record["row"], []).append(record)
    rows = []
    for row, tried in by_row.items():
        best = chosen(tried)
        cells = []
        for r in tried:
            own = rf"^\w+\.({row}|{method_of(row)[1]})\."  # a configuration of this row's or its generator's own
            setting = ", ".join(re.sub(own, "", s) for s in r["setting"])
            mark = "**" if r is best else ""
            cells.append(f"{setting}: {mark}{100 * r['val_accuracy']:.1f}{mark}")
        rows.append([row, *cells])
    width = max(len(row) for row in rows)
    header = ["row", "setting 1 (start)", *(str(number) for number in range(2, width))]
    table = markdown(header, [row + [""] * (width - len(row)) for row in rows])  # rows of unequal length
    return table + (
        "\n\nEach cell: what is set, and the zero-shot accuracy in % on the 87 validation tasks. Bold: chosen, which\n"
        "is the best setting if it is better than the first by half a point, else the first.\n\n"
        f"{made(document)}"
    )


def emoji_folds() -> str:
    """Rows on training questions held out in turn, as they are and with settings tried beside them."""
    document = read_results("emoji_folds.json")
    found: dict[tuple, list[Record]] = {}
    for record in document["results"]:
        found.setdefault((record["row"], record["gamma"]), []).append(record)
    rows, settings = [], ""
    for plain, also in found.values():
        settings = also["label"].removeprefix(f"{plain['label']}; ")
        rows.append([plain["label"], short_percent(plain), short_percent(also), interval(also["vs_without"], "+.1f")])
    header = ["row", f"as it is ({plain['n_tasks']} questions)", f"`{settings}`", "gain"]
    about = (
        "Accuracy in %, and gain in points, with 95% intervals: 10,000 draws of questions. A question is held out by "
        f"its fold, one training seed. {made(document)}"
    )
    return f"{markdown(header, rows)}\n\n{paragraph(about)}"
