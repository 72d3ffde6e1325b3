"""Precompute adapted weights of every training task, the data of the generative models (Algorithm 8, Appendix A.7).

For the HVAE, weights fine-tuned from the MNet-MAML initialisation; for the HNet, latents fine-tuned from its z0. Each
of several draws adapts every task on a fresh random support set. Needs mnet_maml or hnet_maml; writes
WORK/seed-N/adaptations/GENERATOR-KEY/draw-000.safetensors, half precision. About two minutes a generator on one CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that the script runs from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import hashlib
import time
from collections.abc import Sequence

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from core.adaptation.inner_loop import adapt
from core.adaptation.subspace import adapt_adapters
from core.config import config_hash
from core.data.tasks import split_support_query
from core.networks.adapter import adapter_logits, task_accuracy, task_loss
from core.networks.hvae import HVAE
from core.networks.hypernet import HyperNet
from core.release.checkpoint import load_adapter, load_module
from train.pipeline.run import Run, open_run, parser

GENERATORS = ("hvae", "hnet")
_VALUES_AT_ONCE = 2**27  # float32 values of adaptations held at a time for statistics: 512 MB


def start_and_decoder(run: Run, generator: str):
    """Where adaptation starts, (K,), and how what it adapts becomes weights: (T, K) -> (T, P)."""
    if generator == "hvae":
        w, _, _ = load_adapter(run.output / "mnet_maml.safetensors")
        return w.to(run.device), lambda w: w
    hnet = load_module(run.output / "hnet_maml.safetensors", run.device)
    return hnet.z0, hnet


def draw_path(run: Run, generator: str, draw: int) -> Path:
    """Where a draw is kept. The folder's name says what it depends on, so that draws of another start or rate, left
    by a run that was killed, are never taken for this one's."""
    source = run.output / ("mnet_maml.safetensors" if generator == "hvae" else "hnet_maml.safetensors")
    start = hashlib.sha256(source.read_bytes()).hexdigest() if source.is_file() else ""
    preset = run.preset
    key = config_hash(preset.adaptations[generator], preset.adapter, preset.dataset, run.seed, start)
    return run.scratch / "adaptations" / f"{generator}-{key}" / f"draw-{draw:03d}.safetensors"


