"""Tasks with the features of their images, answers and questions, as models learn from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..backbones.questions import QuestionEncoder, beside
from .features import FeatureStore, Progress
from .tasks import Task, TaskSet
from .without_images import without_images


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
