"""Remake the result tables of the documents, and the plots, from the committed files under eval/results/.

Needs the JSON files there, each written by the `--json` flag of the script of its name (eval/README.md has the
commands), and the release's stages.json. Rewrites the marked parts of README.md, eval/README.md and train/README.md,
and the plots beside the JSON files. Ten seconds. A test fails while the documents and the files disagree.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

import argparse
import json
import re
from typing import Any

import pandas as pd
import torch

from core.data.emoji.questions import QUESTIONS
from eval.table1 import label_of
from eval.task_inference import LABELS
from train.pipeline.graph import build
from train.pipeline.plan import cost_key, duration, estimates, steps_of
from train.presets import get_preset
from train.tune import chosen, method_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "eval" / "results"
DOCUMENTS = tuple(ROOT / name for name in ("README.md", "eval/README.md", "train/README.md"))


def _read(name: str) -> Any:
    path = RESULTS / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; eval/README.md says which command writes it")
    return json.loads(path.read_text())


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _percent(record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    spread = "" if record.get("sd") is None else f" ± {100 * record['sd']:.1f}"
    return f"{100 * record['mean']:.1f}{spread}"


_PERCENT = "Accuracy in % on the query images of the test tasks; ± is the s.d. over training seeds."
_RANKING = (
    "In %; ± is the s.d. over training seeds. *Top-k*: the task's own question is among the first k.\n"
    "*Reciprocal rank*: mean of 1 / its rank. *Family of top-1*: the first question is of the task's family."
)


def _source(document: dict[str, Any]) -> str:
    return f"`{document['command']}` at commit {document['commit']}"


def table1() -> str:
    """Table 1 by row: known families, new families, all; share of the way to the ceiling; difference to a baseline."""
    document, preset = _read("table1.json"), get_preset("emoji")
    by_label: dict[str, dict[str, dict[str, Any]]] = {}
    half: dict[str, dict[str, Any]] = {}  # all tasks, with half of the questions known in training
    of_row: dict[str, list[dict[str, Any]]] = {}
    for record in document["results"]:
        of_row.setdefault(record["label"], []).append(record)
        if record["descriptors"] == 1.0:
            by_label.setdefault(record["label"], {})[record["tasks"]] = record
        elif record["descriptors"] == 0.5 and record["tasks"] == "all":
            half[record["label"]] = record
    rows = []
    for label, columns in by_label.items():
        known, overall = columns["known"], columns["all"]
        versus = overall.get("vs_cond_multitask")
        half_column = [_percent(half.get(label))] if half else []
        rows.append(
            [
                label_of(of_row[label]),
                *(_percent(columns.get(name)) for name in ("known", "new", "all")),
                *half_column,
                f"{100 * known['closed']:.0f}%" if "closed" in known else "",
                "" if versus is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in versus)),
                "" if known["paper"] is None else f"{100 * known['paper']:.1f}",
            ]
        )
    first = next(iter(by_label.values()))
    header = [
        "row",
        *(f"{name} ({first[name]['n_tasks']})" for name in ("known", "new", "all")),
        *(["all, 50% Q."] if half else []),
        "way to the ceiling",
        "against Cond. Multitask",
        "paper, Meta-VQA",
    ]
    seeds = sorted({seed for record in document["results"] for seed in record["seeds"]})
    return _markdown(header, rows) + (
        "\n\nAccuracy in % on the query images of the test tasks; ± is the s.d. over training seeds "
        f"{', '.join(map(str, seeds))}.\n"
        "*Known*: families with training questions; *new*: families that training never saw. *50% Q.*: trained with\n"
        "the question text of half of the training tasks. *Way to the ceiling*: from plain CLIP (0%) to the few-shot\n"
        "ceiling (100%), on known families. *Against Cond. Multitask*: mean difference over all tasks, with its 95%\n"
        "interval (paired bootstrap over tasks, 10,000 draws). The paper's column is on another dataset. Few-shot\n"
        f"rows take {preset.few_shot_steps} steps, the one through the HVAE {preset.adaptations['hvae'].steps}, as "
        "its training data.\n\n"
        f"Made by {_source(document)}."
    )


def links() -> str:
    """The link-by-link table."""
    document = _read("links.json")
    columns = list(dict.fromkeys((r["tasks"], r["n_tasks"]) for r in document["results"]))
    names = list(dict.fromkeys(r["row"] for r in document["results"]))
    values = {(r["row"], r["tasks"]): r for r in document["results"]}
    rows = [[name, *(_percent(values[name, tasks]) for tasks, _ in columns)] for name in names]
    return _markdown(["link", *(f"{tasks} ({n})" for tasks, n in columns)], rows) + (
        "\n\nAccuracy in % on query images; ± is the s.d. over training seeds. The column of the training tasks\n"
        "measures memory: their query images were seen in training.\n\n"
        f"Made by {_source(document)}."
    )


def _by_tasks(results: list[dict[str, Any]], key: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table with one line for every `key` and a column for every set of tasks."""
    results = [record for record in results if record["tasks"] in ("known", "new", "all")]
    cell = {(record[key], record["tasks"]): record for record in results}
    columns = list(dict.fromkeys((record["tasks"], record["n_tasks"]) for record in results))
    names = list(dict.fromkeys(record[key] for record in results))
    rows = [[name, *(_percent(cell.get((name, tasks))) for tasks, _ in columns)] for name in names]
    return [f"{tasks} ({n})" for tasks, n in columns], rows


