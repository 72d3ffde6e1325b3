"""What validation tasks say of the rows of Table 1 (`eval/table1.py --validation`)."""

from __future__ import annotations

from eval.harness.comparison.records import BASELINES
from eval.harness.results import read_results
from eval.harness.tables import Record

Key = tuple[str, tuple[str, ...]]  # label and settings of a row


def key_of(record: Record) -> Key:
    """By which a row's records are found."""
    return record["label"], tuple(record.get("settings", ()))


def validation_of(name: str) -> dict[Key, Record]:
    """The records of a result file on all validation tasks, with all questions known."""
    records = read_results(name)["results"]
    return {key_of(r): r for r in records if r["tasks"] == "all" and r["descriptors"] == 1.0}


def first_of(records: dict[Key, Record]) -> str:
    """The label of the row of ours, from the question alone, that validation tasks put first; without any of ours, of
    all rows."""
    plain = next(iter(records.values())).get("settings")  # of the releases themselves; variants come after them
    alone = [r for r in records.values() if r.get("settings") == plain and not r["row"].startswith("few_shot")]
    ours = [r for r in alone if r["row"] not in BASELINES]
    return max(ours or alone, key=lambda r: r["mean"])["label"]
