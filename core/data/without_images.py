"""Tasks less the examples of some images: of those that cannot be read, of those that training shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Sequence

from .tasks import Task, TaskSet


def without_images(tasks: Sequence[Task], lost: Container[int]) -> tuple[list[Task], list[str]]:
    """Tasks less the examples of lost images.

    Answers that lose their last example go with them. A task left with fewer than two answers, or of whose support or
    query set nothing is left, is left out.

    Returns:
        The tasks that remain, and a line for each that is left out.
    """
    kept, notes = [], []
    for task in tasks:
        if not any(image in lost for image in task.examples("all")[0]):
            kept.append(task)
            continue
        parts = [[(i, y) for i, y in zip(*part, strict=True) if i not in lost] for part in (task.support, task.query)]
        kept_labels = {y for part in parts for _, y in part}
        gone = {y for y in task.examples("all")[1] if y not in kept_labels}
        labels = [y for y in range(len(task.answers)) if y not in gone]  # in a part of a dataset some never had any
        emptied = any(not left and had[0] for left, had in zip(parts, (task.support, task.query), strict=True))
        if len(labels) < 2 or emptied:
            notes.append(f"left out: {task.question!r}, too few of its images can be read")
            continue
        support, query = ((tuple(i for i, _ in p), tuple(labels.index(y) for _, y in p)) for p in parts)
        answers = tuple(task.answers[y] for y in labels)
        kept.append(dataclasses.replace(task, answers=answers, support=support, query=query))
    return kept, notes


def trained_images(tasks: Sequence[Task]) -> set[int]:
    """Images, by index, that training or validation tasks show."""
    return {image for task in tasks if task.split != "test" for image in task.examples("all")[0]}


def image_disjoint(test: TaskSet, seen: Container[int]) -> TaskSet:
    """Tasks with only those query examples whose image is not among those `seen`, by index.

    In Meta-VQA about half of the test query pairs show an image that training has seen, with another question. Tasks
    without any other query example are left out.
    """
    kept: dict[int, Task] = {}
    for i, task in enumerate(test.tasks):
        pairs = [(image, label) for image, label in zip(*task.query, strict=True) if image not in seen]
        if pairs:
            kept[i] = dataclasses.replace(task, query=(tuple(i for i, _ in pairs), tuple(y for _, y in pairs)))
    return dataclasses.replace(test.select(list(kept)), tasks=tuple(kept.values()))
