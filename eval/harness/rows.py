"""The rows of the result tables: what each is called, which checkpoint it needs, and the weights it gives."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.adaptation.few_shot import few_shot_weights, has_few_shot
from core.data.tasks import TaskBatch
from core.generator import AdapterGenerator
from core.networks.adapter import adapter_logits, task_accuracy


@dataclass(frozen=True)
class Row:
    """One line of Table 1. `paper` is the paper's own number on Meta-VQA (100% Q.), where it has one."""

    id: str
    label: str
    method: str
    generator: str = "hvae"
    gamma: float | None = None
    paper: float | None = None
    baseline: bool = True
    few_shot: bool = False
    through_hvae: bool = False


ROWS: tuple[Row, ...] = (
    Row("clip", "CLIP, bare answers", "clip", paper=0.4499),
    Row("clip_prompted", "CLIP, prompted answers", "clip"),
    Row("uncond_multitask", "Uncond. Multitask", "uncond_multitask", paper=0.5375),
    Row("mnet_maml", "Uncond. MNet-MAML, zero steps", "mnet_maml", paper=0.5304),
    Row("mnet_fomaml", "Uncond. MNet-FOMAML, zero steps", "mnet_fomaml", paper=0.5304),
    Row("hnet_maml", "Uncond. HNet-MAML, zero steps", "hnet_maml", paper=0.5337),
    Row("cond_multitask", "Cond. Multitask", "cond_multitask", paper=0.5412),
    Row("cond_multitask_film", "Cond. Multitask FiLM", "cond_multitask_film", paper=0.5384),
    Row("cond_hnet_maml", "Cond. HNet-MAML", "cond_hnet_maml", paper=0.5302),
    Row("hnet_hyperclip", "HNet + HyperCLIP guidance", "hyperclip", "hnet", paper=0.5398, baseline=False),
    Row("hvae_hyperclip", "HVAE + HyperCLIP guidance", "hyperclip", "hvae", paper=0.5391, baseline=False),
    Row("hnet_hyperldm", "HNet + HyperLDM, gamma 1", "hyperldm", "hnet", 1.0, 0.5406, False),
    Row("hnet_hyperldm", "HNet + HyperLDM, gamma 1.5", "hyperldm", "hnet", 1.5, 0.5430, False),
    Row("hvae_hyperldm", "HVAE + HyperLDM, gamma 1", "hyperldm", "hvae", 1.0, 0.5503, False),
    Row("hvae_hyperldm", "HVAE + HyperLDM, gamma 1.5", "hyperldm", "hvae", 1.5, 0.5510, False),
    Row("hvae_hyperldm", "HVAE + HyperLDM, gamma of validation", "hyperldm", "hvae", None, None, False),
    Row("few_shot_mnet_maml", "Few-shot, MNet-MAML", "mnet_maml", paper=0.6024, few_shot=True),
    Row("few_shot_ceiling", "Few-shot ceiling: the best row of Table 4 on validation", "", few_shot=True),
    Row(
        "few_shot_hvae",
        "Few-shot, MNet-MAML through the HVAE (ours)",
        "mnet_maml",
        baseline=False,
        few_shot=True,
        through_hvae=True,
    ),
)

# Table 4. The paper adapts the latent or the embedding where the row has one, the weights where it has none.
FEW_SHOT: tuple[Row, ...] = (
    Row("few_shot_clip", "CLIP as base model", "clip", paper=0.5493, few_shot=True),
    Row("few_shot_uncond_multitask", "Uncond. Multitask", "uncond_multitask", paper=0.5553, few_shot=True),
    Row("few_shot_mnet_maml", "Uncond. MNet-MAML", "mnet_maml", paper=0.6024, few_shot=True),
    Row("few_shot_mnet_fomaml", "Uncond. MNet-FOMAML", "mnet_fomaml", paper=0.6003, few_shot=True),
    Row("few_shot_hnet_maml", "Uncond. HNet-MAML", "hnet_maml", paper=0.5870, few_shot=True),
    Row("few_shot_cond_multitask", "Cond. Multitask", "cond_multitask", paper=0.5946, few_shot=True),
    Row("few_shot_cond_hnet_maml", "Cond. HNet-MAML", "cond_hnet_maml", paper=0.5948, few_shot=True),
    replace(ROWS[-1], label="Uncond. MNet-MAML, encoded and decoded by the HVAE (ours)"),
    Row(
        "few_shot_hnet_hyperldm",
        "HNet + HyperLDM, its latent adapted (ours)",
        "hnet_hyperldm",
        baseline=False,
        few_shot=True,
    ),
    Row(
        "few_shot_hvae_hyperldm",
        "HVAE + HyperLDM, its latent adapted (ours)",
        "hvae_hyperldm",
        baseline=False,
        few_shot=True,
    ),
)

_STARTS = {"hvae": "mnet_maml", "hnet": "hnet_maml"}  # what is fine-tuned into the training data of a generator


def available(row: Row, generator: AdapterGenerator) -> bool:
    """Whether a release holds what the row needs."""
    if not row.few_shot:
        return generator.has(row.method, row.generator)
    choices = generator.config["choices"]
    if "few_shot_ceiling" not in choices:
        return False
    if row.through_hvae:
        return can_adapt(generator, "hvae") and generator.has("hyperldm", "hvae")
    method = _few_shot_method(row, generator)
    return f"few_shot_{method}" in choices and has_few_shot(generator, method)


def _few_shot_method(row: Row, generator: AdapterGenerator) -> str:
    return row.method or generator.config["choices"]["few_shot_ceiling"]["row"]


def accuracy(
    row: Row, generator: AdapterGenerator, support: TaskBatch, query: TaskBatch, *, seed: int = 0, chunk: int = 128
) -> Tensor:
    """Query accuracy (T,) of every task. Only `few_shot` rows look at `support`; the others see the question alone."""
    result = []
    for first in range(0, len(query), chunk):
        rows = slice(first, first + chunk)
        q = query[rows]
        if row.through_hvae:
            hvae = generator.module("hvae")
            with torch.no_grad():
                w = hvae.decode(hvae.encode(adapted_weights(generator, support[rows], "hvae"))[0])
        elif row.few_shot:
            w = chosen_few_shot(generator, support[rows], _few_shot_method(row, generator), seed)
        else:
            w = generator.weights(q.question, row.method, generator=row.generator, gamma=row.gamma, seed=seed)
        with torch.no_grad():
            result.append(task_accuracy(adapter_logits(w, q, generator.adapter), q))
    return torch.cat(result).cpu()


def chosen_few_shot(generator: AdapterGenerator, support: TaskBatch, row: str | None = None, seed: int = 0) -> Tensor:
    """Few-shot weights (T, P) of a row at the rate validation tasks chose; by default of the best row, the ceiling."""
    choices = generator.config["choices"]
    row = row or choices["few_shot_ceiling"]["row"]
    choice = choices[f"few_shot_{row}"]
    return few_shot_weights(generator, support, row, choice["lr"], choice["steps"], seed)


def can_adapt(generator: AdapterGenerator, name: str) -> bool:
    """Whether a release says how the training data of a generator were made, and holds where they start from."""
    return f"adaptations_{name}" in generator.config["choices"] and generator.has(_STARTS[name])


def adapted_weights(generator: AdapterGenerator, support: TaskBatch, name: str) -> Tensor:
    """Weights (T, P) fine-tuned on support sets as those that "hvae" or "hnet", and its HyperCLIP, learned from."""
    how = generator.config["choices"][f"adaptations_{name}"]
    return few_shot_weights(generator, support, _STARTS[name], how["lr"], how["steps"])
