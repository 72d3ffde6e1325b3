"""How a release was made: the preset, settings, dataset and backbone that it names, as the run that training had."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path

from core.config import from_dict
from core.data.built import IDENTITY_FILE
from core.data.meta_vqa import MetaVQAConfig
from core.generator import AdapterGenerator
from core.release.manifest import backbone_directory
from train.pipeline.flags import open_run
from train.pipeline.run import Run
from train.pipeline.settings import as_settings
from train.presets import PRESET_NAMES, get_preset


@dataclass(frozen=True)
class Training:
    """What chose the settings of a release: the key "run" of its config.json. Flags of `train/run_all.py`."""

    preset: str
    data: str | None = None  # the directory of a built dataset in place of the preset's own
    steps_share: float = 1.0
    set: tuple[str, ...] = ()
    start: str | None = None  # the release that its models began from; evaluation does not need it


def run_of(generator: AdapterGenerator, args: argparse.Namespace) -> Run:
    """The run that made a release: its preset with its settings, its dataset, and the backbone that it holds.

    Args:
        args: parsed flags of `parser`; `preset` must be the release's if it is given, `data` is where its built dataset
            lies now, `work` where features are.

    Raises:
        ValueError: flags that are not the release's, or a dataset or backbone that is not there.
    """
    where, config = generator.directory, generator.config
    training = training_of(generator)
    if args.preset not in (None, training.preset):
        raise ValueError(f"--preset {args.preset}: {where} was trained with preset {training.preset!r}")
    run = open_run(
        argparse.Namespace(
            preset=training.preset,
            data=_dataset_directory(generator, training, args.data),
            seed=config.get("seed", 0),
            descriptors=descriptors(generator),
            set=list(training.set),
            steps_share=training.steps_share,
            start=None,
            device=args.device,
            output=where,
            work=args.work or _work_of(where) or Path("runs") / config["preset"],
        )
    )
    preset = replace(run.preset, name=config["preset"], **as_settings(config["question_encoder"]))
    origin = run.origin | {"start": training.start}
    return replace(run, preset=replace(preset, backbone=_backbone_of(generator)), origin=origin)


def training_of(generator: AdapterGenerator) -> Training:
    """What a release says of its training. One from before releases said it has the name of its preset, and of its
    dataset behind that."""
    where, config = generator.directory, generator.config
    try:
        if "run" in config:
            training = from_dict(Training, config["run"])
            get_preset(training.preset)
            return training
        name = config["preset"]
        for preset in sorted(PRESET_NAMES, key=len, reverse=True):  # "metavqa_sim" before "metavqa"
            if name == preset or name.startswith(f"{preset}-"):
                return Training(preset)
        raise ValueError(f"preset {name!r}; allowed: {', '.join(PRESET_NAMES)}")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def descriptors(generator: AdapterGenerator) -> float:
    """The share of training tasks whose question the release's models were told."""
    return generator.config.get("descriptors", 1.0)


def _work_of(directory: Path) -> Path | None:
    """The work folder in which a release was trained, WORK/seed-N/weights..., if it lies there still."""
    directory = directory.resolve()
    in_work = directory.name.startswith("weights") and re.fullmatch(r"seed-\d+", directory.parent.name)
    return directory.parent.parent if in_work else None


def _dataset_directory(generator: AdapterGenerator, training: Training, moved: Path | None) -> Path | None:
    """Where the built dataset lies that a release was trained on, if it was: where it says, or where it is now."""
    where, built = generator.directory, training.data is not None or generator.config["preset"] != training.preset
    if moved is not None:
        if not built and not isinstance(get_preset(training.preset).dataset, MetaVQAConfig):
            raise ValueError(f"--data {moved}: {where} was trained on the dataset of preset {training.preset!r} itself")
        return moved
    if not built:
        return None
    if training.data is None:
        raise ValueError(f"{where} does not say where the dataset lies that it was trained on; --data DIR does")
    if not (Path(training.data) / IDENTITY_FILE).is_file():
        raise ValueError(f"{where} was trained on {training.data}, which holds no dataset; --data DIR says where it is")
    return Path(training.data)


def _backbone_of(generator: AdapterGenerator) -> str:
    """The backbone's name, as `load_backbone` takes it: the release's own copy, or the model that open_clip fetches."""
    spec, directory = generator.config["backbone"], backbone_directory(generator.directory, generator.config)
    if directory is not None:
        return f"local-dir:{directory}"
    if spec == "backbone":
        raise ValueError(f"{generator.directory} is incomplete: its backbone is missing")
    return spec
