"""Which tasks to descend on together: padding costs arithmetic, every group costs calls."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..data.tasks import TaskBatch
from ..networks.adapter import CLIPAdapter

_CACHE_BYTES = 4 * 2**20  # of tasks descended on together on a CPU: about the processor's cache
_CALL_WORK = 2e7  # arithmetic that a CPU does in the time that the calls of one step take


def groups(network: CLIPAdapter, batch: TaskBatch, steps: Tensor) -> list[Tensor]:
    """Rows of tasks of like size, to be descended on together; those with the most steps first.

    The split of the tasks, sorted by size, is the one of least cost; no group is larger than the processor's cache. On
    a GPU calls cost more than padding, and all tasks are one group.

    Args:
        steps: (T,) of each task.
    """
    if batch.images.device.type != "cpu":
        return [steps.argsort(descending=True)]
    order = batch.example_mask.sum(1).argsort(descending=True)
    sizes = batch.example_mask.sum(1)[order].tolist()
    answers = batch.answer_mask.sum(1)[order].tolist()
    D, H = network.dim, network.config.hidden
    widths = [min(D, N + C + H + 1) for N, C in zip(sizes, answers, strict=True)]  # K
    room = [4 * (3 * N * K + 2 * K * H + 4 * N * H + N * N) for N, K in zip(sizes, widths, strict=True)]  # bytes
    work = [2 * N * H * (N + 3 * K) for N, K in zip(sizes, widths, strict=True)]  # of one step
    parts = [order[first:end] for first, end in cheapest_split(work, room, _CALL_WORK, _CACHE_BYTES)]
    return [rows[steps[rows].argsort(descending=True)] for rows in parts]


def cheapest_split(
    work: Sequence[float], room: Sequence[float], overhead: float, limit: float
) -> list[tuple[int, int]]:
    """Part a sequence that falls in size into runs (first, end), last run first, at the least cost.

    A run costs `overhead` plus its length times the work of its first, largest item, to which the others are padded;
    its length times the room of that item must stay below `limit`, unless the run is one item. The least cost of the
    first n items is the minimum, over where the last run begins, of the least cost of the items before it plus the
    cost of the run (dynamic programming, quadratic in the number of items).
    """
    best, begins = [0.0], [0]  # of the first n items: least cost, and where their last run begins
    for end in range(1, len(work) + 1):
        cost, first = min(
            (best[first] + overhead + work[first] * (end - first), first)
            for first in range(end)
            if first == end - 1 or (end - first) * room[first] <= limit
        )
        best.append(cost)
        begins.append(first)
    runs, end = [], len(work)
    while end:
        runs.append((begins[end], end))
        end = begins[end]
    return runs
