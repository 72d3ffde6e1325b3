"""Few-shot adaptation of what a release holds (Table 4): 50 steps of gradient descent on a support set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..data.tasks import TaskBatch
from ..generator import AdapterGenerator
from ..networks.adapter import adapter_logits, init_adapter, task_loss
from ..release.checkpoint import load_adapter
from .inner_loop import adapt
from .subspace import adapt_adapters

# Table 4's rows: what is adapted is a row's own parameter (Table 2), for multitask rows that of their MAML counterpart.
FEW_SHOT_ROWS = (
    "clip",
    "uncond_multitask",
    "mnet_maml",
    "mnet_fomaml",
    "hnet_maml",
    "cond_multitask",
    "cond_hnet_maml",
)
ADAPTER_ROWS = FEW_SHOT_ROWS[:4]  # adapt the weights themselves
# Ours: the latent that HyperLDM generated from the question, adapted through the decoder.
OUR_FEW_SHOT_ROWS = ("hnet_hyperldm", "hvae_hyperldm")


def start_and_decoder(
    generator: AdapterGenerator, row: str, e: Tensor, seed: int = 0
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Where a row begins, (T, K), for questions e (T, D), and how what it adapts becomes weights: (T, K) -> (T, P)."""
    if row not in FEW_SHOT_ROWS + OUR_FEW_SHOT_ROWS:
        raise ValueError(f"row {row!r}; allowed: {', '.join(FEW_SHOT_ROWS + OUR_FEW_SHOT_ROWS)}")
    if row == "hnet_maml":
        model = generator.module(row)
        return model.z0.detach().expand(len(e), -1), model
    if row in ("cond_multitask", "cond_hnet_maml"):  # the whitened embedding, as in training
        model = generator.module(row)
        return model.condition(e), model.decode
    if row in OUR_FEW_SHOT_ROWS:
        name = row.removesuffix("_hyperldm")
        return generator.latents(e, "hyperldm", generator=name, seed=seed), generator.decoder(name)
    return _adapter(generator, row, seed).to(e.device).expand(len(e), -1), lambda w: w


def _adapter(generator: AdapterGenerator, row: str, seed: int) -> Tensor:
    """The weights (P,) of a row that has one adapter for all questions."""
    if row == "clip":  # a fresh adapter, the base model without any meta-training; another for every training seed
        return init_adapter(generator.adapter, torch.Generator().manual_seed(generator.config.get("seed", 0) + seed))
    w, _, _ = load_adapter(generator.directory / f"{row}.safetensors")
    return w


def few_shot_weights(
    generator: AdapterGenerator, support: TaskBatch, row: str, lr: float, steps: int = 50, seed: int = 0
) -> Tensor:
    """Weights w (T, P) after adapting to support sets, as the row was meta-trained."""
    if row in ADAPTER_ROWS:
        start = _adapter(generator, row, seed).to(support.question.device)
        return adapt_adapters(start, support, generator.adapter, steps=steps, lr=lr)
    start, decode = start_and_decoder(generator, row, support.question, seed)
    adapted = adapt(
        start,
        lambda z: task_loss(adapter_logits(decode(z), support, generator.adapter), support),
        steps=steps,
        lr=lr,
    )
    with torch.no_grad():
        return decode(adapted)


def has_few_shot(generator: AdapterGenerator, row: str) -> bool:
    """Whether a release holds what the row needs."""
    if row in OUR_FEW_SHOT_ROWS:
        return generator.has("hyperldm", row.removesuffix("_hyperldm"))
    return generator.has(row)
