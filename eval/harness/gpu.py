"""What stages of training cost on a GPU, in a file that `train/run_all.py --plan` reads."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
import shutil
import subprocess
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from core.backbones.stored import STORED
from core.files import write_json
from core.release.checkpoint import files_of
from core.tensors import load_tensors, save_tensors
from eval.harness.carried import load
from eval.harness.parity import forget
from train.pipeline.adapted import draw_path
from train.pipeline.environment import ROOT, commit, peak, reset_peak
from train.pipeline.graph import build, needed
from train.pipeline.plan import Estimate, duration
from train.pipeline.run import Run
from train.pipeline.settings import Preset
from train.pipeline.stage import Stage
from train.pipeline.steps import settled

_TOWER = "vit_large_patch14_clip_quickgelu_336"  # timm's name of the paper's image encoder
_BATCH = 64
_QUICK_STEPS = 49  # of adaptation: from 50 on it must improve on what it starts from, here hardly trained


def code_digest() -> str:
    """What results depend on besides the device: 12 hexadecimal digits of all code of core and train."""
    digest = hashlib.sha256()
    for file in sorted(file for room in ("core", "train") for file in (ROOT / room).rglob("*.py")):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


class Results:
    """A JSON file, written at every change. Each entry knows the code and the device that it is of; what is of others
    stays until it is replaced, for `--plan`, and counts as not done."""

    def __init__(self, path: Path, device: torch.device, command: str, again: bool = False) -> None:
        """Open or begin the file; with `again` nothing in it counts as done."""
        self.path = path
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        self.mark = {"device": gpu or f"{platform.machine()} CPU", "code": code_digest()}
        self._fresh: set[tuple[str, ...]] | None = set() if again else None
        self.document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}
        self.document |= {"command": command, "commit": commit(), **self.mark, "versions": versions}

    def get(self, *keys: str) -> dict[str, Any] | None:
        """An entry of this code on this device."""
        node: Any = self.document
        for key in keys:
            node = node.get(key, {})
        current = bool(node) and all(node.get(key) == value for key, value in self.mark.items())
        return node if current and (self._fresh is None or keys in self._fresh) else None

    def put(self, *keys: str, entry: dict[str, Any]) -> None:
        node = self.document
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = json_value(entry) | self.mark
        if self._fresh is not None:
            self._fresh.add(keys)
        write_json(self.path, self.document)


def json_value(value: Any) -> Any:
    """A value with null for numbers that JSON has not (NaN, infinity), which a comparison may well find."""
    if isinstance(value, dict):
        return {key: json_value(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def utilisation(device: torch.device) -> Iterator[list[float]]:
    """Afterwards holds the mean share of time in which the GPU was at work, as nvidia-smi sees it; [] without one."""
    used: list[float] = []
    program = shutil.which("nvidia-smi") if device.type == "cuda" else None
    if program is None:
        yield used
        return
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--id={device.index or 0}", "-lms", "200"]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        process = subprocess.Popen([program, *query], stdout=file, stderr=subprocess.DEVNULL)
        try:
            yield used
        finally:
            process.terminate()
            process.wait()
            file.seek(0)
            samples = [float(line) / 100 for line in file.read().splitlines() if line.strip().isdigit()]
            used += [sum(samples) / len(samples)] if samples else []


def quick(preset: Preset) -> Preset:
    """The preset with one short draw of adaptations and one gamma to choose from: enough to measure what a step of
    these stages costs."""
    shorter = lambda config: replace(config, draws=1, steps=min(config.steps, _QUICK_STEPS))
    return replace(
        preset,
        adaptations={name: shorter(config) for name, config in preset.adaptations.items()},
        sampling=replace(preset.sampling, gammas=(1.0,)),
    )


def repeat_draw(made: Run, run: Run, name: str) -> None:
    """Let the one draw of adaptations that a run of the `quick` preset made stand for all of the preset's own run, so
    that what learns from them holds as much as it will."""
    first = draw_path(made, name, 0)
    for draw in range(run.preset.adaptations[name].draws):
        path = draw_path(run, name, draw)
        if path != first:
            save_tensors(path, load_tensors(first))


def measure(stage: Stage, run: Run, seconds: float) -> dict[str, Any]:
    """Run a stage anew, its steps for so many seconds, and say what it costs, as `train.pipeline.plan.costs` reads it.
    The entry also has the number of steps, how busy the GPU was, and what they reached."""
    forget(stage, run)
    run.limits[stage.name] = seconds
    reset_peak(run.device)
    with utilisation(run.device) as used:
        began = settled(run.device)
        metrics = stage.run(run)
        took = settled(run.device) - began
    steps, loop = run.loops.get(stage.name, (0, 0.0))
    memory = peak(run.device)
    return {
        "stage": stage.name,
        "step_seconds": round(loop / steps, 6) if steps else 0.0,
        "rest_seconds": round(max(0.0, took - loop), 2),
        "memory": memory.get("gpu_memory", memory.get("memory")),
        "threads": torch.get_num_threads(),
        "steps": steps,
        "utilisation": round(used[0], 3) if used else None,
        "reached": {name: round(float(value), 4) for name, value in metrics.items()},
    }


def has_outputs(stage: Stage, run: Run) -> bool:
    return all(files_of(path) for path in stage.outputs(run))


def measure_all(run: Run, results: Results, until: float) -> bool:
    """What every stage of a run costs, as far as time allows; returns whether none failed.

    A stage that was measured before runs again only where its outputs are gone and another one needs them.
    """
    stages, failed = build(run.preset), set[str]()
    todo = [name for name in stages if (run.preset.backbone != STORED or name != "features")]  # or they are carried
    keys = {name: ("costs", run.device.type, stage.cost_key(run.dim)) for name, stage in stages.items()}
    todo = [name for name in todo if results.get(*keys[name]) is None]
    wanted = set(todo) | needed(stages, todo)
    short: Run | None = None
    for name in (name for name in stages if name in wanted):
        if name not in todo and has_outputs(stages[name], run):
            continue
        if short is None and name != "features":
            load(run)
            short = run.changed(preset=quick(run.preset))
        left = until - time.monotonic()
        if left <= 0:
            print(f"{run.preset.name}: time is up before {name}; the same command goes on from here")
            break
        if lacking := failed & set(stages[name].needs):
            print(f"{run.preset.name}: {name} would need {', '.join(sorted(lacking))}")
            failed.add(name)
            continue
        measured = name in todo
        # Half of the time for steps: saving and judging take theirs, too.
        entry = _attempt(name, stages, run, short or run, left / (2 * len(todo)) if measured else 0.0)
        if entry is None:
            failed.add(name)
        elif measured:
            results.put(*keys[name], entry=entry)
            print(f"{run.preset.name}: {name:<22} {entry['steps']} steps of {entry['step_seconds']:.4g} s", flush=True)
        todo = [other for other in todo if other != name]
    return not failed


def _attempt(name: str, stages: dict[str, Stage], run: Run, short: Run, seconds: float) -> dict[str, Any] | None:
    """Measure one stage, in its `quick` form if it has one; None, and a traceback on the screen, if it fails."""
    brief = build(short.preset)[name]
    try:
        if brief.config == stages[name].config:
            return measure(stages[name], run, seconds)
        entry = measure(brief, short, seconds)
        for generator in run.preset.adaptations:
            if name == f"adaptations_{generator}":
                repeat_draw(short, run, generator)
        return entry
    except Exception:  # whatever it is, the other stages are worth measuring
        traceback.print_exc()
        print(f"{run.preset.name}: {name:<22} FAILED", flush=True)
        return None


def encoding_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float | None:
    """Images a second through the paper's image tower, in batches on the device, with random weights; None
    without timm. Reading photographs from files is not in it."""
    try:
        import timm
    except ImportError:
        return None
    with torch.no_grad():
        model = timm.create_model(_TOWER, num_classes=0).to(device).eval()
        images = torch.randn(_BATCH, 3, *model.patch_embed.img_size, device=device)
        count, began = 0, 0.0
        while count < 2 or time.monotonic() - began < seconds:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                model(images)
            now = settled(device)
            count, began = count + 1, began or now  # the first batch warms up
    return _BATCH * (count - 1) / (now - began)


def table(run: Run, results: Results) -> list[str]:
    """What the stages of a run cost, and what each, and all, would take at the preset's number of steps."""
    preset, known = run.preset, results.document.get("costs", {}).get(run.device.type, {})
    title = f"{preset.name} on {results.mark['device']}"
    lines = [f"{title:<30} {'s a step':>9} {'besides':>8} {'GiB':>6} {'busy':>5} {'steps':>7} {'would take':>11}"]
    estimates = []
    for name, stage in build(preset).items():
        if name == "features" and preset.backbone == STORED:
            continue  # they are carried
        entry = known.get(stage.cost_key(run.dim))
        if entry is None:
            estimates.append(Estimate(None, None, None))
            lines.append(f"  {name:<28} {'?':>9}")
            continue
        seconds = entry["rest_seconds"] + entry["step_seconds"] * stage.steps
        estimates.append(Estimate(seconds, entry["memory"], None))
        busy = "?" if entry["utilisation"] is None else f"{entry['utilisation']:.0%}"
        numbers = f"{entry['step_seconds']:>9.4f} {entry['rest_seconds']:>6.1f} s {entry['memory']:>6.2f} {busy:>5}"
        lines.append(f"  {name:<28} {numbers} {stage.steps or '':>7} {duration(seconds):>11}")
    total = Estimate.total(estimates)
    lines.append(f"  {'all':<28} {'':>9} {'':>8} {total.memory or 0:>6.2f} {'':>5} {'':>7} {total.time_text:>11}")
    return lines
