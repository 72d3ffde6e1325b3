"""All numbers of Table 1 anew from the committed answers: means, intervals over tasks and training seeds, differences.

Needs STEM_tasks.csv and STEM_right.csv, which `eval/table1.py --per-task STEM` writes (eval/README.md says what stands
in them), no weights, no pictures and no training. --also adds lines of other releases on the same tasks, and compares
them too. Prints the table; writes the records with --json; with --check says whether a result file has the same
numbers, and ends with status 1 if not. Of Table 4: `--stem eval/results/table4`. Some ten seconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

import argparse
from collections.abc import Sequence
from typing import Any

from core.console import Parser
from eval.harness import tables
from eval.harness.comparison.answers import read_answers
from eval.harness.comparison.records import compared, records_of
from eval.harness.results import RESULTS, write_results


def disagreements(records: Sequence[dict[str, Any]], published: Sequence[dict[str, Any]]) -> list[str]:
    """Where published records say something else than those made anew, a line each. What they do not say is no
    disagreement."""
    key = lambda r: (r["row"], r["label"], tuple(r.get("settings", ())), r["descriptors"], r["tasks"])
    made = {key(record): record for record in records}
    found = []
    for record in published:
        where = f"{record['label']}, {100 * record['descriptors']:g}% Q., {record['tasks']}"
        if (own := made.get(key(record))) is None:
            found.append(f"{where}: not among the answers")
            continue
        for name, value in record.items():
            if own.get(name) != value:
                found.append(f"{where}: {name} {value}, of the answers {own.get(name)}")
    return found


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--stem", type=Path, default=RESULTS / "table1", help="of the two files (default: eval/results/table1)"
    )
    parser.add_argument(
        "--also", type=Path, nargs="+", default=[], metavar="CSV", help="further files of lines on the same tasks"
    )
    parser.add_argument("--json", type=Path, help="write the records here")
    parser.add_argument("--check", type=Path, metavar="JSON", help="a result file to compare with")
    args = parser.parse_args(argv)
    try:
        tasks, lines = read_answers(args.stem, *args.also)
        published = json.loads(args.check.read_text(encoding="utf-8"))["results"] if args.check else []
    except (OSError, KeyError, ValueError) as error:
        parser.error(str(error))
    records = compared(records_of(tasks, lines))
    print(tables.accuracy_table(records).to_string())
    seeds = sorted({line.seed for line in lines})
    drawn = f"and of training seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"of training seed {seeds[0]}"
    print(f"\nAccuracy in % [95% interval, of draws of {'pairs' if tasks.own is not None else 'tasks'} {drawn}].")
    if args.json:
        write_results(args.json, lines[0].preset, records, "eval/comparison/intervals.py")
    if args.check:
        found = disagreements(records, published)
        print("\n".join(found) or f"{args.check}: all {len(published)} records agree, to the last digit")
        if found:
            sys.exit(1)


if __name__ == "__main__":
    main()
