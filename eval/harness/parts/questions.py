"""Parts about questions: task inference, inferred descriptors, Figures 5 and 6, what the backbone can tell."""

from __future__ import annotations

from eval.harness.results import made, read_results
from eval.harness.rows import INFERENCE_LABELS
from eval.harness.tables import (
    grid,
    grid_markdown,
    markdown,
    pairs_table,
    phrasings_table,
    short_percent,
)

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
    by_kind["all of these", "all of these"] = _over_all(document["results"], list(columns))
    rows = [
        [key[1] if key[1] == key[0] else ": ".join(key), line["count"], *(line[column] for column in columns)]
        for key, line in by_kind.items()
    ]
    return markdown(["the test questions", "how many", *columns.values()], rows) + (
        f"\n\nIn %. Of {missed['count']} questions of another world (`eval/other_world.txt`) the page lets "
        f"{missed['missed_warnings']}% pass\nwithout a warning.\n\n{made(document)}"
    )


def _over_all(records: list[dict], names: list[str]) -> dict[str, str]:
    """Means over all questions of all kinds, by name, and how many these are."""
    line = {}
    for name in names:
        own = [r for r in records if r["row"] == name]
        total = sum(r["n_questions"] for r in own)
        line[name] = short_percent({"mean": sum(r["mean"] * r["n_questions"] for r in own) / total})
    return line | {"count": str(total)}


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


def phrasings() -> str:
    """Accuracy by kind of phrasing with an example of each, and minimal pairs."""
    document = read_results("phrasings.json")
    records, pairs = document["results"], document["pairs"]
    table = phrasings_table(records, short_percent)
    examples = {(r["group"], r["kind"]): r["example"] for r in records}
    rows = [
        [kind if kind == group else f"{group}: {kind}", str(count), *cells, examples[group, kind]]
        for (group, kind, count), cells in zip(table.index, table.values, strict=True)
    ]
    header = ["kind of phrasing", "questions", *table.columns, "for example"]
    text = markdown(header, rows, "-" + "r" * (len(header) - 2) + "-") + (
        "\n\n![accuracy by kind of phrasing](results/phrasings.png)\n\n"
        "Accuracy in % on the query images of the test tasks whose question the kind changes; in brackets, in points,\n"
        f"the difference to the same questions as they are. Mean of {document['draws']} draws. *Training*: kinds that "
        "training may use\n(`train/phrasings.toml`). *Kept*: kinds that it never sees (`eval/phrasings.toml`).\n\n"
    )
    if pairs:
        small = pairs_table([record for record in pairs if record["group"] == "all"])
        small.index = [row for row, _ in small.index]
        text += (
            f"{grid_markdown(small, 'questions one word apart')}\n\n"
            "*Same answers*: pairs with the same candidate answers; accuracy in % on these, with the question's own\n"
            "adapter and with that of its partner. *Distance*: 1 - cosine of the two adapters, seen from the mean "
            "adapter,\nand that by the distance of two random questions of one family.\n\n"
        )
    return text + made(document)


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
