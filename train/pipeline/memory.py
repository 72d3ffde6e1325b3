"""The most memory that a stage took."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch

_PROC = Path("/proc/self")


def reset_peak(device: torch.device) -> None:
    """Begin to measure."""
    gc.collect()
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):  # what was freed goes back to the system
        ctypes.CDLL(None).malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    if (_PROC / "clear_refs").exists():
        (_PROC / "clear_refs").write_text("5")  # Linux: forget the highest resident size


def peak(device: torch.device) -> dict[str, float]:
    """GiB since `reset_peak`: "memory", resident in this process (elsewhere than on Linux: since it started), mapped
    files included; and "gpu_memory", allocated on the device, if it is a GPU."""
    status = _PROC / "status"
    if status.exists():
        kilobytes = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    else:
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    result = {"memory": round(kilobytes / 2**20, 3)}
    if device.type == "cuda":
        result["gpu_memory"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
    return result
