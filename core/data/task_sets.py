"""Sets of tasks: with the features that models learn from; less the examples of images that cannot be read, or that
training shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Sequence
from typing import Any

from ..backbones.questions import QuestionEncoder, beside
from .features import FeatureStore, Progress
from .tasks import Task, TaskSet


def build_task_set(
    store: FeatureStore,
    tasks: Sequence[Task],
    *,
    prompted: bool = False,
    questions: QuestionEncoder,
    progress: Callable[[int], Progress] | None = None,
    report: Callable[[str], Any] = print,
) -> TaskSet:
    """Tasks with their features; equal answer texts share a row.

    Examples whose image cannot be read are left out, and tasks that this leaves too small.

    Args:
        prompted: embed answers in their question's cloze prompt instead of bare.
        questions: makes the task embeddings.
        report: takes a line for whatever was left out.

    Raises:
        ValueError: no task is left.
    """
    used = {index for task in tasks for index in task.examples("all")[0]}
    images = store.images(used, progress)
    lost = {index: reason for index, reason in store.unreadable.items() if index in used}
    if lost:
        tasks, notes = without_images(tasks, lost)
        report(f"{len(lost)} unreadable images are left out, listed in {store.directory / 'unreadable.json'}")
        for note in notes:
            report(note)
    if not tasks:
        raise ValueError(f"{store.directory}: no task with readable images")
    texts = [[task.prompt.format(a) if prompted and task.prompt else a for a in task.answers] for task in tasks]
    row: dict[str, int] = {}
    for text in (text for answers in texts for text in answers):
        row.setdefault(text, len(row))
    return TaskSet(
        tasks=tuple(tasks),
        image_features=images,
        answer_features=store.answers(list(row)),
        question_features=beside(
            store.questions([task.question for task in tasks], questions),
            store.candidates([task.answers for task in tasks], questions),
        ),
        answer_rows=tuple(tuple(row[text] for text in answers) for answers in texts),
    )


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
