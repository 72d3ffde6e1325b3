"""The command line of the project: a question (or a saved adapter) and images in, answers out."""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .console import Parser
from .ending import in_one_line, in_words
from .files import check_writable
from .methods import MAX_GAMMA, METHODS, unread
from .texts import split_answers

if TYPE_CHECKING:  # PyTorch takes seconds to load: only what runs after the flags are read imports it
    import pandas as pd

    from .generator import Adapter, AdapterGenerator

_DESCRIPTION = """Generate an adapter (the weights of a small neural network) for a question in plain words, with no
training data; classify images with it among candidate answers; save it."""
_EPILOG = """What it needs: a release, the shipped weights/emoji unless --weights says otherwise, and images that it
knows: weights/emoji has only ever seen drawn scenes, a release of your own what you trained it on. No GPU, and no
network for a local release.
How long it takes, on a CPU: three to five seconds to start, read the models and generate, as long again to read the
encoder of images, a few milliseconds an image. A release from the Hub is downloaded once (about 80 MB for the emoji
preset).

Examples:
  %(prog)s "What colour is the badge behind the dog?" --images scenes/*.png
  %(prog)s "Where is the cat?" --answers "top left,centre,bottom right" --images *.png --json
  %(prog)s "Where is the cat?" --method hyperldm --gamma 1.5 --seed 3 --save cat.safetensors
  %(prog)s --adapter cat.safetensors --images *.png        a saved adapter, nothing generated
  %(prog)s "Where is the cat?" --weights user/repo --revision seed-1 --images *.png

Answers go to standard output. A bad input is one line on standard error and exit status 2."""
_COMMAND = "question-to-adapter"  # what `pip install` puts on the path
_GENERATION = ("method", "generator", "gamma", "steps", "samples", "sampler", "seed")  # flags that say how to generate


