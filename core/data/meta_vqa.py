"""Meta-VQA (Section 6.1, Appendix A.5): 870 training and 373 test questions about photographs; and, in the same format,
anyone's own questions. `train/make_data.py` builds the directory that is read here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import config_hash, later, place
from ..release.default import located
from ..texts import folded
from .base import DatasetConfig, check_fold, fold_bounds
from .built import (
    IDENTITY_FILE,
    PROMPT_FILE,
    QUESTION_FILES,
    Entry,
    ImageFiles,
    Questions,
    image_names,
    read_dataset,
    read_identity,
    read_images,
    read_prompts,
    read_questions,
)
from .phrasings.denials import opposite
from .tasks import Split, Task

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class MetaVQAConfig(DatasetConfig):
    """A built dataset.

    `directory` is found from the current folder or from the project's root; `digest` pins what it must hold ("":
    whatever is there). `val_tasks` of the training questions become validation tasks, 0 where the directory has its
    own. For cross-validation in K `folds` (0: none), part number `fold` (0 to K - 1) of the training questions does,
    and `val_tasks` plays no role.

    With `denials`, training asks its yes/no questions also in the opposite form, of the same pictures, with yes for no:
    "Is there no dog?" beside "Is there a dog?". The rules are those of `core.data.phrasings.denials`.
    """

    directory: str = place("data/metavqa")
    digest: str = ""
    val_tasks: int = 87
    seed: int = 0  # of the choice of validation tasks
    folds: int = 0
    fold: int = 0
    denials: bool = later(False)

    def __post_init__(self) -> None:
        check_fold(self.fold, self.folds)

    @classmethod
    def at(cls, directory: Path | str) -> MetaVQAConfig:
        """The config of a directory, pinned: where it has no validation tasks of its own, a tenth of the training
        questions are, as in Meta-VQA; with denials where it trains on yes/no questions. A ValueError if it holds no
        dataset."""
        counts = read_identity(directory)["counts"]
        tenth = min(cls.val_tasks, max(1, round(counts["train"] / 10)))
        train = read_questions(Path(directory) / QUESTION_FILES["train"], part=True)
        denials = any(_is_yes_or_no(entry["answers"]) for entry in train.values())
        return cls(str(directory), val_tasks=0 if counts["val"] else tenth, denials=denials).pinned()

    def moved(self, directory: Path | str) -> MetaVQAConfig:
        """The same settings for another directory, pinned; a dataset with validation tasks of its own keeps them, and
        of one with too few questions for as many a fifth are validation tasks."""
        there = self.at(directory)
        if not there.val_tasks:
            return there
        same = replace(self, directory=there.directory, digest=there.digest, denials=there.denials)
        few = not self.folds and 5 * self.val_tasks > read_identity(directory)["counts"]["train"]
        return replace(same, folds=5) if few else same

    def pinned(self) -> MetaVQAConfig:
        """The same with the digest of what the directory holds now; itself where nothing is built yet."""
        directory = located(self.directory)
        if self.digest or not (directory / IDENTITY_FILE).is_file():
            return self
        return replace(self, digest=config_hash(read_identity(directory)))

    def open(self) -> MetaVQA:
        return MetaVQA(self)


class MetaVQA:
    """The dataset: `tasks`, the last `num_denials` of which are opposites of others, and images by index, by name."""

    def __init__(self, config: MetaVQAConfig | None = None) -> None:
        """Read and check the directory.

        Raises:
            ValueError: no dataset there, another than the config pins, or an impossible number of validation tasks.
        """
        self.config = config or MetaVQAConfig()
        self.directory = located(self.config.directory)
        self._identity, splits, prompts = read_dataset(self.directory)
        if self.config.digest not in ("", config_hash(self._identity)):
            raise ValueError(f"{self.directory}: holds another dataset than digest {self.config.digest!r} stands for")
        self.names = image_names(splits.values())
        index = {name: i for i, name in enumerate(self.names)}
        val = _validation_questions(self.config, splits)
        self.tasks = [
            _task(question, entry, "val" if question in val else split, index, prompts.get(question, ""))
            for split, questions in splits.items()
            for question, entry in questions.items()
        ]
        opposites = denied(self.tasks) if self.config.denials else []
        self.tasks += opposites
        self.num_denials = len(opposites)

    @property
    def identity(self) -> dict[str, object]:
        """What questions, labels, prompts and pixels depend on."""
        return dict(self._identity)

    @property
    def num_images(self) -> int:
        return len(self.names)

    @property
    def features(self) -> Path:
        """Where the dataset brings features of its pictures, if it does."""
        return self.directory / "features"

    @cached_property
    def files(self) -> ImageFiles:
        """Where the images lie.

        Raises:
            ValueError: nothing says where they are, or their directory is gone.
        """
        files = read_images(self.directory, self.num_images)
        if files is None and self._identity["images"] is None:
            raise ValueError(f"{self.directory} was built without pictures; make it again with --images DIR")
        if files is None or not files.root.is_dir():
            lost = "its pictures are not here" if files is None else f"its pictures' directory {files.root} is gone"
            raise ValueError(
                f"{self.directory}: {lost}; train/make_data.py --data {self.directory} --images DIR says where they "
                "are, and with --download fetches COCO's"
            )
        return files

    def load_image(self, index: int) -> Image.Image:
        """Image `index`, RGB; an OSError, naming the file, if it cannot be read."""
        from .images import read_image

        path = self.files.root / self.files.files[index]
        try:
            return read_image(path)
        except ValueError as error:  # names the file
            raise OSError(str(error)) from None


def read_published(directory: Path | str) -> tuple[Questions, Questions, dict[str, str]]:
    """Training and test questions, and prompts if there are any, of the published split's files.

    Raises:
        ValueError: a file is missing or not in the published format.
    """
    directory = Path(directory)
    for split in ("train", "test"):
        if not (directory / QUESTION_FILES[split]).is_file():
            raise ValueError(
                f"{directory}: {QUESTION_FILES[split]} is missing; it is one of the split files that the authors of "
                "Meta-VQA published with their code, github.com/elvisnava/hyperclip"
            )
    train, test = (read_questions(directory / QUESTION_FILES[split]) for split in ("train", "test"))
    prompts = read_prompts(directory / PROMPT_FILE) if (directory / PROMPT_FILE).is_file() else {}
    return train, test, prompts


def denied(tasks: Sequence[Task]) -> list[Task]:
    """The opposites of the training tasks among `tasks` that ask for yes or no; not those that training asks anyway.
    One that would be a validation or test question word for word ends in "at all"."""
    plain = lambda question: folded(question).rstrip("?. ")
    train = [task for task in tasks if task.split == "train"]
    asked = {plain(task.question) for task in train}
    held_out = {plain(task.question) for task in tasks if task.split != "train"}
    found = []
    for task in train:
        question = opposite(task.question) if _is_yes_or_no(task.answers) else None
        if question is None or plain(question) in asked:
            continue
        asked.add(plain(question))
        if plain(question) in held_out:
            question = question.rstrip("?") + " at all?"
        if plain(question) in held_out:  # that, too
            continue
        turned = lambda part: (part[0], tuple(1 - label for label in part[1]))
        found.append(
            replace(task, question=question, support=turned(task.support), query=turned(task.query), prompt="")
        )
    return found


def _is_yes_or_no(answers: Sequence[str]) -> bool:
    return sorted(map(folded, answers)) == ["no", "yes"]


def _validation_questions(config: MetaVQAConfig, splits: dict[Split, Questions]) -> set[str]:
    """Which training questions serve for choices, by the config's seed alone."""
    train, own = splits.get("train", {}), splits.get("val", {})
    if own and (config.val_tasks or config.folds):
        name = "folds" if config.folds else "val_tasks"
        raise ValueError(f"{name} {getattr(config, name)}: {config.directory} has its own validation tasks; allowed: 0")
    if config.folds:
        if config.folds > len(train):
            raise ValueError(f"folds {config.folds}; allowed: up to {len(train)}, the training questions there are")
        order = sorted(train)
        random.Random(f"{config.seed}/folds").shuffle(order)
        return set(order[fold_bounds(config.fold, config.folds, len(order))])
    most = len(train) // 2  # else too little is left to learn from
    if not own and not 0 < config.val_tasks <= most:
        raise ValueError(
            f"val_tasks {config.val_tasks}; allowed: 1 to {most}, of {len(train)} training questions in "
            f"{config.directory}, which has no validation tasks; a tenth will do: --set dataset.val_tasks="
            f"{max(1, round(len(train) / 10))}"
        )
    return set(random.Random(f"{config.seed}/validation").sample(sorted(train), config.val_tasks))


def _task(question: str, entry: Entry, split: Split, index: dict[str, int], prompt: str) -> Task:
    label = {answer: i for i, answer in enumerate(entry["answers"])}
    part = lambda pairs: (tuple(index[image] for image, _ in pairs), tuple(label[answer] for _, answer in pairs))
    return Task(
        question=question,
        answers=tuple(entry["answers"]),
        support=part(entry["train"]),
        query=part(entry["test"]),
        split=split,
        family=" ".join(question.lower().split()[:2]),  # the dataset has no families; this sorts its questions by kind
        prompt=prompt,
    )