def table4() -> str:
    """Table 4: few-shot accuracy by row."""
    document = _read("table4.json")
    header, rows = _by_tasks(document["results"], "label")
    paper = {record["label"]: record["paper"] for record in document["results"]}
    rows = [[*row, "" if paper[row[0]] is None else f"{100 * paper[row[0]]:.1f}"] for row in rows]
    table = _markdown(["few-shot, 50 steps", *header, "paper, Meta-VQA"], rows)
    return f"{table}\n\n{_PERCENT}\n\nMade by {_source(document)}."


def sanity() -> str:
    """The sanity rows, and how far generated weights lie from the training ones."""
    document = _read("sanity.json")
    header, rows = _by_tasks(document["results"], "label")
    distance = {r["row"]: r["mean"] for r in document["results"] if r["tasks"] == "distance"}
    return _markdown(["row", *header], rows) + (
        f"\n\n{_PERCENT}\n\nGenerated weights lie "
        f"{distance['distance_to_training']:.0f} from the nearest training adapter (median, "
        "standardised), training\nadapters "
        f"{distance['distance_in_training']:.0f} from each other's nearest: a ratio of "
        f"{distance['distance_ratio']:.2f}, where copying would give 0.\n\nMade by {_source(document)}."
    )


def inference() -> str:
    """Task inference among the test questions and among all, on all test tasks."""
    document = _read("task_inference.json")
    records = [record for record in document["results"] if record["tasks"] == "all"]
    metrics = list(dict.fromkeys(record["metric"] for record in records))
    cell = {(r["candidates"], r["n_candidates"], r["row"], r["metric"]): r for r in records}
    lines = list(dict.fromkeys(key[:3] for key in cell))
    names = {"test": "the test questions", "all": "all questions"}
    rows = [
        [f"{LABELS[row]}, among {names[which]} ({n})", *(_percent(cell[which, n, row, metric]) for metric in metrics)]
        for which, n, row in lines
    ]
    return _markdown(["HyperCLIP of the", *metrics], rows) + f"\n\n{_RANKING}\n\nMade by {_source(document)}."


def descriptors() -> str:
    """How well the descriptors of undescribed tasks are inferred."""
    document = _read("descriptors.json")
    metrics = list(dict.fromkeys(record["metric"] for record in document["results"]))
    cell = {(r["descriptors"], r["row"], r["metric"]): r for r in document["results"]}
    rows = []
    for share, row in dict.fromkeys(key[:2] for key in cell):
        found = [cell.get((share, row, metric)) for metric in metrics]
        rows.append([f"{row}, {100 * share:g}% Q. ({found[-1]['n_tasks']})", *map(_percent, found)])
    return _markdown(["undescribed tasks", *metrics], rows) + (
        "\n\n*R^2*: share of the variance of the whitened question embeddings that is inferred.\n"
        f"{_RANKING}\n\nMade by {_source(document)}."
    )


