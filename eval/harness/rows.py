"""The rows of the result tables: what each is called, which checkpoint it needs, and the weights it gives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from core.data.tasks import TaskBatch
from core.generator import AdapterGenerator
from core.methods import ALONE, GUIDED, guided_by
from core.networks.base import right_answers
from core.networks.weight_generator import WEIGHT_GENERATORS


@dataclass(frozen=True)
class Row:
    """One line of Table 1. `paper` is the paper's own number on Meta-VQA (100% Q.), where it has one."""

    id: str
    label: str
    method: str
    generator: str = "hvae"
    gamma: float | None = None
    paper: float | None = None
    baseline: bool = True  # not ours: one of those that our rows are compared with
    few_shot: bool = False
    through_hvae: bool = False
    members: tuple[Row, ...] = ()  # rows whose probabilities are averaged, each at its own scale: an ensemble
    guided: str = ""  # the choice that says how HyperCLIP's gradient guides the samples besides (Eq. 11)


GENERATORS = {name: WEIGHT_GENERATORS[name].label for name in ("hvae", "hnet")}  # in the order of figures


def hyperldm_row(*, generator: str, gamma: float | None, paper: float | None = None) -> Row:
    """The row of HyperLDM on a generator's latents at `gamma`; None: the one that validation tasks chose."""
    return Row(
        id=f"{generator}_hyperldm",
        label=f"{GENERATORS[generator]} + HyperLDM, gamma {'of validation' if gamma is None else f'{gamma:g}'}",
        method="hyperldm",
        generator=generator,
        gamma=gamma,
        paper=paper,
        baseline=False,
    )


def guided_row(*, gamma: float | None, label: str) -> Row:
    """The row of HyperLDM that HyperCLIP's gradient guides, by itself (gamma 0) or beside the question."""
    guided = GUIDED if gamma is None else ALONE
    return Row(id=GUIDED, label=label, method="hyperldm", gamma=gamma, baseline=False, guided=guided)


_CONDITIONAL = (
    Row(id="cond_multitask", label="Cond. Multitask", method="cond_multitask", paper=0.5412),
    Row(id="cond_multitask_film", label="Cond. Multitask FiLM", method="cond_multitask_film", paper=0.5384),
    Row(id="cond_hnet_maml", label="Cond. HNet-MAML", method="cond_hnet_maml", paper=0.5302),
)
ROWS: tuple[Row, ...] = (
    Row(id="clip", label="CLIP, bare answers", method="clip", paper=0.4499),
    Row(id="clip_prompted", label="CLIP, prompted answers", method="clip"),
    Row(id="uncond_multitask", label="Uncond. Multitask", method="uncond_multitask", paper=0.5375),
    Row(id="mnet_maml", label="Uncond. MNet-MAML, zero steps", method="mnet_maml", paper=0.5304),
    Row(id="mnet_fomaml", label="Uncond. MNet-FOMAML, zero steps", method="mnet_fomaml", paper=0.5304),
    Row(id="hnet_maml", label="Uncond. HNet-MAML, zero steps", method="hnet_maml", paper=0.5337),
    *_CONDITIONAL,
    Row(id="cond_multitask_ensemble", label="Ensemble of the three Cond. baselines", method="", members=_CONDITIONAL),
    Row(id="cond_bottleneck", label="Cond. Multitask through 32 numbers", method="cond_bottleneck"),
    Row(id="kernel_ridge", label="Kernel ridge regression, question to latent", method="kernel_ridge"),
    Row(id="latent_regression", label="Latent regression, without diffusion", method="latent_regression"),
    Row(
        id="hnet_hyperclip",
        label="HNet + HyperCLIP guidance",
        method="hyperclip",
        generator="hnet",
        paper=0.5398,
        baseline=False,
    ),
    Row(
        id="hvae_hyperclip",
        label="HVAE + HyperCLIP guidance",
        method="hyperclip",
        generator="hvae",
        paper=0.5391,
        baseline=False,
    ),
    hyperldm_row(generator="hnet", gamma=1.0, paper=0.5406),
    hyperldm_row(generator="hnet", gamma=1.5, paper=0.5430),
    hyperldm_row(generator="hvae", gamma=1.0, paper=0.5503),
    hyperldm_row(generator="hvae", gamma=1.5, paper=0.5510),
    hyperldm_row(generator="hvae", gamma=None),
    guided_row(gamma=0.0, label="HVAE + HyperLDM guided by HyperCLIP's gradient alone"),
    guided_row(gamma=None, label="HVAE + HyperLDM and HyperCLIP's gradient, gamma of validation"),
    Row(
        id="hvae_hnet_hyperldm",
        label="Ensemble of HVAE and HNet + HyperLDM",
        method="",
        members=tuple(hyperldm_row(generator=name, gamma=None) for name in GENERATORS),
        baseline=False,
    ),
    Row(id="few_shot_mnet_maml", label="Few-shot, MNet-MAML", method="mnet_maml", paper=0.6024, few_shot=True),
    Row(
        id="few_shot_ceiling",
        label="Few-shot ceiling: the best row of Table 4 on validation",
        method="",  # each release's own
        few_shot=True,
    ),
    Row(
        id="few_shot_hvae",
        label="Few-shot, MNet-MAML through the HVAE (ours)",
        method="mnet_maml",
        baseline=False,
        few_shot=True,
        through_hvae=True,
    ),
)

