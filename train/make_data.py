"""Make, describe or preview a dataset.

Emoji-VQA (--preset emoji, tiny) is drawn on the fly: there is nothing to make. Meta-VQA (--preset metavqa) is built
from the files of VQA v2 or from the published split, and COCO's images, all or a part of them; your own questions from
a directory of pictures and a table of (image, question, answer). Training and evaluation take what was built with
--data DIR. The questions about few photographs (--preset photos) are shipped; only their pictures are to be fetched.
"""

from __future__ import annotations

import argparse
import random
import sys
import textwrap
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

from core.console import Parser
from core.data import download as vqa_download
from core.data.base import Dataset
from core.data.built import (
    PROMPT_FILE,
    ImageFiles,
    Questions,
    image_names,
    read_dataset,
    read_prompts,
    write_dataset,
    write_images,
)
from core.data.coco import coco_files, fetch_pictures, find_coco
from core.data.folder import FolderConfig, read_folder
from core.data.meta_vqa import MetaVQAConfig, read_published
from core.data.part import dealt_anew, in_both_roles, left_out, sizes, with_images
from core.data.tasks import Split, Task
from core.data.vqa_v2 import from_vqa_v2
from core.ending import in_one_line, in_words
from core.files import check_writable
from core.release.default import located
from train.pipeline.flags import preset_with_data
from train.pipeline.model_card import SHIPPED_PHOTOS
from train.presets import PRESET_NAMES, get_preset

if TYPE_CHECKING:
    from PIL import Image

_SIDE, _COLUMNS, _MARGIN, _TEXT = 160, 4, 14, 40
_META_VQA = ("metavqa", "photos")  # presets whose questions are Meta-VQA's
_TAKEN = ("emoji-vqa", "meta-vqa", "simulated")  # how names of datasets begin that are not one's own
_PUBLISHED = {"train": 870, "test": 373, "pairs": 104_112}  # Meta-VQA as its authors published it

_EPILOG = """Examples:
  python train/make_data.py --preview                      a sheet of Emoji-VQA's questions
  python train/make_data.py --preset metavqa --split-dir metavqa --images coco
  python train/make_data.py --preset metavqa --vqa-dir vqa --images coco --download      fetches 20 GB
  python train/make_data.py --preset photos --images data/coco --download      fetches its 3,347 photographs
  python train/make_data.py --preset photos --split-dir metavqa --images coco  builds it from what is in coco
  python train/make_data.py --images photos --table questions.csv --output data/mine
  python train/make_data.py --data data/mine --preview     a sheet of its questions"""


def summary(tasks: list[Task]) -> str:
    """Counts by split and the spread of tasks over families, as text."""
    lines = [f"{'split':<6} {'tasks':>6} {'support':>8} {'query':>7} {'answers':>8} {'families':>9} {'majority':>9}"]
    for split in ("train", "val", "test"):
        chosen = [task for task in tasks if task.split == split]
        shares = [max(Counter(task.query[1]).values()) / len(task.query[1]) for task in chosen if task.query[1]]
        majority = f"{mean(shares):.3f}" if shares else "-"
        lines.append(
            f"{split:<6} {len(chosen):>6} {mean(len(t.support[0]) for t in chosen):>8.2f} "
            f"{mean(len(t.query[0]) for t in chosen):>7.2f} {mean(len(t.answers) for t in chosen):>8.2f} "
            f"{len({t.family for t in chosen}):>9} {majority:>9}"
        )
    new = [task for task in tasks if task.new_family]
    if new:
        lines.append(f"{len(new)} test tasks belong to {len({t.family for t in new})} families that training never saw")
    return "\n".join(lines)


