"""The committed results as tables and charts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from .charts import Line, line_chart

_TASKS = {"known": "known families", "new": "new families", "all": "all"}


def read(directory: Path | str, name: str) -> dict[str, Any] | None:
    """A result file, None where there is none (it is the evaluation scripts that write them)."""
    path = Path(directory) / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def table1(document: dict[str, Any]) -> str:
    """Table 1: accuracy by row and kind of family, with the interval of the difference to Cond. Multitask."""
    by_label: dict[str, dict[str, dict[str, Any]]] = {}
    for record in document["results"]:
        if record["descriptors"] == 1.0:
            by_label.setdefault(record["label"], {})[record["tasks"]] = record
    rows = []
    for label, columns in by_label.items():
        first = columns["all"]
        few_shot = first["row"].startswith("few_shot")
        ours = first["row"].startswith(("hvae_", "hnet_hyper"))
        css = "c3" if few_shot else "c0" if ours else "c2"
        difference = first.get("vs_cond_multitask")
        versus = "" if difference is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in difference))
        rows.append((label, css, [_percent(columns.get(tasks)) for tasks in _TASKS], versus, first.get("paper")))
    head = [*(f"{name} ({_count(by_label, tasks)})" for tasks, name in _TASKS.items())]
    body = "".join(
        f'<tr><th scope="row">{escape(label)}</th>'
        + "".join("<td></td>" if value is None else _barred(value, css) for value in values)
        + f"<td>{versus}</td><td>{'' if paper is None else f'{100 * paper:.1f}'}</td></tr>"
        for label, css, values, versus, paper in rows
    )
    return _table([*head, "against Cond. Multitask", "paper, Meta-VQA"], body, document)


def links(document: dict[str, Any]) -> str:
    """The link-by-link table: where accuracy is lost between fine-tuned and generated weights."""
    columns = list(dict.fromkeys((r["tasks"], r["n_tasks"]) for r in document["results"]))
    value = {(r["row"], r["tasks"]): 100 * r["mean"] for r in document["results"]}
    body = "".join(
        f'<tr><th scope="row">{escape(row)}</th>'
        + "".join(
            f'<td class="barred c0" style="--p:{value[row, t]:.1f}%">{value[row, t]:.1f}</td>' for t, _ in columns
        )
        + "</tr>"
        for row in dict.fromkeys(r["row"] for r in document["results"])
    )
    return _table([f"{tasks} ({count})" for tasks, count in columns], body, document)


def figure5(document: dict[str, Any], tasks: str) -> str:
    """Figure 5, A: test accuracy over the strength of guidance, beside what does not depend on it."""
    records = [r for r in document["results"] if r["tasks"] == tasks and r["descriptors"] == 1.0]
    gammas = sorted({r["gamma"] for r in records if r["gamma"] is not None})
    lines: list[Line] = []
    for row, label, css in (("hvae_hyperldm", "HVAE + HyperLDM", "c0"), ("hnet_hyperldm", "HNet + HyperLDM", "c1")):
        own = sorted((r["gamma"], 100 * r["mean"]) for r in records if r["row"] == row)
        if own:
            lines.append(Line(label, [g for g, _ in own], [y for _, y in own], css))
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


def figure5_panels(document: dict[str, Any]) -> str:
    """Both kinds of families beside each other."""
    return f'<div class="qa-charts">{figure5(document, "known")}{figure5(document, "new")}</div>'


def source(document: dict[str, Any]) -> str:
    """How a result came to be, in Markdown."""
    return f"Made by `{document['command']}` at commit `{document['commit']}`."


def _barred(value: float, css: str) -> str:
    return f'<td class="barred {css}" style="--p:{value:.1f}%">{value:.1f}</td>'


def _percent(record: dict[str, Any] | None) -> float | None:
    return None if record is None else 100 * record["mean"]


def _count(by_label: dict[str, dict[str, dict[str, Any]]], tasks: str) -> int:
    return next(columns[tasks]["n_tasks"] for columns in by_label.values() if tasks in columns)


def _table(head: Sequence[str], body: str, document: dict[str, Any]) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return (
        '<div class="qa-scroll"><table class="qa-table"><thead><tr><td></td>' + cells + f"</tr></thead><tbody>{body}"
        "</tbody></table></div>"
        f'<p class="qa-hint">Accuracy in % on query images of preset {escape(document["preset"])}.</p>'
    )
