"""Meta-VQA (Section 5, Appendix A.5): 870 training and 373 test questions about photographs; and, in the same format,
anyone's own questions. `train/make_data.py` builds the directory that is read here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import config_hash, place
from .base import DatasetConfig
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
from .tasks import Split, Task

if TYPE_CHECKING:
    from PIL import Image

COCO = "COCO's train2014 and val2014 images, http://images.cocodataset.org/zips/train2014.zip and .../val2014.zip"


@dataclass(frozen=True)
class MetaVQAConfig(DatasetConfig):
    """A built dataset.

    `digest` pins what the directory must hold ("": whatever is there); `val_tasks` of the training questions become
    validation tasks, 0 where the directory has its own.
    """

    directory: str = place("data/metavqa")
    digest: str = ""
    val_tasks: int = 87
    seed: int = 0  # of the choice of validation tasks

    @classmethod
    def at(cls, directory: Path | str) -> MetaVQAConfig:
        """The config of a directory, pinned; a ValueError if it holds no dataset."""
        has_val = read_identity(directory)["counts"]["val"] > 0
        return cls(str(directory), val_tasks=0 if has_val else cls.val_tasks).pinned()

    def pinned(self) -> MetaVQAConfig:
        """The same with the digest of what the directory holds now; itself where nothing is built yet."""
        if self.digest or not (Path(self.directory) / IDENTITY_FILE).is_file():
            return self
        return replace(self, digest=config_hash(read_identity(self.directory)))

    def open(self) -> MetaVQA:
        return MetaVQA(self)


class MetaVQA:
    """The dataset: `tasks`, and images by index, sorted by name."""

    def __init__(self, config: MetaVQAConfig | None = None) -> None:
        """Read and check the directory.

        Raises:
            ValueError: no dataset there, another than the config pins, or an impossible number of validation tasks.
        """
        self.config = config or MetaVQAConfig()
        self.directory = Path(self.config.directory)
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

    @property
    def identity(self) -> dict[str, object]:
        """What questions, labels, prompts and pixels depend on."""
        return dict(self._identity)

    @property
    def num_images(self) -> int:
        return len(self.names)

    @cached_property
    def files(self) -> ImageFiles:
        """Where the images lie.

        Raises:
            ValueError: the dataset was built without them, or their directory is gone.
        """
        files = read_images(self.directory, self.num_images)
        if files is None:
            raise ValueError(f"{self.directory} was built without pictures; make it again with --images DIR")
        if not files.root.is_dir():
            raise ValueError(f"{self.directory}: its pictures' directory {files.root} is gone; make it again")
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


def find_coco(names: Sequence[str], root: Path | str) -> ImageFiles:
    """The files of COCO images, below `root` or flat in it, with or without an `images` directory between.

    Raises:
        ValueError: some are not there; the message counts them, names the first and says where was searched.
    """
    root = Path(root)
    places = [root / sub for sub in ("train2014", "val2014", ".", "images/train2014", "images/val2014", "images")]
    searched = [place for place in places if place.is_dir()]
    found: dict[str, str] = {}
    for folder in searched:
        for file in folder.iterdir():
            if file.suffix.lower() in (".jpg", ".jpeg", ".png"):
                found.setdefault(file.stem, file.relative_to(root).as_posix())
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"--images {root}: {len(missing):,} of {len(names):,} images are missing, such as {missing[0]}.jpg; "
            f"searched {', '.join(map(str, searched)) or f'nothing, there is no directory {root}'}. They are {COCO}"
        )
    return ImageFiles(root, tuple(found[name] for name in names))


def _validation_questions(config: MetaVQAConfig, splits: dict[Split, Questions]) -> set[str]:
    """Which training questions serve for choices, by the config's seed alone."""
    train, own = splits.get("train", {}), splits.get("val", {})
    if own and config.val_tasks:
        raise ValueError(f"val_tasks {config.val_tasks}: {config.directory} has its own validation tasks; allowed: 0")
    if not own and not 0 < config.val_tasks < len(train):
        raise ValueError(f"val_tasks {config.val_tasks}; allowed: 1 to {len(train) - 1}, {config.directory} has no own")
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