class Adaptations:
    """Adapted weights of all training tasks, some draws of each, as a generative model samples them.

    In half precision a draw takes T x P x 2 bytes, at the paper's size 783 x 394,240 x 2 = 0.6 GB. On a CPU draws stay
    on disk, mapped, and only rows that are asked for are read and become float32; a GPU holds them if they fit in half
    of what it has free.
    """

    def __init__(self, draws: Sequence[Tensor], device: torch.device, generator: HVAE | HyperNet | None = None) -> None:
        """`draws` of (T, P), row t for training task t; or of latents (T, Z), which `generator` decodes to weights."""
        if device.type == "cuda":
            size = sum(draw.numel() * draw.element_size() for draw in draws)
            draws = [draw.to(device) for draw in draws] if 2 * size < torch.cuda.mem_get_info(device)[0] else draws
        self.draws, self.device, self.generator = list(draws), device, generator

    def __len__(self) -> int:
        return len(self.draws)

    @torch.no_grad()
    def __call__(self, draw: Tensor, task: Tensor) -> Tensor:
        """Weights (B, P), float32, on the device: row b is draw `draw[b]` of training task `task[b]`."""
        rows = self.draws[0].new_empty(len(task), self.draws[0].shape[1])
        draw, task = draw.to(rows.device), task.to(rows.device)
        for i in draw.unique().tolist():
            rows[draw == i] = self.draws[i][task[draw == i]]
        rows = rows.to(self.device).float()
        return self.generator.decode(rows) if self.generator else rows

    def tasks(self, draw: int, task: Tensor) -> Tensor:
        """One draw of the tasks `task` (B,): (B, P)."""
        return self(torch.full_like(task, draw), task)

    @torch.no_grad()
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (P,) over all draws and tasks, some coordinates at a time."""
        size = self.generator.num_params if self.generator else self.draws[0].shape[1]
        at_once = max(16, _VALUES_AT_ONCE // (len(self) * len(self.draws[0])) // 16 * 16)
        mean, std = [], []
        for first in range(0, size, at_once):
            some = slice(first, first + at_once)
            if self.generator:
                values = torch.cat([self.generator.decode(z.to(self.device).float(), some) for z in self.draws])
            else:
                values = torch.cat([draw[:, some].to(self.device).float() for draw in self.draws])
            mean.append(values.mean(0))
            std.append(values.std(0))
        return torch.cat(mean), torch.cat(std)


def load_adaptations(run: Run, generator: str) -> list[Tensor]:
    """All draws, (T, K) float16 each, mapped from disk; row t belongs to training task t."""
    draws = run.preset.adaptations[generator].draws
    folder = draw_path(run, generator, 0).parent
    return [load_file(folder / f"draw-{d:03d}.safetensors")["adapted"] for d in range(draws)]


def _adapt_all(run: Run, generator: str, draw: int, path: Path) -> None:
    """One draw: adapt every training task on a fresh support set, judge it on the rest, and write all to `path`."""
    config, adapter = run.preset.adaptations[generator], run.preset.adapter
    start, decode = start_and_decoder(run, generator)
    saved: dict[str, list[Tensor]] = {"adapted": [], "before": [], "after": []}
    rng = run.generator("adaptations", generator, draw)
    # Tasks of like size together: one large task would pad all the others to its number of examples.
    order = run.train_batch.example_mask.sum(1).argsort()
    for rows in order.split(config.tasks):
        tasks = run.train_batch[rows]
        support, query = split_support_query(tasks, support_fraction=config.support_fraction, generator=rng)
        begin = start.expand(len(tasks), -1)
        if config.subspace:
            adapted = adapt_adapters(start, support, adapter, steps=config.steps, lr=config.lr)
        else:
            loss = lambda z, s=support: task_loss(adapter_logits(decode(z), s, adapter), s)
            adapted = adapt(begin, loss, steps=config.steps, lr=config.lr)
        with torch.no_grad():
            for name, z in (("before", begin), ("after", adapted)):
                saved[name].append(task_accuracy(adapter_logits(decode(z), query, adapter), query).cpu())
        saved["adapted"].append(adapted.half().cpu())
    back = order.argsort().cpu()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.cat(parts)[back].contiguous() for name, parts in saved.items()}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def run(run: Run, generator: str) -> dict[str, float]:
    """Adapt all training tasks `draws` times; returns query accuracy on them before and after.

    Several processes part the draws. Raises:
        RuntimeError: adaptation made held-out examples worse, so nothing should be learned from it.
        ValueError: `subspace` for latents.
    """
    if run.preset.adaptations[generator].subspace and generator != "hvae":
        raise ValueError(f"adaptations.{generator}.subspace: only adapter weights themselves have it")
    config = run.preset.adaptations[generator]
    folder = draw_path(run, generator, 0).parent
    paths = [folder / f"draw-{draw:03d}.safetensors" for draw in range(config.draws)]
    quiet, began = not run.processes.is_main, time.monotonic()
    missing = sum(not path.is_file() for path in paths)
    for draw in tqdm(range(config.draws), desc=f"adaptations {generator}", leave=False, disable=quiet):
        if draw % run.processes.count == run.processes.rank and not paths[draw].is_file():
            _adapt_all(run, generator, draw, paths[draw])
    run.processes.wait()
    run.loops[f"adaptations_{generator}"] = (missing * config.steps, time.monotonic() - began)
    before, after = ([float(load_file(path)[name].mean()) for path in paths] for name in ("before", "after"))
    metrics = {"query_before": sum(before) / len(before), "query_after": sum(after) / len(after)}
    if metrics["query_after"] <= metrics["query_before"] and config.steps >= 50:
        raise RuntimeError(
            f"{generator}: {config.steps} steps at rate {config.lr} took query accuracy from "
            f"{metrics['query_before']:.3f} to {metrics['query_after']:.3f}; choose another rate"
        )
    return metrics


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--generator", choices=GENERATORS, default="hvae", help="whose data to make")
    args = arguments.parse_args(argv)
    print(args.generator, run(open_run(args), args.generator))


if __name__ == "__main__":
    main()
