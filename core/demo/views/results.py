"""The committed results as tables and charts."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...methods import row_of
from ..ask import GENERATORS_BY_LABEL
from .charts import Line, line_chart
from .templates import render

_COLOURS = ("c0", "c1", "c4", "c5")  # classes of the style sheet for HyperLDM of each weight generator
_TASKS = {"known": "known families", "new": "new families", "all": "all", "image_disjoint": "image-disjoint"}


@dataclass(frozen=True)
class _Row:
    """A row of a table: accuracies in 0..1 with bars of one colour (None where there is none), then texts."""

    label: str
    css: str
    shares: list[float | None]
    notes: tuple[str, ...] = ()


def read(directory: Path | str, name: str) -> dict[str, Any] | None:
    """A result file, None where there is none (it is the evaluation scripts that write them)."""
    path = Path(directory) / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def find(directory: Path | str, name: str, preset: str) -> dict[str, Any] | None:
    """The result file NAME.json, or SOME_NAME.json, of releases of a preset; None where there is none."""
    for path in sorted(Path(directory).glob(f"*{name}.json"), key=lambda path: (len(path.stem), path.stem)):
        if path.stem == name or path.stem.endswith(f"_{name}"):
            document = read(directory, path.stem)
            if document is not None and document["preset"] == preset:
                return document
    return None


def table1(document: dict[str, Any]) -> Markup:
    """Table 1: accuracy by row and kind of family, with the interval of the difference to the best baseline of the
    row's own settings; in files from before they said which that is, to Cond. Multitask."""
    by_label: dict[str, dict[str, dict[str, Any]]] = {}
    share = _share(document)
    for record in document["results"]:
        if record["descriptors"] == share:
            by_label.setdefault(record["label"], {})[record["tasks"]] = record
    present = _tasks_of(document)
    rows = []
    for label, columns in by_label.items():
        first = _whole(columns)
        difference = first.get("vs_strongest" if "strongest" in first else "vs_cond_multitask")
        versus = "" if difference is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in difference))
        if difference is None and first.get("strongest") == label:
            versus = "strongest"
        paper = first.get("paper")
        shares = [columns[tasks]["mean"] if tasks in columns else None for tasks in present]
        rows.append(_Row(label, _colour(first["row"]), shares, (versus, "" if paper is None else f"{100 * paper:.1f}")))
    of = {tasks: record for columns in by_label.values() for tasks, record in columns.items()}
    head = [_head(name, of[tasks]) for tasks, name in present.items()]
    whole = [_whole(columns) for columns in by_label.values()]
    strongest = {record["strongest"] for record in whole if record.get("strongest")}
    few_shot = any(record["row"].startswith("few_shot") for record in whole)
    reference = "the best baseline" if strongest else "Cond. Multitask"
    note = render("results_best.html", groups=len(strongest), few_shot=few_shot) if strongest else ""
    return _table([*head, f"against {reference}", "paper, Meta-VQA"], rows, document, note)


def _colour(row: str) -> str:
    """The class of the style sheet for few-shot rows, for ours, and for the others."""
    if row.startswith("few_shot"):
        return "c3"
    return "c0" if "_hyper" in row else "c2"


def links(document: dict[str, Any]) -> Markup:
    """The link-by-link table: where accuracy is lost between fine-tuned and generated weights."""
    columns = {r["tasks"]: _head(r["tasks"], r) for r in document["results"]}
    mean = {(r["row"], r["tasks"]): r["mean"] for r in document["results"]}
    labels = dict.fromkeys(r["row"] for r in document["results"])
    rows = [_Row(label, "c0", [mean[label, tasks] for tasks in columns]) for label in labels]
    return _table(list(columns.values()), rows, document)


def figure5(document: dict[str, Any], tasks: str) -> Markup:
    """Figure 5, A: test accuracy over the strength of guidance, beside what does not depend on it."""
    share = _share(document)
    records = [r for r in document["results"] if r["tasks"] == tasks and r["descriptors"] == share]
    gammas = sorted({r["gamma"] for r in records if r["gamma"] is not None})
    if not gammas:
        return render("charts.html", charts=[])
    lines: list[Line] = []
    for (label, name), css in zip(GENERATORS_BY_LABEL.items(), _COLOURS, strict=False):
        own = sorted((r["gamma"], 100 * r["mean"]) for r in records if r["row"] == row_of("hyperldm", name))
        if own:
            lines.append(Line(f"{label} + HyperLDM", [g for g, _ in own], [y for _, y in own], css))
    for row, label, css in (("cond_multitask", "Cond. Multitask", "c2 dashed"), ("clip", "Plain CLIP", "c3 dashed")):
        own = [100 * r["mean"] for r in records if r["row"] == row]
        if own:
            lines.append(Line(label, [gammas[0], gammas[-1]], [own[0], own[0]], css))
    values = [y for line in lines for y in line.ys]
    return line_chart(
        lines,
        x_label="strength of guidance gamma",
        y_label=f"test accuracy, {_TASKS[tasks]}",
        x_ticks=[g for g in gammas if (2 * g) % 1 == 0],
        y_range=(5 * (min(values) // 5), 5 * (max(values) // 5 + 1)),
    )


def figure5_panels(document: dict[str, Any]) -> Markup:
    """Both kinds of families beside each other, where there are both; all tasks where none are told apart."""
    kinds = [tasks for tasks in _tasks_of(document) if tasks in ("known", "new")] or list(_tasks_of(document))
    return render("charts.html", charts=[figure5(document, tasks) for tasks in kinds])


def source(document: dict[str, Any]) -> Markup:
    """How a result came to be."""
    return render("results_source.html", command=document["command"], commit=document["commit"])


def missing(name: str, preset: str, release: Path | None = None, file: str | None = None) -> Markup:
    """What makes a result that is not here, of releases of a preset, as `file` (default: `name`), or of one's own
    `release`."""
    if release is not None and "snapshots" in release.parts:  # the Hub's cache: nobody writes there, nor need know it
        release = Path("DIR")
    if release is None:
        command = f"python eval/{name}.py --preset {preset} --json eval/results/{file or name}.json"
    else:
        command = shlex.join(
            [
                "python",
                f"eval/{name}.py",
                "--weights",
                str(release),
                "--json",
                str(release / "results" / f"{name}.json"),
            ]
        )
    of = f"releases of preset {preset}" if release is None else "this release"
    return render("results_missing.html", command=command, of=of)


def _share(document: dict[str, Any]) -> float:
    """The largest share of known questions of which there are results: all of them, but for releases of fewer."""
    return max(record["descriptors"] for record in document["results"])


def _whole(columns: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of a row's records by kind of tasks that of all, or else the first."""
    return columns.get("all") or next(iter(columns.values()))


def _tasks_of(document: dict[str, Any]) -> dict[str, str]:
    """The kinds of test tasks that there are results on, by what people read: one's own data has no new families."""
    held = {record["tasks"] for record in document["results"]}
    return {tasks: name for tasks, name in _TASKS.items() if tasks in held}


def _head(name: str, record: dict[str, Any]) -> str:
    """The head of a column: of how many tasks it is, or of how many pairs where these are pooled."""
    return f"{name} ({record['n_pairs']:,} pairs)" if "n_pairs" in record else f"{name} ({record['n_tasks']})"


def _table(head: list[str], rows: list[_Row], document: dict[str, Any], note: Markup | str = "") -> Markup:
    return render("results_table.html", head=head, rows=rows, preset=document["preset"], note=note)
