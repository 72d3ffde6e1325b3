"""Choose learning rates, step counts and what else a row depends on, on validation tasks, with one budget for all rows.

Every row gets the five settings of `GRIDS`; each is trained by run_all into a release
of its own (WORK/seed-N/weights-HASH) and judged by its zero-shot accuracy on the validation tasks. What a row shares
with the preset's own run is taken from there, so that one must be complete. Test tasks are never touched. Writes every
setting tried to --json; what is there already is not run again. About four hours in all on one CPU thread.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import argparse
import json
from collections.abc import Sequence
from typing import Any

from core.ending import in_one_line
from core.files import write_json
from core.generator import AdapterGenerator
from core.methods import method_of
from train import run_all
from train.choices.options import guidance_options
from train.choose import draft_release
from train.pipeline.environment import commit
from train.pipeline.flags import open_run, parser
from train.pipeline.graph import CHOICES, build, identities, stages_of
from train.pipeline.run import Run

CLEARLY = 0.005  # 87 validation tasks tell no less apart

# Settings to try, five a row. Those of rows without a question were searched from the first on, and the preset holds
# what `chosen` says of them. Rows that read a question start from what they share, and are searched anew.
GRIDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "uncond_multitask": (
        ("multitask.uncond_multitask.lr=3e-3",),
        ("multitask.uncond_multitask.lr=1e-3",),
        ("multitask.uncond_multitask.lr=1e-2",),
        ("multitask.uncond_multitask.lr=3e-3", "multitask.uncond_multitask.steps=6000"),
        ("multitask.uncond_multitask.lr=3e-2",),
    ),
    "cond_multitask": (
        ("cond_hnet.cond_multitask.whitening=0.1",),
        ("cond_hnet.cond_multitask.whitening=0.1", "multitask.cond_multitask.lr=1e-3"),
        ("cond_hnet.cond_multitask.whitening=0.1", "cond_hnet.cond_multitask.cond_noise=0.5"),
        (
            "cond_hnet.cond_multitask.whitening=0.1",
            "multitask.cond_multitask.ema=0.999",
            "multitask.cond_multitask.weight_decay=0.01",
        ),
        ("cond_hnet.cond_multitask.whitening=1e-2",),
    ),
    "cond_multitask_film": (
        ("film.whitening=0.1",),
        ("multitask.cond_multitask_film.lr=1e-3",),
        ("film.cond_noise=0.5",),
        ("multitask.cond_multitask_film.ema=0.999", "multitask.cond_multitask_film.weight_decay=0.01"),
        ("film.whitening=1e-2",),
    ),
    "cond_bottleneck": (
        ("multitask.cond_bottleneck.steps=2500",),
        ("multitask.cond_bottleneck.steps=1250",),
        ("multitask.cond_bottleneck.lr=1e-3",),
        ("multitask.cond_bottleneck.steps=1250", "multitask.cond_bottleneck.lr=1e-3"),
        ("multitask.cond_bottleneck.weight_decay=1.0",),
    ),
    "mnet_maml": (
        ("maml.mnet_maml.lr=2e-3",),
        ("maml.mnet_maml.lr=2e-3", "maml.mnet_maml.inner_lr=0.3"),
        ("maml.mnet_maml.lr=6e-3",),
        ("maml.mnet_maml.lr=2e-3", "maml.mnet_maml.steps=1800"),
        ("maml.mnet_maml.lr=2e-2",),
    ),
    "mnet_fomaml": (
        ("maml.mnet_fomaml.lr=2e-3",),
        ("maml.mnet_fomaml.lr=2e-3", "maml.mnet_fomaml.inner_lr=0.3"),
        ("maml.mnet_fomaml.lr=6e-3",),
        ("maml.mnet_fomaml.lr=2e-3", "maml.mnet_fomaml.steps=1800"),
        ("maml.mnet_fomaml.lr=2e-2",),
    ),
    "hnet_maml": (
        ("maml.hnet_maml.steps=250",),
        ("maml.hnet_maml.steps=250", "maml.hnet_maml.inner_lr=0.3"),
        ("maml.hnet_maml.steps=250", "maml.hnet_maml.lr=3e-3"),
        ("maml.hnet_maml.steps=750",),
        ("maml.hnet_maml.steps=250", "maml.hnet_maml.lr=3e-4"),
    ),
    "cond_hnet_maml": (
        ("cond_hnet.cond_hnet_maml.whitening=0.1",),
        ("maml.cond_hnet_maml.ema=0.99", "maml.cond_hnet_maml.weight_decay=0.01"),
        ("maml.cond_hnet_maml.lr=3e-3",),
        ("maml.cond_hnet_maml.steps=800",),
        ("cond_hnet.cond_hnet_maml.whitening=1e-2",),
    ),
    "latent_regression": (
        ("regression.lr=1e-3",),
        ("regression.lr=1e-3", "regression.steps=500"),
        ("regression.lr=1e-3", "regression.steps=2000"),
        ("regression.lr=3e-4",),
        ("regression.lr=3e-3",),
    ),
    "kernel_ridge": (
        ("kernel_ridge.whitening=0.1",),
        ("kernel_ridge.whitening=0.01",),
        ("kernel_ridge.whitening=0.03",),
        ("kernel_ridge.whitening=0.3",),
        ("kernel_ridge.whitening=1.0",),
    ),
    "hvae_hyperclip": (
        ("hyperclip.hvae.whitening=0.1",),
        ("hyperclip.hvae.whitening=0.1", "hyperclip_training.hvae.lr=1e-3"),
        ("hyperclip.hvae.whitening=0.1", "hyperclip.hvae.cond_noise=0.5"),
        ("hyperclip.hvae.whitening=0.1", "hyperclip_training.hvae.steps=4500"),
        ("hyperclip.hvae.whitening=1e-2",),
    ),
    "hnet_hyperclip": (
        ("hyperclip.hnet.whitening=0.1",),
        ("hyperclip.hnet.whitening=0.1", "hyperclip_training.hnet.lr=1e-3"),
        ("hyperclip.hnet.whitening=0.1", "hyperclip.hnet.cond_noise=0.5"),
        ("hyperclip.hnet.whitening=0.1", "hyperclip_training.hnet.steps=4500"),
        ("hyperclip.hnet.whitening=1e-2",),
    ),
    "hvae_hyperldm": (
        ("hyperldm.whitening=0.1",),
        ("diffusion.steps=3000",),
        ("hyperldm.cond_noise=0.5",),
        ("hyperldm.cond_noise=1.5",),
        ("hyperldm.whitening=1e-2",),
    ),
    "hnet_hyperldm": (
        ("hyperldm.whitening=0.1",),
        ("diffusion.steps=3000",),
        ("hyperldm.cond_noise=0.5",),
        ("hyperldm.cond_noise=1.5",),
        ("hyperldm.whitening=1e-2",),
    ),
}


def chosen(tried: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The record to adopt among those of one row, the search's start first."""
    best = max(tried, key=lambda record: record["val_accuracy"])
    return best if best["val_accuracy"] >= tried[0]["val_accuracy"] + CLEARLY else tried[0]


