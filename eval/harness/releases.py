"""Releases to evaluate: the flags that name them, opening them, and saying what they lack."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from core.console import Parser
from core.data.tasks import Task
from core.generator import AdapterGenerator
from eval.harness.origins import descriptors, run_of
from train.pipeline.environment import default_device, usable_device
from train.pipeline.flags import command_of, flags_of, preset_with_data, release_directory, variant
from train.pipeline.run import Run
from train.pipeline.settings import Preset
from train.pipeline.start import backbone_digest
from train.presets import PRESET_NAMES


def parser(doc: str, *, shares: Sequence[float] = (1.0,), limit: bool = True) -> argparse.ArgumentParser:
    """The flags that all evaluation scripts have. `shares` of descriptors are those that a script looks for by itself;
    `limit`: whether it can do with fewer test tasks."""
    result = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "--weights",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="release directories, which say what they were trained on (default: those of the flags --preset to "
        "--descriptors, weights/emoji without any)",
    )
    result.add_argument("--preset", choices=PRESET_NAMES, help="what the releases were trained with (default: emoji)")
    result.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="the built dataset that they were trained on, where it lies now",
    )
    result.add_argument("--seeds", nargs="+", type=int, help="their training seeds (default: 0)")
    result.add_argument(
        "--descriptors",
        nargs="+",
        type=float,
        help="their shares of training tasks with a known question, as train/run_all.py has them (default: "
        f"{' '.join(f'{share:g}' for share in shares)})",
    )
    result.add_argument(
        "--work", type=Path, help="work files, where features are cached (default: where they were trained)"
    )
    result.add_argument("--device", default=default_device(), help="torch device (default: %(default)s)")
    if limit:
        result.add_argument("--limit-tasks", type=int, help="only the first so many test tasks, for a quick look")
    result.add_argument("--json", type=Path, help="write the results here")
    result.set_defaults(default_shares=tuple(shares))
    return result


def open_release(
    arguments: argparse.ArgumentParser,
    args: argparse.Namespace,
    one_share: bool = False,
    every_question: bool = False,
) -> tuple[Run, list[AdapterGenerator]]:
    """The run of the first release (for its data) and one generator for every release. Flags that do not fit end the
    script with a message: an unusable device, a directory that is no release, one that was trained otherwise than the
    flags or the first one say; with `one_share`, for a script whose means are over seeds alone, also releases of
    several shares of descriptors; with `every_question`, for one whose simple rows read the questions of all training
    tasks, also a release that knew fewer."""
    runs, generators = open_runs(arguments, args)
    shares = sorted({descriptors(generator) for generator in generators})
    if one_share and len(shares) > 1:
        told = " and ".join(f"{share:g}" for share in shares)
        arguments.error(f"releases with descriptors {told}; this script takes one share at a time")
    if every_question and shares[0] < 1.0:
        arguments.error(f"a release with descriptors {shares[0]:g}; this script takes releases that knew all questions")
    return runs[0], generators


def open_runs(arguments: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[list[Run], list[AdapterGenerator]]:
    """As `open_release`, with every release's own run."""
    try:
        device = usable_device(args.device)
        generators = [AdapterGenerator.from_pretrained(path, device=device) for path in _directories(args)]
        runs = [run_of(generator, args) for generator in generators]
        _check_alike(runs, generators)
        tasks = runs[0].dataset.tasks
        for generator in generators:
            _check_questions(generator, tasks, getattr(runs[0].dataset, "num_denials", 0))
        count, limit = sum(task.split == "test" for task in tasks), getattr(args, "limit_tasks", None)
        if limit is not None and not 1 <= limit <= count:
            raise ValueError(f"--limit-tasks {limit}; allowed: 1 to {count}")
        _ = runs[0].store  # opened now: features of another dataset or backbone are an error of the flags, too
    except ValueError as error:
        arguments.error(str(error))
    return runs, generators


def command_for(run: Run, generator: AdapterGenerator | None = None) -> str:
    """The command that trains what releases of a run's settings lack; of one of them with its seed and share of
    descriptors."""
    if generator is None:
        return command_of(run, seed=None, descriptors=1.0)
    return command_of(run, seed=generator.config.get("seed", 0), descriptors=descriptors(generator))


def print_missing(run: Run, names: Iterable[str]) -> None:
    """Say which rows no release has, and what makes them."""
    for name in names:
        print(f"missing: {name}; {command_for(run)} makes it")


