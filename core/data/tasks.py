"""Tasks of question-conditioned image classification, and their padded batches.

A task (Section 2, Appendix A.5) is one question with its candidate answers and two disjoint sets of labelled
images, support and query. A `TaskSet` holds many tasks over one table of frozen CLIP features; a `TaskBatch` is
some of them, padded and masked, ready for batched matrix products.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Split = Literal["train", "val", "test"]
Part = Literal["support", "query", "all"]


@dataclass(frozen=True)
class Task:
    """One question, its candidate answers, and which images carry which answer.

    `support` and `query` are pairs (image indices, labels), two tuples of equal length; an image index points
    into the dataset's image table, a label into `answers`.
    """

    question: str
    answers: tuple[str, ...]
    support: tuple[tuple[int, ...], tuple[int, ...]]
    query: tuple[tuple[int, ...], tuple[int, ...]]
    split: Split
    family: str = ""
    new_family: bool = False  # True: no training question belongs to this family
    prompt: str = ""  # cloze prompt with one {}, "" when there is none

    def __post_init__(self) -> None:
        if len(self.answers) < 2:
            raise ValueError(f"task {self.question!r}: needs at least 2 answers, got {self.answers!r}")
        for name, (images, labels) in (("support", self.support), ("query", self.query)):
            if len(images) != len(labels):
                raise ValueError(f"task {self.question!r}: {name} has {len(images)} images, {len(labels)} labels")
            if labels and not 0 <= min(labels) <= max(labels) < len(self.answers):
                raise ValueError(f"task {self.question!r}: {name} labels outside 0..{len(self.answers) - 1}")

    def examples(self, part: Part) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Image indices and labels of one part; "all" is support followed by query."""
        if part == "support":
            return self.support
        if part == "query":
            return self.query
        if part == "all":
            return self.support[0] + self.query[0], self.support[1] + self.query[1]
        raise ValueError(f"part {part!r}; allowed: 'support', 'query', 'all'")


@dataclass(frozen=True)
class TaskBatch:
    """`T` ragged tasks, padded to `N` examples and `C` answers.

    Shapes: images (T, N, D), labels (T, N), example_mask (T, N) bool, answers (T, C, D), answer_mask (T, C) bool,
    question (T, E). Images, answers and questions are unit vectors (padding is zeros); padded labels are 0.
    """

    images: Tensor
    labels: Tensor
    example_mask: Tensor
    answers: Tensor
    answer_mask: Tensor
    question: Tensor

    def __len__(self) -> int:
        return self.labels.shape[0]

    def to(self, device: torch.device | str) -> TaskBatch:
        return TaskBatch(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))

    def __getitem__(self, rows: Tensor) -> TaskBatch:
        """The tasks at `rows` (a long tensor or a slice)."""
        return TaskBatch(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))

    def with_mask(self, example_mask: Tensor) -> TaskBatch:
        """The same tasks, seeing only the examples of `example_mask` (T, N)."""
        return dataclasses.replace(self, example_mask=example_mask & self.example_mask)

    def trimmed(self) -> TaskBatch:
        """Drop examples that no task uses: masked-in examples move to the front, `N` shrinks to the most used.

        Halves the work of the inner loop after `split_support_query`, whose two parts share one padding.
        """
        order = _used_first(self.example_mask)  # (T, n)
        return dataclasses.replace(
            self,
            images=self.images.gather(1, order[..., None].expand(-1, -1, self.images.shape[-1])),
            labels=self.labels.gather(1, order),
            example_mask=self.example_mask.gather(1, order),
        )


