"""What a release directory holds, and whether it is all there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..files import write_json
from . import version1
from .default import default_sentence_encoder, located

FORMAT_VERSION = 2  # of config.json
LIBRARY = "question-to-adapter (HyperCLIP, HyperLDM)"
CONFIG, CARD, RECORDS = "config.json", "README.md", "stages.json"
KNOWN = "known_questions.safetensors"  # their task embeddings, in the order of config.json
BACKBONE_SHA256 = "backbone_sha256"  # in config.json: the digest of the backbone that the models learned from
SENTENCE = "sentence"  # the folder of the sentence encoder in a release
_ENCODER_SUFFIXES = (".json", ".txt", ".safetensors")  # open_clip's config, tokenizer files, weights; no pickles


def read_config(directory: Path, name: str | None = None) -> dict[str, Any]:
    """The root config.json of a release, checked.

    If it lists its weight files, as those on the Hub do, they must all be there in full, and no others: a stale part of
    a model would be read in place of the model.

    Args:
        name: what to call the release in messages; its path unless given.

    Raises:
        ValueError: no release, one of a newer format, or one with missing, cut or unexpected weights.
    """
    name = name or str(directory)
    path = directory / CONFIG
    if not path.is_file():
        raise ValueError(f"{name} has no {CONFIG}; it is not a release of this project")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: {CONFIG} is damaged ({error})") from None
    if not is_config(config):
        raise ValueError(f"{name}: {CONFIG} lacks format_version, network or backbone; it is not a release's")
    if config["format_version"] == 1:
        try:
            config = version1.upgraded_config(config)
        except ValueError as error:
            raise ValueError(f"{name}: {CONFIG}: {error}") from None
    if config["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{name} has format {config['format_version']!r}, this code reads {FORMAT_VERSION}; "
            "a newer one needs a newer version of this project"
        )
    if "files" in config:
        _check_files(config["files"], weight_files(directory, config), name)
    return config


def is_config(config: Any) -> bool:
    """Whether this is the config.json of a release, of this format or of another: other libraries' models have a file
    so called."""
    network = "adapter" if isinstance(config, dict) and config.get("format_version") == 1 else "network"
    return isinstance(config, dict) and {"format_version", network, "backbone"} <= config.keys()


def write_release(directory: Path, config: dict[str, Any], backbone: str) -> None:
    """Make the models in a directory a release: write its config.json, and copy a backbone that is a local directory,
    so that the release is complete in itself.

    Args:
        config: everything but the format, the library and the backbone.
        backbone: what `load_backbone` takes.
    """
    local = located(backbone.removeprefix("local-dir:"))
    if backbone.startswith("local-dir:"):
        if local.resolve() != (directory / "backbone").resolve():
            shutil.copytree(local, directory / "backbone", dirs_exist_ok=True)
        backbone = "backbone"
    head = {"format_version": FORMAT_VERSION, "library": LIBRARY, "backbone": backbone}
    write_json(directory / CONFIG, head | config)


def weight_files(directory: Path, config: dict[str, Any]) -> dict[str, Path]:
    """All that a loader reads besides config.json, by path in the release: models, the backbone if it is a local
    directory, and the sentence encoder if questions go through it, wherever these are now."""
    files = {path.name: path for path in directory.glob("*.safetensors")}
    backbone = backbone_directory(directory, config)
    if backbone is not None:
        files |= {f"backbone/{path.name}": path for path in backbone.iterdir() if path.suffix in _ENCODER_SUFFIXES}
    if (config.get("question_encoder") or {}).get("encoder") == "sentence":
        encoder = encoder_directory(directory)
        files |= {f"{SENTENCE}/{path.name}": path for path in encoder.iterdir() if path.suffix in _ENCODER_SUFFIXES}
    return dict(sorted(files.items()))


def encoder_directory(directory: Path) -> Path:
    """Where the sentence encoder lies that a release's questions go through: in the release, as on the Hub, or beside
    the shipped one, where it serves them all."""
    own = directory / SENTENCE
    return own if own.is_dir() else default_sentence_encoder()


def backbone_directory(directory: Path, config: dict[str, Any]) -> Path | None:
    """Where the backbone lies: in the release, or elsewhere on this machine; None for one that open_clip downloads."""
    spec = config["backbone"]
    for path in (directory / spec, located(spec.removeprefix("local-dir:"))):
        if path.is_dir():
            return path
    return None


def _check_files(listed: dict[str, int], files: dict[str, Path], name: str) -> None:
    for missing in sorted(listed.keys() - files.keys()):
        raise ValueError(f"{name} is incomplete: {missing!r} is missing")
    for unexpected in sorted(files.keys() - listed.keys()):
        raise ValueError(f"{name}: unexpected {unexpected!r}, which its {CONFIG} does not list")
    for path, size in listed.items():
        if files[path].stat().st_size != size:
            raise ValueError(f"{name}: {path!r} has {files[path].stat().st_size} bytes, its {CONFIG} says {size}")