def contact_sheet(data: Dataset, count: int, seed: int) -> Image.Image:
    """`count` tasks, each one of another family: three pictures in a row, the question above, the answers below."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    rng = random.Random(f"{seed}/preview")
    tasks = {task.family: task for task in rng.sample(data.tasks, len(data.tasks))}
    chosen = list(tasks.values())[:count]
    width, height = 3 * _SIDE + 2 * _MARGIN, _SIDE + 2 * _TEXT
    font = ImageFont.load_default(size=15)
    rows = -(-len(chosen) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, task in enumerate(chosen):
        left, top = (i % _COLUMNS) * width + _MARGIN, (i // _COLUMNS) * height
        draw.text((left, top + 4), textwrap.fill(task.question, 58), fill="black", font=font)
        # three different answers where the task has them
        shown = {label: image for image, label in zip(*(task.support if task.support[0] else task.query), strict=True)}
        for k, (label, index) in enumerate(list(shown.items())[:3]):
            try:
                image = data.load_image(index)
            except OSError as error:  # encoding lists it and goes on, so does the sheet
                image = Image.new("RGB", (_SIDE, _SIDE), (160, 0, 0))
                print(f"unreadable: {error}")
            small = min(image.size) < _SIDE  # drawn scenes stay sharp
            method = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
            sheet.paste(ImageOps.fit(image, (_SIDE, _SIDE), method), (left + k * (_SIDE + 3), top + _TEXT))
            draw.text(
                (left + k * (_SIDE + 3), top + _TEXT + _SIDE + 3), task.answers[label], fill=(0, 90, 160), font=font
            )
    return sheet


def build_meta_vqa(args: argparse.Namespace, output: Path) -> None:
    """Meta-VQA from VQA v2's files or the published split, with all images, a part of them or none."""
    if args.vqa_dir:
        if args.download:
            vqa_download.download(vqa_download.VQA_ARCHIVES, args.vqa_dir)
        train, test = from_vqa_v2(args.vqa_dir)
        prompt_file, source = args.vqa_dir / PROMPT_FILE, "VQA v2 files"
        prompts = read_prompts(prompt_file) if prompt_file.is_file() else {}
    else:
        train, test, prompts = read_published(args.split_dir)
        source = "published split files"
    splits: dict[Split, Questions] = {"train": train, "test": test}
    images, part = None, None
    if args.images:
        if args.download:
            vqa_download.download(vqa_download.COCO_ARCHIVES, args.images)
        splits, images, part = take_part(splits, args.images, anew=args.preset == "photos")
    write = partial(write_dataset, output, splits, source=source, prompts=prompts, images=images, part=part)
    identity = write(name="meta-vqa" if args.preset == "metavqa" else "meta-vqa-photos-part")
    if args.preset == "photos" and identity["questions"] == SHIPPED_PHOTOS:
        identity = write(name="meta-vqa-photos")  # what is said of the shipped questions is true of no others
    counts = {key: identity["counts"][key] for key in _PUBLISHED}
    same = "as published" if counts == _PUBLISHED else f"published: {_PUBLISHED}"
    print(f"built {output} from {source}: {counts} ({same}), {len(prompts)} prompts at hand")
    if images is None:
        print("without pictures: nothing can be encoded from it; give --images DIR to add them")


def take_part(
    full: dict[Split, Questions], root: Path, *, anew: bool
) -> tuple[dict[Split, Questions], ImageFiles, dict[str, int] | None]:
    """The questions that the images below `root` leave, where these images lie, and counts of what is left out (None:
    nothing).

    Args:
        anew: deal the pairs into new roles; else the published roles stay, and questions of which one role is left go.

    Raises:
        ValueError: no image is there, or no training or test question is left.
    """
    files = coco_files(image_names(full.values()), root)
    shown = with_images(full, files)
    splits = dealt_anew(shown) if anew else in_both_roles(shown)
    empty = [split for split, questions in splits.items() if not questions]
    if empty:
        raise ValueError(f"--images {root}: its {len(files):,} images leave no {empty[0]} question; more are needed")
    counts = left_out(full, splits)
    if any(counts.values()):
        of = [f"{n:,} of {total:,}" for n, total in zip(counts.values(), sizes(full), strict=True)]
        print(f"left out, for lack of images: {of[0]} pairs, {of[1]} images, {of[2]} questions")
        lost = sizes(shown)[2] - sizes(splits)[2]
        if lost:
            print(f"{lost:,} of these questions have pairs left, but no support or no query pair")
    images = ImageFiles(root, tuple(files[name] for name in image_names(splits.values())))
    return splits, images, counts if anew or any(counts.values()) else None


def attach_pictures(args: argparse.Namespace, directory: Path) -> None:
    """Say where the pictures of a dataset that is there lie on this machine; fetch them first where asked to."""
    identity, splits, _ = read_dataset(directory)
    if identity["images"] is None:
        raise ValueError(f"{directory} was built without pictures; build it again with --images")
    names = image_names(splits.values())
    if args.download:
        print(f"fetched {fetch_pictures(names, args.images):,} of {len(names):,} photographs to {args.images}")
    images = find_coco(names, args.images)
    write_images(directory, images)
    print(f"{directory} finds its {len(names):,} pictures in {args.images}")
    if images.digest(names) != identity["images"]:
        print("their files are not those that it was built from: features made of them will differ a little")


