"""Releases to evaluate: the flags that name them, and opening them with their data."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from core.generator import AdapterGenerator
from train.pipeline.run import Run, preset_with_data, release_directory, usable_device, variant
from train.presets import PRESET_NAMES


def parser(doc: str) -> argparse.ArgumentParser:
    """The flags that all evaluation scripts have."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--preset", default="emoji", choices=PRESET_NAMES, help="dataset and sizes (default: emoji)")
    result.add_argument("--data", type=Path, metavar="DIR", help="a built dataset, instead of the preset's own")
    result.add_argument("--weights", nargs="+", type=Path, help="release directories (default: those of --seeds)")
    result.add_argument(
        "--seeds", nargs="+", type=int, default=[0], help="training seeds whose releases are compared (default: 0)"
    )
    result.add_argument(
        "--descriptors",
        nargs="+",
        type=float,
        default=[1.0],
        help="shares of training tasks with a known question, as train/run_all.py has them (default: 1)",
    )
    result.add_argument("--work", type=Path, help="work files, where features are cached (default: runs/PRESET)")
    result.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    result.add_argument("--limit-tasks", type=int, help="only the first so many test tasks, for a quick look")
    result.add_argument("--json", type=Path, help="write the results here")
    return result


def open_release(arguments: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[Run, list[AdapterGenerator]]:
    """The run (for its data) and one generator for every release directory. Flags that do not fit end the script with
    a message: an unusable device, a directory that is no release, releases of another preset or of unlike questions."""
    try:
        return _open_release(args)
    except ValueError as error:
        arguments.error(str(error))


def _open_release(args: argparse.Namespace) -> tuple[Run, list[AdapterGenerator]]:
    preset, device = preset_with_data(args.preset, args.data), usable_device(args.device)
    work = args.work or Path("runs") / preset.name
    directories = args.weights or _trained(preset.name, args.seeds, args.descriptors, work)
    generators = [AdapterGenerator.from_pretrained(directory, device=device) for directory in directories]
    for directory, generator in zip(directories, generators, strict=True):
        if generator.config["preset"] != preset.name:
            raise ValueError(f"{directory} belongs to preset {generator.config['preset']!r}, not {preset.name!r}")
        if generator.pooling != generators[0].pooling:
            raise ValueError(f"{directory} pools questions by {generator.pooling!r}, others by another; one at a time")
    run = Run(replace(preset, question_pooling=generators[0].pooling), 0, directories[0], work, device)
    count = sum(task.split == "test" for task in run.dataset.tasks)
    if args.limit_tasks is not None and not 1 <= args.limit_tasks <= count:
        raise ValueError(f"--limit-tasks {args.limit_tasks}; allowed: 1 to {count}")
    return run, generators


def _trained(preset: str, seeds: list[int], shares: list[float], work: Path) -> list[Path]:
    """The releases of these seeds and shares of descriptors that were trained; says how to make the others."""
    found = []
    for share in shares:
        for seed in seeds:
            directory = release_directory(preset, seed, variant("", share), work)
            if (directory / "config.json").is_file():
                found.append(directory)
                continue
            flags = f"--preset {preset} --seed {seed}" + ("" if share == 1.0 else f" --descriptors {share:g}")
            print(f"missing: seed {seed}, {100 * share:g}% Q.; python train/run_all.py {flags} makes it", flush=True)
    if not found:
        raise ValueError(f"none of --seeds {' '.join(map(str, seeds))} is trained")
    return found


def descriptors(generator: AdapterGenerator) -> float:
    """The share of training tasks whose question the release's models were told."""
    return generator.config.get("descriptors", 1.0)
