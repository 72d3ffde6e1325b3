"""Train everything of a preset: backbone, features, baselines, generators, HyperCLIP, HyperLDM.

Prints its plan, skips what is done and unchanged, resumes what was killed, and ends with a table of what each stage
reached, how long it took and the most memory it held. Metrics go to WORK/seed-N/metrics.jsonl, weights to the release
directory. Under `accelerate launch` processes share every batch of tasks.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import argparse
import contextlib
import math
import platform
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from core.ending import in_one_line
from train.pipeline.environment import peak, reset_peak
from train.pipeline.flags import open_run, parser, release_directory
from train.pipeline.graph import CHOICES, build, downstream, identities, needed, plan, resolved, stages_of
from train.pipeline.model_card import write_card
from train.pipeline.plan import Estimate, duration, estimates
from train.pipeline.records import Records
from train.pipeline.run import Run
from train.pipeline.stage import Stage
from train.push import push_release

_EPILOG = """Time for --preset emoji: see the table of stages in train/README.md; --plan estimates from measured costs.
Examples:
  python train/run_all.py --preset emoji --plan      what would be done
  python train/run_all.py --preset emoji --seed 1    another seed, from the shipped backbone
  python train/run_all.py --preset emoji --descriptors 0.5   the column 50% Q. of Table 1
  python train/run_all.py --set question_encoder=clip  one setting changed; other stages are taken from the first run
  python train/run_all.py --preset photos --data data/mine --start weights/photos --steps-share 0.05   few questions
  python train/run_all.py --preset tiny              every stage in about a minute
  python train/run_all.py --preset metavqa --seeds 0 1 2 --rows hvae_hyperldm   three runs, of what one row needs
  accelerate launch --num_processes 8 train/run_all.py --preset metavqa   eight GPUs, one run"""


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__, _EPILOG)
    arguments.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="one run after the other, by seed")
    arguments.add_argument("--rows", nargs="+", metavar="ROW", help="only what these rows of the result tables need")
    arguments.add_argument("--stages", nargs="+", metavar="STAGE", help="only these (and the work files they need)")
    arguments.add_argument(
        "--from-scratch", action="store_true", help="forget all results, the shipped backbone included"
    )
    arguments.add_argument("--retrain", action="store_true", help="forget all results but the backbone")
    arguments.add_argument("--plan", action="store_true", help="print the plan, with time, memory and disk, and stop")
    arguments.add_argument("--push-to-hub", metavar="USER/REPO[@BRANCH]", help="upload the release at the end")
    args = arguments.parse_args(argv)
    if args.push_to_hub:
        from core.release.hub import check_token, parse_repo

        try:
            parse_repo(args.push_to_hub)
            if not args.plan:
                check_token()  # now, and not after hours of training
        except ValueError as error:
            arguments.error(f"--push-to-hub: {error}")
    if args.seeds and len(args.seeds) > 1 and (args.output or args.push_to_hub):
        arguments.error("--output and --push-to-hub are for one seed")
    if args.rows and args.stages:
        arguments.error("--rows or --stages, not both")
    processes = None
    for seed in args.seeds or [args.seed]:
        args.seed = seed
        try:
            run = open_run(args, processes)
            stages = build(run.preset)
            wanted = stages_of(args.rows, stages) if args.rows else list(args.stages or stages)
        except ValueError as error:
            arguments.error(str(error))
        unknown = sorted(set(wanted) - set(stages))
        if unknown:
            arguments.error(f"--stages {unknown[0]!r}; allowed: {', '.join(stages)}")
        processes = run.processes
        _one_run(run, stages, wanted, args, arguments)
        if args.from_scratch:  # backbone and features have no seed: once
            args.from_scratch, args.retrain = False, True
    if args.push_to_hub and processes.is_main and not args.plan:
        _push(run.output, args.push_to_hub)
    processes.close()


def _one_run(
    run: Run, stages: dict[str, Stage], wanted: list[str], args: argparse.Namespace, arguments: argparse.ArgumentParser
) -> None:
    """Plan and run one seed."""
    main_process = run.processes.is_main
    records = Records(run, stages)
    again: list[str] = []
    if args.from_scratch or args.retrain:
        again = [name for name in wanted if args.from_scratch or name not in ("backbone", "features")]
        again = downstream(stages, again)  # what was trained on their old outputs is done no more
        later = [name for name in again if name not in wanted]
        if later and main_process:
            print(f"to be trained anew after this, by a run without --stages or --rows: {', '.join(later)}")
    identity = identities(run, stages)
    if main_process and run.variant and not args.plan:
        names = set(wanted) | needed(stages, set(wanted) - {CHOICES})
        for name in records.inherit(release_directory(run.preset.name, run.seed, "", run.work), identity, names):
            print(f"{name}: the same as in the preset's own run, taken from there")
    run.processes.wait()  # all see the same stages done

    def done(name: str) -> bool:
        return name not in again and records.is_done(name, identity[name])

    stages = resolved(stages, lambda name: name in wanted or done(name))
    records, identity = Records(run, stages), identities(run, stages)
    run.identities.update(identity)
    todo = plan(stages, done, wanted, args.stages or ())
    for name in todo:
        lacking = [n for n in stages[name].needs if n not in todo and not done(n)]
        if lacking:
            arguments.error(f"stage {name!r} needs {lacking[0]!r}, which is not done; add it to --stages")

    if todo and not args.plan:
        run.check_folders()

    costs = estimates(run, stages)
    for name in stages:  # without measured costs, what it took before
        if costs[name].seconds is None and (record := records.get(name)):
            costs[name] = replace(costs[name], seconds=record["seconds"])
    if main_process:
        _print_plan(run, stages, records, done, todo, costs)
    run.processes.wait()  # all have planned before anything changes
    if args.plan:
        return
    if main_process:
        for name in again:
            records.forget(name)
    run.processes.wait()

    started = time.time()
    for i, name in enumerate(todo):
        if main_process:
            left = [costs[n].seconds for n in todo[i:]]
            known = duration(sum(x for x in left if x is not None)) + (" and more" if None in left else "")
            print(f"[{i + 1}/{len(todo)}] {name}; left: {known if any(left) else 'unknown'}", flush=True)
            if name == "features" and (record := records.get(name)) and not records.fits(name, record, identity[name]):
                records.forget(name)  # encoded by another backbone
        with records.alone_at(name) if main_process else contextlib.nullcontext():
            if main_process and name == CHOICES:
                for stale, folder in records.set_aside(identity):
                    print(f"{stale}: of other data or settings, so out of the release; moved to {folder}", flush=True)
            run.processes.wait()
            if not records.is_done(name, identity[name]):  # by a run that was at it just now
                if main_process:
                    records.begin(name)
                if main_process or stages[name].shared:
                    record = _run_stage(run, stages[name])
                if main_process:
                    for metric, value in record["metrics"].items():
                        run.log(name, metric, value)
                    records.put(name, {"identity": identity[name], **record})
                    records.forget_state(name)
            run.processes.wait()

    if not main_process:
        return
    found = {name: records.get(name) for name in stages}
    made = {name: record for name, record in found.items() if records.fits(name, record, identity[name])}
    if todo and any(stages[name].release and stages[name].seeded for name in made):
        write_card(run, made)
    print(f"\n{'stage':<22} {'time':>9} {'memory':>9}  what it reached")
    for name, record in made.items():
        reached = ", ".join(f"{metric} {value:.3f}" for metric, value in record["metrics"].items())
        memory = f"{record['memory']:.2f} GiB" if "memory" in record else ""
        print(f"{name:<22} {duration(record['seconds']):>9} {memory:>9}  {reached}")
    print(f"{len(todo)} stages run in {duration(time.time() - started)}; {len(stages) - len(todo)} done or not needed")


def _run_stage(run: Run, stage: Stage) -> dict:
    """Run it and say what it reached, how long it took and what memory it held."""
    reset_peak(run.device)
    begun = time.time()
    try:
        metrics = stage.run(run)
    except torch.linalg.LinAlgError as error:
        raise ValueError(f"{stage.name}: {error}; nothing is recorded as done") from error
    for metric, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"{stage.name}: {metric} is {value}; nothing is recorded as done")
    steps, loop = run.loops.get(stage.name, (0, 0.0))
    return {
        "cost": stage.cost_key(run.dim),
        "seconds": round(time.time() - begun, 1),
        **({"steps": steps, "step_seconds": round(loop / steps, 6)} if steps else {}),
        **peak(run.device),
        "metrics": {k: round(float(v), 5) for k, v in metrics.items()},
        "device": str(run.device),
        "processes": run.processes.count,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _print_plan(
    run: Run,
    stages: dict[str, Stage],
    records: Records,
    done: Callable[[str], bool],
    todo: list[str],
    costs: dict[str, Estimate],
) -> None:
    """What will be done, with the estimate of every stage: time, peak memory and what it adds to the disk."""
    print(f"preset {run.preset.name}, seed {run.seed}, {run.device}; weights to {run.output}, work files in {run.work}")
    print(f"  {'':<10} {'stage':<22} {'before':>9} {'estimate':>9} {'memory':>9} {'disk':>9}")
    for name in stages:
        before = (records.get(name) or {}).get("seconds")
        if name not in todo:
            state = "done" if done(name) else "not needed"
        elif run.state_path(name).is_file():
            state = "resume"
        else:
            state = "run"
        print(
            f"  {state:<10} {name:<22} {'' if before is None else duration(before):>9} "
            f"{duration(costs[name].seconds):>9} {costs[name].memory_text:>9} {costs[name].disk_text:>9}"
        )
    total = Estimate.total([costs[name] for name in todo])
    if todo:
        print(f"  {'total':<10} {'':<22} {'':>9} {total.time_text:>9} {total.memory_text:>9} {total.disk_text:>9}")


def _push(release: Path, target: str) -> None:
    from core.release.hub import parse_repo

    try:
        print(f"pushed to {push_release(release, *parse_repo(target))}")
    except ValueError as error:
        again = f"python train/push.py --weights {release} --repo {target}"
        sys.exit(f"the weights are in {release}, but not on the Hub: {error}\nOnce that is mended: {again}")


if __name__ == "__main__":
    main()
