"""How far confidence is from accuracy: answers with their confidence, reliability by bins, expected calibration error.

Confidence is the largest probability of an answer, the softmax of `scale` times cosines. Every task weighs the same and
its examples share its weight, or every example weighs the same where a preset pools accuracy: so the accuracy here is
that of Table 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.data.tasks import TaskBatch
from core.generator import AdapterGenerator
from eval.harness.rows import Row

BINS = 15


@dataclass(frozen=True)
class Answers:
    """Answers to M examples: `confidence` (M,) and whether each is `right` (M,), with its `weight` (M,); all of the
    weights add up to 1."""

    confidence: Tensor
    right: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Reliability:
    """By bin of confidence: the `share` (B,) of all answers, their mean `confidence` and `accuracy` (B,), zeros where a
    bin is empty."""

    share: Tensor
    confidence: Tensor
    accuracy: Tensor


def scales_of(generator: AdapterGenerator) -> dict[str, float]:
    """What a release says of its scales on cosines, by row: "training" is that of training, "clip" the backbone's own,
    others are chosen on validation tasks. Empty in a release from before scales were chosen."""
    return generator.config.get("scales", {})


def training_scale(generator: AdapterGenerator) -> float:
    """The scale on cosines that a release's models were trained with."""
    return float(scales_of(generator).get("training", generator.network.scale))


def scale_of(row: Row, generator: AdapterGenerator) -> float:
    """The scale on cosines that a release reads a row out with: the row's own; plain CLIP's for CLIP with prompts; that
    of training where there is none."""
    scales = scales_of(generator)
    own = scales.get(row.id, scales.get("clip") if row.method == "clip" else None)
    return training_scale(generator) if own is None else float(own)


def answers_of(
    tasks: Iterable[tuple[TaskBatch, Tensor]], scale: float, mask: Tensor, *, by_example: bool = False
) -> Answers:
    """Answers on all examples of the tasks in `mask`.

    Args:
        tasks: batches with the cosines (T, N, C) of every example and answer, -inf for padded answers.
        scale: what cosines are multiplied by.
        mask: (tasks of all batches,) bool.
        by_example: whether every example weighs the same, instead of every task.
    """
    confidence, right, weight, first = [], [], [], 0
    for batch, cosines in tasks:
        chosen = mask[first : first + len(batch)].to(cosines.device)
        first += len(batch)
        probability, answer = (scale * cosines.double()).softmax(-1).max(-1)  # (T, N)
        examples = batch.example_mask & chosen[:, None]
        count = batch.example_mask.sum(1, keepdim=True).clamp(min=1).double()
        each = torch.ones_like(count) if by_example else 1.0 / count
        confidence.append(probability[examples].cpu())
        right.append((answer == batch.labels)[examples].cpu())
        weight.append(each.expand(examples.shape)[examples].cpu())
    total = torch.cat(weight)
    return Answers(torch.cat(confidence), torch.cat(right), total / total.sum())


def pooled(answers: Sequence[Answers]) -> Answers:
    """The answers of several seeds as one, every seed weighing the same."""
    confidence, right = (torch.cat([getattr(a, name) for a in answers]) for name in ("confidence", "right"))
    return Answers(confidence, right, torch.cat([a.weight for a in answers]) / len(answers))


def reliability(answers: Answers, bins: int = BINS) -> Reliability:
    """Answers by their confidence, in bins of equal width: bin k holds confidences in (k / bins, (k + 1) / bins]."""
    if bins < 1:
        raise ValueError(f"bins {bins}; allowed: 1 or more")
    index = ((answers.confidence.double() * bins).ceil().long() - 1).clamp(0, bins - 1)
    total = lambda values: torch.zeros(bins, dtype=torch.float64).index_add_(0, index, answers.weight.double() * values)
    share = total(torch.ones(len(index), dtype=torch.float64))
    mean = lambda values: total(values.double()) / torch.where(share > 0, share, 1.0)
    return Reliability(share, mean(answers.confidence), mean(answers.right))


def calibration_error(found: Reliability) -> float:
    """Expected calibration error (Guo et al. 2017, Eq. 3): the mean distance of accuracy from confidence over bins."""
    return float((found.share * (found.accuracy - found.confidence).abs()).sum())
