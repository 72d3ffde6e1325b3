"""What stands for a backbone where features were encoded before, and carried to a machine that cannot encode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import Pooling

STORED = "stored"  # the backbone's name in a preset


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