# Table 4. The paper adapts the latent or the embedding where the row has one, the weights where it has none.
FEW_SHOT: tuple[Row, ...] = (
    Row(id="few_shot_clip", label="CLIP as base model", method="clip", paper=0.5493, few_shot=True),
    Row(
        id="few_shot_uncond_multitask",
        label="Uncond. Multitask",
        method="uncond_multitask",
        paper=0.5553,
        few_shot=True,
    ),
    Row(id="few_shot_mnet_maml", label="Uncond. MNet-MAML", method="mnet_maml", paper=0.6024, few_shot=True),
    Row(id="few_shot_mnet_fomaml", label="Uncond. MNet-FOMAML", method="mnet_fomaml", paper=0.6003, few_shot=True),
    Row(id="few_shot_hnet_maml", label="Uncond. HNet-MAML", method="hnet_maml", paper=0.5870, few_shot=True),
    Row(id="few_shot_cond_multitask", label="Cond. Multitask", method="cond_multitask", paper=0.5946, few_shot=True),
    Row(id="few_shot_cond_hnet_maml", label="Cond. HNet-MAML", method="cond_hnet_maml", paper=0.5948, few_shot=True),
    replace(ROWS[-1], label="Uncond. MNet-MAML, encoded and decoded by the HVAE (ours)"),
    Row(
        id="few_shot_hnet_hyperldm",
        label="HNet + HyperLDM, its latent adapted (ours)",
        method="hnet_hyperldm",
        baseline=False,
        few_shot=True,
    ),
    Row(
        id="few_shot_hvae_hyperldm",
        label="HVAE + HyperLDM, its latent adapted (ours)",
        method="hvae_hyperldm",
        baseline=False,
        few_shot=True,
    ),
)


@dataclass(frozen=True)
class InferenceRow:
    """One line of Figure 3: HyperCLIP of a generator, and the weights that it is given, fine-tuned on support sets or
    generated by HyperLDM."""

    id: str
    label: str
    generator: str
    fine_tuned: bool


INFERENCE_ROWS = (
    InferenceRow(id="hvae_hyperclip", label="HVAE, fine-tuned weights", generator="hvae", fine_tuned=True),
    InferenceRow(id="hvae_hyperclip_generated", label="HVAE, generated weights", generator="hvae", fine_tuned=False),
    InferenceRow(id="hnet_hyperclip", label="HNet, fine-tuned weights", generator="hnet", fine_tuned=True),
    InferenceRow(id="hnet_hyperclip_generated", label="HNet, generated weights", generator="hnet", fine_tuned=False),
)
INFERENCE_LABELS = {row.id: row.label for row in INFERENCE_ROWS} | {"chance": "chance"}


def available(row: Row, generator: AdapterGenerator) -> bool:
    """Whether a release holds what the row needs."""
    if row.members:
        return all(available(member, generator) for member in row.members)
    if row.guided and not (row.guided in _choices(generator) and generator.has("hyperclip", row.generator)):
        return False
    if not row.few_shot:
        chosen = row.gamma is not None or row.method != "hyperldm" or row.id in _choices(generator)
        return chosen and generator.has(row.method, row.generator)
    if row.through_hvae:
        return can_adapt(generator, "hvae") and generator.has("hyperldm", "hvae")
    return can_few_shot(generator, row.method or None)


def can_few_shot(generator: AdapterGenerator, method: str | None = None) -> bool:
    """Whether a release says how to adapt a method to support sets, by default the best baseline, and holds it."""
    choices = _choices(generator)
    if "few_shot_ceiling" not in choices:
        return False
    method = method or choices["few_shot_ceiling"]["row"]
    return f"few_shot_{method}" in choices and generator.has_row(method)


def _choices(generator: AdapterGenerator) -> dict[str, Any]:
    """What validation tasks chose; nothing in a release without choices."""
    return generator.config.get("choices", {})


