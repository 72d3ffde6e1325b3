"""Where a run happens: device, memory, the repository's commit."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import torch

_PROC = Path("/proc/self")
ROOT = Path(__file__).resolve().parents[2]


def default_device() -> str:
    """The first GPU if there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(name: str) -> torch.device:
    """The device called `name`; a ValueError if there is none here."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name!r} is not usable here: {error}") from None
    return device


def reset_peak(device: torch.device) -> None:
    """Begin to measure memory."""
    gc.collect()
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):  # what was freed goes back to the system
        ctypes.CDLL(None).malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    if (_PROC / "clear_refs").exists():
        (_PROC / "clear_refs").write_text("5", encoding="utf-8")  # Linux: forget the highest resident size


def peak(device: torch.device) -> dict[str, float]:
    """GiB since `reset_peak`: "memory", resident in this process (elsewhere than on Linux: since it started), mapped
    files included, not there where the system does not tell; and "gpu_memory", allocated on the device, if it is a
    GPU."""
    kilobytes = _most_resident()
    result = {} if kilobytes is None else {"memory": round(kilobytes / 2**20, 3)}
    if device.type == "cuda":
        result["gpu_memory"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
    return result


def _most_resident() -> float | None:
    """The most KiB that this process held; None where the system does not tell."""
    status = _PROC / "status"
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    try:
        import resource  # Windows has none
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)


def hardware(device: torch.device) -> str:
    """The device in words: a GPU by its name, a CPU by its model and how many of its cores work."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.is_file() else []
    return f"{torch.get_num_threads()} of {os.cpu_count()} cores, {names[0] if names else platform.machine()}"


def commit() -> str:
    """The repository's commit, with a mark if code differs from it; "unknown" outside git."""
    git = lambda *words: subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
    ).stdout.strip()
    try:
        name = git("rev-parse", "--short=12", "HEAD")
        dirty = git("status", "--porcelain", "-uno", "--", "*.py", "requirements.txt")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+changes" if dirty else "")
