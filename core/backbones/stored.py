"""What stands for a backbone where features were encoded before, and carried to a machine that cannot encode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..files import read_json, write_json
from . import Pooling
from .questions import last_layer, question_dim

STORED = "stored"  # the backbone's name in a preset
_QUESTIONS = "questions.json"


class StoredBackbone:
    """Knows what a directory of features was made with, and encodes nothing (`core.data.features.FeatureStore`)."""

    def __init__(self, directory: Path | str) -> None:
        """Read the directory's index.

        Raises:
            ValueError: there are no features.
        """
        self.directory = Path(directory)
        index = self.directory / "index.json"
        if not index.is_file():
            raise ValueError(f"backbone {STORED!r}: {self.directory} holds no features ({index.name} is missing)")
        stored = read_index(self.directory)
        self.identity: dict[str, str] = stored["backbone"]
        self.dim: int = stored["dim"]

    def encode_images(self, images: Any) -> NoReturn:
        """A ValueError."""
        raise self.lacks("images")

    def encode_texts(self, texts: Sequence[str]) -> NoReturn:
        """A ValueError that names the first text."""
        raise self.lacks(f"answers such as {texts[0]!r}")

    def encode_questions(self, questions: Sequence[str], pooling: Pooling = "eos") -> NoReturn:
        """A ValueError that names the first question."""
        raise self.lacks(f"questions such as {questions[0]!r}, pooling {pooling!r}")

    def lacks(self, what: str) -> ValueError:
        """What to raise where features are not there."""
        return ValueError(
            f"{self.directory} lacks features of {what}, and backbone {STORED!r} encodes nothing; encode them where "
            f"the backbone is ({self.identity['model']}, train/features.py) and carry the directory over"
        )


def read_index(directory: Path) -> dict[str, Any]:
    """What a directory of features was made with: dataset, backbone, number of images, D, rows of a shard.

    Raises:
        ValueError: its index is damaged.
    """
    path = directory / "index.json"
    anew = f"remove {directory}, and the next run encodes everything again"
    index = read_json(path, dict, anew)
    for key, kind in {"dataset": dict, "backbone": dict, "images": int, "dim": int, "shard": int}.items():
        if type(index.get(key)) is not kind:
            raise ValueError(f"{path}: damaged ({key!r} must be {kind.__name__}, got {index.get(key)!r}); {anew}")
    return index


class StoredQuestions:
    """Knows with which encoder a directory's questions were embedded, and embeds none."""

    def __init__(self, directory: Path, spec: dict[str, Any]) -> None:
        """Read what `note_encoder` wrote.

        Raises:
            ValueError: no question was embedded by an encoder as `spec` names it.
        """
        fitting = [known for known in _encoders(directory) if _fits(known, spec)]
        if not fitting:
            raise ValueError(f"backbone {STORED!r}: {directory} holds no questions that {spec} embedded")
        self.directory, self.identity = directory, fitting[-1]
        self.dim, self.reads_answers = question_dim(self.identity, 0), self.identity.get("answers", False)

    def encode(self, questions: Sequence[str]) -> NoReturn:
        """A ValueError that names the first question."""
        raise ValueError(
            f"{self.directory} lacks features of questions such as {questions[0]!r}, and backbone {STORED!r} encodes "
            "nothing; encode them where the encoder is and carry the directory over"
        )

    def candidates(self, answers: Sequence[Sequence[str]]) -> Tensor:
        """Nothing, (B, 0), where candidate answers are not read; else a ValueError that names the first."""
        return self.encode(answers[0]) if self.reads_answers else torch.empty(len(answers), 0)

    def meaning(self, question: Tensor) -> Tensor:
        """As the encoder has it (`core.backbones.questions`)."""
        return last_layer(question, self.identity["layers"])


def _fits(known: dict[str, Any], spec: dict[str, Any]) -> bool:
    """Whether an encoder is what a spec names, which may leave out its digest but not what it reads."""
    return all(known.get(key) == spec[key] for key in spec) and known.get("answers") == spec.get("answers")


def note_encoder(directory: Path, identity: dict[str, Any]) -> None:
    """Write down that an encoder has embedded questions of a directory."""
    known = _encoders(directory)
    if identity not in known:
        write_json(directory / _QUESTIONS, [*known, identity])


def _encoders(directory: Path) -> list[dict[str, Any]]:
    path = directory / _QUESTIONS
    return read_json(path, list, "remove it, and encode the questions again") if path.is_file() else []
