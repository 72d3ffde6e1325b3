"""From scores to records, and from records to tables. Every script and every document takes its tables from here.

A record says what one row reached on one set of tasks: `mean` and `sd` over training seeds, `seeds`, `per_seed` and
`n_tasks`, beside what tells the row from others (`row`, `label`, `gamma`, `descriptors`). Accuracies are in 0..1;
`interval` is the mean's of 95%, in files from before it only where accuracy is pooled over pairs of picture and
question. There `n_pairs` says of how many.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from core.data.tasks import Task, TaskSet
from eval.harness.metrics import PooledPairs, PooledScores, mean_and_sd, sets_of_pairs
from eval.harness.rows import FEW_SHOT, ROWS

Record = dict[str, Any]
WHOLE = ("all", "image_disjoint")  # sets of all tasks that were evaluated


# -- records -----------------------------------------------------------------------------------------------------------


def masks(test: TaskSet) -> dict[str, Tensor]:
    """Which tasks (T,) are of known families, of new ones, and all; without the sets that hold none."""
    new = torch.tensor([task.new_family for task in test.tasks])
    result = {"known": ~new, "new": new, "all": torch.ones_like(new)}
    return {name: mask for name, mask in result.items() if mask.any()}


def over_seeds(values: Sequence[float], seeds: Sequence[int]) -> Record:
    """The part of a record that says what training seeds reached: together, and each in the order of `seeds`. What no
    seed enters has one value and no seeds."""
    mean, sd = mean_and_sd(list(values))
    return {
        "mean": round(mean, 4),
        "sd": None if sd is None else round(sd, 4),
        "seeds": list(seeds),
        "per_seed": [round(value, 5) for value in values] if seeds else [],
    }


def summaries(
    scores: Tensor, test: TaskSet, seeds: Sequence[int], sets: Mapping[str, Tensor] | None = None
) -> Iterator[Record]:
    """The part of a record that says what scores (seeds, T) come to, for every set of tasks in `sets` (default: those
    of `masks`)."""
    for name, mask in (masks(test) if sets is None else sets).items():
        values = scores[:, mask].double().mean(1).tolist()
        yield {"tasks": name, **over_seeds(values, seeds), "n_tasks": int(mask.sum())}


def question_of_pairs(tasks: Sequence[Task]) -> Tensor:
    """Which task (M,) each query example belongs to, in order."""
    return torch.arange(len(tasks)).repeat_interleave(torch.tensor([len(task.query[0]) for task in tasks]))


def pictures_of_their_own(tasks: Sequence[Task], trained: Container[int]) -> Tensor:
    """Which query examples (M,), task by task, show none of the `trained` images."""
    return torch.tensor([image not in trained for task in tasks for image in task.query[0]], dtype=torch.bool)


def pooled_sets(tasks: Sequence[Task], trained: Container[int]) -> dict[str, PooledPairs]:
    """The sets of query examples that pooled accuracies are of: all, and, where `trained` images are among them, those
    of other images."""
    return sets_of_pairs(question_of_pairs(tasks), pictures_of_their_own(tasks, trained))


def pooled_record(scores: PooledScores, seeds: Sequence[int]) -> Record:
    """The part of a record that says what pooled scores come to."""
    _, *interval = scores.estimate().rounded()
    return {
        **over_seeds(scores.per_seed(), seeds),
        "interval": interval,
        "n_tasks": scores.pairs.n_questions,
        "n_pairs": len(scores.pairs),
    }


# -- cells -------------------------------------------------------------------------------------------------------------


def percent(record: Record) -> str:
    """A printed cell: the mean in percent, the s.d. over several seeds, and the interval if it has one."""
    spread = "" if record["sd"] is None else f" ({100 * record['sd']:.2f})"
    return f"{100 * record['mean']:.2f}{spread}{_bracket(record)}"


def short_percent(record: Record | None) -> str:
    """A document's cell: as `percent` with one digit, and without an s.d. of 0, which a row has that no training seed
    enters; empty where there is no record."""
    if record is None:
        return ""
    spread = f" ± {100 * record['sd']:.1f}" if record.get("sd") else ""
    return f"{100 * record['mean']:.1f}{spread}{_bracket(record)}"


def _bracket(record: Record) -> str:
    """The interval of a record that has one, in percent."""
    return " [{:.1f}, {:.1f}]".format(*(100 * end for end in record["interval"])) if "interval" in record else ""


def without_interval(record: Record | None) -> Record | None:
    """A record for a cell that is to be narrow."""
    return record and {key: value for key, value in record.items() if key != "interval"}


def interval(values: Sequence[float], style: str = ".1f") -> str:
    """A difference with its interval, in points: "7.3 [5.9, 8.7]"; `style` is how a number is written."""
    mean, low, high = (f"{100 * value:{style}}" for value in values)
    return f"{mean} [{low}, {high}]"


def lead(record: Record, style: str = "+.1f") -> str:
    """A record's difference to the strongest baseline, in points; the word for the strongest itself, empty where they
    have no seed in common."""
    if "vs_strongest" in record:
        return interval(record["vs_strongest"], style)
    return "strongest" if record.get("strongest") == record["label"] else ""


def drawn(seeds: Sequence[int], what: str = "tasks") -> str:
    """What intervals are draws of, in words."""
    if len(seeds) == 1:
        return f"95% intervals: 10,000 draws of {what}; of one training seed, so they say nothing of other seeds"
    return f"95% intervals: 10,000 draws of {what} and, crossed, of training seeds"


def tasks_column(record: Record) -> str:
    """The head of a column of accuracies on a set of tasks, or of pooled pairs."""
    return (
        f"{record['tasks']} ({record['n_pairs']:,} pairs)"
        if "n_pairs" in record
        else f"{record['tasks']} ({record['n_tasks']})"
    )


# -- tables ------------------------------------------------------------------------------------------------------------


def grid(
    records: Sequence[Record],
    line: Callable[[Record], Hashable],
    column: Callable[[Record], str] = tasks_column,
    cell: Callable[[Record], str] = percent,
) -> pd.DataFrame:
    """Cells by line and column, both in the order in which records come; empty where there is no record. Lines that are
    tuples get as many levels."""
    table: dict[Hashable, dict[str, str]] = {}
    for record in records:
        table.setdefault(line(record), {})[column(record)] = cell(record)
    levels = pd.MultiIndex.from_tuples if table and isinstance(next(iter(table)), tuple) else pd.Index
    return pd.DataFrame(list(table.values()), index=levels(list(table))).fillna("")


def paragraph(text: str) -> str:
    """A text in lines as long as those of the documents."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], align: str | None = None) -> str:
    """A Markdown table. `align` has a letter for every column, "r" for right, "-" for none (default: all but the first
    to the right, as numbers are)."""
    marks = {"-": "---", "r": "---:"}
    align = align or "-" + "r" * (len(header) - 1)
    lines = ["| " + " | ".join(header) + " |", "|" + "".join(f"{marks[letter]}|" for letter in align)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def grid_markdown(table: pd.DataFrame, corner: str = "row", align: str | None = None) -> str:
    """A table of cells in Markdown; `corner` is the head of its first column."""
    rows = [[str(label), *map(str, values)] for label, values in zip(table.index, table.values, strict=True)]
    return markdown([corner, *map(str, table.columns)], rows, align)


def label_of(records: Sequence[Record]) -> str:
    """The label of a row with what validation tasks chose for it, seed by seed where seeds differ; from its records of
    all shares of descriptors. Result files from before the choices of all seeds were kept have the first seed's."""
    notes = {}
    for record in records:
        chosen = record.get("gammas") or record.get("ceilings") or []
        if not chosen and record["label"].endswith("gamma of validation"):
            chosen = [record["gamma"]]
        if chosen:
            shown = [_few_shot_label(value) if isinstance(value, str) else f"{value:g}" for value in chosen]
            notes[record["descriptors"]] = ", ".join(shown if len(set(shown)) > 1 else shown[:1])
    words = [
        note if share == 1.0 else f"{100 * share:g}% Q.: {note}"
        for share, note in notes.items()
        if share == 1.0 or note != notes.get(1.0)
    ]
    return records[0]["label"] + (f" ({'; '.join(words)})" if words else "")


def _few_shot_label(row: str) -> str:
    return next((known.label for known in FEW_SHOT if known.id == f"few_shot_{row}"), row)


def by_label(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by their row's label, in order."""
    result: dict[str, list[Record]] = {}
    for record in records:
        result.setdefault(record["label"], []).append(record)
    return result


def calibration_table(records: Sequence[Record], cell: Callable[[Record], str] = percent) -> pd.DataFrame:
    """A row's accuracy on all tasks, and its confidence and expected calibration error before and after its scale was
    chosen; one more column says which scale that is, by seed where seeds differ."""
    table: dict[str, dict[str, str]] = {}
    labels = {label: label_of(own) for label, own in by_label(records).items()}
    for record in records:
        if record["tasks"] != "all":
            continue
        share = "" if record["descriptors"] == 1.0 else f", {100 * record['descriptors']:g}% Q."
        line = table.setdefault(labels[record["label"]] + share, {"accuracy": f"{100 * record['accuracy']:.1f}"})
        if record["when"] == "after":
            shown = [f"{scale:.3g}" for scale in record["scales"]]
            line["scale"] = ", ".join(shown if len(set(shown)) > 1 else shown[:1])
        line[f"confidence {record['when']}"] = f"{100 * record['confidence']:.1f}"
        line[f"ECE {record['when']}"] = cell(record)
    return pd.DataFrame.from_dict(table, orient="index").fillna("")


def phrasings_table(records: Sequence[Record], cell: Callable[[Record], str] = percent) -> pd.DataFrame:
    """Accuracy by kind of phrasing and row, behind it the difference to the same questions as they are, in points."""
    labels = {label: label_of(own) for label, own in by_label(records).items()}

    def column(record: Record) -> str:
        share = record["descriptors"]
        return labels[record["label"]] + ("" if share == 1.0 else f", {100 * share:g}% Q.")

    def line(record: Record) -> tuple[str, str, int]:
        return record["group"], record["kind"], record["n_tasks"]

    def with_difference(record: Record) -> str:
        plain = record["group"] == record["kind"]
        return cell(record) + ("" if plain else f" [{100 * record['difference']:+.1f}]")

    return grid(records, line, column, with_difference)


def pairs_table(records: Sequence[Record]) -> pd.DataFrame:
    """Minimal pairs by row and list of opposites: accuracies in percent, and distances of adapters."""
    table: dict[Hashable, dict[str, str]] = {}
    for record in records:
        share = "" if record["descriptors"] == 1.0 else f", {100 * record['descriptors']:g}% Q."
        accuracy = lambda name, record=record: "" if record[name] is None else f"{100 * record[name]:.1f}"
        table[label_of([record]) + share, record["group"]] = {
            "pairs": str(record["n_pairs"]),
            "same answers": str(record["n_same"]),
            "own adapter": accuracy("own"),
            "partner's": accuracy("partner"),
            "distance": f"{record['distance']:.2f}",
            "... of two in the family: 1": "" if record["relative"] is None else f"{record['relative']:.2f}",
        }
    return pd.DataFrame(list(table.values()), index=pd.MultiIndex.from_tuples(list(table)))


def references(record: Record) -> dict[str, str]:
    """The rows that a record's row is compared with, and what they are called."""
    rows = ("uncond_multitask", "cond_multitask") if "n_pairs" in record else ("cond_multitask",)
    return {row.id: row.label for row in ROWS if row.id in rows}


def accuracy_table(records: Sequence[Record]) -> pd.DataFrame:
    """Table 1, and Table 4, as scripts print it: rows by label, accuracies in percent, differences in points."""
    table: dict[str, dict[str, str]] = {}
    labels = {label: label_of(own) for label, own in by_label(records).items()}
    for record in records:
        line = table.setdefault(labels[record["label"]], {})
        if record["descriptors"] < 1.0:
            if record["tasks"] in WHOLE:
                share = f"{100 * record['descriptors']:g}% Q."
                line[f"{record['tasks']}, {share}"] = percent(record)
                if "loss" in record:
                    line[f"loss, {share} [95%]"] = interval(record["loss"], ".2f")
            continue
        line[tasks_column(record)] = percent(record)
        if record["tasks"] in ("known", "image_disjoint") and "n_pairs" not in record:
            line["closed"] = f"{100 * record['closed']:.0f}%" if "closed" in record else ""
        if record["tasks"] in WHOLE:
            for row, name in references(record).items():
                versus = record.get(f"vs_{row}")  # of the first set, where there are several
                line.setdefault(f"vs {name} [95%]", "" if versus is None else interval(versus, "+.2f"))
            if "strongest" in record:
                line.setdefault("vs strongest [95%]", lead(record, "+.2f"))
            if "vs_same_row" in record:
                line.setdefault("vs same row, preset's settings [95%]", interval(record["vs_same_row"], "+.2f"))
        line["paper"] = "" if record["paper"] is None else f"{100 * record['paper']:.2f}"
    return pd.DataFrame.from_dict(table, orient="index").fillna("")
