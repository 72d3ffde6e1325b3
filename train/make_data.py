"""Make, describe or preview a dataset.

Emoji-VQA (--preset emoji, tiny) is drawn on the fly: there is nothing to make. Meta-VQA (--preset metavqa) is built
from the files of VQA v2 or from the published split, and COCO's images; your own questions from a directory of pictures
and a table of (image, question, answer). Training and evaluation take what was built with --data DIR.
"""

from __future__ import annotations

import argparse
import random
import sys
import textwrap
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

from core.data import download as vqa_download
from core.data.base import Dataset
from core.data.built import PROMPT_FILE, image_names, read_prompts, write_dataset
from core.data.folder import FolderConfig, read_folder
from core.data.meta_vqa import MetaVQA, MetaVQAConfig, find_coco, read_published
from core.data.tasks import Task
from core.data.vqa_v2 import from_vqa_v2
from train.presets import PRESET_NAMES, get_preset

if TYPE_CHECKING:
    from PIL import Image

_SIDE, _COLUMNS, _MARGIN, _TEXT = 160, 4, 14, 40
_PUBLISHED = {"train": 870, "test": 373, "pairs": 104_112}  # Meta-VQA as its authors published it

_EPILOG = """Examples:
  python train/make_data.py --preview                      a sheet of Emoji-VQA's questions
  python train/make_data.py --preset metavqa --split-dir metavqa --images coco
  python train/make_data.py --preset metavqa --vqa-dir vqa --images coco --download      fetches 20 GB
  python train/make_data.py --images photos --table questions.csv --output data/mine
  python train/make_data.py --data data/mine --preview     a sheet of its questions"""


def summary(tasks: list[Task]) -> str:
    """Counts by split and the spread of tasks over families, as text."""
    lines = [f"{'split':<6} {'tasks':>6} {'support':>8} {'query':>7} {'answers':>8} {'families':>9} {'majority':>9}"]
    for split in ("train", "val", "test"):
        chosen = [task for task in tasks if task.split == split]
        majority = mean(max(Counter(task.query[1]).values()) / len(task.query[1]) for task in chosen)
        lines.append(
            f"{split:<6} {len(chosen):>6} {mean(len(t.support[0]) for t in chosen):>8.2f} "
            f"{mean(len(t.query[0]) for t in chosen):>7.2f} {mean(len(t.answers) for t in chosen):>8.2f} "
            f"{len({t.family for t in chosen}):>9} {majority:>9.3f}"
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
        shown = {label: image for image, label in zip(*task.support, strict=True)}
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
    """Meta-VQA from VQA v2's files or the published split, with or without images."""
    if args.vqa_dir:
        if args.download:
            vqa_download.download(vqa_download.VQA_ARCHIVES, args.vqa_dir)
        train, test = from_vqa_v2(args.vqa_dir)
        prompt_file, source = args.vqa_dir / PROMPT_FILE, "VQA v2 files"
        prompts = read_prompts(prompt_file) if prompt_file.is_file() else {}
    else:
        train, test, prompts = read_published(args.split_dir)
        source = "published split files"
    images = None
    if args.images:
        if args.download:
            vqa_download.download(vqa_download.COCO_ARCHIVES, args.images)
        images = find_coco(image_names((train, test)), args.images)
    identity = write_dataset(
        output, {"train": train, "test": test}, name="meta-vqa", source=source, prompts=prompts, images=images
    )
    counts = {key: identity["counts"][key] for key in _PUBLISHED}
    same = "as published" if counts == _PUBLISHED else f"published: {_PUBLISHED}"
    print(f"built {output} from {source}: {counts} ({same}), {len(prompts)} prompts at hand")
    if images is None:
        print("without pictures: nothing can be encoded from it; give --images DIR to add them")


def build_folder(args: argparse.Namespace, output: Path) -> None:
    """A dataset from a directory of pictures and a table."""
    config = FolderConfig(str(args.images), str(args.table))
    data = read_folder(config)
    for note in data.notes:
        print(note)
    source = f"table {args.table.name}"
    write_dataset(output, data.splits, name=args.table.stem, source=source, prompts=data.prompts, images=data.images)
    print(f"built {output} from {source}; {len(data.notes)} answers and questions left out")


def parse(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The flags, checked for combinations that mean nothing."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = tuple(dict.fromkeys((*PRESET_NAMES, "metavqa")))
    parser.add_argument("--preset", default="emoji", choices=names, help="whose dataset (default: emoji)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a dataset that this script has built")
    parser.add_argument("--split-dir", type=Path, help="Meta-VQA: the directory of meta_train.json, meta_test.json")
    parser.add_argument("--vqa-dir", type=Path, help="Meta-VQA: the directory of VQA v2's four JSON files")
    parser.add_argument("--images", type=Path, help="directory of pictures (of COCO's train2014 and val2014)")
    parser.add_argument(
        "--table", type=Path, help="your own questions: CSV or JSON of image, question, answer[, split]"
    )
    parser.add_argument("--download", action="store_true", help="Meta-VQA: fetch what is missing from its sources")
    parser.add_argument("--preview", action="store_true", help="write a contact sheet of pictures and their questions")
    parser.add_argument(
        "--output",
        type=Path,
        help="the built directory (default: data/metavqa), or else where the sheet goes (default: "
        "eval/results/emoji_vqa.png, or preview.png in the built directory)",
    )
    parser.add_argument("--count", type=int, default=20, help="questions on the sheet, each of another family")
    parser.add_argument("--seed", type=int, default=0, help="which questions are shown")
    args = parser.parse_args(argv)
    if not 1 <= args.count <= 50:
        parser.error(f"--count {args.count}; allowed: 1 to 50")
    if sum(x is not None for x in (args.data, args.split_dir, args.vqa_dir, args.table)) > 1:
        parser.error("--data, --split-dir, --vqa-dir and --table exclude each other")
    if (args.split_dir or args.vqa_dir) and args.preset != "metavqa":
        parser.error("--split-dir and --vqa-dir need --preset metavqa")
    if args.table and not (args.images and args.output):
        parser.error("--table needs --images and --output")
    if args.images and not (args.table or args.split_dir or args.vqa_dir):
        parser.error("--images needs --table, --split-dir or --vqa-dir")
    if args.download and not (args.split_dir or args.vqa_dir):
        parser.error("--download needs --vqa-dir or --split-dir")
    return parser, args


def main(argv: list[str] | None = None) -> None:
    parser, args = parse(argv)
    building = bool(args.table or args.split_dir or args.vqa_dir)
    try:
        if building:
            directory = args.output or Path(MetaVQAConfig().directory)
            (build_folder if args.table else build_meta_vqa)(args, directory)
        else:
            directory = args.data
        if directory:
            data: Dataset = MetaVQA(MetaVQAConfig.at(directory))
        else:
            data = get_preset(args.preset).dataset.open()
        print(f"{data.identity['name']}: {len(data.tasks)} tasks, {data.num_images} images")
        print(summary(data.tasks))
        if args.preview:
            default = directory / "preview.png" if directory else Path("eval/results/emoji_vqa.png")
            sheet = default if building else args.output or default
            sheet.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(data, args.count, args.seed).save(sheet)
            print(f"wrote {sheet}")
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
