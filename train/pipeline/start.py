"""A start from a release: models of a run continue those of another one instead of fresh ones (`--start`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.backbones.stored import STORED
from core.config import config_hash, to_dict
from core.networks.base import BaseNetwork, open_network
from core.networks.weight_model import Saved
from core.release.checkpoint import checkpoint_path, files_of, load_module
from core.release.default import located
from core.release.manifest import backbone_directory, read_config

if TYPE_CHECKING:
    from .run import Run


@dataclass(frozen=True)
class Start:
    """A release that fits a run, and what the run takes of it.

    Args:
        questions: the spec of its question encoder, with the digest that the run's must have.
        models: by stage that begins from a model of the release, the digest of this model (`digests`).
    """

    directory: Path
    questions: Mapping[str, Any]
    models: Mapping[str, str]

    @property
    def name(self) -> str:
        """The folder's name and a digest of the models: two releases that are both called `weights` differ."""
        return f"{self.directory.resolve().name}-{config_hash(self.models)[:8]}"

    def begin(self, model: Saved, name: str) -> bool:
        """Give a model the parameters and the statistics that the release's model `name` has; False, and nothing done,
        where the stage `name` begins afresh.

        Raises:
            ValueError: the release's model is of another kind, or has other settings or sizes.
        """
        if name not in self.models:
            return False
        before = load_module(checkpoint_path(self.directory, name))
        self._agree(f"its {name} has", _described(before), _described(model))
        model.load_state_dict(before.state_dict())
        return True

    def setting(self, stage: str, name: str) -> Any:
        """A setting of the model that a stage begins from; None where it begins afresh."""
        return (
            getattr(load_module(checkpoint_path(self.directory, stage)).config, name) if stage in self.models else None
        )

    def check(self, run: Run) -> None:
        """Whether the release's adapters, questions and backbone are those of a run.

        Raises:
            ValueError: they are not; the message names the first difference. Or the run writes where the release is.
        """
        if run.output.resolve() == self.directory.resolve():
            raise ValueError(f"--start {self.directory}: this run writes there; --output names another directory")
        config = read_config(self.directory)
        theirs = open_network(config["network"])
        ours = run.preset.base_network(run.dim or theirs.dim)  # some backbones tell D when they are loaded
        self._agree("its adapters have", _network(theirs), _network(ours))
        spec = run.preset.questions
        self._agree("its questions have", {key: self.questions.get(key) for key in spec}, spec)
        directory = backbone_directory(self.directory, config)
        backbones = [config["backbone"] if directory is None else str(directory), run.preset.backbone]
        if run.preset.backbone != STORED and len(set(map(backbone_digest, backbones))) > 1:
            raise ValueError(f"--start {self.directory}: its backbone is another than this run's, {backbones[1]}")

    def _agree(self, what: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        """A ValueError unless two descriptions are the same."""
        for key in (key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)):
            raise ValueError(f"--start {self.directory}: {what} {key} {theirs.get(key)}, this run's {ours.get(key)}")


def digests(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """By name, 16 hexadecimal digits of the files of those models that a release has."""
    held = {name: files_of(checkpoint_path(directory, name)) for name in names}
    return {name: _digest(files)[:16] for name, files in held.items() if files}


def backbone_digest(spec: str) -> str:
    """A hash of the weights of a backbone that lies here; else its name."""
    directory = located(spec.removeprefix("local-dir:"))
    files = sorted(directory.glob("*.safetensors")) if directory.is_dir() else []
    return (
        _digest_once(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)) if files else spec
    )


@lru_cache(maxsize=8)
def _digest_once(files: tuple[tuple[Path, int, int], ...]) -> str:
    """`_digest` of files that are read again only if their size or time has changed."""
    return _digest(path for path, _, _ in files)


def _digest(files: Iterable[Path]) -> str:
    """SHA-256 of files, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            for block in iter(lambda file=file: file.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def _network(network: BaseNetwork) -> dict[str, Any]:
    """What makes base networks alike, by the names of messages."""
    return {
        "network": network.name,
        **to_dict(network.config),
        "logit scale": network.scale,
        "D": network.dim,
    }


def _described(model: Saved) -> dict[str, Any]:
    """What makes a model another one, besides its parameters and statistics."""
    sizes = {name: size.spec() if isinstance(size, BaseNetwork) else size for name, size in model.sizes().items()}
    return {"kind": model.name, **({} if model.config is None else to_dict(model.config)), **sizes}
