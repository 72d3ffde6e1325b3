"""What was done, by stage: identity, metrics, seconds."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core.files import read_json, remove_stale, replacing, write_json
from core.release.checkpoint import files_of
from core.release.manifest import note_written

from .run import Run
from .stage import Stage
from .start import backbone_digest

_BACKBONE = "backbone"  # the stage that makes a preset's own


def begun(directory: Path) -> Path:
    """The file that is there while a run makes a backbone in a directory."""
    return directory.with_name(f"{directory.name}.begun")


def is_made_by_a_run(directory: Path) -> bool:
    """Whether a run made, or is making, the backbone in a directory."""
    return _BACKBONE in _read(directory.parent / "stages.json") or begun(directory).is_file()


class Records:
    """What was done, by stage: identity, metrics, seconds. Release stages are recorded in OUTPUT/stages.json, which is
    shipped; the others beside the work files."""

    def __init__(self, run: Run, stages: dict[str, Stage]) -> None:
        self.run, self.stages = run, stages

    def _path(self, stage: Stage) -> Path:
        if stage.release and not stage.seeded:  # the backbone: one for all seeds, recorded in the release of its folder
            return stage.outputs(self.run)[0].parents[1] / "stages.json"
        if stage.release:
            return self.run.output / "stages.json"
        return (self.run.scratch if stage.seeded else self.run.work) / "stages.json"

    @contextlib.contextmanager
    def alone_at(self, name: str) -> Iterator[None]:
        """Wait until no other run is at a stage, and keep others from it: runs of different rows share stages."""
        lock = self._lock(name)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(f"another run is at {name}: waiting for it", flush=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _lock(self, name: str) -> FileLock:
        stage, run = self.stages[name], self.run
        folder = run.work if not stage.seeded else run.state_path(name).parent if stage.release else run.scratch
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")

    def get(self, name: str) -> dict[str, Any] | None:
        return _read(self._path(self.stages[name])).get(name)

    def put(self, name: str, record: dict[str, Any] | None) -> None:
        """Record a stage atomically, or forget it with None."""
        path = self._path(self.stages[name])
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.run.work / "stages.lock"):  # runs of other rows write to the same file
            everything = _read(path)
            if record is None:
                everything.pop(name, None)
            else:
                of = {} if name == _BACKBONE else {"backbone": backbone_digest(self.run.preset.backbone)}
                everything[name] = of | record
            write_json(path, everything)
        if name == _BACKBONE:
            begun(self.stages[name].outputs(self.run)[0].parent).unlink(missing_ok=True)

    def begin(self, name: str) -> None:
        """Note that a stage is begun, if it makes a backbone: a killed run goes on with it, and does not take what it
        wrote for somebody's own."""
        if name == _BACKBONE:
            note = begun(self.stages[name].outputs(self.run)[0].parent)
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()

    def inherit(self, other: Path, identity: dict[str, str], names: Container[str]) -> list[str]:
        """Copy what another release directory holds already of the stages called `names`: finished ones of the same
        identity. Returns their names."""
        records = _read(other / "stages.json")
        taken = []
        for name, stage in self.stages.items():
            if name not in names or not (stage.release and stage.seeded) or self.is_done(name, identity[name]):
                continue
            files = [files_of(other / path.name) for path in stage.outputs(self.run)]
            if self.fits(name, records.get(name), identity[name]) and all(files):
                for file in (file for group in files for file in group):
                    with replacing(self.run.output / file.name) as partial:
                        shutil.copy2(file, partial)
                    note_written(self.run.output, [self.run.output / file.name])
                self.put(name, records[name])
                taken.append(name)
        return taken

    def set_aside(self, identity: dict[str, str]) -> Iterator[tuple[str, Path]]:
        """Move models that were made with other data or settings out of the release: its choices are not of them. Gives
        the names of their stages and where they lie now. A stage that another run is at is left alone: its model may be
        written and not recorded yet."""
        folder = self.run.scratch / f"out-of-date{self.run.variant}"
        for name, stage in self.stages.items():
            models = [path for path in stage.outputs(self.run) if path.suffix == ".safetensors"]  # not the choices
            if not (stage.release and stage.seeded and any(map(files_of, models))):
                continue
            with contextlib.suppress(Timeout), self._lock(name).acquire(blocking=False):
                if self.fits(name, self.get(name), identity[name]):
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                for file in (file for path in models for file in files_of(path)):
                    shutil.move(file, folder / file.name)
                    note_written(file.parent, [], [file])
                yield name, folder

    def forget(self, name: str) -> None:
        """Make a stage run from nothing: its record, its resume state and its work files go."""
        stage = self.stages[name]
        self.put(name, None)
        self.forget_state(name)
        for folder in stage.work(self.run):
            shutil.rmtree(folder, ignore_errors=True)

    def forget_state(self, name: str) -> None:
        """Remove the resume state of a stage, and what a killed run left of one that it was writing."""
        path = self.run.state_path(name)
        path.unlink(missing_ok=True)
        remove_stale(path)

    def is_done(self, name: str, identity: str) -> bool:
        fits = self.fits(name, self.get(name), identity)
        return fits and all(files_of(path) for path in self.stages[name].outputs(self.run))

    def fits(self, name: str, record: dict[str, Any] | None, identity: str) -> bool:
        """Whether a record is of this identity, and of the backbone that is there now: a local one can be exchanged
        under its name."""
        if record is None or record.get("identity") != identity:
            return False
        return name == _BACKBONE or record.get("backbone") in (None, backbone_digest(self.run.preset.backbone))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """What is recorded in a file, by stage; a ValueError if it is damaged."""
    if not path.is_file():
        return {}
    anew = "restore it, or remove it to run its stages anew"
    records = read_json(path, dict, anew)
    for name, record in records.items():
        if not isinstance(record, dict):
            raise ValueError(f"{path}: damaged ({name!r} must be a record, got {record!r}); {anew}")
    return records
