"""One small word: draw simple shapes, and ask yes/no questions about them that a "no" or a "not" turns around.

A picture shows one to three shapes on a plain background: five shapes, five colours, small or big, each in one of four
corners. Every meaning is asked in two forms, a positive and a negated one ("Is there a circle?",
"Is there no circle?"), and in one wording alone. The forms are tasks of their own, whose pictures no other task has.
Half of the answers are yes, also among pictures of equally many shapes, and background and light know nothing of it.
A test question's other form is a training question in half of the cases; in the other half training knows neither, but
all of their words.

Writes DIR/pictures (PNG, 80 x 80), DIR/shapes.csv with the column `split` (one's own questions, for
train/make_data.py) and DIR/scenes.json, what each picture shows. The same seed gives the same files. Needs Pillow
alone; --probe needs the tiny CLIP. Time: 20 seconds; --probe another minute and a half.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

import argparse
import csv
import hashlib
import io
import json
from dataclasses import asdict

from core.console import Parser
from eval.harness.shapes import Question, Scene, draw_scene, questions, scenes
from train.presets import get_preset

PICTURES = 60  # a question

_EPILOG = """Example:
  python eval/datasets/shapes.py --output data/shapes-drawn
  python train/make_data.py --images data/shapes-drawn/pictures --table data/shapes-drawn/shapes.csv \\
      --output data/shapes --preview
  python train/run_all.py --data data/shapes
  python eval/table1.py --data data/shapes"""


def pictures_of(seed: int, pictures: int = PICTURES) -> list[tuple[str, Question, Scene]]:
    """The file of every picture, whose it is and what it shows, `pictures` of them a question.

    Raises:
        ValueError: so many pictures cannot be balanced.
    """
    if pictures <= 0 or pictures % 12:
        raise ValueError(f"pictures {pictures} a question; allowed: multiples of 12")
    return [
        (f"{i:03d}-{k:03d}.png", question, scene)
        for i, question in enumerate(questions(seed))
        for k, scene in enumerate(scenes(question, pictures, seed))
    ]


def texts_of(drawn: list[tuple[str, Question, Scene]]) -> dict[str, str]:
    """The contents of shapes.csv and of scenes.json."""
    table = io.StringIO()
    rows = [(name, question.text, question.answer(scene), question.split) for name, question, scene in drawn]
    csv.writer(table, lineterminator="\n").writerows([("image", "question", "answer", "split"), *rows])
    shown = {name: asdict(scene) for name, _, scene in drawn}
    return {"shapes.csv": table.getvalue(), "scenes.json": json.dumps(shown) + "\n"}


def digest(texts: dict[str, str]) -> str:
    """The SHA-256 of table and scenes, that is, of all that was drawn at random."""
    return hashlib.sha256("".join(texts.values()).encode()).hexdigest()


def write(directory: Path, drawn: list[tuple[str, Question, Scene]]) -> dict[str, str]:
    """Write pictures, table and scenes; returns the latter two's contents."""
    (directory / "pictures").mkdir(parents=True, exist_ok=True)
    for name, _, scene in drawn:
        draw_scene(scene).save(directory / "pictures" / name)
    texts = texts_of(drawn)
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8", newline="")
    return texts


def summary(asked: list[Question]) -> str:
    """Counts by split, and how many test questions have their other form among the training questions, as text."""
    split_of = {question.text: question.split for question in asked}
    lines = []
    for split in ("train", "val", "test"):
        chosen = [question for question in asked if question.split == split]
        negated = sum(question.negated for question in chosen)
        partner = sum(split_of[question.partner] == "train" for question in chosen)
        lines.append(
            f"{split:<5} {len(chosen):>3} questions: {len(chosen) - negated} positive, {negated} negated; "
            f"{partner} have their other form in training"
        )
    return "\n".join(lines)


def probe(asked: list[Question], seed: int) -> dict[str, tuple[float, float]]:
    """What an adapter can know at all: by family, the accuracies of linear probes of the tiny CLIP's embeddings that
    were fitted to as many pictures as a question has for support, and to 480. On 120 unseen pictures of every positive
    training question."""
    import torch

    from core.backbones import load_backbone
    from train.pipeline.tiny_clip.report import probe_accuracy

    backbone = load_backbone(get_preset("emoji").backbone)
    by_family: dict[str, list[Question]] = {}
    for question in asked:
        if question.split == "train" and not question.negated:
            by_family.setdefault(question.meaning.family, []).append(question)
    found = {}
    for family, chosen in by_family.items():
        shown = [scenes(question, 600, seed) for question in chosen]
        x = torch.stack([backbone.encode_images([draw_scene(scene) for scene in part]) for part in shown])  # (Q, N, D)
        y = torch.tensor([[q.answer(s) == "yes" for s in part] for q, part in zip(chosen, shown, strict=True)]).long()
        few, many = (
            float(probe_accuracy(x[:, :n], y[:, :n], x[:, 480:], y[:, 480:], 2).mean())
            for n in (round(0.7 * PICTURES), 480)
        )
        found[family] = (few, many)
    return found


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write pictures, table and scenes")
    parser.add_argument("--seed", type=int, default=0, help="of questions, splits and pictures (default: 0)")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="a question, a multiple of 12 (default: 60)")
    parser.add_argument("--probe", action="store_true", help="linear probes of what the tiny CLIP sees, by family")
    args = parser.parse_args(argv)
    if not (args.output or args.probe):
        parser.error("--output DIR or --probe is needed")
    asked = questions(args.seed)
    print(summary(asked))
    if args.output:
        try:
            drawn = pictures_of(args.seed, args.pictures)
            texts = write(args.output, drawn)
        except (ValueError, OSError) as error:
            parser.error(str(error))
        print(f"wrote {args.output}: {len(drawn)} pictures, shapes.csv, scenes.json; SHA-256 {digest(texts)}")
    if args.probe:
        for family, (few, many) in probe(asked, args.seed).items():
            print(f"{family:<16} few pictures {few:.1%}, 480 pictures {many:.1%}")


if __name__ == "__main__":
    main()
