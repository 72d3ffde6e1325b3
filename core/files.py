"""Writing files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def temporary(path: Path) -> Path:
    """Where a process writes a file before it moves it to its place: two may write the same file."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def write_json(path: Path | str, value: Any) -> None:
    """Write indented JSON atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary(path)
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
