"""Parts about questions: task inference, inferred descriptors, Figures 5 and 6, what the backbone can tell."""

from __future__ import annotations

from eval.harness.phrasings import AS_THEY_ARE, LABELS
from eval.harness.results import made, read_results
from eval.harness.rows import INFERENCE_LABELS
from eval.harness.tables import grid, grid_markdown, markdown, short_percent

_RANKING = (
    "In %. *Top-k*: the task's own question is among the first k.\n"
    "*Reciprocal rank*: mean of 1 / its rank. *Family of top-1*: the first question is of the task's family."
)


def inference() -> str:
    """Task inference on all test tasks, among the test questions and among all."""
    document = read_results("task_inference.json")
    records = [record for record in document["results"] if record["tasks"] == "all"]
    counts = {r["candidates"]: r["n_candidates"] for r in records}
    table = grid(
        records,
        lambda r: INFERENCE_LABELS[r["row"]],
        lambda r: f"{r['metric']} of {r['n_candidates']}",
        short_percent,
    )
    return grid_markdown(table, "HyperCLIP of the") + (
        f"\n\nAmong the {counts['test']} test questions, and among all {counts['all']}. {_RANKING}\n\n{made(document)}"
    )


def phrasings() -> str:
    """Accuracy on test questions put in other words."""
    document = read_results("phrasings.json")
    lines: dict[tuple[str, str], list[str]] = {}
    for record in document["results"]:
        line = lines.setdefault((record["group"], record["kind"]), [str(record["n_tasks"])])
        reads = record["group"] != AS_THEY_ARE and record["row"] != "clip"
        line.append(short_percent(record) + (f" ({100 * (record['mean'] - record['plain']):+.1f})" if reads else ""))
    labels = list(dict.fromkeys(record["label"] for record in document["results"]))
    rows = [[_kind(*key), *line] for key, line in lines.items()]
    return markdown(["the test questions", "how many", *labels], rows) + (
        "\n\n![accuracy by kind of phrasing](results/phrasings.png)\n\n"
        f"Accuracy in %, mean of {document['draws']} draws of each kind, on the questions that it changes; in\n"
        f"brackets: against the same questions as they are.\n\n{made(document)}"
    )


def suggestions() -> str:
    """What the page makes of questions in other words."""
    document = read_results("suggestions.json")
    by_kind: dict[tuple[str, str], dict[str, str]] = {}
    for record in document["results"]:
        line = by_kind.setdefault((record["group"], record["kind"]), {"count": str(record["n_questions"])})
        line[record["row"]] = short_percent(record)
    missed = by_kind.pop(("another world", "another world"))
    columns = {"right_kind": "answers of the right kind", "answers_found": "right answers found"}
    columns |= {"false_warnings": "warned of"}
    rows = [[_kind(*key), line["count"], *(line[column] for column in columns)] for key, line in by_kind.items()]
    return markdown(["the test questions", "how many", *columns.values()], rows) + (
        f"\n\nIn %. Of {missed['count']} questions of another world (`eval/other_world.txt`) the page lets "
        f"{missed['missed_warnings']}% pass\nwithout a warning.\n\n{made(document)}"
    )


def _kind(group: str, kind: str) -> str:
    return LABELS[group] if kind == group else f"{LABELS[group]}: {kind}"


def descriptors() -> str:
    """How well the descriptors of undescribed tasks are inferred."""
    document = read_results("descriptors.json")
    table = grid(
        document["results"],
        lambda r: f"{r['row']}, {100 * r['descriptors']:g}% Q. ({r['n_tasks']})",
        lambda r: r["metric"],
        short_percent,
    )
    return grid_markdown(table, "undescribed tasks") + (
        "\n\n*R^2*: share of the variance of the whitened question embeddings that is inferred.\n"
        f"{_RANKING}\n\n{made(document)}"
    )


def figure5_made() -> str:
    """Where Figure 5 is from."""
    return f"Bars: s.d. over training seeds. {made(read_results('figure5.json'))}"


def figure6_made() -> str:
    """What Figure 6 counts, and where it is from."""
    document = read_results("figure6.json")
    share = {(r["row"], r["tasks"]): f"{100 * r['mean']:.1f}%" for r in document["results"]}
    return (
        f"For {share['nearest_question', 'all']} of the test questions the nearest training question is of their own\n"
        f"family (known families alone: {share['nearest_question', 'known']}; chance: {share['chance', 'all']}).\n\n"
        f"{made(document)}"
    )


def probes() -> str:
    """The backbone's probes: mean over families, and the weakest and strongest families."""
    records = read_results("backbone_probes.json")
    columns = [name for name in records[0] if name not in ("family", "answers")]
    families, mean = records[:-1], records[-1]
    shown = [mean, *families[:3], *families[-2:]]
    rows = [[r["family"], *(f"{100 * r[name]:.0f}" for name in columns)] for r in shown]
    return markdown(["family", *columns], rows) + (
        "\n\nAccuracy in % of linear probes trained on 58 and on 500 scenes a question, beside zero-shot CLIP, on 200\n"
        f"unseen scenes: the mean over all {len(families)} families, the three hardest, the two easiest."
    )
