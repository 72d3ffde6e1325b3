"""What the scripts of figures share: their flags, checked before anything is computed, their records, their plots."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.data.tasks import TaskSet
from core.generator import AdapterGenerator
from eval.harness import common
from eval.harness.metrics import mean_and_sd


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


def over_seeds(values: Sequence[float], seeds: Sequence[int]) -> dict[str, Any]:
    """The part of a record that says what training seeds reached: together, and each in the order of `seeds`. What no
    seed enters has one value and no seeds."""
    mean, sd = mean_and_sd(list(values))
    return {
        "mean": round(mean, 4),
        "sd": None if sd is None else round(sd, 4),
        "seeds": list(seeds),
        "per_seed": [round(value, 5) for value in values] if seeds else [],
    }


def summaries(
    scores: Tensor, test: TaskSet, seeds: Sequence[int], sets: Mapping[str, Tensor] | None = None
) -> Iterator[dict[str, Any]]:
    """The part of a record that says what scores (seeds, T) come to, for every set of tasks: those of `masks`, or
    these."""
    for name, mask in (masks(test) if sets is None else sets).items():
        values = scores[:, mask].double().mean(1).tolist()
        yield {"tasks": name, **over_seeds(values, seeds), "n_tasks": int(mask.sum())}


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
