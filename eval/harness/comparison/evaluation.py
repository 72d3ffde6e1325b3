"""What the rows of releases answer right on the tasks of a split: on the test tasks, if it is not said otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import torch
from torch import Tensor

from core.data.emoji.dataset import EmojiVQA
from core.data.emoji.questions import phrasings
from core.data.task_sets import image_disjoint, trained_images
from core.data.tasks import Split, Task, TaskSet
from core.generator import AdapterGenerator
from eval.harness import tables
from eval.harness.comparison.answers import JudgedTasks, Line
from eval.harness.comparison.variants import Variant
from eval.harness.origins import descriptors
from eval.harness.rows import Row, answered, available, choices_of
from train.pipeline.run import Run


def sets_of_tasks(run: Run, test: TaskSet) -> dict[str, Tensor]:
    """The sets of test tasks (T,) that Table 1 has figures of. In Emoji-VQA, tasks of known families are parted by
    whether training asks the same in other words ("asked") or not ("unasked")."""
    sets = tables.masks(test)
    if isinstance(run.dataset, EmojiVQA):
        trained = {task.question for task in run.dataset.tasks if task.split == "train"}
        asked = torch.tensor([not trained.isdisjoint(phrasings(task.question)) for task in test.tasks])
        new = torch.tensor([task.new_family for task in test.tasks])
        sets |= {name: mask for name, mask in (("asked", asked), ("unasked", ~asked & ~new)) if mask.any()}
    return sets


def evaluated_tasks(
    run: Run, limit: int | None, seen: AbstractSet[int], split: Split = "test", *, prompted: bool = False
) -> TaskSet:
    """The tasks of a split, or the first `limit` of them, less the query examples of images that were `seen`. Where
    accuracy is pooled, all examples of validation tasks are query, as `train/choose.py` takes them, none is
    support."""
    tasks = run.task_set(split, prompted=prompted)
    if split == "val" and run.preset.pooled:
        judged = [replace(task, query=task.examples("all"), support=((), ())) for task in tasks.tasks]
        tasks = replace(tasks, tasks=tuple(judged))
    tasks = image_disjoint(tasks, seen) if seen else tasks
    return tasks if limit is None else tasks.select(range(min(limit, len(tasks))))


def without_support(rows: Sequence[Row], tasks: Sequence[Task]) -> list[Row]:
    """Rows less those that adapt to support sets, with a line that says so, where a task to judge has none."""
    if all(task.support[0] for task in tasks):
        return list(rows)
    if left := ", ".join(row.id for row in rows if row.few_shot):
        kind = "validation" if tasks[0].split == "val" else tasks[0].split
        print(f"left out: {left}; {kind} tasks have no support set to adapt to")
    return [row for row in rows if not row.few_shot]


def judged_tasks(
    run: Run, limit: int | None = None, seen: AbstractSet[int] = frozenset(), split: Split = "test"
) -> JudgedTasks:
    """What every row is asked. Without the query examples of images that were `seen`, there is one set,
    "image_disjoint"."""
    test = evaluated_tasks(run, limit, seen, split)
    questions = tuple(task.question for task in test.tasks)
    examples = torch.tensor([len(task.query[0]) for task in test.tasks])
    whole = torch.ones(len(test), dtype=torch.bool)
    if run.preset.pooled:
        own = tables.pictures_of_their_own(test.tasks, trained_images(run.dataset.tasks))
        return JudgedTasks(questions, examples, {"all": whole}, own)
    return JudgedTasks(questions, examples, {"image_disjoint": whole} if seen else sets_of_tasks(run, test))


def lines_of(
    run: Run,
    generators: Sequence[AdapterGenerator],
    rows: Iterable[Row],
    limit: int | None = None,
    seen: AbstractSet[int] = frozenset(),
    split: Split = "test",
) -> Iterator[Line]:
    """A line for every row, share of descriptors and release that has the row, in this order. The tasks are those of
    `judged_tasks`; questions are embedded as `run` embeds them."""
    test, prompted = (evaluated_tasks(run, limit, seen, split, prompted=prompted) for prompted in (False, True))
    support, query = test.batch(part="support").to(run.device), test.batch(part="query").to(run.device)
    with_prompts = prompted.batch(part="query").to(run.device)
    mask = query.example_mask.cpu()
    shares = sorted({descriptors(g) for g in generators}, reverse=True)
    for row, share in ((row, share) for row in rows for share in shares):
        chosen = with_prompts if row.id == "clip_prompted" else query
        for generator in generators:
            if descriptors(generator) != share or not available(row, generator):
                continue
            right = answered(row, generator, support, chosen)  # (T, N)
            choice = choices_of(row, [generator])
            (words,) = choice.get("gammas") or choice.get("ceilings") or ("",)
            yield Line(
                row=row.id,
                label=row.label,
                gamma=row.gamma,
                seed=generator.config["seed"],
                right=right[mask] if run.preset.pooled else right.sum(1),
                chosen=words if isinstance(words, str) else f"{words:g}",
                settings=tuple(run.origin["set"]),
                descriptors=share,
                preset=run.preset.name,
            )


def variant_lines(
    run: Run,
    variant: Variant,
    generators: Sequence[AdapterGenerator],
    limit: int | None = None,
    seen: AbstractSet[int] = frozenset(),
    split: Split = "test",
) -> Iterator[Line]:
    """The lines of a variant: its row of its releases, with the run of one of them."""
    for line in lines_of(run, generators, [variant.row], limit, seen, split):
        yield replace(line, row=variant.id, label=variant.label, settings=variant.settings)
