"""The flags that all training scripts have, and the run that they describe."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.backbones import KINDS
from core.config import config_hash, override
from core.console import Parser
from core.data.meta_vqa import MetaVQAConfig
from core.release.default import located, shipped_release
from core.release.manifest import read_config, verify, weight_files
from train.presets import PRESET_NAMES, get_preset, shortened

from . import graph
from .environment import default_device, usable_device
from .processes import Processes
from .records import is_made_by_a_run
from .run import Run
from .settings import Preset
from .start import Start, digests


def parser(doc: str, epilog: str = "") -> argparse.ArgumentParser:
    """The flags that all stage scripts have."""
    result = Parser(description=doc, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--preset", default="emoji", choices=PRESET_NAMES, help="sizes and schedules (default: emoji)")
    result.add_argument(
        "--data", type=Path, metavar="DIR", help="a dataset built by train/make_data.py, instead of the preset's own"
    )
    result.add_argument(
        "--start",
        type=Path,
        metavar="DIR",
        help="a release whose models this run's begin from, with its base network, questions and backbone; what it "
        "lacks begins afresh. For few questions of one's own; --steps-share 0.05 is enough then",
    )
    result.add_argument(
        "--seed", type=int, default=0, help="seed of training; a dataset and a backbone keep their own (default: 0)"
    )
    result.add_argument(
        "--descriptors", type=float, default=1.0, help="share of training tasks whose question is known (default: 1)"
    )
    result.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change settings of the preset, as named in train/presets.py: --set hvae_training.steps=300",
    )
    result.add_argument(
        "--steps-share",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="make only this share of the training steps of all baselines and generators, to try a run out; a backbone "
        "and the fine-tuned weights that generators learn from take all of theirs (default: 1)",
    )
    result.add_argument("--device", default=default_device(), help="torch device (default: %(default)s)")
    result.add_argument(
        "--output",
        type=Path,
        help="release files (default: weights/PRESET for seed 0 of what is shipped, else under --work)",
    )
    result.add_argument("--work", type=Path, help="work files: features, resume states, metrics (default: runs/PRESET)")
    return result


def release_directory(preset: str, seed: int, variant: str, work: Path) -> Path:
    """Where a run's release goes unless --output says otherwise. The shipped one lies beside the code, wherever one
    stands."""
    shipped = shipped_release(preset)
    if seed == 0 and not variant and shipped is not None:
        return shipped
    return work / f"seed-{seed}" / f"weights{variant}"


_FLAGS = {"name": "--preset", "descriptors": "--descriptors"}  # settings of a preset that have flags of their own


def variant(changed: str, descriptors: float, start: Start | None = None) -> str:
    """What is added to the names of a run's folders: for changed settings, a start, and a share of descriptors below
    1."""
    begun = "" if start is None else f"-from-{start.name}"
    return changed + begun + (f"-{100 * descriptors:g}" if descriptors < 1.0 else "")


def open_run(args: argparse.Namespace, processes: Processes | None = None, makes_backbone: bool = False) -> Run:
    """The run that parsed flags describe; a ValueError for a bad setting, a device that does not exist, or a start that
    does not fit. `processes` are those of another run in this process, if there was one. A backbone that is there
    already, and that no run made, is taken as it is, unless the caller is the script that `makes_backbone`."""
    if not 0.0 < args.descriptors <= 1.0:
        raise ValueError(f"--descriptors {args.descriptors}; allowed: more than 0, up to 1")
    for change in args.set:
        if (flag := _FLAGS.get(change.partition("=")[0])) is not None:
            raise ValueError(f"--set {change}: {flag} says that")
    origin = origin_of(args.preset, args.data, args.steps_share, args.set, args.start)
    base, preset = preset_of(origin_of(args.preset, args.data, 1.0, [])), preset_of(origin)
    changed = "" if preset == base else f"-{config_hash(preset)[:8]}"
    preset = replace(preset, descriptors=args.descriptors)
    start = None if args.start is None else open_start(preset, located(args.start))
    suffix = variant(changed, args.descriptors, start)
    work = args.work or Path("runs") / preset.name
    if preset.backbone != base.backbone and not makes_backbone and _is_given(preset.backbone):
        preset = replace(preset, tiny_clip=None, photo_tower=None)
    preset = _with_backbone_of_its_own(preset, base, work)
    default = release_directory(preset.name, args.seed, suffix, work)
    processes = processes or Processes(usable_device(args.device))
    run = Run(
        preset, args.seed, args.output or default, work, processes.device, suffix, origin, start, processes=processes
    )
    if start is not None:
        start.check(run)
    return run


def training_run(args: argparse.Namespace, makes_backbone: bool = False) -> Run:
    """`open_run` for a script that writes: also an OSError for a folder in which nothing can be written."""
    run = open_run(args, makes_backbone=makes_backbone)
    run.check_folders()
    return run


def _is_given(backbone: str) -> bool:
    """Whether a backbone's directory holds one that no run made: someone's own, which must not be written over."""
    directory = located(backbone.removeprefix("local-dir:"))
    return any((directory / file).is_file() for file in KINDS) and not is_made_by_a_run(directory)


def _with_backbone_of_its_own(preset: Preset, base: Preset, work: Path) -> Preset:
    """A preset whose backbone is made in another way than `base` says does not write to the folder of that one."""
    how = lambda p: (p.tiny_clip,) if p.photo_tower is None else (p.photo_tower, p.dataset)
    made = how(preset)
    if preset.own_backbone is None or preset.backbone != base.backbone or made == how(base):
        return preset
    return replace(preset, backbone=f"local-dir:{work / f'backbone-{config_hash(*made)[:8]}'}")


def open_start(preset: Preset, directory: Path) -> Start:
    """The start of a preset's run from a release; a ValueError if it is none. `Start.check` tells whether it fits."""
    try:
        config = read_config(directory)
        verify(directory, config, weight_files(directory, config))
    except ValueError as error:
        raise ValueError(f"--start {error}") from None
    stages = graph.build(preset)
    held = digests(directory, stages)
    models = {name: held[name] for name in graph.continued(stages, held)}
    return Start(directory, config.get("question_encoder") or {}, models)


