"""Parts about photographs: Table 1 with pooled accuracies, floors, kinds of question, links, few-shot rows."""

from __future__ import annotations

from collections.abc import Sequence

from eval.harness.parts.validation import first_of, key_of, validation_of
from eval.harness.results import made, read_results
from eval.harness.tables import (
    Record,
    by_label,
    drawn,
    grid,
    grid_markdown,
    interval,
    label_of,
    lead,
    markdown,
    paragraph,
    references,
    short_percent,
    tasks_column,
    without_interval,
)

_POOLED = (
    "Accuracy in %, pooled over pairs of picture and question, with 95% intervals (questions resampled, then pairs\n"
    "within these, 10,000 draws)"
)
_AVERAGES = {"questions": "on average over its questions", "pairs": "pooled over its pairs"}


def photo_table1() -> str:
    """Table 1 by row: all pairs, those whose picture training does not show, differences to two baselines."""
    document = read_results("photo_table1.json")
    found = by_label([r for r in document["results"] if r["descriptors"] == 1.0])
    sets = {r["tasks"]: tasks_column(r).replace("_", "-") for r in document["results"]}
    against = references(next(iter(found.values()))[0])
    seeds = sorted({seed for record in document["results"] for seed in record["seeds"]})
    validation = validation_of("photo_validation.json")
    rows = []
    for records in found.values():
        own = {r["tasks"]: r for r in records}
        whole = own["all"]
        rows.append(
            [
                label_of(records),
                *(short_percent(own.get(name)) for name in sets),
                short_percent(without_interval(validation.get(key_of(whole)))),
                lead(whole),
                *(_difference(whole, row) for row in against),
                "" if whole["paper"] is None else f"{100 * whole['paper']:.1f}",
            ]
        )
    pairs = max(record["n_pairs"] for record in validation.values())
    header = ["row", *sets.values(), f"validation ({pairs} pairs)", "against the best baseline"]
    header += [*(f"against {label}" for label in against.values()), "paper, all of Meta-VQA"]
    about = paragraph(
        f"Accuracy in %, pooled over pairs of picture and question, {_seeds(document['results'])}; "
        f"{drawn(seeds, 'questions, then pairs within these')}. *Image-disjoint*: pairs whose picture no training "
        "question shows. *Validation*: on questions by which gamma and sampling were chosen; of our rows that read the "
        f"question alone they put {first_of(validation)} first. *Against*: mean difference on all pairs, in points. "
        "*The best baseline* has the highest mean on these very pairs, which favours it, of all rows without examples, "
        "diffusion or HyperCLIP. The paper's "
        "column is a mean over tasks."
    )
    return f"{markdown(header, rows)}\n\n{about}\n\n{made(document)}"


def photo_floors() -> str:
    """What answers are worth without a picture."""
    document = read_results("photo_floors.json")
    table = grid(document["results"], lambda r: r["label"], lambda r: tasks_column(r).replace("_", "-"), short_percent)
    return f"{grid_markdown(table, 'without a picture')}\n\n{_POOLED}.\n\n{made(document)}"


def photo_kinds() -> str:
    """Accuracy by kind of question, then question by question."""
    document = read_results("photo_kinds.json")
    labels = {label: label_of(own) for label, own in by_label(document["results"]).items()}
    count = {r["kind"]: (r["n_tasks"], r["n_pairs"]) for r in document["results"] if r["question"] is None}

    def kind(record: Record) -> str:
        questions, pairs = count[record["kind"]]
        return f"{record['kind']} ({questions} questions, {pairs} pairs), {_AVERAGES[record['average']]}"

    def question(record: Record) -> str:
        return f"{record['question']} ({record['n_pairs']})"

    column = lambda record: labels[record["label"]]
    kinds = grid([r for r in document["results"] if r["question"] is None], kind, column, short_percent)
    questions = grid(
        [r for r in document["results"] if r["question"]],
        question,
        column,
        lambda r: short_percent(without_interval(r)),
    )
    return (
        f"{grid_markdown(kinds, 'kind')}\n\n{grid_markdown(questions, 'question (pairs)')}\n\nAccuracy in % on the "
        "test questions with at least ten pairs (`eval/datasets/photo_kinds.toml`), of kinds with 95%\nintervals, "
        f"{_seeds(document['results'])}.\n\n{made(document)}"
    )


