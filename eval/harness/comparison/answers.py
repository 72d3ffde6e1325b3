"""What rows answer right, task by task or pair by pair, as small text files from which all statistics can be made anew.

Two files, which eval/README.md describes: STEM_tasks.csv says what was asked, STEM_right.csv has a line for every row,
gamma, release and training seed. Lines of other releases on the same tasks may stand in further files beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from core.files import write_text
from eval.harness.metrics import PooledPairs, PooledScores, Scores, TaskScores, sets_of_pairs

SETS = ("known", "new", "all", "asked", "unasked", "image_disjoint")  # in the order of tables
PER_TASK = "write what every row answers right, by task: STEM_tasks.csv and STEM_right.csv"  # the help of a flag
_LINES = ("preset", "row", "label", "gamma", "chosen", "settings", "descriptors", "seed", "right")


@dataclass(frozen=True)
class JudgedTasks:
    """What all rows were asked: the query examples of T test tasks.

    Args:
        examples: (T,) long, how many each task has.
        sets: by name, which tasks (T,) it holds.
        own: (M,) bool, of all M examples, task by task: whether no training task shows the picture. Given where every
            example counts the same (pooled accuracy), None where every task does.
    """

    questions: tuple[str, ...]
    examples: Tensor
    sets: dict[str, Tensor]
    own: Tensor | None = None

    @property
    def question_of_example(self) -> Tensor:
        """Which task (M,) each example belongs to."""
        return torch.arange(len(self.questions)).repeat_interleave(self.examples)

    @cached_property
    def pairs(self) -> dict[str, PooledPairs]:
        """The sets of examples that pooled accuracies are of."""
        return sets_of_pairs(self.question_of_example, self.own)

    def scores(self, right: Tensor) -> dict[str, Scores]:
        """What answers come to on every set.

        Args:
            right: of each seed (seeds, T), how many examples of each task are answered right; where accuracy is pooled
                (seeds, M), which.
        """
        if self.own is not None:
            return {name: PooledScores(right[:, pairs.mask], pairs) for name, pairs in self.pairs.items()}
        accuracies = right.double() / self.examples.clamp(min=1)
        return {name: TaskScores(accuracies[:, some]) for name, some in self.sets.items()}

    def by_task(self, right: Tensor) -> Tensor:
        """Accuracy (T,) of every task, of what one line answers right; 0 for a task without examples."""
        if self.own is not None:
            right = torch.zeros(len(self.questions), dtype=torch.long).index_add(
                0, self.question_of_example, right.long()
            )
        return right.double() / self.examples.clamp(min=1)


@dataclass(frozen=True)
class Line:
    """What one row of one release answers right.

    Args:
        gamma: the row's own; None where it has none, or validation tasks chose it.
        right: (T,) long or (M,) bool, as `JudgedTasks.scores` takes it.
        chosen: what validation tasks chose for this row of this release: gamma, or the few-shot row.
        settings: of the release's training, where they are not the preset's.
        descriptors: share of training tasks whose question was known.
    """

    row: str
    label: str
    gamma: float | None
    seed: int
    right: Tensor = field(repr=False)
    chosen: str = ""
    settings: tuple[str, ...] = ()
    descriptors: float = 1.0
    preset: str = ""

    @property
    def key(self) -> tuple[str, str, float | None, tuple[str, ...], float]:
        """What the lines of one row share, whatever the seed."""
        return self.row, self.label, self.gamma, self.settings, self.descriptors


def paths(stem: Path) -> tuple[Path, Path]:
    """The files of tasks and of lines."""
    return stem.with_name(f"{stem.name}_tasks.csv"), stem.with_name(f"{stem.name}_right.csv")


# -- to files ----------------------------------------------------------------------------------------------------------


def write_answers(stem: Path, tasks: JudgedTasks, lines: Sequence[Line]) -> None:
    """Write both files."""
    of_task = [
        {
            "task": i,
            "question": question,
            "examples": int(tasks.examples[i]),
            "sets": " ".join(name for name, some in tasks.sets.items() if some[i]),
        }
        for i, question in enumerate(tasks.questions)
    ]
    if tasks.own is not None:
        for entry, bits in zip(of_task, _words(tasks, tasks.own), strict=True):
            entry["image_disjoint"] = bits
    of_line = [
        {
            **{name: getattr(line, name) for name in _LINES},
            "gamma": "" if line.gamma is None else f"{line.gamma:g}",
            "settings": " ".join(line.settings),
            "descriptors": f"{line.descriptors:g}",
            "right": " ".join(_words(tasks, line.right)),
        }
        for line in lines
    ]
    stem.parent.mkdir(parents=True, exist_ok=True)
    for path, entries in zip(paths(stem), (of_task, of_line), strict=True):
        write_text(path, pd.DataFrame(entries).to_csv(index=False, lineterminator="\n"))


def _words(tasks: JudgedTasks, values: Tensor) -> list[str]:
    """A word a task: of counts (T,) the number, of bits (M,) those of its examples, "-" for none."""
    if values.dtype != torch.bool:
        return [str(value) for value in values.tolist()]
    return ["".join("01"[bit] for bit in some.tolist()) or "-" for some in values.split(tasks.examples.tolist())]


# -- from files --------------------------------------------------------------------------------------------------------


def read_answers(stem: Path, *more: Path) -> tuple[JudgedTasks, list[Line]]:
    """The tasks of a stem, its lines, and those of more files on the same tasks.

    Raises:
        ValueError: a file that is not there or does not fit, or a line that stands there twice.
    """
    of_tasks, of_lines = paths(stem)
    tasks = _read_tasks(of_tasks)
    found: dict[object, tuple[Line, Path]] = {}
    for path in (of_lines, *more):
        for line in _read_lines(path, tasks):
            if (key := (line.key, line.seed)) in found:
                raise ValueError(f"{path}: {line.row}, seed {line.seed} stands in {found[key][1]} already")
            found[key] = line, path
    return tasks, [line for line, _ in found.values()]


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"{path} is missing; `python eval/table1.py --per-task STEM` writes it")
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    if lacking := [name for name in columns if name not in table]:
        raise ValueError(f"{path}: no column {lacking[0]!r}; found: {', '.join(table)}")
    return table


def _read_tasks(path: Path) -> JudgedTasks:
    table = _read_csv(path, ("question", "examples", "sets"))
    try:
        examples = torch.tensor([int(text) for text in table["examples"]])
    except ValueError as error:
        raise ValueError(f"{path}: column examples: {error}") from None
    names = {name for text in table["sets"] for name in text.split()}
    order = [name for name in SETS if name in names] + sorted(names - set(SETS))
    sets = {name: torch.tensor([name in text.split() for text in table["sets"]]) for name in order}
    tasks = JudgedTasks(tuple(table["question"]), examples, sets)
    if "image_disjoint" not in table:
        return tasks
    return JudgedTasks(tasks.questions, examples, sets, _bits(" ".join(table["image_disjoint"]), tasks, str(path)))


def _read_lines(path: Path, tasks: JudgedTasks) -> list[Line]:
    result = []
    for number, entry in enumerate(_read_csv(path, _LINES).to_dict("records"), start=2):
        where = f"{path}, line {number}"
        try:
            result.append(
                Line(
                    row=entry["row"],
                    label=entry["label"],
                    gamma=float(entry["gamma"]) if entry["gamma"] else None,
                    seed=int(entry["seed"]),
                    right=_right(entry["right"], tasks, where),
                    chosen=entry["chosen"],
                    settings=tuple(entry["settings"].split()),
                    descriptors=float(entry["descriptors"]),
                    preset=entry["preset"],
                )
            )
        except ValueError as error:
            raise ValueError(str(error) if where in str(error) else f"{where}: {error}") from None
    return result


def _right(text: str, tasks: JudgedTasks, where: str) -> Tensor:
    if tasks.own is not None:
        return _bits(text, tasks, where)
    counts = torch.tensor([int(word) for word in text.split()])
    if counts.shape != tasks.examples.shape:
        raise ValueError(f"{where}: {len(counts)} tasks; allowed: {len(tasks.examples)}")
    if (wrong := (counts < 0) | (counts > tasks.examples)).any():
        i = int(wrong.nonzero()[0])
        raise ValueError(f"{where}: {counts[i]} right in task {i}; allowed: 0 to {tasks.examples[i]}")
    return counts


def _bits(text: str, tasks: JudgedTasks, where: str) -> Tensor:
    """(M,) bool of words of 0 and 1, one for each task."""
    words = [word.strip("-") for word in text.split()]
    if [len(word) for word in words] != tasks.examples.tolist() or set("".join(words)) - set("01"):
        raise ValueError(f"{where}: allowed: {len(tasks.examples)} words of 0 and 1, as long as their tasks' examples")
    return torch.tensor([bit == "1" for bit in "".join(words)])
