"""Minimal pairs: questions of a dataset that differ by one word and mean another adapter."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core.data.phrasings.rule import find_words
from core.data.tasks import Task, TaskSet
from core.generator import AdapterGenerator
from core.networks.base import accuracies
from eval.harness.rows import Row

CHUNK = 128  # questions whose weights are made at once


@dataclass(frozen=True)
class Pair:
    """The test task at `row` and the question of `partner`, which differs by a word of the `group`. `same_answers`:
    both have the same candidate answers. `other` is the row of a random test task of the same family, None where there
    is no third."""

    row: int
    partner: Task
    group: str
    same_answers: bool
    other: int | None


def minimal_pairs(test: Sequence[Task], tasks: Sequence[Task], opposites: Sequence[Sequence[str]]) -> list[Pair]:
    """All pairs of a test question and a question of the dataset that comes of it by replacing one word of a list of
    opposites by another of the same list."""
    known = {task.question.casefold(): task for task in tasks}
    rng, result = random.Random(0), {}
    for row, task in enumerate(test):
        alike = [i for i, other in enumerate(test) if other.family == task.family and i != row]
        for group in opposites:
            for text in _replaced(task.question.casefold(), [word.casefold() for word in group]):
                partner = known.get(text)
                if partner is None or (row, text) in result:
                    continue
                others = [i for i in alike if test[i].question != partner.question]
                same = set(partner.answers) == set(task.answers)
                other = rng.choice(others) if others else None
                result[row, text] = Pair(row, partner, " / ".join(group[:4]), same, other)
    return list(result.values())


def _replaced(question: str, group: Sequence[str]) -> Iterator[str]:
    for found in find_words(group).finditer(question):
        for word in group:
            if word != found[0]:
                yield question[: found.start()] + word + question[found.end() :]


def judge(row: Row, generator: AdapterGenerator, test: TaskSet, pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """For every pair (n,): accuracy on the test task's query images with its `own` adapter and with the `partner`'s,
    the cosine `distance` of the two adapters, both seen from the mean adapter of the test questions, and that to the
    adapter of a `random` question of the same family, nan where there is none."""
    questions = [task.question for task in test.tasks]
    partners = [pair.partner.question for pair in pairs]
    answers = {task.question: task.answers for task in (*test.tasks, *(pair.partner for pair in pairs))}
    place = {text: i for i, text in enumerate(answers)}
    w = _weights(row, generator, answers)  # (questions, P)
    rows = torch.tensor([pair.row for pair in pairs], device=w.device)
    to = torch.tensor([place[text] for text in partners], device=w.device)
    other = torch.tensor([pair.row if pair.other is None else pair.other for pair in pairs], device=w.device)
    table = test.table(part="query").to(w.device)
    with torch.no_grad():
        own = accuracies(generator.network, w[: len(questions)], table)[rows]
        partner = accuracies(generator.network, lambda some: w[to[some]], table[rows])
    seen = F.normalize(w - w[: len(questions)].mean(0), dim=-1)
    apart = lambda a, b: torch.cat(
        [1 - (seen[i] * seen[j]).sum(-1) for i, j in zip(a.split(CHUNK), b.split(CHUNK), strict=True)]
    )
    chance = apart(rows, other).masked_fill(rows == other, torch.nan)
    found = {"own": own, "partner": partner, "distance": apart(rows, to), "random": chance}
    return {name: values.double().cpu() for name, values in found.items()}


def _weights(row: Row, generator: AdapterGenerator, answers: Mapping[str, Sequence[str]]) -> Tensor:
    """Weights (Q, P) of questions, given with their candidate answers."""
    made, asked = [], list(answers.items())
    for first in range(0, len(asked), CHUNK):
        e = generator.embed_questions(*zip(*asked[first : first + CHUNK], strict=True))
        with torch.no_grad():
            made.append(generator.weights(e, row.method, generator=row.generator, gamma=row.gamma))
    return torch.cat(made)


def summary(pairs: Sequence[Pair], found: Sequence[dict[str, Tensor]]) -> Iterator[dict[str, Any]]:
    """Records of every group of opposites and of all pairs together, means over training seeds. Accuracies are over the
    `n_same` pairs whose answers agree (None where none do), `distance` over all `n_pairs`, `relative` is that by the
    distance of two random questions of the same family."""
    mean = {name: torch.stack([each[name] for each in found]).mean(0) for name in found[0]} if found else {}
    same = torch.tensor([pair.same_answers for pair in pairs])
    for group in ("all", *dict.fromkeys(pair.group for pair in pairs)):
        chosen = torch.tensor([group in ("all", pair.group) for pair in pairs])
        agreeing = chosen & same
        distance = float(mean["distance"][chosen].mean())
        chance = float(mean["random"][chosen].nanmean())
        yield {
            "group": group,
            **{
                name: round(float(mean[name][agreeing].mean()), 4) if agreeing.any() else None
                for name in ("own", "partner")
            },
            "distance": round(distance, 4),
            "relative": round(distance / chance, 4) if chance > 0 else None,
            "n_pairs": int(chosen.sum()),
            "n_same": int(agreeing.sum()),
        }
