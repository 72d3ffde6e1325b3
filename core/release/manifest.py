"""What a release directory holds, whether it is all there, and whether it is still what was written.

config.json lists under "files" the SHA-256 and the size of every file that answers depend on, and a digest of its own
fields. Presence and sizes are checked when a release is opened, a file's content when it is used. The model card and
the records of training, on which no answer depends, may change.

After a change by hand, `python -m core.release.manifest DIR` lists the files anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..backbones import copy_backbone, is_pickle
from ..console import Parser
from ..files import digest_of_file, read_json, write_json
from . import version1
from .config import check_config
from .default import default_sentence_encoder, located
from .fields import mapping, record, text, whole

FORMAT_VERSION = 2  # of config.json
LIBRARY = "question-to-adapter (HyperCLIP, HyperLDM)"
CONFIG, CARD, RECORDS = "config.json", "README.md", "stages.json"
KNOWN = "known_questions.safetensors"  # their task embeddings, in the order of config.json
BACKBONE_SHA256 = "backbone_sha256"  # in config.json: the digest of the backbone that the models learned from
BACKBONE, SENTENCE = "backbone", "sentence"  # folders of a release: its backbone, its sentence encoder
_ENCODER_SUFFIXES = (".json", ".txt", ".model", ".safetensors")  # config, tokenizer files, weights
_COMMAND = f"python -m {__package__}.manifest"

_log = logging.getLogger(__name__)
_said: set[Path] = set()  # releases of which this process has said what is unchecked


def read_config(directory: Path, name: str | None = None) -> dict[str, Any]:
    """The root config.json of a release, checked field by field.

    The files that it lists must all be there in full, and no others: a stale part of a model would be read in place of
    the model. A release from before it listed digests is taken, and one line says what is unchecked.

    Args:
        name: what to call the release in messages; its path unless given.

    Raises:
        ValueError: no release, one of a newer format, one with a field of the wrong type, one that changed since it was
            written, or one with missing, cut or unexpected files.
    """
    name = name or str(directory)
    path = directory / CONFIG
    if not path.is_file():
        raise ValueError(f"{name} has no {CONFIG}; it is not a release of this project")
    try:
        config = read_json(path)
    except ValueError as error:
        raise ValueError(f"{name}: {str(error).replace(str(path), CONFIG, 1)}") from None
    if not is_config(config):
        raise ValueError(f"{name}: {CONFIG} lacks format_version, network or backbone; it is not a release's")
    own = _digest_of_fields(config)
    try:
        if config["format_version"] == 1:
            config = version1.upgraded_config(config)
        if config["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"it has format {config['format_version']!r}, this code reads {FORMAT_VERSION}; "
                "a newer one needs a newer version of this project"
            )
        check_config(config)
        _check_list(config)
    except ValueError as error:
        raise ValueError(f"{name}: {CONFIG}: {error}") from None
    listed = config.get("files", {})
    if CONFIG not in listed:
        _say_once(directory, f"{name} was written before releases listed digests: what its files hold is unchecked")
    elif listed[CONFIG] != own:
        raise ValueError(f"{name}: {CONFIG} has changed since it was written; {_anew(directory)}")
    if "files" in config:
        _check_presence(listed, weight_files(directory, config), name)
    if CONFIG in listed:  # releases of before list no digests, and may have pickles
        _check_pickles(directory, config, name)
    return config


def is_config(config: Any) -> bool:
    """Whether this is the config.json of a release, of this format or of another: other libraries' models have a file
    so called."""
    network = "adapter" if isinstance(config, dict) and config.get("format_version") == 1 else "network"
    return isinstance(config, dict) and {"format_version", network, "backbone"} <= config.keys()


def write_release(directory: Path, config: dict[str, Any], backbone: str) -> None:
    """Make the models in a directory a release: write its config.json, with a list of its files, and copy a backbone
    that is a local directory, so that the release is complete in itself.

    Args:
        config: everything but the format, the library, the backbone and the files.
        backbone: what `load_backbone` takes.

    Raises:
        ValueError: a field that `read_config` would refuse, or a backbone that cannot be read.
    """
    local = located(backbone.removeprefix("local-dir:"))
    if backbone.startswith("local-dir:"):
        if local.resolve() != (directory / BACKBONE).resolve():
            copy_backbone(local, directory / BACKBONE)
        backbone = BACKBONE
    config = {"format_version": FORMAT_VERSION, "library": LIBRARY, "backbone": backbone} | config
    check_config(config)
    write_json(directory / CONFIG, with_list(config, weight_files(directory, config)))


def with_list(config: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """A config.json with the list of a release's files, given where each of its paths lies, and of its own fields."""
    config = {key: value for key, value in config.items() if key != "files"}
    entries = {path: _entry(file) for path, file in files.items()}
    return config | {"files": {CONFIG: _digest_of_fields(config), **entries}}


def _entry(file: Path) -> dict[str, Any]:
    """What the list of a release says of a file."""
    return {"sha256": digest_of_file(file), "size": file.stat().st_size}


def list_anew(directory: Path) -> int:
    """Write the list of a release's files as they are now; returns how many there are.

    Raises:
        ValueError: no release, or a field of its config.json that holds what it must not.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise ValueError(f"{directory} has no {CONFIG}; it is not a release of this project")
    config = read_json(path)
    try:
        now = version1.upgraded_config(config) if config["format_version"] == 1 else config
        check_config(now)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    files = weight_files(directory, now)
    write_json(path, with_list(config, files))
    return len(files)


def note_written(directory: Path, written: Iterable[Path], removed: Iterable[Path] = ()) -> None:
    """Bring a release's list up to date with files that were just written to it, or removed. Where there is no release
    yet, or one without a list, nothing is done; nor to a file of that name that is somebody else's."""
    path = directory / CONFIG
    if not path.is_file():
        return
    try:
        config = read_json(path)
    except ValueError:
        return
    if not is_config(config) or not isinstance(config.get("files"), dict):
        return
    for file in removed:
        config["files"].pop(file.name, None)
    for file in written:
        size = file.stat().st_size
        config["files"][file.name] = (
            {"sha256": digest_of_file(file), "size": size} if CONFIG in config["files"] else size
        )
    write_json(path, config)


