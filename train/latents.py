"""The table of the training tasks' latents that a release ships.

Needs adaptations and their generator; writes OUTPUT/latents_GENERATOR.safetensors, each training task's latent averaged
over its adaptations. Seconds. Comparisons with the nearest training tasks, and plots of latent space, need no more than
this table.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

import torch

from core.ending import in_one_line
from core.networks.weight_generator import WEIGHT_GENERATORS
from core.release.checkpoint import save_model
from train.pipeline.adapted import load_generator, training_latents
from train.pipeline.flags import parser, training_run
from train.pipeline.run import Run
from train.pipeline.settings import Preset
from train.pipeline.stage import Stage, release_file


def stages(preset: Preset) -> list[Stage]:
    """A stage for every weight generator of the preset."""
    return [
        Stage(
            f"latents_{name}",
            functools.partial(run, name=name),
            needs=(WEIGHT_GENERATORS[name].checkpoint, f"adaptations_{name}"),
            config=(),
            outputs=release_file(f"latents_{name}"),
            cost=preset.network_settings,
        )
        for name in preset.adaptations
    ]


def run(run: Run, name: str) -> dict[str, float]:
    """Write the table; row t belongs to training task t. Returns the accuracy of decoded mean latents."""
    z = training_latents(run, name).mean(0)  # (T, Z)
    generator = load_generator(run, name)
    with torch.no_grad():
        accuracy = run.accuracy(lambda rows: generator.decode(z[rows]), run.train_batch)
    save_model(run.output / f"latents_{name}.safetensors", {"z": z.cpu()}, kind="latents", config={})
    return {"train_decoded": accuracy}


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    names = WEIGHT_GENERATORS.names()
    arguments.add_argument("--generator", choices=names, default="hvae", help="whose latents (default: hvae)")
    args = arguments.parse_args(argv)
    print(args.generator, run(training_run(args), args.generator))


if __name__ == "__main__":
    main()