def choices_of(row: Row, generators: Sequence[AdapterGenerator]) -> dict[str, Any]:
    """The part of a record that says what a row's gamma is, and what validation tasks chose for it, by training seed:
    these may differ."""
    found: dict[str, Any] = {"gamma": row.gamma}
    if row.method == "hyperldm" and row.gamma is None:
        found["gammas"] = [_choices(g)[row.id]["gamma"] for g in generators]
        if len(set(found["gammas"])) == 1:
            found["gamma"] = found["gammas"][0]
    if row.id == "few_shot_ceiling":
        found["ceilings"] = [_choices(g)["few_shot_ceiling"]["row"] for g in generators]
    return found


def weights_of(
    row: Row, generator: AdapterGenerator, support: TaskBatch, query: TaskBatch, *, seed: int = 0, chunk: int = 128
) -> Iterator[tuple[TaskBatch, Tensor | None]]:
    """Some tasks of `query` at a time, with the row's weights w (T, P) for them; None for plain CLIP. Only `few_shot`
    rows look at `support`; the others see the question alone."""
    for first in range(0, len(query), chunk):
        rows = slice(first, first + chunk)
        q = query[rows]
        if row.through_hvae:
            hvae = generator.module("hvae")
            with torch.no_grad():
                w = hvae.decode(hvae.encode(adapted_weights(generator, support[rows], "hvae")))
        elif row.few_shot:
            w = chosen_few_shot(generator, support[rows], row.method or None, seed)
        else:
            how = guided_by(_choices(generator)[row.guided]) if row.guided else {"gamma": row.gamma}
            w = generator.weights(q.question, row.method, generator=row.generator, seed=seed, **how)
        yield q, w


def answered(row: Row, generator: AdapterGenerator, support: TaskBatch, query: TaskBatch, *, seed: int = 0) -> Tensor:
    """Which query examples (T, N), bool, a row answers right; see `scores_of`."""
    found = scores_of(row, generator, support, query, seed=seed)
    return torch.cat([right_answers(scores, tasks) for tasks, scores in found]).cpu()


def scores_of(
    row: Row, generator: AdapterGenerator, support: TaskBatch, query: TaskBatch, *, seed: int = 0
) -> Iterator[tuple[TaskBatch, Tensor]]:
    """Some tasks of `query` at a time, with the scores (T, N, C) by which a row answers: `cosines_of`, or the logarithm
    of the mean probability of an ensemble's members, each at the scale that its release calibrated."""
    if not row.members:
        yield from cosines_of(row, generator, support, query, seed=seed)
        return
    scales = torch.tensor([generator.scale(member.id) for member in row.members], device=generator.device)
    for found in zip(*(cosines_of(m, generator, support, query, seed=seed) for m in row.members), strict=True):
        cosines = torch.stack([cosines for _, cosines in found], dim=-1)  # (T, N, C, members)
        each = (scales * cosines).log_softmax(-2)
        yield found[0][0], each.logsumexp(-1) - math.log(len(scales))


def accuracy(row: Row, generator: AdapterGenerator, support: TaskBatch, query: TaskBatch, *, seed: int = 0) -> Tensor:
    """Query accuracy (T,) of a row on every task; see `scores_of`."""
    right = answered(row, generator, support, query, seed=seed)
    return right.sum(1) / query.example_mask.sum(1).clamp(min=1).cpu()


def cosines_of(
    row: Row, generator: AdapterGenerator, support: TaskBatch, query: TaskBatch, *, seed: int = 0
) -> Iterator[tuple[TaskBatch, Tensor]]:
    """Some tasks of `query` at a time, with the cosines (T, N, C) of their examples, adapted by the row, and answers;
    -inf for padded answers. Times any scale they are logits; see `weights_of`."""
    for tasks, w in weights_of(row, generator, support, query, seed=seed):
        with torch.no_grad():
            cosines = generator.network.logits(w, tasks, scale=1.0)
        yield tasks, cosines


def chosen_few_shot(generator: AdapterGenerator, support: TaskBatch, row: str | None = None, seed: int = 0) -> Tensor:
    """Few-shot weights (T, P) of a row at the rate validation tasks chose; by default of the best row, the ceiling."""
    choices = generator.config["choices"]
    row = row or choices["few_shot_ceiling"]["row"]
    choice = choices[f"few_shot_{row}"]
    return generator.few_shot_weights(support, row, choice["lr"], choice["steps"], seed)


def can_adapt(generator: AdapterGenerator, name: str) -> bool:
    """Whether a release says how the training data of a generator were made, and holds where they start from."""
    return f"adaptations_{name}" in _choices(generator) and generator.has(WEIGHT_GENERATORS[name].adapted_row)


def adapted_weights(generator: AdapterGenerator, support: TaskBatch, name: str) -> Tensor:
    """Weights (T, P) fine-tuned on support sets as those that "hvae" or "hnet", and its HyperCLIP, learned from."""
    how = generator.config["choices"][f"adaptations_{name}"]
    return generator.few_shot_weights(support, WEIGHT_GENERATORS[name].adapted_row, how["lr"], how["steps"])