class _Parser(Parser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage that argparse would print above it."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def _program() -> str:
    """What was typed: the installed command, or a module, of the checkout's `core` or of the installed package."""
    return _COMMAND if Path(sys.argv[0]).stem == _COMMAND else f"python -m {__package__}.generator"


def parser() -> argparse.ArgumentParser:
    """All flags, with their defaults."""
    result = _Parser(
        prog=_program(),
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("question", nargs="?", help="the question, in plain words")
    result.add_argument(
        "--answers",
        help="candidate answers, separated by commas (default: those that a saved adapter was made for, those that the "
        "question names, or those of the nearest known question)",
    )
    result.add_argument(
        "--images", nargs="+", default=[], metavar="FILE", help="image files; patterns such as '*.png' are expanded"
    )
    result.add_argument("--save", type=Path, metavar="FILE", help="write the adapter here (safetensors)")
    result.add_argument("--json", action="store_true", help="print one JSON object instead of a table")

    release = result.add_argument_group("the release")
    release.add_argument(
        "--weights",
        metavar="WHERE",
        help="directory, or Hub repository USER/REPO or USER/REPO@REVISION (default: the shipped weights/emoji)",
    )
    release.add_argument("--revision", help="branch, tag or commit of a Hub repository (default: main)")
    release.add_argument("--device", default="cpu", help="torch device: cpu, cuda, cuda:1 ... (default: cpu)")

    how = result.add_argument_group("how to generate")
    how.add_argument("--method", choices=METHODS, help="default: hyperldm")
    how.add_argument(
        "--generator", metavar="NAME", help="weight generator of hyperldm and hyperclip: hvae or hnet (default: hvae)"
    )
    how.add_argument(
        "--gamma",
        type=float,
        help=f"guidance strength of hyperldm, 0 to {MAX_GAMMA:g}; 0 ignores the question, 1 is the conditional model "
        "(default: chosen on validation tasks)",
    )
    how.add_argument("--steps", type=int, help="steps of sampling or guidance (default: chosen on validation tasks)")
    how.add_argument("--samples", type=int, help="samples that are averaged (default: chosen on validation tasks)")
    how.add_argument(
        "--sampler",
        metavar="NAME",
        help="ddim, ddpm or dpmpp_2m, of hyperldm (default: what the release was made with)",
    )
    how.add_argument("--seed", type=int, help="seed of the noise (default: 0)")
    result.add_argument_group("a saved adapter").add_argument(
        "--adapter", type=Path, metavar="FILE", help="classify with an adapter that --save wrote; takes no question"
    )
    return result


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    """Run the command line; exits with status 2 and one line on standard error for a bad input."""
    arguments = parser()
    args = arguments.parse_args(argv)
    try:
        _check(args)
        output = _run(args)
    except (ValueError, OSError) as error:
        arguments.error(in_words(error))
    try:
        print(output, flush=True)
    except BrokenPipeError:  # whoever reads may stop early, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered is flushed again at exit


def _check(args: argparse.Namespace) -> None:
    """What can be said before a release is loaded."""
    if args.adapter is None and args.question is None:
        raise ValueError(f"a question is needed, or --adapter FILE; {_examples(args.weights)}")
    if args.adapter is not None:
        given = [f"--{name}" for name in _GENERATION if getattr(args, name) is not None]
        given += ["a question"] if args.question is not None else []
        given += ["--save"] if args.save is not None else []
        if given:
            raise ValueError(f"--adapter takes weights as they are: {given[0]} does not go with it")
        if not args.images:
            raise ValueError("--adapter needs --images to classify")
    else:
        method = args.method or "hyperldm"
        ignored = unread(method, {name: getattr(args, name) for name in _GENERATION if name != "method"})
        if ignored:
            raise ValueError(f"--{ignored[0]}: method {method!r} does not read it")
    if args.save is not None:
        if args.method == "clip":
            raise ValueError("--save: plain CLIP has no adapter weights to save")
        check_writable(args.save.parent)
    import torch

    from .classifier import check_answers

    if args.answers is not None:
        check_answers(split_answers(args.answers))
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {args.device!r} is not usable here: {error}") from None


def _examples(weights: str | None) -> str:
    """Where examples of questions are: of a release on this machine its own."""
    from .release.manifest import read_config

    known = read_config(Path(weights)).get("questions") if weights is not None and Path(weights).is_dir() else None
    return f"{weights} knows {known[0]['question']!r}" if known else "--help has examples"


def _run(args: argparse.Namespace) -> str:
    """Generate or load, classify, save; returns what to print."""
    from .generator import AdapterGenerator

    release = AdapterGenerator.from_pretrained(args.weights, revision=args.revision, device=args.device)
    if args.adapter is None:
        how = {name: value for name in _GENERATION if (value := getattr(args, name)) is not None}
        answers = None if args.answers is None else split_answers(args.answers)
        adapter = release.generate(args.question, answers=answers, **how)
    else:
        adapter = _load(args.adapter, release)
    files = [file for pattern in args.images for file in _files(pattern)]
    answers = _answers(args, release, adapter, needed=bool(files))
    table = adapter.classify(files, answers) if files else None
    if args.save is not None:
        adapter.save(args.save)
    return _as_json(adapter, answers, table) if args.json else _as_text(adapter, table, args.save)


def _load(path: str, release: AdapterGenerator) -> Adapter:
    """A saved adapter; the error for one of another release says which to give."""
    from .classifier import Adapter, OtherBackbone
    from .release.default import shipped_release

    try:
        return Adapter.load(path, release.backbone)
    except OtherBackbone as error:
        folder = shipped_release(error.preset) if error.preset else None
        here = folder is not None and folder.is_relative_to(Path.cwd())
        where = folder.relative_to(Path.cwd()) if here else folder or "RELEASE, the one that made it"
        raise ValueError(f"{error}; give --weights {where}") from None


def _files(pattern: str) -> list[str]:
    """The files that a pattern stands for. The name of a file that there is stands for itself: brackets may be part of
    it."""
    return [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern)) or [pattern]


def _answers(args: argparse.Namespace, release: AdapterGenerator, adapter: Adapter, needed: bool) -> list[str]:
    """The candidate answers: those given, those that the adapter was made for, or those of near known questions; a
    ValueError if there are none and some are `needed`."""
    from .classifier import check_answers

    if args.answers is not None:
        return check_answers(split_answers(args.answers))
    own = adapter.provenance.get("answers")
    if isinstance(own, list) and all(isinstance(answer, str) for answer in own):
        return check_answers(own)
    question = adapter.provenance.get("question")
    if not question or not release.known_questions:
        if not needed:
            return []
        raise ValueError("--answers is needed: there is no known question to take them from")
    return release.suggest_answers(question)


def _as_json(adapter: Adapter, answers: list[str], table: pd.DataFrame | None) -> str:
    images: list[dict[str, Any]] = []
    if table is not None:
        for name, row in table.iterrows():
            images.append(
                {
                    "image": name,
                    "answer": row["answer"],
                    "probability": row["probability"],
                    "probabilities": {answer: row[answer] for answer in answers},
                }
            )
    return json.dumps(
        {"provenance": adapter.provenance, "answers": answers, "images": images}, indent=1, allow_nan=False
    )


def _as_text(adapter: Adapter, table: pd.DataFrame | None, saved: Path | None) -> str:
    made = adapter.provenance
    lines = [f"adapter for {made.get('question')!r}, {made.get('method')}, made in {made.get('seconds', 0):.3f} s"]
    if table is not None:
        lines.append(table.to_string(float_format=lambda value: f"{value:.3f}"))
    if saved is not None:
        lines.append(f"wrote {saved}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