def probes() -> str:
    """The backbone's probes: mean over families, and the weakest and strongest families."""
    records = _read("backbone_probes.json")
    columns = [name for name in records[0] if name not in ("family", "answers")]
    families, mean = records[:-1], records[-1]
    shown = [mean, *families[:3], *families[-2:]]
    rows = [[r["family"], *(f"{100 * r[name]:.0f}" for name in columns)] for r in shown]
    return _markdown(["family", *columns], rows) + (
        "\n\nAccuracy in % of linear probes trained on 58 and on 500 scenes a question, beside zero-shot CLIP, on 200\n"
        f"unseen scenes: the mean over all {len(families)} families, the three hardest, the two easiest.\n\n"
        "Made by `python train/backbone.py --report --json eval/results/backbone_probes.json`."
    )


def stages() -> str:
    """What each stage reached and how long it took."""
    records = json.loads((ROOT / "weights" / "emoji" / "stages.json").read_text())
    rows = []
    for name, record in records.items():
        reached = ", ".join(f"{metric.replace('_', ' ')} {value:.3f}" for metric, value in record["metrics"].items())
        rows.append([name, f"{record['seconds'] / 60:.1f}", reached])
    total = sum(record["seconds"] for record in records.values())
    without = total - records["backbone"]["seconds"]
    rows.append(["all", f"{total / 60:.0f}", f"without the backbone {without / 60:.0f}"])
    table = _markdown(["stage", "minutes", "reached (accuracies on validation tasks)"], rows)
    table = table.replace("|---|---:|---:|", "|---|---:|---|")
    return f"{table}\n\nMade by `python train/run_all.py --preset emoji --seed 0`."


def figure5_made() -> str:
    """Where Figure 5 is from."""
    return f"± and bars: s.d. over training seeds. Made by {_source(_read('figure5.json'))}."


def figure6_made() -> str:
    """What Figure 6 counts, and where it is from."""
    document = _read("figure6.json")
    share = {(r["row"], r["tasks"]): f"{100 * r['mean']:.1f}%" for r in document["results"]}
    return (
        f"For {share['nearest_question', 'all']} of the test questions the nearest training question is of their own\n"
        f"family (known families alone: {share['nearest_question', 'known']}; chance: {share['chance', 'all']}).\n\n"
        f"Made by {_source(document)}."
    )


def tuning() -> str:
    """The settings tried for every row, and which validation tasks chose."""
    document = _read("tuning.json")
    by_row: dict[str, list[dict[str, Any]]] = {}
    for record in document["results"]:
        by_row.setdefault(record["row"], []).append(record)
    rows = []
    for row, tried in by_row.items():
        best = chosen(tried)
        cells = []
        for r in tried:
            own = rf"^\w+\.({row}|{method_of(row)[1]})\."  # a configuration of this row's or its generator's own
            setting = ", ".join(re.sub(own, "", s) for s in r["setting"])
            mark = "**" if r is best else ""
            cells.append(f"{setting}: {mark}{100 * r['val_accuracy']:.1f}{mark}")
        rows.append([row, *cells])
    width = max(len(row) for row in rows)
    header = ["row", "setting 1 (start)", *(str(number) for number in range(2, width))]
    table = _markdown(header, [row + [""] * (width - len(row)) for row in rows])  # rows of unequal length
    return table + (
        "\n\nEach cell: what is set, and the zero-shot accuracy in % on the 87 validation tasks. Bold: chosen, which\n"
        "is the best setting if it is better than the first by half a point, else the first.\n\n"
        f"Made by {_source(document)}."
    )


def half_of_the_questions() -> str:
    """What the rows that read a question lose when half of the questions are missing in training.

    Raises:
        ValueError: nothing to compare.
    """
    document = _read("table1.json")
    if not any("loss" in record for record in document["results"]):
        raise ValueError("table1.json: no row was evaluated with fewer descriptors and the same seeds")
    all_tasks = [r for r in document["results"] if r["tasks"] == "all"]
    told_all = {r["label"]: r for r in all_tasks if r["descriptors"] == 1.0}
    rows = [
        [
            r["label"],
            _percent(told_all[r["label"]]),
            _percent(r),
            "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in r["loss"])),
            ", ".join(
                f"{100 * (before - after):.1f}"
                for before, after in zip(told_all[r["label"]]["per_seed"], r["per_seed"], strict=True)
            ),
        ]
        for r in all_tasks
        if r["descriptors"] == 0.5 and any(r.get("loss", ()))  # who reads no question loses exactly nothing
    ]
    return _markdown(["row", "100% Q.", "50% Q.", "loss", "by seed"], rows) + (
        "\n\nAccuracy in % on all test tasks; ± is the s.d. over training seeds. *Loss*: in points, with its 95%\n"
        f"interval (paired bootstrap over tasks, 10,000 draws). Rows of Table 1. Made by {_source(document)}."
    )


