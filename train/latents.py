"""Latents of the training tasks: what HyperLDM learns from, and the table of them that a release ships.

Needs adaptations and their generator (hvae or hnet_maml); writes OUTPUT/latents_GENERATOR.safetensors, each training
task's latent averaged over its adaptations. Seconds. Comparisons with the nearest training tasks, and plots of latent
space, need no more than this table.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that the script runs from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from collections.abc import Callable

import torch
from torch import Tensor

from core.networks.hvae import HVAE
from core.release.checkpoint import load_module, save_model
from train.adaptations import GENERATORS, load_adaptations
from train.pipeline.run import Run, open_run, parser

_VALUES_AT_ONCE = 2**26  # float32 values of adaptations encoded at a time: 256 MB


def load_generator(run: Run, generator: str) -> tuple[torch.nn.Module, Callable[[Tensor], Tensor]]:
    """(module, decode (T, Z) -> w (T, P)) of "hvae" or "hnet"."""
    module = load_module(run.output / f"{'hvae' if generator == 'hvae' else 'hnet_maml'}.safetensors", run.device)
    return module, module.decode if isinstance(module, HVAE) else module


@torch.no_grad()
def training_latents(run: Run, generator: str) -> Tensor:
    """Latents of all adaptations, (draws, T, Z): encoded means for the HVAE, adapted z for the HNet."""
    draws = load_adaptations(run, generator)
    if generator == "hnet":
        return torch.stack([draw.to(run.device).float() for draw in draws])
    hvae, _ = load_generator(run, "hvae")
    at_once = max(1, _VALUES_AT_ONCE // hvae.num_params)  # tasks
    encode = lambda draw: torch.cat([hvae.encode(w.to(run.device).float())[0] for w in draw.split(at_once)])
    return torch.stack([encode(draw) for draw in draws])


def run(run: Run, generator: str) -> dict[str, float]:
    """Write the table; row t belongs to training task t. Returns the accuracy of decoded mean latents."""
    z = training_latents(run, generator).mean(0)  # (T, Z)
    _, decode = load_generator(run, generator)
    with torch.no_grad():
        accuracy = run.accuracy(lambda rows: decode(z[rows]), run.train_batch)
    save_model(run.output / f"latents_{generator}.safetensors", {"z": z.cpu()}, kind="latents", config={})
    return {"train_decoded": accuracy}


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--generator", choices=GENERATORS, default="hvae", help="whose latents")
    args = arguments.parse_args(argv)
    print(args.generator, run(open_run(args), args.generator))


if __name__ == "__main__":
    main()