def verify(directory: Path, config: Mapping[str, Any], paths: Iterable[str]) -> None:
    """Whether files of a release, by their paths in it, hold what its config.json lists.

    Raises:
        ValueError: one that does not, or that is not listed; the message names it.
    """
    listed = config.get("files")
    if listed is None:
        return
    files = weight_files(directory, config)
    for path in paths:
        found = {path: files[path]} if path in files else {}
        _check_presence({path: listed[path]} if path in listed else {}, found, str(directory))
        entry = listed[path]
        if isinstance(entry, dict) and entry["sha256"] != digest_of_file(files[path]):
            raise ValueError(
                f"{directory}: {path!r} holds something else than its {CONFIG} lists (SHA-256 differs): it is damaged "
                f"or exchanged; fetch it again, or {_anew(directory)}"
            )


def weight_files(directory: Path, config: Mapping[str, Any]) -> dict[str, Path]:
    """All that a loader reads besides config.json, by path in the release: models, the backbone if it is a local
    directory, and the sentence encoder if questions go through it, wherever these are now."""
    files = {path.name: path for path in directory.glob("*.safetensors")}
    backbone = backbone_directory(directory, config)
    if backbone is not None:
        files |= _encoder_files(BACKBONE, backbone)
    if (config.get("question_encoder") or {}).get("encoder") == "sentence":
        files |= _encoder_files(SENTENCE, encoder_directory(directory))
    return dict(sorted(files.items()))


def _encoder_files(folder: str, directory: Path) -> dict[str, Path]:
    """Files of an encoder, by their paths in a release."""
    held = directory.iterdir() if directory.is_dir() else ()
    return {f"{folder}/{path.name}": path for path in held if path.suffix in _ENCODER_SUFFIXES}


def encoder_directory(directory: Path) -> Path:
    """Where the sentence encoder lies that a release's questions go through: in the release, as on the Hub, or beside
    the shipped one, where it serves them all."""
    own = directory / SENTENCE
    return own if own.is_dir() else default_sentence_encoder()


def backbone_directory(directory: Path, config: Mapping[str, Any]) -> Path | None:
    """Where the backbone lies: in the release, or elsewhere on this machine; None for one that open_clip downloads."""
    spec = config["backbone"]
    for path in (directory / spec, located(spec.removeprefix("local-dir:"))):
        if path.is_dir():
            return path
    return None


def _check_list(config: Mapping[str, Any]) -> None:
    """A ValueError unless "files", where it is there, says of every file its size and digest; in releases of before its
    size alone. Of config.json it says the digest of its fields."""
    if "files" not in config:
        return
    size, digest = whole(0, 2**50), text(64, 64)
    entry = record({"sha256": digest, "size": size})
    mapping(lambda value, name: None)(config["files"], "files")
    before = CONFIG not in config["files"]
    for path, value in config["files"].items():
        (digest if path == CONFIG else size if before else entry)(value, f"files.{path}")


def _check_presence(listed: Mapping[str, Any], files: Mapping[str, Path], name: str) -> None:
    """A ValueError unless these are the listed files, by name and size."""
    listed = {path: entry for path, entry in listed.items() if path != CONFIG}
    for missing in sorted(listed.keys() - files.keys()):
        raise ValueError(f"{name} is incomplete: {missing!r} is missing")
    for unexpected in sorted(files.keys() - listed.keys()):
        raise ValueError(f"{name}: unexpected {unexpected!r}, which its {CONFIG} does not list")
    for path, entry in listed.items():
        size = entry["size"] if isinstance(entry, dict) else entry
        if files[path].stat().st_size != size:
            raise ValueError(f"{name}: {path!r} has {files[path].stat().st_size} bytes, its {CONFIG} says {size}")


def _check_pickles(directory: Path, config: Mapping[str, Any], name: str) -> None:
    """A ValueError if the weights of the backbone are pickled, which no list covers."""
    backbone = backbone_directory(directory, config)
    held = sorted(backbone.iterdir()) if backbone else []
    pickles = [path.name for path in held if is_pickle(path)]
    if pickles and not any(path.suffix == ".safetensors" for path in held):
        raise ValueError(f"{name}: the weights of its backbone, {pickles[0]!r}, are pickled; allowed: safetensors")


def _digest_of_fields(config: Mapping[str, Any]) -> str:
    """SHA-256 of a config.json less its list of files, whatever their order."""
    fields = {key: value for key, value in config.items() if key != "files"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _anew(directory: Path) -> str:
    return f"if you changed it yourself, run {_COMMAND} {directory}"


def _say_once(directory: Path, line: str) -> None:
    """Log a line about a release, once in a process."""
    if directory.resolve() not in _said:
        _said.add(directory.resolve())
        _log.warning(line)


def main(argv: Sequence[str] | None = None) -> None:
    """List the files of releases anew."""
    arguments = Parser(prog=_COMMAND, description="List anew what the files of releases hold.")
    arguments.add_argument("releases", nargs="+", type=Path, metavar="DIR", help="directory of a release")
    for directory in arguments.parse_args(argv).releases:
        try:
            print(f"{directory}: {list_anew(directory)} files listed in {CONFIG}")
        except (OSError, ValueError) as error:
            arguments.error(str(error))


if __name__ == "__main__":
    main()
