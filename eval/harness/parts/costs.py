"""Parts about what things cost: stages of training, speed, the paper's setting, the demo under load."""

from __future__ import annotations

import itertools
import json
from typing import Any

from eval.harness.results import ROOT, read_results, source, sources
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


def stages() -> str:
    """What each stage reached and how long it took."""
    records = json.loads((ROOT / "weights" / "emoji" / "stages.json").read_text(encoding="utf-8"))
    rows = []
    for name, record in records.items():
        reached = ", ".join(f"{metric.replace('_', ' ')} {value:.3f}" for metric, value in record["metrics"].items())
        rows.append([name, f"{record['seconds'] / 60:.1f}", reached])
    total = sum(record["seconds"] for record in records.values())
    without = total - records["backbone"]["seconds"]
    rows.append(["all", f"{total / 60:.0f}", f"without the backbone {without / 60:.0f}"])
    table = markdown(["stage", "minutes", "reached (accuracies on validation tasks)"], rows, align="-r-")
    return f"{table}\n\nMade by `python train/run_all.py --preset emoji --seed 0`."


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
    return f"{markdown(header, rows)}\n\nIn ms a task. Made by {sources(results)}."


def _times(record: dict[str, Any] | None) -> tuple[str, str, str]:
    """Cells of one workload on one machine: a plain loop over tasks, batches, how many times faster."""
    if record is None:
        return "", "", ""
    return f"{1e3 * record['plain']:.2f}", f"{1e3 * record['batched']:.2f}", f"{record['ratio']:.1f}"


def costs() -> str:
    """What the paper's setting costs, stage by stage, on a CPU: as measured, and by that for the whole schedule."""
    preset = get_preset("metavqa_sim")
    entries = read_results("bench.json")["costs"]["cpu"]
    rows = []
    for name, stage in build(preset).items():
        if (entry := entries.get(stage.cost_key(preset.dataset.dim))) is None:
            how = "train/README.md says what measures it"
            raise ValueError(f"bench.json has no cost of metavqa_sim's stage {name!r}; {how}")
        step = f"{entry['step_seconds']:.3g}" if entry["step_seconds"] else ""
        numbers = (f"{entry['rest_seconds']:.0f}", f"{entry['memory']:.1f}")
        total = duration(entry["rest_seconds"] + entry["step_seconds"] * stage.steps)
        rows.append([name, step, *numbers, f"{stage.steps or ''}", total])
    header = ["stage", "s a step", "fixed seconds", "peak GiB", "steps of the paper", "would take"]
    threads = sorted({entry["threads"] for entry in entries.values()})
    made = "`python eval/bench.py --costs runs/metavqa_sim`"
    return f"{markdown(header, rows)}\n\nOn a CPU, threads: {', '.join(map(str, threads))}. Made by {made}."


def demo() -> str:
    """What the demo holds under load, and how often it is right through its API."""
    document, accuracies = read_results("app_load.json"), read_results("app_accuracy.json")
    (load,) = document["results"]
    how, right = load["settings"], accuracies["results"]
    waits = (
        f"{load['visitors']} visitors ask at once, each with {load['pictures']} uploaded pictures and "
        f"{len(how['methods'])} methods (HyperLDM with {how['steps']} steps, {how['samples']} samples), on "
        f"{load['cores']} CPU cores:\nmedian wait {load['median']:.1f} s, 95% under {load['95%']:.1f} s, longest "
        f"{load['longest']:.1f} s; failed: {load['failed']}. Made by {source(document)}."
    )
    rows = [[f"`{r['method']}`", *(f"{100 * r[k]:.1f}" for k in ("api", "query", "support_and_query"))] for r in right]
    table = markdown(["method", "through the API", "Table 1's query images", "... and support images"], rows)
    about = (
        f"{right[0]['questions']} random test questions, through the API with {right[0]['scenes']} fresh scenes each"
    )
    return f"{waits}\n\n{table}\n\nAccuracy in % on {about}. Made by {source(accuracies)}."
