"""From what rows answered right to records: means, intervals, comparisons. Needs no weights.

What Table 1 compares each row with is the *strongest baseline*: of the rows that are not ours and see no example, the
one with the highest mean on the same set of test tasks. Choosing it on the test tasks themselves favours it, never us.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from eval.harness import tables
from eval.harness.comparison.answers import JudgedTasks, Line
from eval.harness.comparison.variants import VARIANTS
from eval.harness.metrics import PooledScores, Scores
from eval.harness.rows import FEW_SHOT, ROWS

_PAPER = {(row.id, row.gamma): row.paper for row in (*ROWS, *FEW_SHOT)}
_BASE = {variant.id: variant.row.id for variant in VARIANTS}
# Rows that the strongest baseline is one of, with releases of any settings.
BASELINES = {row.id for row in ROWS if row.baseline and not row.few_shot} | {
    variant.id for variant in VARIANTS if variant.row.baseline and not variant.row.few_shot
}


def records_of(tasks: JudgedTasks, lines: Iterable[Line]) -> list[dict[str, Any]]:
    """One record per row, share of descriptors and set of tasks, with its `scores` and the `key` of its row, which
    `compared` takes away."""
    by_row: dict[object, list[Line]] = {}
    for line in lines:
        by_row.setdefault(line.key, []).append(line)
    records = []
    for own in by_row.values():
        first, seeds = own[0], [line.seed for line in own]
        for name, scores in tasks.scores(torch.stack([line.right for line in own])).items():
            records.append(
                {
                    "row": first.row,
                    "label": first.label,
                    **({"settings": list(first.settings)} if first.settings else {}),
                    **_choices(own),
                    "descriptors": first.descriptors,
                    "tasks": name,
                    **summary(scores, seeds),
                    "paper": _PAPER.get((first.row, first.gamma)),
                    "scores": scores,
                    "key": (first.row, first.gamma),
                }
            )
    return records


def _choices(lines: Sequence[Line]) -> dict[str, Any]:
    """What a row's gamma is, and what validation tasks chose for it, by training seed: these may differ."""
    found: dict[str, Any] = {"gamma": lines[0].gamma}
    chosen = [line.chosen for line in lines]
    if not any(chosen):
        return found
    if lines[0].row.startswith("few_shot"):
        return found | {"ceilings": chosen}
    gammas = [float(text) for text in chosen]
    return {"gamma": gammas[0] if len(set(gammas)) == 1 else None, "gammas": gammas}


def summary(scores: Scores, seeds: Sequence[int]) -> dict[str, Any]:
    """The part of a record that says what scores come to."""
    if isinstance(scores, PooledScores):
        return tables.pooled_record(scores, seeds)
    _, *interval = scores.estimate().rounded()
    return {
        **tables.over_seeds(scores.per_seed(), seeds),
        "interval": interval,
        "n_tasks": scores.values.shape[1],
    }


def compared(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records with all differences, and without what made these."""
    _add_losses(records)
    groups: dict[object, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["tasks"], record["descriptors"]), []).append(record)
    for group in groups.values():
        _add_comparisons(group)
    return without_scores(records)


def without_scores(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records as files have them."""
    return [{key: value for key, value in record.items() if key not in ("scores", "key")} for record in records]


def strongest(records: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Of records on the same tasks, that of the strongest baseline; None where there is no baseline."""
    return max((r for r in records if r["row"] in BASELINES), key=lambda r: r["mean"], default=None)


def difference(record: dict[str, Any], other: dict[str, Any]) -> list[float] | None:
    """Mean difference of two records on the same tasks with its interval, of the seeds that both have; None without
    one."""
    common = [seed for seed in record["seeds"] if seed in other["seeds"]]
    if not common:
        return None
    ours, theirs = ([r["seeds"].index(seed) for seed in common] for r in (record, other))
    return record["scores"].of_seeds(ours).minus(other["scores"].of_seeds(theirs)).rounded()


def _add_comparisons(group: Sequence[dict[str, Any]]) -> None:
    """Of records on the same tasks, of the same share of descriptors: differences to reference rows, to the strongest
    baseline and to the same row of the preset's own releases; the share of the way from floor to ceiling.

    A release of other settings is compared with the strongest baseline of its own settings, if it has any.
    """
    settings = lambda record: tuple(record.get("settings", ()))
    plain = settings(group[0])  # of the preset's own releases, which come first
    by_row = {r["row"]: r for r in group if settings(r) == plain}
    floor, ceiling = by_row.get("clip"), by_row.get("few_shot_ceiling")
    best = {chosen: strongest(r for r in group if settings(r) == chosen) for chosen in set(map(settings, group))}
    for record in group:
        against = {f"vs_{row}": by_row.get(row) for row in tables.references(record)}
        against["vs_strongest"] = reference = best[settings(record)] or best[plain]
        if reference is not None:
            record["strongest"] = reference["label"]
        if settings(record) != plain:
            row, gamma = record["key"]
            same = _BASE.get(row, row), gamma
            against["vs_same_row"] = next((r for r in group if settings(r) == plain and r["key"] == same), None)
        for key, other in against.items():
            if other is not None and other is not record and (found := difference(record, other)) is not None:
                record[key] = found
        if floor is not None and ceiling is not None and ceiling["mean"] > floor["mean"]:
            record["closed"] = round((record["mean"] - floor["mean"]) / (ceiling["mean"] - floor["mean"]), 3)


def _add_losses(records: Sequence[dict[str, Any]]) -> None:
    """The points that each row loses with fewer descriptors, where both shares were trained with the same seeds."""
    key = lambda r: (r["label"], tuple(r.get("settings", ())), r["tasks"])
    told_all = {key(r): r for r in records if r["descriptors"] == 1.0}
    for record in records:
        full = told_all.get(key(record))
        if record["descriptors"] < 1.0 and full is not None and full["seeds"] == record["seeds"]:
            record["loss"] = difference(full, record)
