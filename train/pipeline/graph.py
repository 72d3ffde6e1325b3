"""The graph of stages: what each needs, makes and depends on, and whether it is already done."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import core.adaptation.descriptors
import train.adaptations
import train.backbone
import train.choose
import train.hvae
import train.hyperclip
import train.hyperldm
import train.latents
import train.maml
import train.multitask
from core.config import config_hash
from core.files import write_json
from train.pipeline.run import Run
from train.presets import Preset

_TRAINED = 2  # format of the stages that `train.optim` trains


@dataclass(frozen=True)
class Stage:
    """One node.

    `format` is raised when a change of code changes what the stage makes. `release` stages write to the release
    directory and are what a run is for; the others make work files, needed only while something downstream must run.
    `shared` stages are worked on by all processes of a run, the others by the main one while the rest wait.
    """

    name: str
    run: Callable[[Run], dict[str, float]]
    needs: tuple[str, ...]
    config: Callable[[Preset], list[Any]]
    outputs: Callable[[Run], list[Path]]  # a path stands for its numbered parts too
    release: bool = True
    seeded: bool = True
    format: int = 1
    shared: bool = False


def _backbone(run: Run) -> dict[str, float]:
    record = train.backbone.run(run.preset.tiny_clip, 0, _backbone_dir(run), run.work / "backbone", run.device)
    return {
        "readouts": sum(record["readouts"].values()) / len(record["readouts"]),
        "caption_loss": record["caption_loss"],
    }


def _backbone_dir(run: Run) -> Path:
    return Path(run.preset.backbone.removeprefix("local-dir:"))


def _features(run: Run) -> dict[str, float]:
    return {"images": float(len({i for task in (*run.train.tasks, *run.val.tasks) for i in task.examples("all")[0]}))}


def _questions(preset: Preset, row: str = "cond_") -> list[Any]:
    """What a stage that reads questions depends on besides its config; a row that reads none is the same for all."""
    return [preset.descriptors, preset.question_pooling] if row.startswith("cond_") else []


def _inferred(preset: Preset) -> list[Any]:
    """How HyperLDM finds the questions that it is not told, if it does."""
    infers = preset.diffusion.infer_descriptors and preset.descriptors < 1.0
    return [core.adaptation.descriptors.FORMAT] if infers else []


def _network(preset: Preset, row: str) -> list[Any]:
    """The network that a baseline trains besides adapter weights, if any."""
    if row == "cond_multitask_film":
        return [preset.film]
    if row in ("cond_multitask", "cond_hnet_maml"):
        return [preset.cond_hnet[row]]
    return [preset.hnet] if row == "hnet_maml" else []


def _file(name: str) -> Callable[[Run], list[Path]]:
    return lambda run: [run.output / f"{name}.safetensors"]


def build(preset: Preset) -> dict[str, Stage]:
    """All stages of a preset by name, each after what it needs."""
    stages: list[Stage] = []
    root: tuple[str, ...] = ()
    if preset.tiny_clip is not None:
        stages.append(
            Stage(
                "backbone",
                _backbone,
                (),
                lambda p: [p.tiny_clip, train.backbone.FORMAT],
                lambda run: [_backbone_dir(run) / "open_clip_model.safetensors"],
                seeded=False,
            )
        )
        root = ("backbone",)
    stages.append(
        Stage(
            "features",
            _features,
            root,
            lambda p: [p.dataset, p.backbone],
            lambda run: [run.work / "features" / "index.json"],
            release=False,
            seeded=False,
        )
    )
    for row in preset.multitask:
        stages.append(
            Stage(
                row,
                functools.partial(train.multitask.run, row=row),
                ("features",),
                lambda p, row=row: [p.adapter, p.multitask[row], *_network(p, row), *_questions(p, row)],
                _file(row),
                format=_TRAINED,
                shared=True,
            )
        )
    for row in preset.maml:
        stages.append(
            Stage(
                row,
                functools.partial(train.maml.run, row=row),
                ("features",),
                lambda p, row=row: [
                    p.adapter,
                    p.maml[row],
                    *_network(p, row),
                    *_questions(p, row),
                    p.few_shot_steps,
                ],
                _file(row),
                format=_TRAINED,
                shared=True,
            )
        )
    hyper = []
    for name, config in preset.adaptations.items():
        source = "mnet_maml" if name == "hvae" else "hnet_maml"
        stages.append(
            Stage(
                f"adaptations_{name}",
                functools.partial(train.adaptations.run, generator=name),
                (source,),
                lambda p, name=name: [p.adaptations[name]],
                lambda run, name=name, last=config.draws - 1: [train.adaptations.draw_path(run, name, last)],
                release=False,
                shared=True,
            )
        )
        if name == "hvae":
            stages.append(
                Stage(
                    "hvae",
                    train.hvae.run,
                    ("adaptations_hvae",),
                    lambda p: [p.hvae, p.hvae_training],
                    _file("hvae"),
                    format=_TRAINED,
                    shared=True,
                )
            )
        needs = ("hvae",) if name == "hvae" else ("adaptations_hnet",)
        stages.append(
            Stage(
                f"hyperclip_{name}",
                functools.partial(train.hyperclip.run, generator=name),
                (*needs, f"adaptations_{name}"),
                lambda p, name=name: [p.hyperclip[name], p.hyperclip_training[name], *_questions(p)],
                _file(f"hyperclip_{name}"),
                format=_TRAINED,
            )
        )
        stages.append(
            Stage(
                f"latents_{name}",
                functools.partial(train.latents.run, generator=name),
                (*needs, f"adaptations_{name}"),
                lambda p: [],
                _file(f"latents_{name}"),
            )
        )
        stages.append(
            Stage(
                f"{name}_hyperldm",
                functools.partial(train.hyperldm.run, generator=name),
                (*needs, f"adaptations_{name}"),
                lambda p: [p.hyperldm, p.diffusion, *_questions(p), *_inferred(p)],
                _file(f"{name}_hyperldm"),
                format=_TRAINED,
                shared=True,
            )
        )
        hyper += [f"hyperclip_{name}", f"{name}_hyperldm"]
    stages.append(
        Stage(
            "choose",
            train.choose.run,
            (*hyper, *preset.multitask, *preset.maml),
            lambda p: [p.guidance, p.sampling, p.few_shot_lrs],
            lambda run: [run.output / "config.json"],
            format=3,
        )
    )
    return {stage.name: stage for stage in stages}


def stages_of(rows: Iterable[str], stages: dict[str, Stage]) -> list[str]:
    """The stages that rows of the result tables need, in order; with those of all rows, the choices too.

    Raises:
        ValueError: an unknown row.
    """
    own = {name: (name,) for name in stages if name.startswith(("uncond_", "cond_", "mnet_")) or name == "hnet_maml"}
    baselines = tuple(own)
    own |= {"clip": ("features",), "clip_prompted": ("features",), "few_shot_ceiling": baselines}
    for name in train.adaptations.GENERATORS:
        own |= {
            f"{name}_hyperclip": (f"hyperclip_{name}",),
            f"{name}_hyperldm": (f"{name}_hyperldm", f"latents_{name}"),
        }
    wanted: set[str] = set()
    for row in rows:
        if row not in own:
            raise ValueError(f"row {row!r}; allowed: {', '.join(own)}")
        wanted |= {stage for stage in own[row] if stage in stages}
    for name in reversed(stages):  # every stage comes after what it needs
        if name == "choose" and wanted >= {n for n in stages["choose"].needs if stages[n].release}:
            wanted.add(name)
        if name in wanted:
            wanted |= set(stages[name].needs)
    return [name for name in stages if name in wanted]


def identities(run: Run, stages: dict[str, Stage]) -> dict[str, str]:
    """Hash of each stage's config, format and inputs' identities; what it makes is a function of these."""
    result: dict[str, str] = {}
    for stage in stages.values():
        seed = run.seed if stage.seeded else None
        result[stage.name] = config_hash(
            stage.name, stage.format, seed, stage.config(run.preset), [result[n] for n in stage.needs]
        )
    return result


def downstream(stages: dict[str, Stage], names: Iterable[str]) -> list[str]:
    """These stages and all that build on them, in order."""
    found = set(names)
    for name, stage in stages.items():  # every stage comes after what it needs
        if found & set(stage.needs):
            found.add(name)
    return [name for name in stages if name in found]


class Records:
    """What was done, by stage: identity, metrics, seconds. Release stages are recorded in OUTPUT/stages.json, which is
    shipped; the others beside the work files."""

    def __init__(self, run: Run, stages: dict[str, Stage]) -> None:
        self.run, self.stages = run, stages

    def _path(self, stage: Stage) -> Path:
        if stage.name == "backbone":  # one for all seeds, recorded in the release that it is shipped with
            return _backbone_dir(self.run).parent / "stages.json"
        if stage.release:
            return self.run.output / "stages.json"
        return (self.run.scratch if stage.seeded else self.run.work) / "stages.json"

    @contextlib.contextmanager
    def alone_at(self, name: str) -> Iterator[None]:
        """Wait until no other run is at a stage, and keep others from it: runs of different rows share stages."""
        stage, run = self.stages[name], self.run
        folder = run.work if not stage.seeded else run.state_path(name).parent if stage.release else run.scratch
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(f"another run is at {name}: waiting for it", flush=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def get(self, name: str) -> dict[str, Any] | None:
        path = self._path(self.stages[name])
        return json.loads(path.read_text()).get(name) if path.is_file() else None

    def put(self, name: str, record: dict[str, Any] | None) -> None:
        """Record a stage atomically, or forget it with None."""
        path = self._path(self.stages[name])
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.run.work / "stages.lock"):  # runs of other rows write to the same file
            everything = json.loads(path.read_text()) if path.is_file() else {}
            if record is None:
                everything.pop(name, None)
            else:
                everything[name] = record
            write_json(path, everything)

    def inherit(self, other: Path, identity: dict[str, str]) -> list[str]:
        """Copy what another release directory holds already: finished stages of the same identity. Returns their
        names."""
        records = json.loads((other / "stages.json").read_text()) if (other / "stages.json").is_file() else {}
        taken = []
        for name, stage in self.stages.items():
            if not stage.release or name == "backbone" or self.is_done(name, identity[name]):
                continue
            files = [_files(other / path.name) for path in stage.outputs(self.run)]
            if records.get(name, {}).get("identity") == identity[name] and all(files):
                self.run.output.mkdir(parents=True, exist_ok=True)
                for file in (file for group in files for file in group):
                    shutil.copy2(file, self.run.output / file.name)
                self.put(name, records[name])
                taken.append(name)
        return taken

    def is_done(self, name: str, identity: str) -> bool:
        record = self.get(name)
        return (
            bool(record)
            and record["identity"] == identity
            and all(_files(p) for p in self.stages[name].outputs(self.run))
        )


def _files(path: Path) -> list[Path]:
    """The file at `path`, or its numbered parts; none if there is neither."""
    return [path] if path.is_file() else sorted(path.parent.glob(f"{path.stem}-?????-of-?????{path.suffix}"))


def plan(stages: dict[str, Stage], done: Callable[[str], bool], wanted: Iterable[str]) -> list[str]:
    """Stages to run, in order: the wanted ones that are not done, and work files that these need and that are gone."""
    wanted = set(wanted)
    running: set[str] = set()
    for name in reversed(stages):  # every stage comes after what it needs
        stage = stages[name]
        needed = any(name in stages[other].needs for other in running)
        if not done(name) and (
            (stage.release and name in wanted) or (needed and (not stage.release or name in wanted))
        ):
            running.add(name)
    return [name for name in stages if name in running]
