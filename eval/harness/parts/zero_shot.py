"""Parts made of Table 1's records: the table, its headline, fewer questions in training, questions asked before, the
weakest families, the rows of another base network."""

from __future__ import annotations

import pandas as pd

from core.data.emoji.questions import QUESTIONS
from eval.harness.comparison.answers import read_answers
from eval.harness.parts.validation import first_of, key_of, validation_of
from eval.harness.results import NOT_YET, RESULTS, made, read_results
from eval.harness.rows import FEW_SHOT
from eval.harness.tables import (
    Record,
    by_label,
    drawn,
    interval,
    label_of,
    lead,
    markdown,
    over_seeds,
    paragraph,
    short_percent,
    tasks_column,
    without_interval,
)
from train.presets import get_preset

# The row that stands for the method. It is named here, and no test task chooses it, as they choose what it is compared
# with; validation tasks chose its gamma.
_OURS = "HVAE + HyperLDM, gamma of validation"
_OURS_SHORT = "HVAE + HyperLDM"
_CLIP, _CEILING = "CLIP, bare answers", "Few-shot ceiling: the best row of Table 4 on validation"
_FROM_TABLE_1 = "From the file of Table 1."
_SETS = ("known", "new", "all")
_SHARES = (0.5, 0.1)  # of the questions, beside all of them
_ASKED_ROWS = (  # of Table 1
    _CLIP,
    "Cond. Multitask",
    "Cond. Multitask FiLM",
    "Cond. HNet-MAML",
    "HVAE + HyperCLIP guidance",
    "Ensemble of the three Cond. baselines",
    "Latent regression, without diffusion",
    "HNet + HyperLDM, gamma 1",
    _OURS,
    _CEILING,
)
_ASKED_SETS = {
    "asked": "asked in training, in other words",
    "unasked": "not asked, known family",
    "new": "not asked, new family",
}
_WEAKEST_COLUMNS = {  # of Table 1's rows
    _CLIP: "CLIP",
    "Cond. Multitask": "Cond. Multitask",
    "HVAE + HyperCLIP guidance": "HVAE + HyperCLIP",
    "HNet + HyperLDM, gamma 1": "HNet + HyperLDM",
    _OURS: _OURS_SHORT,
    "Few-shot, MNet-MAML": "Few-shot, MNet-MAML",
    "Few-shot, MNet-MAML through the HVAE (ours)": "... through the HVAE",
    _CEILING: "Few-shot ceiling",
}


def first_on_validation() -> str:
    """The row of ours, from the question alone, that validation tasks put first."""
    return first_of(validation_of("validation.json"))


def headline() -> str:
    """Six rows of Table 1: plain CLIP, the best baseline, the paper's two searches, the row of ours that validation
    tasks put first, the ceiling."""
    document = read_results("table1.json")
    found = {(r["label"], r["tasks"]): r for r in document["results"] if r["descriptors"] == 1.0}
    ours, first = found[_OURS, "all"], first_on_validation()
    shown = {
        _CLIP: "plain CLIP",
        ours["strongest"]: f"{ours['strongest']}, the best baseline",
        "HVAE + HyperCLIP guidance": "HVAE + HyperCLIP guidance",
        _OURS: f"**{_OURS_SHORT}, gamma of validation**",
        first: f"**{first}**, first on validation tasks",
        _CEILING: "few-shot ceiling: told about 60 answers",
    }
    paper = {label: found[label, "all"]["paper"] for label in shown}
    # of its best gamma
    paper[_OURS] = max(r["paper"] or 0.0 for (_, tasks), r in found.items() if r["row"] == ours["row"])
    paper[_CEILING] = max(row.paper for row in FEW_SHOT if row.paper is not None)
    rows = [
        [words, *(f"{100 * found[label, tasks]['mean']:.1f}" for tasks in _SETS), _or_empty(paper[label])]
        for label, words in shown.items()
    ]
    header = ["", *(tasks_column(found[_CLIP, tasks]) for tasks in _SETS), "the paper"]
    seeds = ours["seeds"]
    trained = f"mean of {len(seeds)} training seeds" if len(seeds) > 1 else f"training seed {seeds[0]}"
    over = "tasks and seeds" if len(seeds) > 1 else "tasks"
    return markdown(header, rows) + (
        f"\n\n**Lead over the best baseline, in points: {_OURS_SHORT} {lead(ours)}, {first}\n"
        f"{lead(found[first, 'all'])}** (95% over {over}). "
        f"Accuracy in % on query images of the test questions; {trained}.\n"
        "*Known* families (kinds of question) have training questions, *new* ones have none. The paper's numbers are\n"
        "on Meta-VQA, another dataset."
    )