def origin_of(
    preset: str, data: Path | None, steps_share: float, changed: list[str], start: Path | None = None
) -> dict[str, Any]:
    """What chose a run's preset, dataset, settings and start, JSON-able: a release keeps it under "run"."""
    return {
        "preset": preset,
        "data": None if data is None else str(data.resolve()),
        "steps_share": steps_share,
        "set": list(changed),
        "start": None if start is None else str(located(start).resolve()),
    }


def preset_of(origin: dict[str, Any]) -> Preset:
    """The preset that `origin_of` describes; a ValueError for a setting that there is none of."""
    base = preset_with_data(origin["preset"], None if origin["data"] is None else Path(origin["data"]))
    return override(shortened(base, origin["steps_share"]), origin["set"])


def flags_of(run: Run) -> list[str]:
    """The flags that chose a run's preset, dataset, start and settings."""
    origin = run.origin
    words = ["--preset", origin["preset"]]
    words += ["--data", _from_here(origin["data"])] if origin["data"] else []
    words += ["--start", _from_here(origin["start"])] if origin["start"] else []
    words += ["--steps-share", str(origin["steps_share"])] if origin["steps_share"] != 1.0 else []
    return words + (["--set", *origin["set"]] if origin["set"] else [])


def command_of(run: Run, seed: int | None, descriptors: float) -> str:
    """The command that trains with a run's settings, with this seed and share of descriptors; any seed for None."""
    words = ["python", "train/run_all.py", *flags_of(run)]
    words += [] if seed is None else ["--seed", str(seed)]
    words += ["--descriptors", f"{descriptors:g}"] if descriptors < 1.0 else []
    return shlex.join(words)


def _from_here(path: str) -> str:
    """A path below the current folder as it is called there."""
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path


def preset_with_data(name: str, directory: Path | None) -> Preset:
    """The preset called `name`, its dataset replaced by the one built in `directory`; a ValueError if there is none.

    It is named after both, so that its work files and releases lie apart from the preset's own. What a built dataset
    holds is pinned, so that stages see when it was built anew.
    """
    preset = get_preset(name)
    if directory is not None:
        mine = isinstance(preset.dataset, MetaVQAConfig)
        own = preset.dataset.moved(directory) if mine else MetaVQAConfig.at(directory)
        # the backbone is taken as it is: one's own pictures are not what it is made from
        return replace(preset, name=f"{name}-{directory.resolve().name}", dataset=own, photo_tower=None)
    if isinstance(preset.dataset, MetaVQAConfig):
        return replace(preset, dataset=preset.dataset.pinned())
    return preset
