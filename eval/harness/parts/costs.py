"""Parts about what things cost: stages of training, speed, the paper's setting, the demo under load."""

from __future__ import annotations

import itertools
import json
from typing import Any

from eval.harness.results import ROOT, made, read_results
from eval.harness.tables import markdown
from train.pipeline.graph import build
from train.pipeline.plan import duration
from train.presets import get_preset

_WORKLOADS = {
    "adapt": "50 steps of adaptation",
    "maml": "MNet-MAML, second order, an epoch",
    "hvae": "HVAE, a training step",
    "hyperclip": "HyperCLIP, a training step",
    "hyperldm": "HyperLDM, a training step",
}
_LONG = 36_000  # seconds of a stage that has a line of its own


def stages() -> str:
    """How long each stage took, and the accuracy that it reached on validation tasks."""
    records = json.loads((ROOT / "weights" / "emoji" / "stages.json").read_text(encoding="utf-8"))
    rows = []
    for name, record in records.items():
        reached = (record["metrics"].get(metric) for metric in ("val_accuracy", "val_few_shot"))
        accuracies = ("" if value is None else f"{100 * value:.1f}" for value in reached)
        rows.append([name, f"{record['seconds'] / 60:.1f}", *accuracies])
    total = sum(record["seconds"] for record in records.values())
    rows.append(["all", f"{total / 60:.0f}", "", ""])
    rows.append(["without the backbone", f"{(total - records['backbone']['seconds']) / 60:.0f}", "", ""])
    table = markdown(["stage", "minutes", "zero-shot, validation", "few-shot, validation"], rows)
    return f"{table}\n\nAccuracies in %."


def speed() -> str:
    """The batched inner loop and training steps against a plain loop over tasks."""
    results = sorted(read_results("bench.json")["results"], key=lambda r: (r["device"], r["threads"]))
    machines = list(dict.fromkeys((r["device"], r["threads"]) for r in results))
    found = {(r["row"], r["size"], (r["device"], r["threads"])): r for r in results}
    rows = []
    for row, size in sorted(
        {key[:2] for key in found}, key=lambda key: ([*_WORKLOADS].index(key[0]), key[1] != "paper")
    ):
        cells = [_times(found.get((row, size, machine))) for machine in machines]
        rows.append([_WORKLOADS[row], size, *itertools.chain(*cells)])
    header = ["workload", "size"]
    for device, threads in machines:
        header += [f"{device}, {threads} thread{'s' if threads > 1 else ''}: plain", "batched", "times faster"]
    return f"{markdown(header, rows)}\n\nIn ms a task. {made(*results)}"


def _times(record: dict[str, Any] | None) -> tuple[str, str, str]:
    """Cells of one workload on one machine: a plain loop over tasks, batches, how many times faster."""
    if record is None:
        return "", "", ""
    return f"{1e3 * record['plain']:.2f}", f"{1e3 * record['batched']:.2f}", f"{record['ratio']:.1f}"


def costs() -> str:
    """What the paper's setting costs on a CPU: its longest stages, by measured steps."""
    preset = get_preset("metavqa_sim")
    entries, took = read_results("bench.json")["costs"]["cpu"], {}
    for name, stage in build(preset).items():
        if (entry := entries.get(stage.cost_key(preset.dataset.dim))) is None:
            how = "train/README.md says what measures it"
            raise ValueError(f"bench.json has no cost of metavqa_sim's stage {name!r}; {how}")
        seconds = entry["rest_seconds"] + entry["step_seconds"] * stage.steps
        took[name] = (seconds, entry["step_seconds"], entry["memory"], stage.steps)
    longest = [name for name, (seconds, *_) in took.items() if seconds >= _LONG]
    others = [name for name in took if name not in longest]
    rows = [
        [name, f"{step:.3g}", f"{steps}", duration(seconds), f"{memory:.1f}"]
        for name, (seconds, step, memory, steps) in took.items()
        if name in longest
    ]
    for label, names in ((f"{len(others)} others", others), ("all", list(took))):
        rows.append([label, "", "", duration(sum(took[n][0] for n in names)), f"{max(took[n][2] for n in names):.1f}"])
    header = ["stage", "s a step", "steps", "would take", "peak GiB"]
    threads = sorted({entry["threads"] for entry in entries.values()})
    return f"{markdown(header, rows)}\n\nOn a CPU, threads: {', '.join(map(str, threads))}."


def demo() -> str:
    """What the demo holds under load, and how often it is right through its API."""
    document, accuracies = read_results("app_load.json"), read_results("app_accuracy.json")
    (load,) = document["results"]
    how, right = load["settings"], accuracies["results"]
    waits = (
        f"{load['visitors']} visitors ask at once, each with {load['pictures']} uploaded pictures and "
        f"{len(how['methods'])} methods (HyperLDM with {how['samples']} samples in {how['steps']} "
        f"step{'s' if how['steps'] > 1 else ''}), on "
        f"{load['cores']} CPU cores:\nmedian wait {load['median']:.1f} s, 95% under {load['95%']:.1f} s, longest "
        f"{load['longest']:.1f} s; failed: {load['failed']}. {made(document)}"
    )
    rows = [[f"`{r['method']}`", *(f"{100 * r[k]:.1f}" for k in ("api", "query", "support_and_query"))] for r in right]
    table = markdown(["method", "through the API", "Table 1's query images", "... and support images"], rows)
    about = (
        f"{right[0]['questions']} random test questions, through the API with {right[0]['scenes']} fresh scenes each"
    )
    return f"{waits}\n\n{table}\n\nAccuracy in % on {about}. {made(accuracies)}"


def latency() -> str:
    """What a question costs: accuracy beside time by sampler, question to answers, start."""
    document = read_results("latency.json")
    results = document["results"]
    rows = []
    for r in (r for r in results if r["row"] == "sampling"):
        name = f"{r['sampler']}, {r['steps']} step{'s' if r['steps'] > 1 else ''}, {r['samples']} averaged"
        name = f"**{name}** (default)" if r["default"] else name
        cells = (f"{1e3 * r['one']:.1f}", f"{r['all']:.2f}", f"{r['times_faster']:,.0f}", f"{100 * r['accuracy']:.1f}")
        rows.append([name, *cells])
    every = next(r["questions"] for r in results if r["row"] == "sampling")
    header = ["sampler", "a question, ms", f"{every} questions, s", "times faster", "accuracy"]
    others = [[r["what"], f"{1e3 * r['seconds']:.0f}"] for r in results if "seconds" in r]
    memory = next(r for r in results if r["row"] == "memory")
    return (
        f"{markdown(header, rows)}\n\nFrom embedding to weights. *Times faster*: than the last line, the authors' way, "
        f"a question at a time.\n\n{markdown(['whole way', 'ms'], others)}\n\nMedians; threads, if not "
        f"said: {document['threads']}. `{memory['what']}` takes {memory['gib']:.2f} GiB at most. {made(document)}"
    )