_ASKED_ROWS = (  # of Table 1
    "CLIP, bare answers",
    "Cond. Multitask",
    "Cond. Multitask FiLM",
    "Cond. HNet-MAML",
    "HVAE + HyperCLIP guidance",
    "HNet + HyperLDM, gamma 1",
    "HVAE + HyperLDM, gamma 1",
    "Few-shot ceiling: the best row of Table 4 on validation",
)


def weakest() -> str:
    """The families of test questions on which HVAE + HyperLDM is furthest behind Cond. Multitask, by seed 0."""
    columns = {
        "CLIP, bare answers": "CLIP",
        "Cond. Multitask": "Cond. Multitask",
        "HVAE + HyperCLIP guidance": "HVAE + HyperCLIP",
        "HNet + HyperLDM, gamma 1": "HNet + HyperLDM",
        "HVAE + HyperLDM, gamma 1": "HVAE + HyperLDM",
        "Few-shot, MNet-MAML": "Few-shot, MNet-MAML",
        "Few-shot, MNet-MAML through the HVAE (ours)": "... through the HVAE",
        "Few-shot ceiling: the best row of Table 4 on validation": "Few-shot ceiling",
    }
    path = RESULTS / "table1_tasks.csv"
    tasks = pd.read_csv(path).rename(columns=columns)
    family = tasks["question"].map(lambda question: QUESTIONS[question].family).rename("family")
    means = tasks.groupby(family)[list(columns.values())].mean()
    behind = (means["HVAE + HyperLDM"] - means["Cond. Multitask"]).sort_values().index[:6]
    counts = family.value_counts()
    rows = [[f"{name} ({counts[name]})", *(f"{100 * value:.1f}" for value in means.loc[name])] for name in behind]
    for label, some in (
        ("all others", tasks[~family.isin(behind)]),
        ("all that ask for a place", tasks[family.str.startswith("place of ")]),
    ):
        rows.append([f"{label} ({len(some)})", *(f"{100 * some[name].mean():.1f}" for name in means)])
    return _markdown(["family (test questions)", *means], rows) + (
        "\n\nAccuracy in % on query images, seed 0, from `eval/results/table1_tasks.csv` (Table 1's command makes it)."
    )


def asked_before() -> str:
    """Test questions that a training question asks in other words, and those that none asks, with all and with half of
    the training questions known."""
    document = _read("table1.json")
    sets = {
        "asked": "asked in training, in other words",
        "unasked": "not asked, known family",
        "new": "not asked, new family",
    }
    found = {(r["label"], r["tasks"], r["descriptors"]): r for r in document["results"]}
    labels = [label for label in dict.fromkeys(r["label"] for r in document["results"]) if label in _ASKED_ROWS]
    cells = lambda label: [_percent(found.get((label, name, share))) for name in sets for share in (1.0, 0.5)]
    header = [
        column
        for name, words in sets.items()
        for column in (f"{words} ({found[labels[0], name, 1.0]['n_tasks']})", "50% Q.")
    ]
    interval = lambda values: "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in values))
    ours = {(name, share): found["HVAE + HyperLDM, gamma 1", name, share] for name in sets for share in (1.0, 0.5)}
    leads = "; ".join(interval(ours[name, 1.0]["vs_cond_multitask"]) for name in sets)
    losses = "; ".join(interval(ours[name, 0.5]["loss"]) for name in sets)
    return _markdown(["row", *header], [[label, *cells(label)] for label in labels]) + (
        "\n\nAccuracy in %; ± is the s.d. over training seeds. HVAE + HyperLDM at gamma 1, on the three sets of test\n"
        "tasks, with 95% intervals (paired bootstrap over tasks, 10,000 draws):\n\n"
        f"- ahead of Cond. Multitask by {leads} points;\n"
        f"- loses {losses} points with half of the questions.\n\n"
        f"Made by {_source(document)}."
    )


