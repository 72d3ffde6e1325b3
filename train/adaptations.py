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
from torch import Tensor
from tqdm import tqdm

from core.adaptation.few_shot import adapt_model
from core.data.tasks import split_support_query, support_size
from core.ending import in_one_line
from core.networks.base import BaseNetwork, task_accuracy
from core.networks.weight_generator import WEIGHT_GENERATORS
from core.tensors import load_tensors, save_tensors
from train import maml
from train.pipeline.adapted import draw_path, load_model
from train.pipeline.flags import parser, training_run
from train.pipeline.run import Run
from train.pipeline.settings import AdaptationConfig, Preset, once, smaller
from train.pipeline.stage import Stage

WORSE = 0.01  # a loss of accuracy that is less probable than this is no chance
ENOUGH = 50  # steps, the paper's number: fewer are a try, whose numbers need not mean anything


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
        ValueError: adaptations that are not finite, or that half precision cannot hold.
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
        beyond = ~adapted.half().isfinite().all(1)
        if beyond.any():
            first = int(beyond.int().argmax())
            question = run.train.tasks[int(rows[first])].question
            raise ValueError(
                f"adaptations.{name}: {config.steps} steps at rate {config.lr} on {question!r} reach "
                f"{float(adapted[first].abs().max()):g}, which half precision cannot hold; choose a smaller rate: "
                f"--set {smaller(run.preset, f'adaptations.{name}.lr')}"
            )
        saved["adapted"].append(adapted.half().cpu())
    back = order.argsort().cpu()
    save_tensors(path, {key: torch.cat(parts)[back] for key, parts in saved.items()})


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
        ValueError: adaptation made held-out examples worse by more than chance, so nothing should be learned from it.
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
    saved = [load_tensors(path, "before", "after") for path in paths]
    before, after = (torch.stack([own[key] for own in saved]).mean(0) for key in ("before", "after"))  # (T,)
    metrics = {"query_before": float(before @ weights), "query_after": float(after @ weights)}
    if metrics["query_after"] <= metrics["query_before"]:
        reached = (
            f"adaptations_{name}: {config.steps} steps at rate {config.lr} took accuracy on held-out examples from "
            f"{metrics['query_before']:.3f} to {metrics['query_after']:.3f}"
        )
        setting = f"--set {smaller(run.preset, f'adaptations.{name}.lr')}"
        if config.steps >= ENOUGH and probability_of_less((after - before) * weights) < WORSE:
            raise ValueError(f"{reached}, which is more than chance; choose a smaller rate: {setting}")
        if not quiet:
            lost = metrics["query_after"] < metrics["query_before"]
            said = f"a loss, by {len(before)} questions" if lost else "nothing is gained"
            print(f"{reached}: {said}; it goes on; a smaller rate may do better: {setting}", flush=True)
    return metrics


def probability_of_less(differences: Tensor) -> float:
    """How probable so low a sum of differences (T,), or a lower one, is if each were as likely to have the other sign:
    an exact test for paired samples, by 10,000 random signs."""
    signs = torch.randint(2, (10_000, len(differences)), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return float((signs @ differences <= differences.sum() + 1e-9).float().mean())


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    names = WEIGHT_GENERATORS.names()
    arguments.add_argument("--generator", choices=names, default="hvae", help="whose data to make (default: hvae)")
    args = arguments.parse_args(argv)
    print(args.generator, run(training_run(args), args.generator))


if __name__ == "__main__":
    main()
