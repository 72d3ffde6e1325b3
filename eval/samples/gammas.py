"""Figure 5A with one sample and with averages of samples: accuracy over gamma, for several noise seeds.

Three ways to take a latent: one sample of `STEPS` steps (the authors' code: 350); the mean latent, which the sampler
predicts in one step, as releases are set up; the average of `AVERAGED` samples, at the two strengths that are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from core.data.tasks import TaskBatch
from core.generator import AdapterGenerator
from core.methods import row_of
from core.networks.base import accuracies
from eval.harness import figures, tables
from eval.harness.metrics import crossed_bootstrap
from eval.harness.origins import descriptors
from eval.harness.rows import GENERATORS
from eval.samples import draws
from train.pipeline.run import Run

GAMMAS = tuple(step / 4 for step in range(13))
COMPARED = (1.5, 1.0)  # the contrast: the first less the second
NOISE_SEEDS, AVERAGED, MEAN_NOISES = 8, 32, 4
WAYS = {"one": "one sample", "mean": "mean latent in one step", "average": f"average of {AVERAGED} samples"}
STYLES = {"one": "-o", "mean": "--s", "average": "^"}
COLOURS = {"hvae": "#4f46e5", "hnet": "#0d9488"}


def scores(
    generator: AdapterGenerator, name: str, way: str, query: TaskBatch, gammas: Sequence[float], seeds: Sequence[int]
) -> Tensor:
    """Accuracy (gammas, noise seeds, T) of a way to take a latent."""
    pairs = [(gamma, seed) for gamma in gammas for seed in seeds]
    samples = {"one": 1, "mean": MEAN_NOISES, "average": AVERAGED}[way]
    steps = 1 if way == "mean" else None
    z = draws.latents(generator, name, query.question, pairs, samples=samples, steps=steps).mean(1)
    found = [accuracies(generator.network, w, query).cpu() for w in draws.decoded(generator, name, z)]
    return torch.stack(found).view(len(gammas), len(seeds), -1)


def measure(
    run: Run, generators: Sequence[AdapterGenerator], limit: int | None, noise_seeds: int = NOISE_SEEDS
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records of every generator, way, gamma, share of questions and set of tasks, and the contrasts of `COMPARED`."""
    test = run.task_set("test")
    test = test if limit is None else test.select(range(min(limit, len(test))))
    query, seeds = test.batch(part="query").to(run.device), range(noise_seeds)
    records, contrasts = [], []
    for name, way, share, owners in _cases(generators):
        gammas = sorted(COMPARED) if way == "average" else GAMMAS
        what = f"{GENERATORS[name]}, {WAYS[way]}, {100 * share:g}% Q."
        releases = tqdm(owners, desc=what, leave=False)
        found = torch.stack([scores(g, name, way, query, gammas, seeds) for g in releases]).double()  # (seeds, G, R, T)
        common = {
            "row": row_of("hyperldm", name),
            "label": f"{GENERATORS[name]} + HyperLDM, {WAYS[way]}",
            "way": way,
            "descriptors": share,
            "noise_seeds": noise_seeds,
        }
        training = [g.config["seed"] for g in owners]
        for i, gamma in enumerate(gammas):
            for summary in tables.summaries(found[:, i].mean(1), test, training):
                own = found[:, i][..., tables.masks(test)[summary["tasks"]]].mean(-1)  # (seeds, R)
                noise_sd = own.std(1).mean() if noise_seeds > 1 else 0.0
                records.append({**common, "gamma": gamma, **summary, "noise_sd": round(float(noise_sd), 4)})
        more, less = (found[:, gammas.index(gamma)].mean(1) for gamma in COMPARED)  # (seeds, T), noise averaged
        for summary in tables.summaries(more - less, test, training):
            mask = tables.masks(test)[summary["tasks"]]
            difference = crossed_bootstrap((more - less)[:, mask]).rounded()
            contrasts.append(common | summary | {"difference": difference, "gamma": None})
    return records, contrasts


def _cases(generators: Sequence[AdapterGenerator]) -> Iterator[tuple[str, str, float, list[AdapterGenerator]]]:
    """(weight generator, way, share of questions, the releases of that share which have it)."""
    for name in GENERATORS:
        for way in WAYS:
            for share in sorted({descriptors(g) for g in generators}, reverse=True):
                owners = [g for g in generators if descriptors(g) == share and g.has("hyperldm", name)]
                if owners:
                    yield name, way, share, owners


def contrast_table(contrasts: Sequence[dict[str, Any]], style: str = "+.2f"):
    """Gamma 1.5 less gamma 1 in points, with intervals over tasks and training seeds."""
    return tables.grid(contrasts, line, cell=lambda record: tables.interval(record["difference"], style))


def line(record: dict[str, Any]) -> str:
    """A row of the tables: the label, and the share of questions where it is not all."""
    share = record["descriptors"]
    return record["label"] + ("" if share == 1.0 else f", {100 * share:g}% Q.")


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """A panel for every share of questions: accuracy on all test tasks over gamma."""
    records = [r for r in records if r["tasks"] == "all"]
    shares = sorted({r["descriptors"] for r in records}, reverse=True)
    size = (1.8 + 4.2 * len(shares), 3.6)
    figure, axes = figures.pyplot().subplots(1, len(shares), figsize=size, squeeze=False, sharey=True)
    for axis, share in zip(axes[0], shares, strict=True):
        for label in dict.fromkeys(r["label"] for r in records):
            points = [r for r in records if r["label"] == label and r["descriptors"] == share]
            if not points:
                continue
            colour = next(COLOURS[name] for name in GENERATORS if points[0]["row"] == row_of("hyperldm", name))
            axis.errorbar(
                [r["gamma"] for r in points],
                [100 * r["mean"] for r in points],
                [100 * (r["sd"] if r["sd"] is not None else r["noise_sd"]) for r in points],
                color=colour,
                fmt=STYLES[points[0]["way"]],
                markersize=3,
                capsize=2,
                linewidth=1,
                label=label,
            )
        axis.set_title(f"{100 * share:g}% of the questions", fontsize=10)
        axis.set_xlabel("gamma")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("test accuracy, %")
    figures.save_with_legend(figure, axes[0][-1], path)