def ablations() -> str:
    """What each departure from the paper is worth."""
    document = _read("ablations.json")
    cell = {(r["row"], r["label"], r["tasks"]): r for r in document["results"]}
    names = list(dict.fromkeys((r["row"], r["label"]) for r in document["results"]))
    columns = list(dict.fromkeys((r["tasks"], r["n_tasks"]) for r in document["results"]))
    rows = []
    for row, label in names:
        found = [cell[row, label, tasks] for tasks, _ in columns]
        rows.append([f"`{row}`", label, *map(_percent, found), f"{100 * found[0]['val_accuracy']:.1f}"])
    table = _markdown(["row", "changed", *(f"{tasks} ({n})" for tasks, n in columns), "validation (87)"], rows)
    # Lines are made in calls of their own; files from before every record said which have one source for all.
    made = "; ".join(dict.fromkeys(_source(r if "commit" in r else document) for r in document["results"]))
    return f"{table}\n\nAccuracy in % on query images. Made by {made}."


def speed() -> str:
    """The batched inner loop and training steps against a plain loop over tasks."""
    names = {
        "adapt": "50 steps of adaptation",
        "maml": "MNet-MAML, second order, an epoch",
        "hvae": "HVAE, a training step",
        "hyperclip": "HyperCLIP, a training step",
        "hyperldm": "HyperLDM, a training step",
    }
    results = _read("bench.json")["results"]
    rows = []
    for r in sorted(results, key=lambda r: (-r["threads"], [*names].index(r["row"]), r["size"] != "paper")):
        times = (f"{1e3 * r[key]:.2f}" for key in ("plain", "batched"))
        rows.append([names[r["row"]], r["size"], f"{r['device']}, {r['threads']}", *times, f"{r['ratio']:.1f}"])
    header = ["workload", "size", "device, threads", "plain loop, ms a task", "batched, ms a task", "times faster"]
    made = "; ".join(dict.fromkeys(_source(r) for r in results))
    return f"{_markdown(header, rows)}\n\nMade by {made}."


def costs() -> str:
    """What the paper's setting costs, stage by stage, on a CPU: as measured, and by that for the whole schedule."""
    preset = get_preset("metavqa_sim")
    stages, entries = build(preset), _read("bench.json")["costs"]["cpu"]
    rows = []
    for name, estimate in estimates(preset, stages, torch.device("cpu")).items():
        if (entry := entries.get(cost_key(preset, name))) is None:
            how = "train/README.md says what measures it"
            raise ValueError(f"bench.json has no cost of metavqa_sim's stage {name!r}; {how}")
        step = f"{entry['step_seconds']:.3g}" if entry["step_seconds"] else ""
        numbers = (f"{entry['rest_seconds']:.0f}", f"{entry['memory']:.1f}")
        rows.append([name, step, *numbers, f"{steps_of(preset, name) or ''}", duration(estimate.seconds)])
    header = ["stage", "s a step", "fixed seconds", "peak GiB", "steps of the paper", "would take"]
    threads = sorted({entry["threads"] for entry in entries.values()})
    made = "`python eval/bench.py --costs runs/metavqa_sim`"
    return f"{_markdown(header, rows)}\n\nOn a CPU, threads: {', '.join(map(str, threads))}. Made by {made}."


def demo() -> str:
    """What the demo holds under load, and how often it is right through its API."""
    document, accuracies = _read("app_load.json"), _read("app_accuracy.json")
    (load,) = document["results"]
    how, right = load["settings"], accuracies["results"]
    waits = (
        f"{load['visitors']} visitors ask at once, each with {load['pictures']} uploaded pictures and "
        f"{len(how['methods'])} methods (HyperLDM with {how['steps']} steps, {how['samples']} samples), on "
        f"{load['cores']} CPU cores:\nmedian wait {load['median']:.1f} s, 95% under {load['95%']:.1f} s, longest "
        f"{load['longest']:.1f} s; failed: {load['failed']}. Made by {_source(document)}."
    )
    rows = [[f"`{r['method']}`", *(f"{100 * r[k]:.1f}" for k in ("api", "query", "support_and_query"))] for r in right]
    table = _markdown(["method", "through the API", "Table 1's query images", "... and support images"], rows)
    about = (
        f"{right[0]['questions']} random test questions, through the API with {right[0]['scenes']} fresh scenes each"
    )
    return f"{waits}\n\n{table}\n\nAccuracy in % on {about}. Made by {_source(accuracies)}."


