"""The test questions in other words, and what the rows reach when they are asked so."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from core.backbones.questions import beside, candidates_part
from core.data.phrasings import Phrasings
from core.data.tasks import TaskBatch
from core.generator import AdapterGenerator
from eval.harness.rows import ROWS, Row, accuracy
from train.pipeline.environment import ROOT

FILES = {"training": ROOT / "train" / "phrasings.toml", "kept": ROOT / "eval" / "phrasings.toml"}  # by group
AS_IT_IS = "as it is"
ASKED_ROWS = tuple(  # in the order of the table
    next(row for row in ROWS if row.id == name and row.gamma is None)
    for name in ("clip", "cond_multitask", "hvae_hyperclip", "hvae_hyperldm")
)


@dataclass(frozen=True)
class Asked:
    """Questions put in one kind of words: `rows` are the places of those that this changes, `texts` holds what these
    are in every draw, in the order of `rows`."""

    group: str
    kind: str
    rows: tuple[int, ...]
    texts: tuple[tuple[str, ...], ...]

    @property
    def example(self) -> str:
        """One of the texts."""
        return self.texts[0][len(self.rows) // 2]


def read_files(files: Mapping[str, Path]) -> dict[str, Phrasings]:
    """The kinds of every group."""
    return {group: Phrasings.read(path) for group, path in files.items()}


def asked_in_other_words(
    questions: Sequence[str], groups: Mapping[str, Phrasings], draws: int, seed: int = 0
) -> Iterator[Asked]:
    """The questions as they are, then in the words of every kind that changes some of them, drawn `draws` times. What
    a question becomes depends on the seed, the kind, the draw and the question alone."""
    yield Asked(AS_IT_IS, AS_IT_IS, tuple(range(len(questions))), (tuple(questions),))
    for group, phrasings in groups.items():
        for kind in phrasings.kinds:
            put = [
                [phrasings.put(q, kind, random.Random(f"{seed}/{group}/{kind}/{draw}/{q}")) for q in questions]
                for draw in range(draws)
            ]
            rows = tuple(i for i, text in enumerate(put[0]) if text is not None)
            texts = dict.fromkeys(tuple(each[i] for i in rows) for each in put)  # a kind of one way says the same again
            if rows:
                yield Asked(group, kind, rows, tuple(texts))


def with_questions(generator: AdapterGenerator, tasks: TaskBatch, questions: Sequence[str]) -> TaskBatch:
    """The same tasks, with the same candidate answers, asked by these questions."""
    return replace(tasks, question=asked_as(generator, tasks.question, questions))


def asked_as(generator: AdapterGenerator, e: Tensor, questions: Sequence[str]) -> Tensor:
    """Task embeddings e (T, E) with these questions in place of their own; what is read of answers stays."""
    encoder = generator.question_encoder
    return beside(encoder.encode(questions).to(e), candidates_part(e, encoder))


def accuracy_asked(row: Row, generator: AdapterGenerator, query: TaskBatch, asked: Asked) -> Tensor:
    """Accuracy (n,) of a row on the tasks whose question a kind changes, the mean over draws."""
    tasks = query[torch.tensor(asked.rows, device=query.labels.device)]
    reached = [accuracy(row, generator, tasks, with_questions(generator, tasks, texts)) for texts in asked.texts]
    return torch.stack(reached).mean(0)


def shown(questions: Sequence[str], asked: Iterable[Asked], count: int) -> Iterator[str]:
    """Lines with `count` examples of every kind, spread over the questions, the first ones of a draw each."""
    for each in asked:
        yield f"{each.group}: {each.kind} ({len(each.rows)} of {len(questions)})"
        step = max(1, len(each.rows) // count)
        for place in range(0, min(len(each.rows), step * count), step):
            texts = each.texts[place // step % len(each.texts)]
            yield f"    {questions[each.rows[place]]}  ->  {texts[place]}"
