"""Train everything of a preset: backbone, features, baselines, generators, HyperCLIP, HyperLDM.

Prints its plan, skips what is done and unchanged, resumes what was killed, and ends with a table of what each stage
reached and how long it took. Metrics go to WORK/seed-N/metrics.jsonl, weights to the release directory.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that `python train/run_all.py` works from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import platform
import shutil
import time

import torch

from core.hub import check_token, parse_repo
from train.graph import Records, build, identities, plan
from train.model_card import write_card
from train.push import push_release
from train.run import Run, open_run, parser, release_directory

_EPILOG = """Time for --preset emoji on two CPU cores: see the table in README.md; --plan estimates from earlier runs.
Examples:
  python train/run_all.py --preset emoji --plan      what would be done
  python train/run_all.py --preset emoji --seed 1    another seed, from the shipped backbone
  python train/run_all.py --preset emoji --descriptors 0.5   the column 50% Q. of Table 1
  python train/run_all.py --set question_pooling=eos   one setting changed; other stages are taken from the first run
  python train/run_all.py --preset tiny              every stage in about a minute"""


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _forget(run: Run, records: Records, name: str) -> None:
    """Make a stage run from nothing: its record, its resume state and its work files go."""
    records.put(name, None)
    run.state_path(name).unlink(missing_ok=True)
    if name == "backbone":
        shutil.rmtree(run.work / "backbone", ignore_errors=True)
    if name == "features":
        shutil.rmtree(run.work / "features", ignore_errors=True)
    if name.startswith("adaptations_"):
        for folder in (run.scratch / "adaptations").glob(f"{name.removeprefix('adaptations_')}-*"):
            shutil.rmtree(folder)


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__, _EPILOG)
    arguments.add_argument("--stages", nargs="+", metavar="STAGE", help="only these (and the work files they need)")
    arguments.add_argument(
        "--from-scratch", action="store_true", help="forget all results, the shipped backbone included"
    )
    arguments.add_argument("--retrain", action="store_true", help="forget all results but the backbone")
    arguments.add_argument("--plan", action="store_true", help="print the plan and stop")
    arguments.add_argument("--push-to-hub", metavar="USER/REPO[@BRANCH]", help="upload the release at the end")
    args = arguments.parse_args(argv)
    if args.push_to_hub:
        try:
            repo, revision = parse_repo(args.push_to_hub)
            if not args.plan:
                check_token()  # now, and not after hours of training
        except ValueError as error:
            arguments.error(f"--push-to-hub: {error}")
    try:
        run = open_run(args)
    except ValueError as error:
        arguments.error(str(error))
    stages = build(run.preset)
    unknown = sorted(set(args.stages or ()) - set(stages))
    if unknown:
        arguments.error(f"--stages {unknown[0]!r}; allowed: {', '.join(stages)}")
    records = Records(run, stages)
    wanted = list(args.stages or stages)
    if args.from_scratch or args.retrain:
        for name in wanted:
            if args.from_scratch or name not in ("backbone", "features"):
                _forget(run, records, name)
    identity = identities(run, stages)
    if run.variant and not args.plan:
        for name in records.inherit(release_directory(run.preset.name, run.seed, "", run.work), identity):
            print(f"{name}: the same as in the preset's own run, taken from there")
    todo = plan(stages, lambda name: records.is_done(name, identity[name]), wanted)
    for name in todo:
        lacking = [n for n in stages[name].needs if n not in todo and not records.is_done(n, identity[n])]
        if lacking:
            arguments.error(f"stage {name!r} needs {lacking[0]!r}, which is not done; add it to --stages")

    print(f"preset {run.preset.name}, seed {run.seed}, {run.device}; weights to {run.output}, work files in {run.work}")
    for name in stages:
        before = (records.get(name) or {}).get("seconds")
        if name not in todo:
            state = "done" if records.is_done(name, identity[name]) else "not needed"
        elif run.state_path(name).is_file():
            state = "resume"
        else:
            state = "run"
        print(f"  {state:<10} {name:<22} {'took ' + _duration(before) if before is not None else ''}")
    if args.plan:
        return

    expected = {name: (records.get(name) or {}).get("seconds") for name in todo}
    started = time.time()
    for i, name in enumerate(todo):
        left = [expected[n] for n in todo[i:]]
        estimate = _duration(sum(x for x in left if x is not None)) + (" and more" if None in left else "")
        print(
            f"[{i + 1}/{len(todo)}] {name}; left: {estimate if any(x is not None for x in left) else 'unknown'}",
            flush=True,
        )
        if name == "features" and (records.get(name) or {}).get("identity") not in (None, identity[name]):
            _forget(run, records, name)  # encoded by another backbone
        begun = time.time()
        metrics = stages[name].run(run)
        seconds = time.time() - begun
        for metric, value in metrics.items():
            run.log(name, metric, value)
        records.put(
            name,
            {
                "identity": identity[name],
                "seconds": round(seconds, 1),
                "metrics": {k: round(float(v), 5) for k, v in metrics.items()},
                "device": str(run.device),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        )
        run.state_path(name).unlink(missing_ok=True)

    if todo:
        write_card(run, {name: record for name in stages if (record := records.get(name))})
    print(f"\n{'stage':<22} {'time':>9}  what it reached")
    for name in stages:
        record = records.get(name)
        if record:
            reached = ", ".join(f"{metric} {value:.3f}" for metric, value in record["metrics"].items())
            print(f"{name:<22} {_duration(record['seconds']):>9}  {reached}")
    print(f"{len(todo)} stages run in {_duration(time.time() - started)}; {len(stages) - len(todo)} done or not needed")
    if args.push_to_hub:
        try:
            print(f"pushed to {push_release(run.output, repo, revision)}")
        except ValueError as error:
            again = f"python train/push.py --weights {run.output} --repo {args.push_to_hub}"
            sys.exit(f"the weights are in {run.output}, but not on the Hub: {error}\nOnce that is mended: {again}")


if __name__ == "__main__":
    main()
