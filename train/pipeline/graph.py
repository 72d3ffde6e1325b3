"""The graph of stages: which there are, what a run needs of them, and what each one's result is a function of."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from graphlib import TopologicalSorter

import train
from core.config import config_hash
from core.methods import FEW_SHOT_ROWS, GUIDED, row_of

from .run import Run
from .settings import Preset
from .stage import Stage

CHOICES = "choose"  # the stage that completes a release


def build(preset: Preset) -> dict[str, Stage]:
    """All stages of a preset by name, each after what it needs. Every script of `train/`, and every folder of scripts,
    that has a function `stages` says what it contributes."""
    found: dict[str, Stage] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(train.__path__)):
        script = importlib.import_module(f"train.{name}")
        if hasattr(script, "stages"):
            found |= {stage.name: stage for stage in script.stages(preset)}
    present = {
        name: replace(stage, needs=tuple(need for need in stage.needs if need in found or name != CHOICES))
        for name, stage in found.items()
    }
    order = TopologicalSorter({name: stage.needs for name, stage in present.items()}).static_order()
    return {name: present[name] for name in order}


def stages_of(rows: Iterable[str], stages: dict[str, Stage]) -> list[str]:
    """The stages that rows of the result tables need, in order, with the choices that make a release of them.

    Raises:
        ValueError: an unknown row.
    """
    rows_of_choices = [name for name in stages[CHOICES].needs if stages[name].release]
    baselines = tuple(name for name in rows_of_choices if name in FEW_SHOT_ROWS)
    own = {name: (name,) for name in rows_of_choices}
    own |= {"clip": ("features",), "clip_prompted": ("features",), "few_shot_ceiling": baselines}
    for name in (name.removeprefix("latents_") for name in stages if name.startswith("latents_")):
        own[row_of("hyperldm", name)] += (f"latents_{name}",)
    if {parts := row_of("hyperldm"), row_of("hyperclip")} <= own.keys():
        own[GUIDED] = (*own[parts], row_of("hyperclip"))
    wanted = {CHOICES}
    for row in rows:
        if row not in own:
            raise ValueError(f"row {row!r}; allowed: {', '.join(own)}")
        wanted |= set(own[row])
    return [name for name in stages if name in wanted | needed(stages, wanted - {CHOICES})]


def needed(stages: dict[str, Stage], names: Iterable[str]) -> set[str]:
    """All that these stages build on."""
    found = set(names)
    for name in reversed(stages):  # every stage comes after what it needs
        if name in found:
            found |= set(stages[name].needs)
    return found


def resolved(stages: dict[str, Stage], kept: Callable[[str], bool]) -> dict[str, Stage]:
    """The same stages, the choices building on those rows alone that a run makes or has made."""
    choices = stages[CHOICES]
    needs = tuple(name for name in choices.needs if kept(name) or not stages[name].release)
    return stages | {CHOICES: replace(choices, needs=needs)}


def identities(run: Run, stages: dict[str, Stage]) -> dict[str, str]:
    """Hash of each stage's config, format and inputs' identities, and of the model that it begins from, if any; what it
    makes is a function of these."""
    result: dict[str, str] = {}
    for stage in stages.values():
        seed = run.seed if stage.seeded else None
        inputs = [result[name] for name in stage.needs]
        own = run.begun_from(stage.name)
        result[stage.name] = config_hash(stage.name, stage.format, seed, stage.config, inputs, *own)
    return result


def continued(stages: dict[str, Stage], held: Container[str]) -> list[str]:
    """The stages whose models can begin from a release's, given the names of the models that it holds: those that are
    held, if what they build on is held as well. A denoiser of other latents, say, would be of no use."""
    afresh: set[str] = set()
    result = []
    for name, stage in stages.items():  # every stage comes after what it needs
        trains = stage.release and stage.seeded and stage.steps > 0
        if afresh & set(stage.needs) or (trains and name not in held):
            afresh.add(name)
        elif trains:
            result.append(name)
    return result


def downstream(stages: dict[str, Stage], names: Iterable[str]) -> list[str]:
    """These stages and all that build on them, in order."""
    found = set(names)
    for name, stage in stages.items():  # every stage comes after what it needs
        if found & set(stage.needs):
            found.add(name)
    return [name for name in stages if name in found]


def plan(
    stages: dict[str, Stage], done: Callable[[str], bool], wanted: Iterable[str], named: Iterable[str] = ()
) -> list[str]:
    """Stages to run, in order: the wanted ones that are not done, and work files that these need and that are gone.
    Stages that make work files are made for those who need them, or where they are `named`."""
    wanted, named = set(wanted), set(named)
    running: set[str] = set()
    for name in reversed(stages):  # every stage comes after what it needs
        stage = stages[name]
        needed = any(name in stages[other].needs for other in running)
        if not done(name) and (
            name in named or (stage.release and name in wanted) or (needed and (not stage.release or name in wanted))
        ):
            running.add(name)
    return [name for name in stages if name in running]
