"""What the scripts of figures share: their flags, checked before anything is computed, their records, their plots."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.generator import AdapterGenerator
from core.metrics import mean_and_sd
from core.tasks import TaskSet
from eval import common


def parser(doc: str, plot: Path | None = None) -> argparse.ArgumentParser:
    """The flags of all evaluation scripts, and --plot with its default."""
    result = common.parser(doc)
    result.add_argument(
        "--plot", type=_png, default=plot, help="write the plot here, a .png file (default: %(default)s)"
    )
    return result


def _png(text: str) -> Path:
    if Path(text).suffix != ".png":
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a name that ends in .png")
    return Path(text)


def descriptors(generator: AdapterGenerator) -> float:
    """The share of training tasks whose question the release's models were told."""
    return generator.config.get("descriptors", 1.0)


def masks(test: TaskSet) -> dict[str, Tensor]:
    """Which tasks (T,) are of known families, of new ones, and all; those that are some."""
    new = torch.tensor([task.new_family for task in test.tasks])
    result = {"known": ~new, "new": new, "all": torch.ones_like(new)}
    return {name: mask for name, mask in result.items() if mask.any()}


def summaries(scores: Tensor, test: TaskSet) -> Iterator[dict[str, Any]]:
    """The part of a record that says what scores (seeds, T) come to, for every set of tasks."""
    for name, mask in masks(test).items():
        mean, sd = mean_and_sd(scores[:, mask].double().mean(1).tolist())
        sd = None if sd is None else round(sd, 4)
        yield {"tasks": name, "mean": round(mean, 4), "sd": sd, "n_tasks": int(mask.sum())}


def percent(record: dict[str, Any]) -> str:
    """A table's cell: the mean, and the s.d. over seeds where there are several."""
    spread = "" if record["sd"] is None else f" ({100 * record['sd']:.2f})"
    return f"{100 * record['mean']:.2f}{spread}"


def pyplot():
    """Matplotlib without a screen, imported by who plots."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(figure, path: Path) -> None:
    """Write a figure, the same bytes for the same figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot().close(figure)
    print(f"wrote {path}")