def lowrank() -> str:
    """Table 1 of releases whose base network is the low-rank map, beside the CLIP-Adapter of the same seeds."""
    document, adapter = (
        read_results("lowrank.json"),
        read_results("table1_tower.json")["results"],
    )  # of the same embedding
    full = lambda records: {(r["label"], r["tasks"]): r for r in records if r["descriptors"] == 1.0}
    found, theirs = full(document["results"]), full(adapter)
    rows = []
    for label, records in by_label(document["results"]).items():
        if (label, "all") in found:
            cells = [_short(found.get((label, tasks))) for tasks in _SETS]
            same = _of_seeds(theirs.get((label, "all")), found[label, "all"]["seeds"])
            rows.append([label_of(records), *cells, short_percent(same)])
    header = ["row", *(tasks_column(next(r for r in document["results"] if r["tasks"] == t)) for t in _SETS)]
    seeds = sorted({seed for record in document["results"] for seed in record["seeds"]})
    return markdown([*header, "CLIP-Adapter, all"], rows) + (
        f"\n\nAccuracy in % on the query images of the test tasks, training seed{'s' if len(seeds) > 1 else ''} "
        f"{', '.join(map(str, seeds))}. The last\n"
        "column is the CLIP-Adapter's, with the same seeds and embedding (before the sentence encoder).\n\n"
        f"{made(document)}"
    )


def _short(record: Record | None) -> str:
    """A cell of a narrow table: without the interval."""
    return short_percent(without_interval(record))


def _or_empty(accuracy: float | None) -> str:
    """A cell of the paper's column."""
    return "" if accuracy is None else f"{100 * accuracy:.1f}"


def _of_seeds(record: Record | None, seeds: list[int]) -> Record | None:
    """What a row reached with these training seeds alone; None if it was not trained with all of them."""
    if record is None or not set(seeds) <= set(record["seeds"]):
        return None
    values = dict(zip(record["seeds"], record["per_seed"], strict=True))
    return over_seeds([values[seed] for seed in seeds], seeds)


def table1() -> str:
    """Table 1 by row: known families, new families, all; share of the way to the ceiling; difference to a baseline."""
    document, preset, validation = read_results("table1.json"), get_preset("emoji"), validation_of("validation.json")
    rows, halves = [], []
    for records in by_label(document["results"]).values():
        own = {r["tasks"]: r for r in records if r["descriptors"] == 1.0}
        if not own:
            continue
        half = next((r for r in records if r["descriptors"] == 0.5 and r["tasks"] == "all"), None)
        versus, paper = own["all"].get("vs_cond_multitask"), own["known"]["paper"]
        halves.append(_short(half))
        rows.append(
            [
                label_of(list(own.values())),
                *(_short(own.get(name)) for name in ("known", "new")),
                short_percent(own["all"]),
                _short(validation.get(key_of(own["all"]))),
                f"{100 * own['known']['closed']:.0f}%" if "closed" in own["known"] else "",
                lead(own["all"]),
                "" if versus is None else interval(versus, "+.1f"),
                _or_empty(paper),
            ]
        )
    first = {r["tasks"]: r for r in document["results"]}
    header = ["row", *(tasks_column(first[name]) for name in _SETS)]
    header[-1] += " [95%]"
    header += [
        f"validation ({validation[_CLIP, ()]['n_tasks']})",
        "way to the ceiling",
        "against the best baseline",
        "against Cond. Multitask",
        "paper, Meta-VQA",
    ]
    if any(halves):
        header.insert(4, "all, 50% Q.")
        for row, half in zip(rows, halves, strict=True):
            row.insert(4, half)
    seeds = sorted({seed for record in document["results"] for seed in record["seeds"]})
    steps = f"{preset.few_shot_steps} steps, the one through the HVAE {preset.adaptations['hvae'].steps}"
    about = paragraph(
        f"Accuracy in % on the query images of the test tasks, training seed{'s' if len(seeds) > 1 else ''} "
        f"{', '.join(map(str, seeds))}; {drawn(seeds)}. *Known*: families with training questions; *new*: families "
        "that training never saw. *Validation*: on the tasks by which settings and gamma were chosen; of our rows that "
        f"read the question alone they put the {first_on_validation()} first. *Way to the ceiling*: from plain CLIP "
        "(0%) to the few-shot ceiling (100%), on known families. *Against*: mean difference on the same tasks and "
        "seeds, in points. *The best baseline* has the "
        "highest mean on these very test tasks, which favours it, of all rows without examples, diffusion or "
        "HyperCLIP, of releases of the same settings; "
        "latent regression and kernel ridge regression count as baselines, though they use our HVAE. The "
        "paper's column is "
        f"on another dataset. Few-shot rows take {steps}, as its training data."
    )
    family = paragraph(
        '**What "new family" means.** No training question is of such a family, but training asks the same of other '
        "things, and other things of the same ones: a new family is a new composition of subjects and predicates that "
        "training knows apart."
    )
    never = paragraph(
        '**What "never seen" means.** Meta-training has not seen it. The tiny CLIP has: its image tower was trained '
        "with the truth of every kind of question, new families included, and the captions of its text tower hold "
        "words of all questions."
    )
    return f"{markdown(header, rows)}\n\n{about}\n\n{family}\n\n{never}\n\n{made(document)}"


