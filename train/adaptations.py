"""Precompute adaptations to every training task, the data of the generative models (Algorithm 8, Appendix A.7).

For the HVAE, weights fine-tuned from the MNet-MAML initialisation; for the HNet, latents fine-tuned from its z0. Each
of several draws adapts every task on a fresh random support set. Needs mnet_maml or hnet_maml; writes
WORK/seed-N/adaptations/GENERATOR-KEY/draw-000.safetensors, half precision. About two minutes a generator on one CPU.
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from core.adaptation.few_shot import adapt_model
from core.data.tasks import split_support_query, support_size
from core.files import temporary
from core.networks.base import BaseNetwork, task_accuracy
from core.networks.weight_generator import WEIGHT_GENERATORS
from train import maml
from train.pipeline.adapted import draw_path, load_model
from train.pipeline.flags import open_run, parser
from train.pipeline.run import Run
from train.pipeline.settings import AdaptationConfig, Preset, once
from train.pipeline.stage import Stage


def stages(preset: Preset) -> list[Stage]:
    """A stage for every weight generator of the preset."""
    result = []
    for name, config in preset.adaptations.items():
        row = WEIGHT_GENERATORS[name].adapted_row
        result.append(
            Stage(
                f"adaptations_{name}",
                functools.partial(run, name=name),
                needs=(row,),
                config=(config,),
                outputs=lambda run, name=name, last=config.draws - 1: [draw_path(run, name, last)],
                steps=config.draws * config.steps,
                cost=once(*preset.network_settings, config, *maml.own_settings(preset, row)),
                values=lambda network, tasks, row=row, draws=config.draws: draws * tasks * _size(preset, row, network),
                work=lambda run, name=name: list((run.scratch / "adaptations").glob(f"{name}-*")),
                release=False,
                shared=True,
            )
        )
    return result


def _size(preset: Preset, row: str, network: BaseNetwork) -> int:
    """K, how many values an adaptation of a row is."""
    with torch.device("meta"):
        return maml.build(preset, row, network).initial(torch.empty(1, preset.question_dim(network.dim))).shape[1]


def _adapt_all(run: Run, name: str, draw: int, path: Path) -> None:
    """One draw: adapt every training task on a fresh support set, judge it on the rest, and write all to `path`.

    Raises:
        ValueError: adaptations that half precision cannot hold.
    """
    config, network = run.preset.adaptations[name], run.network
    model = load_model(run, WEIGHT_GENERATORS[name].adapted_row)
    saved: dict[str, list[Tensor]] = {"adapted": [], "before": [], "after": []}
    rng = run.rng("adaptations", name, draw)
    # Tasks of like size together: one large task would pad all the others to its number of examples.
    order = run.train_batch.example_mask.sum(1).argsort()
    for rows in order.split(config.tasks):
        tasks = run.train_batch[rows]
        support, query = split_support_query(tasks, support_fraction=config.support_fraction, rng=rng)
        adapted = adapt_model(network, model, support, steps=config.steps, lr=config.lr)
        with torch.no_grad():
            for key, x in (("before", model.initial(tasks.question)), ("after", adapted)):
                saved[key].append(task_accuracy(network.logits(model.decode(x), query), query).cpu())
        if not adapted.half().isfinite().all():
            raise ValueError(
                f"adaptations.{name}: {config.steps} steps at rate {config.lr} reach {float(adapted.abs().max()):g}, "
                "which half precision cannot hold; choose a smaller rate"
            )
        saved["adapted"].append(adapted.half().cpu())
    back = order.argsort().cpu()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary(path)
    save_file({key: torch.cat(parts)[back].contiguous() for key, parts in saved.items()}, partial)
    partial.replace(path)


def query_weights(run: Run, config: AdaptationConfig) -> Tensor:
    """The share (T,) of each training task in an accuracy on query examples: all alike among those that have some, or
    by their number where accuracy is pooled."""
    count = run.train_batch.example_mask.sum(1).cpu()
    held_out = (count - support_size(count, config.support_fraction)).float()
    weights = held_out if run.preset.pooled else (held_out > 0).float()
    return weights / weights.sum()


def run(run: Run, name: str) -> dict[str, float]:
    """Adapt all training tasks `draws` times; returns query accuracy on them before and after.

    Several processes part the draws. Raises:
        RuntimeError: adaptation made held-out examples worse, so nothing should be learned from it.
    """
    config = run.preset.adaptations[name]
    paths = [draw_path(run, name, draw) for draw in range(config.draws)]
    quiet, began = not run.processes.is_main, time.monotonic()
    missing = sum(not path.is_file() for path in paths)
    for draw in tqdm(range(config.draws), desc=f"adaptations {name}", leave=False, disable=quiet):
        if draw % run.processes.count == run.processes.rank and not paths[draw].is_file():
            _adapt_all(run, name, draw, paths[draw])
    run.processes.wait()
    run.loops[f"adaptations_{name}"] = (missing * config.steps, time.monotonic() - began)
    weights = query_weights(run, config)
    before, after = (
        sum(float(load_file(path)[key] @ weights) for path in paths) / len(paths) for key in ("before", "after")
    )
    metrics = {"query_before": before, "query_after": after}
    if metrics["query_after"] <= metrics["query_before"] and config.steps >= 50:
        raise RuntimeError(
            f"{name}: {config.steps} steps at rate {config.lr} took query accuracy from "
            f"{metrics['query_before']:.3f} to {metrics['query_after']:.3f}; choose another rate"
        )
    return metrics


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    names = WEIGHT_GENERATORS.names()
    arguments.add_argument("--generator", choices=names, default="hvae", help="whose data to make (default: hvae)")
    args = arguments.parse_args(argv)
    print(args.generator, run(open_run(args), args.generator))


if __name__ == "__main__":
    main()