def require(
    arguments: argparse.ArgumentParser,
    run: Run,
    generators: Sequence[AdapterGenerator],
    lacks: Callable[[AdapterGenerator], Sequence[str]],
) -> None:
    """End the script with a line that names what the first incomplete release lacks, for a script that needs it all."""
    for generator in generators:
        if missing := lacks(generator):
            command = command_for(run, generator)
            arguments.error(f"{generator.directory} lacks {', '.join(missing)}; {command} makes it")


def require_sets(arguments: argparse.ArgumentParser, run: Run, *needed: tuple[str, str]) -> None:
    """End the script with a line that says so where tasks lack a set that it needs: `needed` are splits, each with
    "support" or "query"."""
    for split, part in needed:
        if lacking := [task for task in run.dataset.tasks if task.split == split and not getattr(task, part)[0]]:
            arguments.error(
                f"{len(lacking)} {split} tasks of {run.preset.name} have no {part} set, {lacking[0].question!r} "
                "for one; this script needs them. eval/table1.py and eval/datasets do without"
            )


def _directories(args: argparse.Namespace) -> list[Path]:
    """The releases that flags name. Of seeds and shares of descriptors those that were trained; says what makes the
    others."""
    if args.weights:
        if args.seeds or args.descriptors:
            raise ValueError("--seeds and --descriptors look for trained releases; with --weights leave them out")
        return args.weights
    flags = ["--preset", args.preset or "emoji"] + (["--data", str(args.data)] if args.data else [])
    name = preset_with_data(args.preset or "emoji", args.data).name
    seeds, work, found = args.seeds or [0], args.work or Path("runs") / name, []
    for share in args.descriptors or args.default_shares:
        for seed in seeds:
            directory = release_directory(name, seed, variant("", share), work)
            if (directory / "config.json").is_file():
                found.append(directory)
                continue
            which = ["--seed", str(seed)] + ([] if share == 1.0 else ["--descriptors", f"{share:g}"])
            command = shlex.join(["python", "train/run_all.py", *flags, *which])
            print(f"missing: seed {seed}, {100 * share:g}% Q.; {command} makes it", flush=True)
    if not found:
        raise ValueError(f"none of --seeds {' '.join(map(str, seeds))} is trained")
    return found


def _check_alike(runs: Sequence[Run], generators: Sequence[AdapterGenerator]) -> None:
    """All releases differ in seed and share of descriptors alone, so that one set of features serves them all and a
    mean over seeds is what it says."""

    def settings(preset: Preset) -> Preset:
        return replace(preset, descriptors=1.0, backbone="")

    first, where = runs[0], generators[0].directory
    for run, generator in zip(runs[1:], generators[1:], strict=True):
        if generator.config["question_encoder"] != generators[0].config["question_encoder"]:
            raise ValueError(
                f"{generator.directory} embeds questions by {generator.config['question_encoder']}, others otherwise; "
                "one at a time"
            )
        if settings(run.preset) != settings(first.preset) or run.origin["start"] != first.origin["start"]:
            ours, theirs = (shlex.join(flags_of(r)) for r in (run, first))
            told = f" ({ours}; {theirs})" if ours != theirs else ""
            raise ValueError(f"{generator.directory} was trained otherwise than {where}{told}; one at a time")
        if backbone_digest(run.preset.backbone) != backbone_digest(first.preset.backbone):
            raise ValueError(f"{generator.directory} has another backbone than {where}; one at a time")
    seen: dict[tuple[int, float], Path] = {}
    for generator in generators:
        which = generator.config.get("seed", 0), descriptors(generator)
        if same := seen.get(which):  # it would count twice in a mean over seeds
            told = " and ".join(f"{value:g}" for value in which)
            raise ValueError(f"{generator.directory} is of the same seed and share of descriptors as {same}: {told}")
        seen[which] = generator.directory


def _check_questions(generator: AdapterGenerator, tasks: Sequence[Task], opposites: int) -> None:
    """The dataset is the one that a release was trained on: it has the release's questions for training. The last tasks
    are so many `opposites` of others, which a release from before was not trained on."""
    trained = {question["question"] for question in generator.known_questions}
    of_training = lambda tasks: {task.question for task in tasks if task.split != "test"}
    known = of_training(tasks[: len(tasks) - opposites])
    if trained and trained not in (known, of_training(tasks)):
        raise ValueError(
            f"{generator.directory} was trained on other questions than this dataset's: {len(trained - known)} of its "
            f"{len(trained)} are not here, {len(known - trained)} of {len(known)} here are not its; --data DIR says "
            "where its dataset is"
        )