def chosen_release(run: Run, row: str) -> tuple[AdapterGenerator, float]:
    """The release that a run wrote, ready to give a row's weights, and the row's accuracy on validation tasks.

    What `train/choose.py` chooses for a whole release is settled here for one row: HyperLDM takes gamma 1 and the most
    samples of the preset, HyperCLIP guidance the best of its grid.
    """
    query, preset = run.val_judged, run.preset
    method, generator = method_of(row)
    options: list[dict[str, Any]] = [{}]
    if method == "hyperldm":
        sampling = preset.sampling
        options = [
            {"sampler": sampling.sampler, "steps": sampling.steps, "gamma": 1.0, "samples": max(sampling.samples)}
        ]
    elif method == "hyperclip":
        options = guidance_options(preset, generator)
    choices: dict[str, dict[str, Any]] = {}
    release = draft_release(run, choices)
    scores = []
    for option in options:
        choices[row] = option
        seeds = range(3 if option else 1)  # of the noise, where there is any
        found = [release.weights(query.question, method, generator=generator, seed=seed) for seed in seeds]
        scores.append(sum(run.accuracy(w, query) for w in found) / len(seeds))
    best = max(range(len(options)), key=lambda i: scores[i])
    choices[row] = options[best]
    return release, scores[best]


def train_setting(args: argparse.Namespace, row: str, setting: Sequence[str]) -> Run:
    """The run of a preset with settings changed, of which a row's stages are trained; the preset's own is taken as it
    is."""
    run = setting_run(args, setting)
    names = [name for name in stages_of([row], build(run.preset)) if name != CHOICES]
    run_all.main([*_flags(args, setting), "--stages", *names])
    return run


