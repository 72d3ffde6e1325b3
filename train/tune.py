"""Choose learning rates, step counts and what else a row depends on, on validation tasks, with one budget for all rows.

Every row gets the preset's own setting and the three others of `GRIDS`; each is trained by run_all into a release of
its own (WORK/seed-N/weights-HASH) and judged by its zero-shot accuracy on the validation tasks. What a row shares with
the preset's own run is taken from there, so that one must be complete. Test tasks are never touched. Writes every
setting tried to --json; what is there already is not run again. About an hour on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that the script runs from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import argparse
import json
from typing import Any

from core.checkpoint import write_json
from core.config import to_dict
from core.generator import AdapterGenerator
from train import run_all
from train.choose import guidance_options
from train.run import Run, commit, open_run, parser

# Settings to try beside the preset's own, three a row.
GRIDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "uncond_multitask": (
        ("multitask.uncond_multitask.lr=1e-3",),
        ("multitask.uncond_multitask.lr=1e-2",),
        ("multitask.uncond_multitask.steps=6000",),
    ),
    "cond_multitask": (
        ("multitask.cond_multitask.lr=1e-3",),
        ("cond_hnet.cond_noise=1.5",),
        ("multitask.cond_multitask.steps=3000", "multitask.cond_multitask.lr=1e-3", "cond_hnet.cond_noise=1.5"),
    ),
    "cond_multitask_film": (
        ("multitask.cond_multitask_film.lr=1e-3",),
        ("film.cond_noise=0.5",),
        ("film.cond_noise=1.5",),
    ),
    "mnet_maml": (
        ("maml.mnet_maml.inner_lr=0.3",),
        ("maml.mnet_maml.lr=6e-3",),
        ("maml.mnet_maml.steps=1800",),
    ),
    "mnet_fomaml": (
        ("maml.mnet_fomaml.inner_lr=0.3",),
        ("maml.mnet_fomaml.lr=6e-3",),
        ("maml.mnet_fomaml.steps=1800",),
    ),
    "hnet_maml": (
        ("maml.hnet_maml.inner_lr=0.3",),
        ("maml.hnet_maml.lr=3e-3",),
        ("maml.hnet_maml.steps=750",),
    ),
    "cond_hnet_maml": (
        ("maml.cond_hnet_maml.inner_lr=0.3",),
        ("maml.cond_hnet_maml.lr=3e-3",),
        ("maml.cond_hnet_maml.steps=1200",),
    ),
    "hvae_hyperclip": (
        ("hyperclip_training.lr=1e-3",),
        ("hyperclip.cond_noise=0.5",),
        ("hyperclip_training.steps=4500",),
    ),
    "hnet_hyperclip": (
        ("hyperclip_training.lr=1e-3",),
        ("hyperclip.cond_noise=0.5",),
        ("hyperclip_training.steps=4500",),
    ),
    "hvae_hyperldm": (
        ("diffusion.steps=3000",),
        ("hyperldm.cond_noise=1.0",),
        ("hyperldm.cond_noise=2.0",),
    ),
    "hnet_hyperldm": (
        ("diffusion.steps=3000",),
        ("hyperldm.cond_noise=1.0",),
        ("hyperldm.cond_noise=2.0",),
    ),
}
_STAGES = {
    "hvae_hyperclip": "hyperclip_hvae",
    "hnet_hyperclip": "hyperclip_hnet",
}  # elsewhere row and stage are namesakes


def validation_accuracy(run: Run, row: str) -> float:
    """Zero-shot accuracy of a row's release on validation tasks: as Table 1 has it, but for what `train/choose.py`
    chooses later, which is fixed here (HyperLDM: gamma 1, the most samples) or the best of its grid (guidance)."""
    query, preset = run.val_query, run.preset
    draft: dict[str, Any] = {"adapter": to_dict(preset.adapter), "question_pooling": preset.question_pooling}

    def score(
        method: str, generator: str = "hvae", choice: dict[str, Any] | None = None, seeds: int = 1, **how
    ) -> float:
        release = AdapterGenerator(run.output, {**draft, "choices": {row: choice or {}}}, run.device)
        found = [release.weights(query.question, method, generator=generator, seed=s, **how) for s in range(seeds)]
        return sum(run.accuracy(w, query) for w in found) / seeds

    name, _, method = row.partition("_")
    if method == "hyperldm":
        sampling = {"sampler": preset.sampling.sampler, "steps": preset.sampling.steps}
        return score(method, name, sampling, seeds=3, gamma=1.0, samples=max(preset.sampling.samples))
    if method == "hyperclip":
        return max(score(method, name, option, seeds=3) for option in guidance_options(preset, name))
    return score(row)


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
    document = json.loads(args.json.read_text()) if args.json.is_file() else {"results": []}
    found = {(r["row"], tuple(r["setting"])): r for r in document["results"]}
    for row in args.rows:
        for setting in ((), *GRIDS[row]):
            if (row, setting) in found:
                continue
            flags = _flags(args, setting)
            if setting:
                run_all.main([*flags, "--stages", _STAGES.get(row, row)])
            run = open_run(parser("").parse_args(flags))
            record = json.loads((run.output / "stages.json").read_text())[_STAGES.get(row, row)]
            found[row, setting] = {
                "row": row,
                "setting": list(setting),
                "val_accuracy": round(validation_accuracy(run, row), 4),
                "seconds": record["seconds"],
            }
            write_json(
                args.json,
                {
                    "command": f"python train/tune.py --preset {args.preset} --seed {args.seed}",
                    "commit": commit(),
                    "preset": args.preset,
                    "seed": args.seed,
                    "results": list(found.values()),
                },
            )
    print(f"{'row':<20} {'val. accuracy':>13}  setting")
    for row in args.rows:
        tried = [found[row, setting] for setting in ((), *GRIDS[row])]
        best = max(tried, key=lambda r: r["val_accuracy"])
        for r in tried:
            mark = "<- best" if r is best else ""
            print(f"{row:<20} {100 * r['val_accuracy']:>13.2f}  {' '.join(r['setting']) or 'the preset'} {mark}")


def _flags(args: argparse.Namespace, setting: tuple[str, ...]) -> list[str]:
    """The flags of one setting's run, for run_all and for `open_run`."""
    flags = ["--preset", args.preset, "--seed", str(args.seed), "--device", args.device]
    if args.work:
        flags += ["--work", str(args.work)]
    return [*flags, "--set", *args.set, *setting] if args.set or setting else flags


if __name__ == "__main__":
    main()
