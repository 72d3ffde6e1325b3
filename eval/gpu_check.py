"""Check training on a GPU, and measure what it costs there: one command, some minutes, on a machine without a network.

Needs torch, safetensors, numpy, tqdm and filelock, no encoder and no pictures: features are carried. In order:

1. `tiny`, every stage on the CPU and on the GPU from the same inputs: losses, metrics and weights are compared, once in
   float32 throughout, and once as training computes there (TF32, bfloat16);
2. `emoji`, every stage, as many steps as fit: seconds a step, seconds besides, peak memory, how busy the GPU was;
3. `metavqa_sim`, the paper's sizes and schedules, likewise: from these what the whole paper takes on this GPU.

Everything goes to --json at once, where `train/run_all.py --plan` finds it. What the file has already for this code and
this GPU is not done again, so that a check that was killed, or ran out of time, goes on where it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import argparse
import shlex
import time
import traceback
from typing import Any

import torch

from core.console import Parser
from eval.harness.carried import folder_mib, load, on_stored_features, open_work, pack, unpack
from eval.harness.gpu import Results, encoding_rate, has_outputs, measure_all, table
from eval.harness.parity import compare
from train.pipeline.environment import default_device, usable_device
from train.pipeline.graph import build, needed
from train.pipeline.plan import GPU_COSTS, duration
from train.pipeline.run import Run
from train.presets import get_preset

COMPARED, EMOJI, PAPER = "tiny", "emoji", "metavqa_sim"
CARRIED = (COMPARED, EMOJI)
_EMOJI_SHARE = 0.3  # of the time that `tiny` leaves
_PHOTOGRAPHS = 64_665  # of Meta-VQA
_MAX_MIB = 64.0  # what one may have to carry in one go

_EPILOG = """Examples:
  python eval/gpu_check.py --pack carried                    where the encoder is, some minutes: 41 MiB
  python eval/gpu_check.py --minutes 8                       where the GPU is; again, to go on
  python eval/gpu_check.py --features carried --parts tiny --device cpu --json c.json    a trial without one"""


def main(argv: list[str] | None = None) -> None:
    arguments = Parser(description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=8.0, help="time for everything (default: 8)")
    arguments.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        default=Path("carried"),
        help="what --pack wrote, for tiny and emoji (default: %(default)s)",
    )
    arguments.add_argument("--pack", type=Path, metavar="DIR", help="write what is to be carried there, and stop")
    arguments.add_argument(
        "--parts", nargs="+", choices=(*CARRIED, PAPER), default=[*CARRIED, PAPER], help="default: all"
    )
    arguments.add_argument("--again", action="store_true", help="also what --json has for this code and this device")
    arguments.add_argument("--device", default=default_device(), help="torch device (default: %(default)s)")
    arguments.add_argument("--work", type=Path, default=Path("runs/gpu_check"), help="work files, up to 20 GB")
    arguments.add_argument("--json", type=Path, default=GPU_COSTS, help="results (default: eval/results/gpu.json)")
    args = arguments.parse_args(argv)
    try:
        if args.pack:
            _pack(args.pack, usable_device(args.device))
            return
        device = usable_device(args.device)
        if args.minutes <= 0:
            raise ValueError(f"--minutes {args.minutes}; allowed: more than 0")
        if device.type != "cuda" and args.json == GPU_COSTS:
            raise ValueError(f"--device {device}: {GPU_COSTS.name} is what a GPU does; name another file with --json")
        words = sys.argv[1:] if argv is None else argv
        results = Results(args.json, device, shlex.join(["python", "eval/gpu_check.py", *words]), args.again)
        good = check(args.parts, args.features, args.work, device, results, 60 * args.minutes)
    except ValueError as error:
        arguments.error(str(error))
    if not good:
        sys.exit("something failed, or differs from the CPU: see above")


def _pack(target: Path, device: torch.device) -> None:
    for name in CARRIED:
        print(pack(get_preset(name), target / name, device), flush=True)
    size = folder_mib(target)
    print(f"{size:.1f} MiB in {target}" + ("" if size <= _MAX_MIB else f", more than {_MAX_MIB:g}"))


def check(
    parts: list[str], features: Path | None, work: Path, device: torch.device, results: Results, seconds: float
) -> bool:
    """All parts, one after the other, in so many seconds; returns whether nothing failed and nothing differed."""
    began, good = time.monotonic(), True
    end, work = began + seconds, work / f"{results.mark['code']}-{device.type}"
    print(f"{results.mark['device']}, code {results.mark['code']}; results to {results.path}, work files in {work}")
    if COMPARED in parts:
        preset = on_stored_features(get_preset(COMPARED))
        runs = [open_work(preset, work / f"{COMPARED}-{i}", d) for i, d in enumerate((torch.device("cpu"), device))]
        for run in runs:
            unpack(features / COMPARED, run.work)
        good &= compare_all(*runs, results, end)
    for part in (part for part in (EMOJI, PAPER) if part in parts):
        run = open_work(get_preset(part), work / part, device)
        share = 1.0
        if part == EMOJI:
            run = run.changed(preset=on_stored_features(run.preset))
            unpack(features / EMOJI, run.work)
            share = _EMOJI_SHARE if PAPER in parts else 1.0
        now = time.monotonic()
        good &= measure_all(run, results, now + share * (end - now))
        print("\n".join(table(run, results)), flush=True)
    if PAPER in parts:
        _encoding(results, device, end)
    print(f"{duration(time.monotonic() - began)} of {duration(seconds)}")
    return good


def compare_all(cpu: Run, other: Run, results: Results, until: float) -> bool:
    """Every stage on the CPU and on another device, as far as time allows; returns whether all that were agree."""
    stages = build(cpu.preset)
    del stages["features"]  # they are carried
    todo = [name for name in stages if not results.get("comparisons", name)]
    wanted = set(todo) | needed(stages, todo)
    for name in (name for name in stages if name in wanted):
        stage = stages[name]
        if name not in todo and has_outputs(stage, cpu):
            continue
        if time.monotonic() >= until:
            print(f"{cpu.preset.name}: time is up before {name}; the same command goes on from here")
            break
        for run in (cpu, other):
            load(run)
        if name not in todo:
            stage.run(cpu)  # for those that follow
            continue
        try:
            known = compare(stage, cpu, other)
        except Exception as error:  # whatever it is, the other stages are worth comparing
            traceback.print_exc()
            known = {"agrees": False, "error": f"{type(error).__name__}: {error}"}
        results.put("comparisons", name, entry=known)
        print(f"{cpu.preset.name}: {name:<22} {in_words(known)}", flush=True)
    return all(entry["agrees"] for name in stages if (entry := results.get("comparisons", name)))


def in_words(comparison: dict[str, Any]) -> str:
    """One line about a comparison: the worst difference of each kind, and what is allowed."""
    if "error" in comparison:
        return f"FAILED: {comparison['error']}"
    parts = [
        f"{how}: "
        + ", ".join(
            f"{kind} {found['difference']:.0e} ({found['allowed']:.0e})"
            for kind in ("losses", "tensors", "metrics")
            if (found := comparison[how]["differences"].get(kind))
        )
        for how in ("exact", "mixed")
        if how in comparison
    ]
    return f"{'agrees' if comparison['agrees'] else 'DIFFERS'}; {'; '.join(parts)}"


def _encoding(results: Results, device: torch.device, until: float) -> None:
    """What encoding the paper's photographs takes besides, without reading them; measured on a GPU alone."""
    for name, dtype in (("float32", torch.float32), ("float16", torch.float16)):
        rate = results.get("encoding", name)
        if rate is None and device.type == "cuda" and time.monotonic() < until:
            rate = encoding_rate(device, dtype, 5.0)
            results.put("encoding", name, entry={"images_per_second": rate})
        rate = (results.get("encoding", name) or {}).get("images_per_second")
        took = duration(None if rate is None else _PHOTOGRAPHS / rate)
        print(f"  its {_PHOTOGRAPHS:,} photographs through the image tower in {name}: {took}")


if __name__ == "__main__":
    main()