def build_folder(args: argparse.Namespace, output: Path) -> None:
    """A dataset from a directory of pictures and a table; says in one place what was done to them."""
    data = read_folder(FolderConfig(str(args.images), str(args.table)))
    source, name = f"table {args.table.name}", args.table.stem
    if name.lower().startswith(_TAKEN):  # what is said of these datasets is not true of this one
        name = f"own {name}"
    write_dataset(output, data.splits, name=name, source=source, prompts=data.prompts, images=data.images)
    counts = ", ".join(f"{len(questions)} {split}" for split, questions in data.splits.items())
    print(f"built {output} from {source}: {counts} questions, {len(data.images.files)} pictures")
    for note in data.notes:
        print(f"  {note}")


def sheet_path(args: argparse.Namespace, directory: Path | None) -> Path:
    """Where the sheet goes unless --output says so: beside the questions, but no photograph into what is shipped."""
    if directory is None:
        return Path("eval/results/emoji_vqa.png")
    own = args.preset == "photos" and not (args.table or args.data)
    return (Path("runs/photos") if own else directory) / "preview.png"


def parse(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The flags, checked for combinations that mean nothing."""
    parser = Parser(description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="emoji", choices=PRESET_NAMES, help="whose dataset (default: emoji)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a dataset that this script has built")
    parser.add_argument("--split-dir", type=Path, help="Meta-VQA: the directory of meta_train.json, meta_test.json")
    parser.add_argument("--vqa-dir", type=Path, help="Meta-VQA: the directory of VQA v2's four JSON files")
    parser.add_argument("--images", type=Path, help="directory of pictures (of COCO's train2014 and val2014)")
    parser.add_argument(
        "--table", type=Path, help="your own questions: CSV or JSON of image, question, answer[, split]"
    )
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch what is missing: VQA v2 and all of COCO, or (--preset photos) single photographs",
    )
    parser.add_argument("--preview", action="store_true", help="write a contact sheet of pictures and their questions")
    parser.add_argument(
        "--output",
        type=Path,
        help="the built directory (default: data/metavqa; photos: weights/photos/data), or else where the sheet goes "
        "(default: preview.png in the built directory; emoji: in eval/results; photos: in runs/photos)",
    )
    parser.add_argument("--count", type=int, default=20, help="questions on the sheet, each of another family")
    parser.add_argument("--seed", type=int, default=0, help="which questions are shown")
    args = parser.parse_args(argv)
    if not 1 <= args.count <= 50:
        parser.error(f"--count {args.count}; allowed: 1 to 50")
    if sum(x is not None for x in (args.data, args.split_dir, args.vqa_dir, args.table)) > 1:
        parser.error("--data, --split-dir, --vqa-dir and --table exclude each other")
    source = args.split_dir or args.vqa_dir
    if source and args.preset not in _META_VQA:
        parser.error("--split-dir and --vqa-dir need --preset metavqa or photos")
    if args.table and not (args.images and args.output):
        parser.error("--table needs --images and --output")
    if args.images and not (args.table or source or args.data or args.preset == "photos"):
        parser.error("--images needs --table, --split-dir, --vqa-dir, --data or --preset photos")
    if args.preset == "photos" and source and (args.download or not args.images):
        parser.error(
            "--preset photos is built from --images that are there; without --split-dir and --vqa-dir --download "
            "fetches its photographs"
        )
    if args.download and (args.table or not (source or args.images)):
        parser.error("--download needs --vqa-dir or --split-dir, or --images alone with --preset photos or --data")
    return parser, args


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    parser, args = parse(argv)
    building = bool(args.table or args.split_dir or args.vqa_dir)
    config = get_preset(args.preset).dataset
    try:
        if building:
            directory = args.output or located(config.directory)
            check_writable(directory)
            (build_folder if args.table else build_meta_vqa)(args, directory)
        elif args.data or isinstance(config, MetaVQAConfig):
            directory = args.data or located(config.directory)
            if args.images:
                attach_pictures(args, directory)
        else:
            directory = None
        data = preset_with_data(args.preset, directory).dataset.open()
        print(f"{data.identity['name']}: {len(data.tasks)} tasks, {data.num_images} images")
        if count := getattr(data, "num_denials", 0):
            print(f"  {count} training questions are asked in their opposite form, too, with yes for no")
        print(summary(data.tasks))
        if args.preview:
            sheet = sheet_path(args, directory) if building else args.output or sheet_path(args, directory)
            sheet.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(data, args.count, args.seed).save(sheet)
            print(f"wrote {sheet}")
    except (ValueError, OSError) as error:
        parser.error(in_words(error))


if __name__ == "__main__":
    main()
