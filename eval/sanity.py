"""Rows that most papers leave out: would something much simpler do, does the text matter, are weights copied?

Judges on the test tasks: chance; the commonest answers of the nearest training questions; the mean training adapter;
the adapter of the nearest training question; the mean of the nearest few, weighted by similarity; ridge regression from
questions to latents; HyperLDM, also as an average of samples and as one; HyperLDM told the question in other words (of
Emoji-VQA), another task's question, and random words. What a row has to choose is chosen on validation tasks. Then
measures how far generated weights lie from the training ones.

Needs release directories with HyperLDM and its table of training latents (default: the shipped weights); encodes images
on the first use, then caches them. Prints the table and the distances; writes both with --json. About a minute a
release on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

import functools
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from core.data.emoji.dataset import EmojiVQA
from core.data.emoji.questions import phrasings
from core.data.tasks import Task, TaskBatch, TaskSet
from core.generator import AdapterGenerator
from core.networks.base import accuracies
from core.release.checkpoint import load_model
from eval.harness import tables
from eval.harness.phrasings import asked_as
from eval.harness.releases import open_release, parser, require, require_sets
from eval.harness.results import write_results
from eval.harness.rows import GENERATORS
from eval.samples.draws import STEPS, steps_of
from train.regression import kernel_ridge

AVERAGED = 32  # samples
LABELS = {
    "chance": "chance",
    "nearest_answer_prior": "answer prior of the nearest training questions",
    "mean_adapter": "mean training adapter (mean latent, decoded)",
    "nearest_adapter": "adapter of the nearest training question",
    "knn_adapter": "adapters of the nearest questions, weighted by similarity",
    "kernel_ridge": "kernel ridge regression, question to latent",
    "hvae_hyperldm": "HVAE + HyperLDM",
    "hnet_hyperldm": "HNet + HyperLDM",
    "ten_steps": f"HyperLDM in {STEPS} steps, {AVERAGED} samples averaged",
    "one_sample": f"HyperLDM, one sample of {STEPS} steps",
    "other_words": "HyperLDM, the question in other words",
    "shuffled_question": "HyperLDM, questions shuffled among tasks",
    "random_words": "HyperLDM, random words",
    "distance_to_training": "generated adapter to the nearest training adapter",
    "distance_in_training": "training adapter to the nearest other",
    "distance_ratio": "ratio, near zero for a generator that copies",
}
NEIGHBOURS = (1, 3, 5, 10, 20)


class Neighbours:
    """Training tasks as seen from a question: centred cosine of embeddings, and their latents."""

    def __init__(self, train: TaskSet, e: Tensor, z: Tensor) -> None:
        self.tasks, self.z = train.tasks, z
        self.mean, self.std = e.mean(0), e.std(0).clamp(min=1e-6)
        self.e = self._scaled(e)

    def _scaled(self, e: Tensor) -> Tensor:
        return (e - self.mean) / self.std

    def cosine(self, e: Tensor) -> Tensor:
        """(B, T) similarities of questions e (B, D) to the training questions."""
        return torch.nn.functional.normalize(self._scaled(e), dim=-1) @ torch.nn.functional.normalize(self.e, dim=-1).mT

    def _nearest(self, e: Tensor, k: int) -> torch.return_types.topk:
        """Similarities `values` and `indices` (B, k) of the nearest training questions; of all if they are fewer."""
        return self.cosine(e).topk(min(k, len(self.tasks)))

    def weighted(self, e: Tensor, k: int) -> Tensor:
        """Latents (B, Z): mean of the k nearest tasks' ones, or of all if there are fewer, weighted by similarity."""
        best = self._nearest(e, k)
        weight = best.values.clamp(min=1e-6)
        return (weight[..., None] * self.z[best.indices]).sum(1) / weight.sum(1, keepdim=True)

    def answer_prior(self, e: Tensor, tasks: Sequence[Task], k: int) -> Tensor:
        """Accuracy (B,) of always giving the candidate that the k nearest training questions' images carry most."""
        result = []
        for task, near in zip(tasks, self._nearest(e, k).indices.tolist(), strict=True):
            votes = Counter(self.tasks[i].answers[label] for i in near for label in self.tasks[i].examples("all")[1])
            guess = max(range(len(task.answers)), key=lambda c: votes[task.answers[c]])
            labels = task.query[1]
            result.append(sum(label == guess for label in labels) / len(labels))
        return torch.tensor(result)


def others(count: int, rng: torch.Generator) -> Tensor:
    """For every one of `count` tasks another one: the next on a random way round all of them, so none its own."""
    way = torch.randperm(count, generator=rng)
    result = torch.empty_like(way)
    result[way] = way.roll(1)
    return result


def rephrased(questions: Sequence[str], training: Collection[str], rng: random.Random) -> list[str]:
    """Each of Emoji-VQA's questions in other words, in such as no training question has where there are some."""
    result = []
    for question in questions:
        other = [text for text in phrasings(question) if text != question]
        result.append(rng.choice([text for text in other if text not in training] or other))
    return result


def lacks(generator: AdapterGenerator, name: str) -> list[str]:
    """What a release lacks of HyperLDM and the training latents of "hvae" or "hnet", in words."""
    label = GENERATORS[name]
    there = {
        f"{label} + HyperLDM": generator.has("hyperldm", name),
        f"the table of the {label}'s training latents": (generator.directory / f"latents_{name}.safetensors").is_file(),
    }
    return [what for what, is_there in there.items() if not is_there]


