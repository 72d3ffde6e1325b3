"""Time the inner loop and the steps of the generative models, in batches against a plain loop over tasks, in one run.

Workloads, at the paper's size (D = 768, P = 394,240) and at the emoji preset's (D = 256, P = 16,672), on tasks with the
sizes of their datasets' and random features: 50 steps of adaptation, an epoch of MNet-MAML (second order), and a
training step of HVAE, HyperCLIP and HyperLDM. The plain loop is what one writes without this project: task by task,
unpadded, autograd. Times are per task, the best of some repeats; on one CPU thread they are CPU time, which other
programs disturb least. `--costs WORK` takes measured costs from the records of runs in WORK, shortened ones too,
instead: seconds a step and peak memory of every stage, which `train/run_all.py --plan` reads.

Needs no release and no data. Prints the times; writes times and costs into one file, --json, beside what it has
already. A few minutes on one CPU thread.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

import argparse
import itertools
import json
import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from core.adaptation.subspace import adapt_adapters, maml_adapter_loss
from core.console import Parser
from core.data.tasks import TaskSet, TaskTable, split_support_query, subsample
from core.diffusion.schedule import diffusion_loss
from core.files import write_json
from core.networks.adapter import CLIPAdapter
from core.networks.hvae import HVAE
from core.networks.hyperclip import HyperCLIP, hyperclip_loss
from core.networks.hyperldm import HyperLDM
from eval.harness.plain_loop import plain_adapt, plain_loss, ragged_tasks
from train.pipeline.environment import commit, default_device, usable_device
from train.pipeline.optim import adam
from train.pipeline.plan import COSTS
from train.pipeline.settings import Preset
from train.presets import get_preset

SIZES = {"paper": ("metavqa_sim", 768), "emoji": ("emoji", 256)}  # preset, D
WORKLOADS = ("adapt", "maml", "hvae", "hyperclip", "hyperldm")


@dataclass(frozen=True)
class Bench:
    """What the workloads of one size share."""

    preset: Preset
    tasks: TaskTable
    device: torch.device
    repeats: int

    @property
    def network(self) -> CLIPAdapter:
        return self.preset.base_network(self.tasks.image_features.shape[1])

    def time(self, function: Callable[[], object], count: int) -> float:
        """Seconds per task of a call that handles `count` of them."""
        on_cpu = self.device.type == "cpu"
        clock = time.process_time if on_cpu and torch.get_num_threads() == 1 else time.perf_counter
        best = math.inf
        for _ in range(self.repeats + 1):  # the first warms up
            begun = clock()
            function()
            if not on_cpu:
                torch.cuda.synchronize(self.device)
            best = min(best, clock() - begun)
        return best / count


def some_tasks(preset: Preset, D: int, count: int, device: torch.device) -> TaskTable:
    """Training tasks of the preset's dataset, evenly over all of them by size, with random features."""
    tasks = [task for task in preset.dataset.open().tasks if task.split == "train"]
    tasks = sorted(tasks, key=lambda task: len(task.examples("all")[0]))
    tasks = [tasks[(2 * i + 1) * len(tasks) // (2 * count)] for i in range(count)]
    rng = torch.Generator().manual_seed(0)
    unit = lambda rows: F.normalize(torch.randn(rows, D, generator=rng), dim=-1)
    images = 1 + max(image for task in tasks for image in task.examples("all")[0])
    first = [0, *itertools.accumulate(len(task.answers) for task in tasks)]
    rows = tuple(tuple(range(a, b)) for a, b in itertools.pairwise(first))
    data = TaskSet(tuple(tasks), unit(images).half(), unit(first[-1]), unit(count), rows)
    order = torch.randperm(count, generator=rng).tolist()
    return data.table(order).to(device)


def bench_adapt(bench: Bench) -> tuple[float, float]:
    """50 steps of adaptation: seconds per task in batches, and in a plain loop."""
    config, network = bench.preset.adaptations["hvae"], bench.network
    rng = torch.Generator().manual_seed(0)
    support, _ = split_support_query(bench.tasks, support_fraction=config.support_fraction, rng=rng)
    start = network.init(rng).to(bench.device)
    order = support.example_mask.sum(1).argsort()
    groups = [support[rows].trimmed() for rows in order.split(config.tasks)]  # as train/adaptations.py does

    def batched():
        return [adapt_adapters(network, start, group, steps=config.steps, lr=config.lr) for group in groups]

    def plain():
        parts = list(network.unpack(start).values())
        return [plain_adapt(parts, task, config.steps, config.lr) for task in ragged]

    ragged = ragged_tasks(support)
    return bench.time(batched, len(support)), bench.time(plain, len(support))


def bench_maml(bench: Bench) -> tuple[float, float]:
    """Second-order MNet-MAML over all tasks once, drawing and optimizer included."""
    config, network = bench.preset.maml["mnet_maml"], bench.network
    start = network.init(torch.Generator().manual_seed(0)).to(bench.device)
    batches = torch.arange(len(bench.tasks)).split(config.tasks)

    def batched():
        model = torch.nn.ParameterDict({"w": start.clone()})
        optimizer, rng = adam(model.parameters(), config.lr), torch.Generator().manual_seed(0)
        for rows in batches:
            tasks = subsample(bench.tasks[rows], config.examples, rng)
            support, query = split_support_query(tasks, support_fraction=config.support_fraction, rng=rng)
            steps = torch.randint(config.max_inner_steps + 1, (len(tasks),), generator=rng).to(bench.device)
            loss = maml_adapter_loss(network, model["w"], support, query, steps=steps, lr=config.inner_lr).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()

    ragged = ragged_tasks(subsample(bench.tasks, config.examples, torch.Generator().manual_seed(0)))

    def plain():
        w = [part.clone().requires_grad_() for part in network.unpack(start).values()]
        optimizer, rng = adam(w, config.lr), torch.Generator().manual_seed(0)
        for rows in batches:
            optimizer.zero_grad()
            drawn = torch.randint(config.max_inner_steps + 1, (len(rows),), generator=rng).tolist()
            for i, steps in zip(rows.tolist(), drawn, strict=True):  # the same numbers of steps
                images, labels, answers = ragged[i]
                order = torch.randperm(len(labels), generator=rng).to(bench.device)
                support, query = order.split([n := round(config.support_fraction * len(order)), len(order) - n])
                adapted = plain_adapt(w, (images[support], labels[support], answers), steps, config.inner_lr, True)
                (plain_loss(adapted, images[query], labels[query], answers) / len(rows)).backward()
            torch.nn.utils.clip_grad_norm_(w, config.clip)
            optimizer.step()

    return bench.time(batched, len(bench.tasks)), bench.time(plain, len(bench.tasks))


def _bench_step(bench: Bench, model: torch.nn.Module, loss: Callable[[slice], Tensor], batch: int):
    """Forward and backward of a batch, and sample by sample (some of them, since each takes the same). The optimizer's
    step is the same for both and left out."""
    some = min(batch, 4)

    def run(parts: list[slice]) -> None:
        model.zero_grad(set_to_none=False)
        for part in parts:
            loss(part).backward()

    run([slice(1)])  # allocates gradients
    return bench.time(lambda: run([slice(batch)]), batch), bench.time(
        lambda: run([slice(i, i + 1) for i in range(some)]), some
    )


def bench_hvae(bench: Bench) -> tuple[float, float]:
    """A step of the HVAE, its behaviour term left out."""
    batch, P = bench.preset.hvae_training.batch, bench.network.num_params
    model = HVAE(bench.preset.hvae, num_params=P).to(bench.device)
    w, noise = torch.randn(batch, P, device=bench.device), torch.randn(batch, model.config.latent, device=bench.device)
    return _bench_step(
        bench, model, lambda some: sum(term.mean() for term in model.losses(w[some], noise[some])[0].values()), batch
    )


def bench_hyperclip(bench: Bench) -> tuple[float, float]:
    """A step of HyperCLIP. The plain loop embeds weights one by one and contrasts each with all questions."""
    batch, network = bench.preset.hyperclip_training["hvae"].batch, bench.network
    dim = bench.preset.question_dim(network.dim)
    model = HyperCLIP(bench.preset.hyperclip["hvae"], num_params=network.num_params, dim=dim).to(bench.device)
    w = torch.randn(batch, network.num_params, device=bench.device)
    e = F.normalize(torch.randn(batch, dim, device=bench.device), dim=-1)

    def loss(some: slice) -> Tensor:
        h = model(w[some])
        if len(h) == batch:
            return hyperclip_loss(h, model.embed_questions(e), model.logit_scale)
        logits = model.logit_scale.exp() * h @ model.embed_questions(e).mT
        return F.cross_entropy(logits, torch.arange(batch, device=bench.device)[some])

    return _bench_step(bench, model, loss, batch)


def bench_hyperldm(bench: Bench) -> tuple[float, float]:
    """A training step of HyperLDM."""
    config, batch = bench.preset.hyperldm, bench.preset.diffusion.batch
    dim = bench.preset.question_dim(bench.network.dim)
    model = HyperLDM(config, latent=bench.preset.hvae.latent, dim=dim).to(bench.device)
    draw = lambda *shape: torch.randn(*shape, device=bench.device)
    z0, eps, e = draw(batch, model.latent), draw(batch, model.latent), draw(batch, model.dim)
    t = torch.randint(config.num_timesteps, (batch,), device=bench.device)

    def loss(some: slice) -> Tensor:
        predict = lambda z_t, t: model.predict(z_t, t, e[some])
        target = model.target(z0[some], t[some], eps[some])
        return diffusion_loss(predict, target, z0[some], t[some], eps[some], model.schedule)[0]

    return _bench_step(bench, model, loss, batch)


BENCHES = dict(zip(WORKLOADS, (bench_adapt, bench_maml, bench_hvae, bench_hyperclip, bench_hyperldm), strict=True))


def costs(work: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Costs by kind of device and key from the records in a work folder: every stage's latest."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for path in sorted(work.rglob("stages.json"), key=lambda path: path.stat().st_mtime):
        for name, record in json.loads(path.read_text(encoding="utf-8")).items():
            if "cost" not in record or record["processes"] > 1:
                continue  # of an older version, or shared
            loop = record.get("steps", 0) * record.get("step_seconds", 0.0)
            table.setdefault(torch.device(record["device"]).type, {})[record["cost"]] = {
                "stage": name,
                "step_seconds": record.get("step_seconds", 0.0),
                "rest_seconds": round(max(0.0, record["seconds"] - loop), 1),
                "memory": record.get("gpu_memory", record.get("memory")),
                "threads": record["threads"],
            }
    return table


def main(argv: list[str] | None = None) -> None:
    arguments = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="default: both")
    arguments.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="default: all")
    arguments.add_argument("--tasks", type=int, default=64, help="tasks to adapt on, up to 783 (default: 64)")
    arguments.add_argument("--repeats", type=int, default=2, help="the best of so many counts (default: 2)")
    arguments.add_argument("--costs", type=Path, metavar="WORK", help="take costs from the runs in this folder instead")
    arguments.add_argument("--device", default=default_device(), help="torch device")
    arguments.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    arguments.add_argument("--json", type=Path, default=COSTS, help="results (default: eval/results/bench.json)")
    arguments.add_argument("--app", action="store_true", help="the demo's load test instead, with its own flags")
    arguments.add_argument("--latency", action="store_true", help="what a question costs instead, with its own flags")
    argv = sys.argv[1:] if argv is None else argv
    if "--latency" in argv:
        from eval.demo import latency  # the demo

        return latency.main([flag for flag in argv if flag != "--latency"])
    if "--app" in argv:
        from eval import app_load  # the demo and a browser

        return app_load.main([flag for flag in argv if flag != "--app"])
    args = arguments.parse_args(argv)
    try:
        device = usable_device(args.device)
        if not 1 <= args.tasks <= 783:
            raise ValueError(f"--tasks {args.tasks}; allowed: 1 to 783")
        if args.repeats < 1 or args.threads < 1:
            raise ValueError(f"--repeats {args.repeats} and --threads {args.threads} must be positive")
    except ValueError as error:
        arguments.error(str(error))
    document = (
        json.loads(args.json.read_text(encoding="utf-8")) if args.json.is_file() else {"results": [], "costs": {}}
    )
    if args.costs:
        for kind, entries in costs(args.costs).items():
            document["costs"].setdefault(kind, {}).update(entries)
            print(f"{kind}: costs of {len(entries)} stages")
        write_json(args.json, document)
        return
    torch.set_num_threads(args.threads)
    print(f"{'size':<7} {'workload':<10} {'batched':>12} {'plain loop':>12} {'ratio':>7}   (per task, {device})")
    for size in args.sizes:
        name, D = SIZES[size]
        preset = get_preset(name)
        bench = Bench(preset, some_tasks(preset, D, args.tasks, device), device, args.repeats)
        for name in args.only:
            torch.manual_seed(0)
            batched, plain = BENCHES[name](bench)
            print(f"{size:<7} {name:<10} {1e3 * batched:>9.3f} ms {1e3 * plain:>9.3f} ms {plain / batched:>6.1f}x")
            record = {"size": size, "row": name, "batched": batched, "plain": plain, "ratio": round(plain / batched, 2)}
            record |= {"tasks": args.tasks, "device": str(device), "threads": args.threads, "torch": torch.__version__}
            record |= {"command": shlex.join(["python", "eval/bench.py", *sys.argv[1:]]), "commit": commit()}
            same = lambda r, new=record: all(r[key] == new[key] for key in ("size", "row", "device", "threads"))
            document["results"] = [r for r in document["results"] if not same(r)] + [record]
            write_json(args.json, document)


if __name__ == "__main__":
    main()
