"""Push a release to the Hugging Face Hub: weights, backbone, config and a model card, as one commit.

The repository then holds exactly the release, and nothing that it held before; one that holds other files and no
release yet needs --replace. Resume states, temporary files and whatever else lies in the directory stay here. An
interrupted push is finished by the same command, and sends only what has not arrived.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import argparse
import contextlib

from core.console import Parser
from core.ending import in_one_line
from train.pipeline.model_card import release_card

_EPILOG = """It needs a token that may write to the repository: set HF_TOKEN, or run `hf auth login`. HF_ENDPOINT names
another Hub. The emoji preset's 80 MB take as long as the network does.
Examples:
  python train/push.py --weights weights/emoji --repo user/repo --dry-run
  python train/push.py --weights weights/emoji --repo user/repo --results eval/results/table1.json
  python train/push.py --weights runs/emoji/seed-1/weights --repo user/repo --revision seed-1 --private"""


def push_release(directory: Path, repo: str, revision: str | None = None) -> str:
    """Push a release with its card as it is; returns the commit's address. Raises what `core.release.hub.push` does."""
    from core.release.hub import contents, push

    card = release_card(directory, _named(repo, revision))
    return push(contents(directory, str(card)), repo, revision=revision)


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    from core.release.hub import contents, parse_repo, push

    arguments = Parser(description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--weights", type=Path, required=True, metavar="DIR", help="release directory")
    arguments.add_argument("--repo", required=True, metavar="USER/REPO", help="model repository, made if there is none")
    arguments.add_argument("--revision", metavar="BRANCH", help="push to this branch, made if there is none")
    arguments.add_argument("--private", action="store_true", help="make a new repository private")
    arguments.add_argument(
        "--replace", action="store_true", help="delete what else the repository holds, if it must be"
    )
    arguments.add_argument(
        "--results", type=Path, metavar="FILE", help="test results for the card, as `eval/table1.py --json` writes them"
    )
    arguments.add_argument(
        "--dry-run", action="store_true", help="print what would be sent, and the card; send nothing"
    )
    args = arguments.parse_args(argv)
    try:
        repo, own = parse_repo(args.repo)
        if own is not None and args.revision is not None:
            raise ValueError(f"--repo {args.repo!r} names a revision, and so does --revision {args.revision!r}")
        revision = args.revision or own
        card = release_card(args.weights, _named(repo, revision), args.results)
        files = contents(args.weights, str(card))
        if args.dry_run:
            where = f"{_named(repo, revision)}{', private' if args.private else ''}"
            with contextlib.suppress(BrokenPipeError):  # whoever reads may stop early, as `head` does
                print(f"{_listing(files, args.weights, where)}\n\nREADME.md:\n\n{card}", flush=True)
            return
        address = push(files, repo, revision=revision, private=args.private, replace=args.replace)
    except ValueError as error:
        arguments.error(str(error))
    print(f"pushed {len(files)} files to {address}")


def _named(repo: str, revision: str | None) -> str:
    return repo if revision is None else f"{repo}@{revision}"


def _listing(files: dict[str, Path | bytes], directory: Path, where: str) -> str:
    """The files with their sizes, their sum, and what of the directory is left out."""
    sizes = {path: len(file) if isinstance(file, bytes) else file.stat().st_size for path, file in files.items()}
    lines = [f"{size:>12,}  {path}" for path, size in sorted(sizes.items())]
    lines.append(f"{sum(sizes.values()):>12,}  bytes in {len(files)} files would go to {where}; nothing was sent")
    here = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    lines += [f"   left here  {path}" for path in sorted(here - files.keys())]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