def setting_run(args: argparse.Namespace, setting: Sequence[str]) -> Run:
    """The run of a preset with settings changed, as it is."""
    return open_run(parser("").parse_args(_flags(args, setting)))


def _flags(args: argparse.Namespace, setting: Sequence[str]) -> list[str]:
    flags = ["--preset", args.preset, "--seed", str(args.seed), "--device", args.device]
    flags += ["--descriptors", str(args.descriptors)]
    for flag in ("data", "work"):
        if getattr(args, flag):
            flags += [f"--{flag}", str(getattr(args, flag))]
    return flags + (["--set", *setting] if setting else [])


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rows", nargs="+", choices=tuple(GRIDS), default=list(GRIDS), help="default: all")
    arguments.add_argument(
        "--json",
        type=Path,
        default=Path("eval/results/tuning.json"),
        help="where the results go (default: %(default)s)",
    )
    args = arguments.parse_args(argv)
    if args.set or args.output or args.start or args.steps_share != 1.0:
        arguments.error("--set, --output, --start and --steps-share have no place: every setting is trained in full")
    document = json.loads(args.json.read_text(encoding="utf-8")) if args.json.is_file() else {"results": []}
    about = {"preset": args.preset, "seed": args.seed, "descriptors": args.descriptors}
    about["data"] = None if args.data is None else str(args.data)
    for key, default in (("preset", args.preset), ("seed", args.seed), ("descriptors", 1.0), ("data", None)):
        if document["results"] and (held := document.get(key, default)) != about[key]:
            arguments.error(f"--json {args.json} holds tries of {key} {held}; name another file for these")
    own = [f"--preset {args.preset} --seed {args.seed}"]
    own += [f"--descriptors {args.descriptors:g}"] if args.descriptors != 1.0 else []
    own += [f"--data {args.data}"] if args.data else []
    found = {(r["row"], tuple(r["setting"])): r for r in document["results"]}
    for row in args.rows:
        for setting in GRIDS[row]:
            run = setting_run(args, setting)
            identity = identities(run, build(run.preset))[row]
            if found.get((row, setting), {}).get("identity") == identity:
                continue
            run = train_setting(args, row, setting)
            seconds = json.loads((run.output / "stages.json").read_text(encoding="utf-8"))[row]["seconds"]
            found[row, setting] = {
                "row": row,
                "setting": list(setting),
                "identity": identity,
                "val_accuracy": round(chosen_release(run, row)[1], 4),
                "seconds": seconds,
            }
            write_json(
                args.json,
                {
                    "command": " ".join(["python train/tune.py", *own]),
                    "commit": commit(),
                    **about,
                    "results": list(found.values()),
                },
            )
    print(f"{'row':<20} {'val. accuracy':>13}  setting")
    for row in args.rows:
        tried = [found[row, setting] for setting in GRIDS[row]]
        best = chosen(tried)
        for r in tried:
            mark = "<- chosen" if r is best else ""
            print(f"{row:<20} {100 * r['val_accuracy']:>13.2f}  {' '.join(r['setting'])} {mark}")


if __name__ == "__main__":
    main()
