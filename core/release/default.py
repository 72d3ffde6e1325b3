"""Where the shipped release and the shipped sentence encoder lie, whatever the current directory is."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("weights", "emoji")  # in a checkout and in the installed package
OTHERS = (Path("weights", "photos"),)  # releases that may be shipped, too
SENTENCE_FOLDER = Path("weights", "sentence")


def default_release() -> Path:
    """The shipped release. The directory may be missing, as in a Space that serves another release."""
    return _shipped(FOLDER)


def shipped_releases() -> list[Path]:
    """All that are shipped, in the order in which a page shows them: photographs first, where they are there."""
    there = [release for folder in OTHERS if ((release := _shipped(folder)) / "config.json").is_file()]
    return [*there, default_release()]


def default_sentence_encoder() -> Path:
    """The shipped sentence encoder, which may be missing where a release brings its own."""
    return _shipped(SENTENCE_FOLDER)


def _shipped(folder: Path) -> Path:
    """Inside the package where it is installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / folder
    return installed if installed.is_dir() else package.parent / folder