def fewer_questions() -> str:
    """What the rows that read a question reach, and lose, with half and a tenth of the questions in training."""
    document = read_results("table1.json")
    found = {
        (r["label"], tuple(r.get("settings", ())), r["descriptors"]): r
        for r in document["results"]
        if r["tasks"] == "all"
    }
    rows = []
    for (label, settings, share), full in found.items():
        fewer = [found.get((label, settings, less)) for less in _SHARES]
        if share != 1.0 or full["row"].startswith("few_shot"):
            continue
        if not any(record and any(record.get("loss", ())) for record in fewer):
            continue  # who reads no question loses exactly nothing
        cells = [cell for record in fewer for cell in (_short(record), interval(record["loss"]) if record else "")]
        rows.append([label, _short(full), *cells])
    if not rows:
        return NOT_YET
    header = ["row", "all questions"]
    for share in _SHARES:
        header += [f"{100 * share:g}% Q.", "loss [95%]"]
    ours = {share: found[_OURS, (), share] for share in _SHARES if (_OURS, (), share) in found}
    leads = "; ".join(f"with {100 * share:g}% {lead(record)}, {record['strongest']}" for share, record in ours.items())
    return markdown(header, rows) + (
        "\n\nAccuracy in % on all test tasks, the same training seeds; losses in points. Rows that read no question\n"
        f"lose nothing; rows without a number were not trained, and are not among the baselines of that share.\n"
        f"{_OURS_SHORT} against the best baseline of each share, in points: {leads}.\n\n{_FROM_TABLE_1}"
    )


def asked_before() -> str:
    """Test questions that a training question asks in other words, and those that none asks; the lead on each."""
    document = read_results("table1.json")
    found = {(r["label"], r["tasks"], r["descriptors"]): r for r in document["results"]}
    labels = [label for label in by_label(document["results"]) if label in _ASKED_ROWS]
    rows = [[label, *(_short(found[label, name, 1.0]) for name in _ASKED_SETS)] for label in labels]
    header = [f"{words} ({found[_CLIP, name, 1.0]['n_tasks']})" for name, words in _ASKED_SETS.items()]
    leads = "; ".join(lead(found[_OURS, name, 1.0]) for name in _ASKED_SETS)
    others = "; ".join(interval(found[_OURS, name, 1.0]["vs_cond_multitask"], "+.1f") for name in _ASKED_SETS)
    return markdown(["row", *header], rows) + (
        f"\n\nAccuracy in %. On these three sets {_OURS_SHORT} is, in points with 95% intervals, at\n"
        f"{leads} against the best baseline on each,\nat {others} against Cond. Multitask.\n\n{_FROM_TABLE_1}"
    )


def weakest() -> str:
    """The families of test questions on which HVAE + HyperLDM is furthest behind Cond. Multitask, by seed 0."""
    judged, lines = read_answers(RESULTS / "table1")
    tasks = pd.DataFrame(
        {"question": judged.questions}
        | {
            _WEAKEST_COLUMNS[line.label]: judged.by_task(line.right).tolist()
            for line in lines
            if line.label in _WEAKEST_COLUMNS and (line.seed, line.descriptors, line.settings) == (0, 1.0, ())
        }
    )
    family = tasks["question"].map(lambda question: QUESTIONS[question].family).rename("family")
    means = tasks.groupby(family)[list(_WEAKEST_COLUMNS.values())].mean()
    behind = (means[_OURS_SHORT] - means["Cond. Multitask"]).sort_values().index[:6]
    counts = family.value_counts()
    rows = [[f"{name} ({counts[name]})", *(f"{100 * value:.1f}" for value in means.loc[name])] for name in behind]
    for label, some in (
        ("all others", tasks[~family.isin(behind)]),
        ("all that ask for a place", tasks[family.str.startswith("place of ")]),
    ):
        rows.append([f"{label} ({len(some)})", *(f"{100 * some[name].mean():.1f}" for name in means)])
    return markdown(["family (test questions)", *means], rows) + (
        "\n\nAccuracy in % on query images, seed 0, from `eval/results/table1_right.csv` (Table 1's command makes it)."
    )
