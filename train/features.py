"""Encode a dataset ahead of training: all its images, its answers (bare and in their prompts), its questions.

Writes WORK/features, which every later stage reads; they encode what is missing by themselves, so this stage is for
doing it apart, on a machine with a GPU for instance. Killed, it goes on where it was, losing 4,096 images at most.
Images that cannot be read are listed in WORK/features/unreadable.json and left out of their tasks.

Time: Emoji-VQA's 104,607 scenes take 4 minutes on one CPU core. Meta-VQA's 64,665 photographs go through ViT-L/14@336,
which wants a GPU.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

from core.data.task_sets import build_task_set
from core.ending import in_one_line
from train.pipeline.flags import parser, training_run
from train.pipeline.run import Run, encoding_bar
from train.pipeline.settings import Preset
from train.pipeline.stage import Stage


def stages(preset: Preset) -> list[Stage]:
    """The first stage, or the second where the preset trains its backbone."""
    return [
        Stage(
            "features",
            count,
            needs=("backbone",) if preset.own_backbone is not None else (),
            config=(preset.dataset, preset.backbone),
            outputs=lambda run: [run.work / "features" / "index.json"],
            cost=(preset.backbone,),
            work=lambda run: [run.work / "features"],
            release=False,
            seeded=False,
        )
    ]


def count(run: Run) -> dict[str, float]:
    """Encode what training and its choices read: the images of training and validation tasks."""
    return {"images": float(len({i for task in (*run.train.tasks, *run.val.tasks) for i in task.examples("all")[0]}))}


def run(run: Run, workers: int | None = None) -> dict[str, float]:
    """Encode everything; returns counts and seconds."""
    started = time.monotonic()
    store = run.open_store(workers)
    left = 0
    for split in ("train", "val", "test"):
        tasks = [task for task in run.dataset.tasks if task.split == split]
        for prompted in (False, True):
            data = build_task_set(
                store,
                tasks,
                prompted=prompted,
                questions=run.questions,
                progress=encoding_bar,
                report=(lambda line: None) if prompted else print,  # once is enough
            )
        left += len(data)
    return {
        "images": float(run.dataset.num_images),
        "unreadable": float(len(store.unreadable)),
        "tasks": float(left),
        "dropped": float(len(run.dataset.tasks) - left),
        "seconds": time.monotonic() - started,
    }


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--workers", type=int, help="processes that read images (default: up to 8 with a GPU, else none)"
    )
    args = arguments.parse_args(argv)
    if args.workers is not None and args.workers < 0:
        arguments.error(f"--workers {args.workers}; allowed: 0 or more")
    metrics = run(training_run(args), args.workers)
    print("features", {name: round(value, 1) for name, value in metrics.items()})


if __name__ == "__main__":
    main()