def rows(run, generator: AdapterGenerator, name: str, test: TaskSet, seed: int) -> dict[str, Tensor]:
    """Accuracy (T,) of every row on the test tasks."""
    decode = generator.weight_generator(name).decode
    _, tensors = load_model(generator.file(f"latents_{name}"), "latents")
    near = Neighbours(run.train, run.train_batch.question, tensors["z"].to(run.device))
    query, val = test.batch(part="query").to(run.device), run.val_query

    def accuracy(w: Tensor, batch: TaskBatch = query) -> Tensor:
        return accuracies(generator.network, w, batch)

    def best(options: Sequence, latents: Callable[..., Tensor]):
        """The option whose latents do best on validation tasks."""
        with torch.no_grad():
            return max(options, key=lambda option: float(accuracy(decode(latents(option, val.question)), val).mean()))

    e = query.question
    rng = torch.Generator().manual_seed(seed)
    k = best(NEIGHBOURS[1:], lambda k, q: near.weighted(q, k))
    k_prior = max(NEIGHBOURS, key=lambda k: float(near.answer_prior(val.question, run.val.tasks, k).mean()))
    ridge, _ = kernel_ridge.fitted(run, near.z, decode)
    words = sorted({word for task in run.train.tasks for word in task.question.rstrip("?").split()})
    shuffler = random.Random(seed)
    nonsense = [" ".join(shuffler.sample(words, 7)) + "?" for _ in test.tasks]
    same = []
    if isinstance(run.dataset, EmojiVQA):
        training = {task.question for task in run.train.tasks}
        same = rephrased([task.question for task in test.tasks], training, random.Random(seed))
    with torch.no_grad():
        z_mean = near.z.mean(0, keepdim=True).expand(len(query), -1)
        steps = steps_of(generator, name)  # in a single one it predicts the mean latent, and samples nothing
        hyperldm = functools.partial(generator.weights, method="hyperldm", generator=name, seed=seed)
        return {
            "chance": torch.tensor([1 / len(task.answers) for task in test.tasks]),
            "nearest_answer_prior": near.answer_prior(e, test.tasks, k_prior),
            "mean_adapter": accuracy(decode(z_mean)),
            "nearest_adapter": accuracy(decode(near.weighted(e, 1))),
            "knn_adapter": accuracy(decode(near.weighted(e, k))),
            "kernel_ridge": accuracy(decode(ridge.latents(e))),
            f"{name}_hyperldm": accuracy(hyperldm(e)),
            "ten_steps": accuracy(hyperldm(e, steps=steps, samples=AVERAGED)),
            "one_sample": accuracy(hyperldm(e, steps=steps, samples=1)),
            **({"other_words": accuracy(hyperldm(asked_as(generator, e, same)))} if same else {}),
            "shuffled_question": accuracy(hyperldm(e[others(len(e), rng)])),
            "random_words": accuracy(hyperldm(asked_as(generator, e, nonsense))),
        }


def copying(run, generator: AdapterGenerator, name: str, test: TaskSet, seed: int) -> dict[str, float]:
    """Median distances between standardised weights: of generated ones to the nearest training task's, and between
    each training task's and its own nearest neighbour. A generator that copies has a ratio near zero."""
    decode = generator.weight_generator(name).decode
    _, tensors = load_model(generator.file(f"latents_{name}"), "latents")
    with torch.no_grad():
        train = decode(tensors["z"].to(run.device))
        made = generator.weights(test.batch(part="query").question, "hyperldm", generator=name, seed=seed)
        mean, std = train.mean(0), train.std(0).clamp(min=1e-8)
        train, made = (train - mean) / std, (made - mean) / std
        own = torch.cdist(train, train)
        own.fill_diagonal_(torch.inf)
        nearest, between = torch.cdist(made, train).amin(1).median(), own.amin(1).median()
    return {
        "distance_to_training": float(nearest),
        "distance_in_training": float(between),
        "distance_ratio": float(nearest / between),
    }


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--generator", choices=tuple(GENERATORS), default="hvae", help="whose latents")
    args = arguments.parse_args(argv)
    run, generators = open_release(arguments, args, every_question=True)
    require_sets(arguments, run, ("val", "query"), ("test", "query"))
    require(arguments, run, generators, lambda generator: lacks(generator, args.generator))
    test = run.task_set("test")
    if args.limit_tasks is not None:
        test = test.select(range(min(args.limit_tasks, len(test))))
    scores: dict[str, list[Tensor]] = {}
    distances: dict[str, list[float]] = {}
    for generator in generators:
        for row, value in rows(run, generator, args.generator, test, generator.config["seed"]).items():
            scores.setdefault(row, []).append(value.cpu())
        for row, value in copying(run, generator, args.generator, test, generator.config["seed"]).items():
            distances.setdefault(row, []).append(value)
    seeds = [generator.config["seed"] for generator in generators]
    common = {"gamma": None, "descriptors": 1.0}
    records = [
        {"row": row, "label": LABELS[row], **common, **summary}
        for row, values in scores.items()
        for summary in tables.summaries(torch.stack(values), test, seeds)
    ]
    print(tables.grid(records, lambda r: r["label"]).to_string())
    print("\nAccuracy in % on query sets of test tasks, each task weighing the same.")
    print("Distances between standardised weights (medians):")
    for row, values in distances.items():
        record = {"row": row, "label": LABELS[row], **common, "tasks": "distance", **tables.over_seeds(values, seeds)}
        records.append(record)
        print(f"  {LABELS[row]:<50} {record['mean']:.2f}")
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/sanity.py")


if __name__ == "__main__":
    main()
