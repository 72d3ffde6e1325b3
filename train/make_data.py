"""Describe or preview a preset's dataset; nothing needs to be made in advance.

Emoji-VQA is drawn on the fly, so this script only prints its shape and, with --preview, writes a contact sheet of
scenes with their questions and answers. Takes about ten seconds.
"""

from __future__ import annotations

import argparse
import random
import sys
import textwrap
from collections import Counter
from pathlib import Path
from statistics import mean

if __package__ in (None, ""):  # so that `python train/make_data.py` works from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image, ImageDraw, ImageFont

from core.data.emoji_vqa import VERSION, EmojiVQA
from core.tasks import Task

_SCALE, _COLUMNS, _MARGIN, _TEXT = 2, 4, 14, 40


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
    lines.append(f"{len(new)} test tasks belong to {len({t.family for t in new})} families that training never saw")
    return "\n".join(lines)


def contact_sheet(data: EmojiVQA, count: int, seed: int) -> Image.Image:
    """`count` tasks, each one of another family: three scenes in a row, the question above, the answers below."""
    rng = random.Random(f"{seed}/preview")
    tasks = {task.family: task for task in rng.sample(data.tasks, len(data.tasks))}
    chosen = list(tasks.values())[:count]
    side = 80 * _SCALE
    width, height = 3 * side + 2 * _MARGIN, side + 2 * _TEXT
    font = ImageFont.load_default(size=15)
    rows = -(-len(chosen) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, task in enumerate(chosen):
        left, top = (i % _COLUMNS) * width + _MARGIN, (i // _COLUMNS) * height
        draw.text((left, top + 4), textwrap.fill(task.question, 58), fill="black", font=font)
        # three different answers where the task has them
        shown = {label: image for image, label in zip(*task.support, strict=True)}
        for k, (label, image) in enumerate(list(shown.items())[:3]):
            scene = data.load_image(image).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(scene, (left + k * (side + 3), top + _TEXT))
            draw.text(
                (left + k * (side + 3), top + _TEXT + side + 3), task.answers[label], fill=(0, 90, 160), font=font
            )
    return sheet


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preview", action="store_true", help="write a contact sheet of scenes, questions and answers")
    parser.add_argument("--output", type=Path, default=Path("eval/results/emoji_vqa.png"), help="where the sheet goes")
    parser.add_argument("--count", type=int, default=20, help="questions on the sheet, each of another family")
    parser.add_argument("--seed", type=int, default=0, help="which questions are shown")
    args = parser.parse_args(argv)
    data = EmojiVQA()
    print(f"{VERSION}: {len(data.tasks)} tasks, {data.num_images} images")
    print(summary(data.tasks))
    if args.preview:
        if not 1 <= args.count <= 50:
            parser.error(f"--count {args.count}; allowed: 1 to 50")
        args.output.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(data, args.count, args.seed).save(args.output)
        print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