def photo_links() -> str:
    """The link-by-link table, pooled."""
    document = read_results("photo_links.json")
    table = grid(document["results"], lambda r: r["row"], tasks_column, short_percent)
    return f"{grid_markdown(table, 'link')}\n\n{_POOLED},\n{_seeds(document['results'])}. " + (
        "*Train* and *val*: questions with support and query pairs,\njudged on the latter; training saw those of "
        f"*train*. *Test*: questions with at least ten pairs, cross-fitted in\nfive folds.\n\n{made(document)}"
    )


def photo_few_shot() -> str:
    """Few-shot rows by cross-fitting, beside zero-shot rows on the same questions."""
    document = read_results("photo_few_shot.json")
    first = document["results"][0]
    rows = [
        [
            "few-shot" if record["few_shot"] else "zero-shot",
            label_of([record]),
            short_percent(record),
            _difference(record, "uncond_multitask"),
        ]
        for record in document["results"]
    ]
    header = ["", "row", f"accuracy ({first['n_pairs']:,} pairs)", "against Uncond. Multitask, zero-shot"]
    return markdown(header, rows, "--rr") + (
        f"\n\n{_POOLED},\n{_seeds(document['results'])}, on the {first['n_tasks']} test questions with at least ten "
        "pairs. Few-shot rows adapt to four fifths of a\nquestion's pairs and are judged on the fifth, in turn.\n\n"
        f"{made(document)}"
    )


def photo_folds() -> str:
    """Rows on training questions held out in turn, by kind of question; and what other settings gain, of rows that they
    change."""
    document = read_results("photo_folds.json")
    plain = [record for record in document["results"] if "vs_without" not in record]
    also = [record for record in document["results"] if "vs_without" in record]
    moved = {record["label"] for record in also if any(record["vs_without"])}
    changed = [record for record in also if record["label"] in moved]
    table = grid(plain, lambda r: label_of([r]), tasks_column, short_percent)
    gains = grid(changed, lambda r: r["label"], tasks_column, lambda r: interval(r["vs_without"], "+.1f"))
    return (
        f"{grid_markdown(table, 'row')}\n\n{_POOLED}, one\ntraining seed. Every pair is of a question that its fold "
        f"holds out.\n\n{grid_markdown(gains, 'gain in points')}\n\n{made(document)}"
    )


def photo_start() -> str:
    """What a start from the release is worth where questions are few: a line a row, a column a way to train."""
    document = read_results("photo_start.json")
    cell = lambda record: f"{short_percent(without_interval(record))} {_difference(record, 'nothing')}".strip()
    table = grid(document["results"], lambda r: r["label"], lambda r: r["setting"], cell)
    first = document["results"][0]
    return (
        f"{grid_markdown(table, 'row')}\n\nAccuracy in %, pooled over the {first['n_pairs']} pairs of "
        f"{first['n_tasks']} questions, each held out in some of {document['divisions']} divisions;\nwith the "
        "difference to training from nothing, with all steps (95%: questions resampled, then pairs), one training "
        f"seed.\n\n{made(document)}"
    )


def _difference(record: Record, row: str) -> str:
    """The cell of a record's difference to a row; empty where it has none."""
    values = record.get(f"vs_{row}")
    return "" if values is None else interval(values, "+.1f")


def _seeds(records: Sequence[Record]) -> str:
    """Which training seeds records are of, in words."""
    seeds = sorted({seed for record in records for seed in record["seeds"]})
    spread = ", ± their standard deviation" if len(seeds) > 1 else ""
    return f"training seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}{spread}"
