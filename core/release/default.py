"""Where lies what is shipped, whatever the current directory is: release, sentence encoder, what presets name."""

from __future__ import annotations

from pathlib import Path

from ..files import read_json

FOLDERS = {preset: Path("weights", preset) for preset in ("photos", "emoji")}  # in a checkout and in the package
SENTENCE_FOLDER = Path("weights", "sentence")


def default_release() -> Path:
    """The shipped release. The directory may be missing, as in a Space that serves another release."""
    return _shipped(FOLDERS["emoji"])


def shipped_release(preset: str) -> Path | None:
    """Where the release of a preset is shipped; None for a preset of which none is."""
    return _shipped(FOLDERS[preset]) if preset in FOLDERS else None


def shipped_releases() -> list[Path]:
    """All that are shipped, in the order in which a page shows them: photographs first, where they are there."""
    releases = [_shipped(folder) for folder in FOLDERS.values()]
    default = default_release()
    return [release for release in releases if release == default or (release / "config.json").is_file()]


def preset_of_backbone(sha256: str | None) -> str | None:
    """The preset of the shipped release whose backbone has this digest; None where none has."""
    for preset, folder in FOLDERS.items():
        config = _shipped(folder) / "config.json"
        if sha256 and config.is_file() and read_json(config).get("backbone_sha256") == sha256:
            return preset
    return None


def default_sentence_encoder() -> Path:
    """The shipped sentence encoder, which may be missing where a release brings its own."""
    return _shipped(SENTENCE_FOLDER)


def located(path: Path | str) -> Path:
    """A relative path of a preset: from the current directory where it is there, else from the project's root (or the
    installed package) where it is there, else as it is."""
    path = Path(path)
    return path if path.exists() or not _shipped(path).exists() else _shipped(path)


def _shipped(folder: Path) -> Path:
    """Inside the package where it is installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / folder
    return installed if installed.is_dir() else package.parent / folder
