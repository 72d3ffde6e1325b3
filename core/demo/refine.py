"""Refine: how a generated adapter and the MAML initialisation improve with labelled examples (Table 4, by k)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.tasks import TaskBatch
from ..generator import Adapter, AdapterGenerator
from ..methods import row_of
from ..networks.base import task_accuracy

# What is adapted: the latent that HyperLDM found for the question, and the weights that MAML starts from.
ROWS = {row_of("hyperldm"): "HyperLDM, its latent adapted", "mnet_maml": "MNet-MAML, its weights adapted"}
KS = (0, 1, 2, 5, 10, 20, 35, 50)
DRAWS = 5  # orders in which the examples arrive
MIN_OWN = 4  # labelled pictures of one's own: a third of them is held out


@dataclass(frozen=True)
class Labelled:
    """Pictures as unit embeddings x (N, D) with the numbers of their answers (N,)."""

    x: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | slice) -> Labelled:
        return Labelled(self.x[rows], self.labels[rows])


@dataclass(frozen=True)
class KShot:
    """Accuracy on held-out pictures after k examples: (mean, lowest, highest) over the orders, by row."""

    k: int
    accuracy: dict[str, tuple[float, float, float]]


def rows(generator: AdapterGenerator) -> dict[str, str]:
    """The rows of `ROWS` that a release can adapt, at rates that validation tasks chose."""
    choices = generator.config.get("choices", {})
    return {row: label for row, label in ROWS.items() if f"few_shot_{row}" in choices and generator.has_row(row)}


def label_pictures(x: Tensor, truths: Sequence[str | None], answers: Sequence[str]) -> Labelled:
    """Pictures with embeddings x (N, D) whose true answer is among the candidates.

    Raises:
        ValueError: no such picture.
    """
    kept = [i for i, truth in enumerate(truths) if truth in answers]
    if not kept:
        raise ValueError("no picture has a known true answer among the candidates")
    return Labelled(x[kept], torch.tensor([list(answers).index(truths[i]) for i in kept]))


def usable(examples: Labelled, held_out: Labelled | None) -> int:
    """How many examples can be adapted to: all, or two thirds of them if they must test each other.

    Raises:
        ValueError: fewer than `MIN_OWN` examples and nothing held out.
    """
    if held_out is not None:
        return len(examples)
    if len(examples) < MIN_OWN:
        raise ValueError(
            f"{len(examples)} labelled picture{' is' if len(examples) == 1 else 's are'} too few to hold any out: "
            f"at least {MIN_OWN} are needed, "
            "since a third is not learned from but tested with"
        )
    return len(examples) - math.ceil(len(examples) / 3)


def hold_out(examples: Labelled, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of examples that must test each other: those to learn from, in order, and those held out. They are those of
    the first order of `k_shot_curve`.

    Raises:
        ValueError: too few examples.
    """
    tested = len(examples) - usable(examples, None)
    order = _orders(len(examples), seed)[0]
    return order[tested:], order[:tested]


def k_shot_curve(
    generator: AdapterGenerator,
    question: str,
    answers: Sequence[str],
    examples: Labelled,
    held_out: Labelled | None,
    most: int,
    *,
    seed: int = 0,
) -> Iterator[KShot]:
    """For k of `KS` up to `most`, adapt on the first k examples and test; averaged over `DRAWS` orders of them.

    Without `held_out`, each order holds out a third of the examples themselves.

    Raises:
        ValueError: too few examples, or `most` out of range.
    """
    room = usable(examples, held_out)
    if not 0 <= most <= min(KS[-1], room):
        raise ValueError(f"{most} examples; allowed: 0 to {min(KS[-1], room)}")
    orders = _orders(len(examples), seed)
    tested = len(examples) - room
    if held_out is None:
        query = _batch(generator, question, answers, examples, orders[:, :tested])
    else:
        query = _batch(generator, question, answers, held_out, torch.arange(len(held_out)).expand(DRAWS, -1))
    for k in [k for k in KS if k < most] + [most]:
        chosen = orders[:, tested : tested + max(k, 1)]
        support = _batch(generator, question, answers, examples, chosen)
        support = support.with_mask((torch.arange(chosen.shape[1]) < k).expand(DRAWS, -1))
        accuracy = {}
        for row in rows(generator):
            w = _adapt(generator, support, row, seed)
            with torch.no_grad():
                scores = task_accuracy(generator.network.logits(w, query.to(w.device)), query.to(w.device))
            accuracy[row] = (float(scores.mean()), float(scores.min()), float(scores.max()))
        yield KShot(k, accuracy)


def _orders(count: int, seed: int) -> Tensor:
    """The orders (DRAWS, count) in which examples arrive."""
    rng = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(count, generator=rng) for _ in range(DRAWS)])


def refined(
    generator: AdapterGenerator, question: str, answers: Sequence[str], examples: Labelled, row: str, *, seed: int = 0
) -> Adapter:
    """The adapter of a row after all `examples`; of none, what the row starts from."""
    k = len(examples)
    if k == 0:  # a batch has at least one place for an example, here an empty one
        examples = Labelled(torch.zeros(1, generator.network.dim), torch.zeros(1, dtype=torch.long))
    support = _batch(generator, question, answers, examples, torch.arange(len(examples))[None])
    w = _adapt(generator, support.with_mask(torch.arange(len(examples))[None] < k), row, seed)[0]
    provenance = {
        "question": question,
        "method": f"few_shot_{row}",
        "examples": k,
        "answers": list(answers),
        "seed": seed,
        "scale": generator.scale(f"few_shot_{row}" if k else row),
        "backbone_sha256": generator.backbone_sha256,
        "preset": generator.config.get("preset"),
    }
    return Adapter(w.cpu(), generator.network, generator.backbone, provenance)


def _adapt(generator: AdapterGenerator, support: TaskBatch, row: str, seed: int) -> Tensor:
    choice = generator.config["choices"][f"few_shot_{row}"]
    steps = choice["steps"] if support.example_mask.any() else 0
    return generator.few_shot_weights(support.to(generator.device), row, choice["lr"], steps, seed)


def _batch(
    generator: AdapterGenerator, question: str, answers: Sequence[str], examples: Labelled, chosen: Tensor
) -> TaskBatch:
    """One task for every row of `chosen` (T, N), all of the same question and answers."""
    T = len(chosen)
    texts = generator.backbone.encode_texts(answers)
    return TaskBatch(
        images=examples.x[chosen],
        labels=examples.labels[chosen],
        example_mask=torch.ones(chosen.shape, dtype=torch.bool),
        answers=texts.expand(T, -1, -1),
        answer_mask=torch.ones(T, len(answers), dtype=torch.bool),
        question=generator.embed_questions([question], [answers]).expand(T, -1),
    )
