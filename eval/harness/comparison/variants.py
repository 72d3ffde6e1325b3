"""Rows of Table 1 that are a row of a release of its own, trained with other settings and evaluated with its own
embeddings of the questions.

To add one: a line in `VARIANTS`. Where its releases are trained, Table 1 takes them in; else it says what trains them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.generator import AdapterGenerator
from eval.harness.origins import descriptors, training_of
from eval.harness.rows import ROWS, Row, hyperldm_row
from train.pipeline.flags import command_of, open_run
from train.pipeline.run import Run
from train.presets import PAPERS_WAY


@dataclass(frozen=True)
class Variant:
    """The line `id` of Table 1: `row` of releases that `train/run_all.py --set SETTINGS` trains."""

    id: str
    label: str
    row: Row
    settings: tuple[str, ...]

    def is_of(self, generator: AdapterGenerator) -> bool:
        """Whether a release was trained with these settings."""
        return sorted(training_of(generator).set) == sorted(self.settings)


def _changed(row: Row, name: str, what: str, *settings: str) -> Variant:
    return Variant(id=f"{row.id}_{name}", label=f"{row.label}; {what}", row=row, settings=settings)


def _reading_answers(row: Row) -> Variant:
    return _changed(row, "answers", "reads the candidate answers", "question_answers=true")


def _of_more_draws(row: Row) -> Variant:
    return _changed(row, "draws", "24 draws of fine-tuned weights a task", "adaptations.hvae.draws=24")


_BY_ID = {row.id: row for row in ROWS}
VARIANTS: tuple[Variant, ...] = (
    Variant(
        id="hvae_hyperldm_paper",
        label="HVAE + HyperLDM, the paper's way, gamma of validation",
        row=hyperldm_row(generator="hvae", gamma=None),
        settings=PAPERS_WAY,
    ),
    _reading_answers(_BY_ID["cond_multitask"]),
    _reading_answers(_BY_ID["cond_bottleneck"]),
    _reading_answers(_BY_ID["kernel_ridge"]),
    _reading_answers(_BY_ID["latent_regression"]),
    _reading_answers(hyperldm_row(generator="hvae", gamma=None)),
    _of_more_draws(_BY_ID["kernel_ridge"]),
    _of_more_draws(_BY_ID["latent_regression"]),
    _of_more_draws(hyperldm_row(generator="hvae", gamma=None)),
    _of_more_draws(_BY_ID["hvae_hnet_hyperldm"]),
)


def find_releases(
    run: Run, generators: Sequence[AdapterGenerator], args: argparse.Namespace
) -> Iterator[tuple[Variant, list[AdapterGenerator]]]:
    """Every variant with the releases of it, among those that `args.variants` names or where training puts them: for
    every seed and share of descriptors of `generators` with the preset's own settings. Says what trains the others that
    know all questions.

    Raises:
        ValueError: a directory of `args.variants` that is no release of a variant.
    """
    named = [AdapterGenerator.from_pretrained(path, device=run.device) for path in args.variants or ()]
    for generator in named:
        if not any(variant.is_of(generator) for variant in VARIANTS):
            settings = " ".join(training_of(generator).set) or "those of the preset"
            raise ValueError(
                f"--variants {generator.directory}: trained with settings {settings}; allowed: those of "
                f"{', '.join(variant.id for variant in VARIANTS)}"
            )
    for variant in VARIANTS:
        given = [generator for generator in named if variant.is_of(generator)]
        trained = {(g.config["seed"], descriptors(g)): g for g in given}
        for generator in (g for g in generators if not training_of(g).set):
            which = generator.config["seed"], descriptors(generator)
            if which in trained:
                continue
            own = _run_of_variant(run, generator, variant)
            if (own.output / "config.json").is_file():
                trained[which] = AdapterGenerator.from_pretrained(own.output, device=run.device)
            elif which[1] == 1.0:
                rows = " ".join(row.id for row in variant.row.members or (variant.row,))
                command = f"{command_of(own, *which)} --rows {rows}"
                print(f"missing: {variant.id}, seed {which[0]}; {command} makes it", flush=True)
        yield variant, list(trained.values())


def _run_of_variant(run: Run, generator: AdapterGenerator, variant: Variant) -> Run:
    """The run that trains a variant with the seed and share of descriptors of a release, on the dataset of `run`."""
    origin = run.origin
    return open_run(
        argparse.Namespace(
            preset=origin["preset"],
            data=None if origin["data"] is None else Path(origin["data"]),
            seed=generator.config["seed"],
            descriptors=descriptors(generator),
            set=list(variant.settings),
            steps_share=origin["steps_share"],
            start=None,
            device=str(run.device),
            output=None,
            work=run.work,
        ),
        run.processes,
    )