PARTS = {
    "table1": table1,
    "half": half_of_the_questions,
    "links": links,
    "table4": table4,
    "ablations": ablations,
    "asked_before": asked_before,
    "weakest": weakest,
    "tuning": tuning,
    "sanity": sanity,
    "inference": inference,
    "descriptors": descriptors,
    "probes": probes,
    "stages": stages,
    "speed": speed,
    "costs": costs,
    "figure5": figure5_made,
    "figure6": figure6_made,
    "demo": demo,
}


OPTIONAL = ("tuning", "ablations")  # hours of training each: shown once they have been run


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)


def render(text: str) -> str:
    """A document with every marked part that stands in it remade from the result files."""
    for name, part in PARTS.items():
        if _pattern(name).search(text):
            body = part()
            text = _pattern(name).sub(lambda match, body=body: match.group(1) + body + match.group(2), text)
    return text


def homeless(texts: list[str]) -> list[str]:
    """The parts that stand in none of the documents but should."""
    return [
        name
        for name in PARTS
        if not any(_pattern(name).search(text) for text in texts)
        and (name not in OPTIONAL or (RESULTS / f"{name}.json").is_file())
    ]


def plot_table1(path: Path) -> None:
    """Bars of Table 1 on known and new families, with the s.d. over seeds where there are several."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    records = [record for record in _read("table1.json")["results"] if record["descriptors"] == 1.0]
    labels = list(dict.fromkeys(record["label"] for record in records))
    value = {(record["label"], record["tasks"]): record for record in records}
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.32 * len(labels) + 1.2), sharey=True, sharex=True)
    for axis, tasks, title in zip(axes, ("known", "new"), ("known families", "new families"), strict=True):
        for i, label in enumerate(labels):
            record = value[label, tasks]
            few_shot, ours = record["row"].startswith("few_shot"), record["row"].startswith(("hvae_", "hnet_hyper"))
            colour = "#9aa5b1" if few_shot else "#4f46e5" if ours else "#f0a35e"
            axis.barh(i, 100 * record["mean"], xerr=100 * (record["sd"] or 0.0), color=colour, height=0.7)
            axis.text(100 * record["mean"] + 0.8, i, f"{100 * record['mean']:.1f}", va="center", fontsize=8)
        axis.set_title(f"{title} ({value[labels[0], tasks]['n_tasks']} tasks)", fontsize=10)
        axis.set_xlabel("test accuracy, %")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(labels)), labels, fontsize=8)
    axes[0].invert_yaxis()
    axes[0].set_xlim(left=30)
    for colour, name in (("#f0a35e", "baselines"), ("#4f46e5", "from the question, ours"), ("#9aa5b1", "few-shot")):
        axes[1].barh([0], [0], color=colour, label=name)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="lower right", fontsize=8, frameon=False, ncols=3)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def figure5(path: Path) -> None:
    """Figure 5 from its records, both parts if there are several shares of descriptors."""
    from eval import figure5

    records = _read("figure5.json")["results"]
    parts = ["A", "B"] if len({record["descriptors"] for record in records}) > 1 else ["A"]
    figure5.plot(records, parts, path)


def figure6(path: Path) -> None:
    """Figure 6 from its points."""
    from eval import figure6

    figure6.plot(_read("figure6.json")["map"], path)


def task_inference(path: Path) -> None:
    """Figure 3 from its records."""
    from eval import task_inference

    task_inference.plot(_read("task_inference.json")["results"], path)


FIGURES = {
    "table1.png": plot_table1,
    "figure5.png": figure5,
    "figure6.png": figure6,
    "task_inference.png": task_inference,
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    try:
        texts = [path.read_text() for path in DOCUMENTS]
        if lost := homeless(texts):
            raise ValueError(f"no document has a part marked <!-- {lost[0]} --> ... <!-- /{lost[0]} -->")
        for path, text in zip(DOCUMENTS, texts, strict=True):
            path.write_text(render(text))
        for name, plot in FIGURES.items():
            plot(RESULTS / name)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    names = ", ".join(str(path.relative_to(ROOT)) for path in DOCUMENTS)
    print(f"remade {names} and {', '.join(FIGURES)} in {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