@dataclass(frozen=True)
class TaskTable:
    """Many tasks at the cost of one feature table: what a `TaskBatch` holds, by row number.

    Padded, every task takes the room of the largest: 4 GB for Meta-VQA's training tasks, whose table is 80 MB. Index it
    by task; `trimmed`, and so `split_support_query` and `subsample`, gather only what they keep.

    Shapes: image_features (images, D) and answer_features (rows, D), float16 or float32; image_rows, labels and
    example_mask (T, N); answer_rows and answer_mask (T, C); question (T, E).
    """

    image_features: Tensor
    answer_features: Tensor
    image_rows: Tensor
    labels: Tensor
    example_mask: Tensor
    answer_rows: Tensor
    answer_mask: Tensor
    question: Tensor

    def __len__(self) -> int:
        return self.labels.shape[0]

    def to(self, device: torch.device | str) -> TaskTable:
        return TaskTable(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))

    def __getitem__(self, rows: Tensor | slice) -> TaskTable:
        """The tasks at `rows` (a long tensor or a slice), sharing the feature tables."""
        names = [f.name for f in dataclasses.fields(self) if not f.name.endswith("features")]
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})

    def with_mask(self, example_mask: Tensor) -> TaskTable:
        """The same tasks, seeing only the examples of `example_mask` (T, N)."""
        return dataclasses.replace(self, example_mask=example_mask & self.example_mask)

    def trimmed(self) -> TaskBatch:
        """The tasks with their features, padded to the most examples that one of them uses. Answers are padded to the
        next multiple of 32 (or to all), so that a few sizes recur."""
        order = _used_first(self.example_mask)  # (T, n)
        mask = self.example_mask.gather(1, order)
        C = min(self.answer_mask.shape[1], 32 * -(-int(self.answer_mask.sum(1).max()) // 32))
        answer_mask = self.answer_mask[:, :C]
        return TaskBatch(
            images=_features(self.image_features, self.image_rows.gather(1, order), mask),
            labels=self.labels.gather(1, order),
            example_mask=mask,
            answers=_features(self.answer_features, self.answer_rows[:, :C], answer_mask),
            answer_mask=answer_mask,
            question=self.question,
        )


@dataclass(frozen=True)
class TaskSet:
    """Tasks with their frozen features.

    Shapes: image_features (images, D) float16 or float32 unit vectors; answer_features are (rows, D),
    question_features (rows, E); `answer_rows[i][c]` is the row of task i's answer c, so that equal answers share a row.
    """

    tasks: tuple[Task, ...]
    image_features: Tensor
    answer_features: Tensor
    question_features: Tensor
    answer_rows: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not len(self.tasks) == len(self.question_features) == len(self.answer_rows):
            raise ValueError(
                f"TaskSet: {len(self.tasks)} tasks, {len(self.question_features)} questions, "
                f"{len(self.answer_rows)} answer lists; they must be equally many"
            )

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def dim(self) -> int:
        return self.image_features.shape[-1]

    def select(self, indices: Sequence[int]) -> TaskSet:
        """The tasks at `indices`, sharing the feature tables."""
        indices = list(indices)
        return dataclasses.replace(
            self,
            tasks=tuple(self.tasks[i] for i in indices),
            question_features=self.question_features[indices],
            answer_rows=tuple(self.answer_rows[i] for i in indices),
        )

    def split(self, *splits: Split) -> TaskSet:
        """The tasks of the given splits, e.g. `split("train", "val")`."""
        return self.select([i for i, task in enumerate(self.tasks) if task.split in splits])

    def batch(self, indices: Sequence[int] | None = None, part: Part = "all") -> TaskBatch:
        """Pad and stack the tasks at `indices` (default: all), float32."""
        table = self.table(indices, part)
        return TaskBatch(
            images=_features(table.image_features, table.image_rows, table.example_mask),  # (T, N, D)
            labels=table.labels,
            example_mask=table.example_mask,
            answers=_features(table.answer_features, table.answer_rows, table.answer_mask),  # (T, C, D)
            answer_mask=table.answer_mask,
            question=table.question,
        )

    def table(self, indices: Sequence[int] | None = None, part: Part = "all") -> TaskTable:
        """The tasks at `indices` (default: all), by row number: see `TaskTable`."""
        rows = list(range(len(self.tasks))) if indices is None else [int(i) for i in indices]
        if not rows:
            raise ValueError("TaskSet: no tasks selected")
        examples = [self.tasks[i].examples(part) for i in rows]
        image_rows, example_mask = _pad([images for images, _ in examples])  # (T, N)
        labels, _ = _pad([labels for _, labels in examples])
        answer_rows, answer_mask = _pad([self.answer_rows[i] for i in rows])  # (T, C)
        return TaskTable(
            image_features=self.image_features,
            answer_features=self.answer_features,
            image_rows=image_rows,
            labels=labels,
            example_mask=example_mask,
            answer_rows=answer_rows,
            answer_mask=answer_mask,
            question=self.question_features[rows].float(),  # (T, E)
        )


def split_support_query(
    batch: TaskBatch | TaskTable, *, support_fraction: float = 2 / 3, rng: torch.Generator
) -> tuple[TaskBatch, TaskBatch]:
    """Draw disjoint random support and query sets from every task's examples (Appendix A.6).

    Every task with at least two examples gets at least one of each. The two batches are trimmed.
    """
    if not 0.0 < support_fraction < 1.0:
        raise ValueError(f"support_fraction {support_fraction!r} must lie strictly between 0 and 1")
    mask = batch.example_mask
    in_support = _shuffled(mask, rng) < support_size(mask.sum(1, keepdim=True), support_fraction)
    return batch.with_mask(in_support).trimmed(), batch.with_mask(~in_support).trimmed()


def support_size(count: Tensor, support_fraction: float) -> Tensor:
    """How many of `count` examples are support, of any shape; one of each part where there are two."""
    size = (count * support_fraction).round().long().clamp(min=1)
    return torch.minimum(size, (count - 1).clamp(min=1))


def subsample(batch: TaskBatch | TaskTable, examples: int, rng: torch.Generator) -> TaskBatch:
    """At most `examples` random examples of every task, so that one large task does not pad all the others."""
    return batch.with_mask(_shuffled(batch.example_mask, rng) < examples).trimmed()


def _shuffled(mask: Tensor, rng: torch.Generator) -> Tensor:
    """The rank (T, N) of every example of a task in a random order; padding ranks last."""
    # Drawn on the random state's device, so that a seed means the same on CPU and GPU.
    noise = torch.rand(mask.shape, generator=rng, device=rng.device).to(mask.device)
    order = noise.masked_fill(~mask, 2.0).argsort(dim=1)
    return torch.empty_like(order).scatter_(1, order, torch.arange(mask.shape[1], device=mask.device).expand_as(order))


def _features(table: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    """Rows (T, N) of a table (rows, D), float32 (T, N, D), zeros where `mask` (T, N) is not set."""
    # Not table[rows]: a CPU copies rows of half precision five times as fast one after the other.
    found = table.index_select(0, rows.flatten()).float().view(*rows.shape, table.shape[-1])
    return found.mul_(mask[..., None])


def _used_first(mask: Tensor) -> Tensor:
    """Positions (T, n) of the examples in use, in order, then others; n is the most that a task uses."""
    n = int(mask.sum(1).max())
    return torch.argsort(mask.int(), dim=1, descending=True, stable=True)[:, :n]


def _pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ragged integer rows -> (T, longest) long tensor padded with 0, and its mask."""
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    padded = torch.zeros(mask.shape, dtype=torch.long)
    padded[mask] = torch.tensor([item for row in rows for item in row], dtype=torch.long)
    return padded, mask
