"""What stands for a backbone where features were encoded before, and carried to a machine that cannot encode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..files import write_json
from . import Pooling
from .questions import QuestionEncoder, question_dim

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
        stored = json.loads(index.read_text(encoding="utf-8"))
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


class StoredQuestions:
    """Knows with which encoder a directory's questions were embedded, and embeds none."""

    def __init__(self, directory: Path, spec: dict[str, Any]) -> None:
        """Read what `store_questions` wrote.

        Raises:
            ValueError: nothing was stored, or of another encoder than `spec` names.
        """
        path = directory / _QUESTIONS
        stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if stored is None or any(stored.get(key) != value for key, value in spec.items()):
            raise ValueError(f"{directory} holds no questions embedded by {spec}; {_QUESTIONS} says {stored}")
        self.directory, self.identity = directory, stored
        self.dim = question_dim(stored, 0)

    def encode(self, questions: Sequence[str]) -> NoReturn:
        """A ValueError that names the first question."""
        raise ValueError(f"{self.directory} lacks the embedding of {questions[0]!r}, and what is stored embeds nothing")


def store_questions(directory: Path, encoder: QuestionEncoder) -> None:
    """Write down which encoder a directory's questions were embedded with."""
    write_json(directory / _QUESTIONS, encoder.identity)
