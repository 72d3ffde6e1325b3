"""Make every choice that is left on validation tasks, calibrate probabilities there, and write OUTPUT/config.json.

Chooses gamma, steps and the number of averaged samples for HyperLDM, starting scale, steps and rate for HyperCLIP
guidance, and the few-shot rate; fits the scale of every row's probabilities. Of settings that are as accurate the
cheapest is taken. For whatever models OUTPUT holds. Test tasks decide nothing. For emoji 7 minutes on one CPU thread.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that the script runs by its path

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.adaptation.calibration import fit_scale
from core.data.tasks import TaskBatch
from core.ending import in_one_line
from core.generator import AdapterGenerator
from core.methods import (
    ALONE,
    DEFAULT_GENERATOR,
    FEW_SHOT_ROWS,
    GUIDED,
    METHODS,
    REGRESSIONS,
    SEARCHES,
    guided_by,
    row_of,
)
from core.networks.base import accuracies, right_answers
from core.release.manifest import BACKBONE_SHA256, write_release
from train.choices.known import question_threshold, save_known
from train.choices.options import (
    SEEDS,
    denoiser_steps,
    gradient_options,
    guidance_options,
    quick_options,
    sampling_options,
)
from train.pipeline.flags import parser, training_run
from train.pipeline.run import Run
from train.pipeline.settings import Preset
from train.pipeline.stage import Stage

# Of validation accuracy, less than draws of the noise differ by: among options that lose no more the cheapest is taken.
NO_LOSS = 0.002
CEILING = "few_shot_ceiling"
RIGHT_REFUSED = 0.1  # share of right answers that a page may call "none of these"


def stages(preset: Preset) -> list[Stage]:
    """One stage, which builds on every row of the preset; `graph.resolved` leaves out those that a run lacks."""
    searches = [row_of(method, name) for name in preset.adaptations for method in SEARCHES]
    options = [*sampling_options(preset.sampling), *quick_options(preset.sampling, gamma=2.0)]
    gradient = [*gradient_options(preset.sampling, 0.0), *gradient_options(preset.sampling, 2.0)]
    return [
        Stage(
            "choose",
            run,
            needs=("features", *searches, *preset.multitask, *preset.maml, *REGRESSIONS),
            # What the rows depend on is here too: a release may hold one of them, or none.
            config=(
                *(preset.guidance, preset.sampling, preset.few_shot_lrs, preset.few_shot_steps),
                *(*preset.network_settings, *preset.question_settings),
            ),
            outputs=lambda run: [run.output / "config.json"],
            steps=len(preset.adaptations) * sum(map(denoiser_steps, options))
            + (DEFAULT_GENERATOR in preset.adaptations) * sum(map(denoiser_steps, gradient)),
            cost=(
                *(*preset.network_settings, preset.hvae, preset.hnet, *preset.generators.values()),
                *(preset.hyperldm, preset.hyperclip),
            ),
            format=7,
        )
    ]


def cheapest(scores: Tensor, shares: Tensor, costs: Sequence[float], quick: int = 0) -> int:
    """Which option costs least among those that lose no more than `NO_LOSS` against the best; of equals the best.

    Args:
        scores: (O, T), the accuracy of every option on every task. shares: (T,), of each task in the mean; sums to 1.
        quick: how many of the last options approximate the best. These may also lose as much as the standard error of
            their loss, over tasks: few tasks cannot tell it from none.
    """
    means = scores @ shares
    best = int(means.argmax())
    losses = scores[best] - scores  # (O, T)
    least = losses @ shares
    error = ((losses - least[:, None]).square() @ shares.square()).sqrt()
    error[: len(error) - quick] = 0.0
    good = [i for i in range(len(scores)) if least[i] <= max(NO_LOSS, float(error[i]))]
    return min(good, key=lambda i: (costs[i], -float(means[i])))


def draft_release(run: Run, choices: dict[str, dict[str, Any]]) -> AdapterGenerator:
    """What a run has made so far, ready to give weights by these choices, which may change."""
    draft = {
        "seed": run.seed,
        "network": run.network.spec(),
        "question_encoder": run.preset.questions,
        "choices": choices,
    }
    return AdapterGenerator(run.output, draft, run.device)


class _Choices:
    """The choices of a run, made one after the other."""

    def __init__(self, run: Run) -> None:
        self.run, self.made, self.metrics = run, {}, {}
        self.few_shot_scales: dict[str, float] = {}
        self.release = draft_release(run, self.made)
        self.shares = run.shares(run.val_judged)
        self.sampled, self.sampling_seconds = 0, 0.0

    def sampling(self, name: str) -> None:
        """gamma, samples and steps of HyperLDM."""
        sampling, began = self.run.preset.sampling, time.monotonic()
        options = sampling_options(sampling)
        scores = [self._score("hyperldm", name, option) for option in options]
        best = options[int((torch.stack(scores) @ self.shares).argmax())]
        quick = quick_options(sampling, best["gamma"])
        options += quick
        scores += [self._score("hyperldm", name, option) for option in quick]
        costs = [denoiser_steps(option) for option in options]
        self._take(row_of("hyperldm", name), options, scores, costs, len(quick))
        self.sampled += sum(map(denoiser_steps, options))
        self.sampling_seconds += time.monotonic() - began

    def guidance(self, name: str) -> None:
        """Start, steps and rate of HyperCLIP guidance."""
        options = guidance_options(self.run.preset, name)
        scores = [self._score("hyperclip", name, option) for option in options]
        self._take(row_of("hyperclip", name), options, scores, [option["steps"] for option in options])

    def gradient(self) -> None:
        """How strongly HyperCLIP's gradient guides the default generator's samples, by itself and beside gamma."""
        row, began = row_of("hyperldm"), time.monotonic()
        chosen = self.made[row]
        for choice, gamma in ((ALONE, 0.0), (GUIDED, chosen["gamma"] or 1.0)):
            options = gradient_options(self.run.preset.sampling, gamma)
            scores = [self._score("hyperldm", DEFAULT_GENERATOR, option) for option in options]
            self._take(choice, options, scores, [1] * len(options))
            self.sampled += sum(map(denoiser_steps, options))
        self.made[row] = chosen  # trying changed it
        self.sampling_seconds += time.monotonic() - began

    def _score(self, method: str, name: str, option: dict[str, Any]) -> Tensor:
        """Accuracy (T,) of a search on every validation task, over draws of the noise."""
        self.made[row_of(method, name)] = option
        query, how = self.run.val_judged, {"gradient_scale": option.get("gradient_scale", 0.0), "generator": name}
        w = [self.release.weights(query.question, method, seed=seed, **how) for seed in range(SEEDS)]
        return torch.stack([accuracies(self.run.network, x, query).cpu().double() for x in w]).mean(0)

    def _take(
        self, row: str, options: list[dict[str, Any]], scores: list[Tensor], costs: list[int], quick: int = 0
    ) -> None:
        taken = cheapest(torch.stack(scores), self.shares, costs, quick)
        means = (torch.stack(scores) @ self.shares).tolist()
        self.made[row] = {
            **options[taken],
            "val_accuracy": round(means[taken], 4),
            "tried": [{**option, "val_accuracy": round(mean, 4)} for option, mean in zip(options, means, strict=True)],
        }
        self.metrics[row] = means[taken]

    def few_shot_rate(self, row: str) -> None:
        preset, support, query = self.run.preset, self.run.val_support, self.run.val_query
        tried: dict[float, float] = {}
        for lr in preset.few_shot_lrs:
            w = self.release.few_shot_weights(support, row, lr, preset.few_shot_steps)
            tried[lr] = self.run.accuracy(w, query)
            if tried[lr] > max((value for rate, value in tried.items() if rate != lr), default=-1.0):
                best_w = w
        best = max(tried, key=lambda lr: tried[lr])
        if best == max(tried):
            print(f"few_shot_{row}: rate {best:g} is the largest tried; a larger one may do better", flush=True)
        self.made[f"few_shot_{row}"] = {
            "lr": best,
            "steps": preset.few_shot_steps,
            "val_accuracy": round(tried[best], 4),
            "tried": {str(lr): round(value, 4) for lr, value in tried.items()},
        }
        self.metrics[f"few_shot_{row}"] = tried[best]
        self.few_shot_scales[f"few_shot_{row}"] = fitted_scale(self.run, best_w, query)


def few_shot_rows(preset: Preset) -> tuple[str, ...]:
    """Rows of Table 4, and ours: the latent that HyperLDM generated, adapted."""
    return (*FEW_SHOT_ROWS, *(row_of("hyperldm", name) for name in preset.adaptations))


def run(run: Run) -> dict[str, float]:
    """Try the preset's small grids; returns the validation accuracy of every choice made."""
    preset, choices = run.preset, _Choices(run)
    release = choices.release
    for name in preset.adaptations:
        if release.has("hyperldm", name):
            choices.sampling(name)
        if release.has("hyperclip", name):
            choices.guidance(name)
    if release.has("hyperldm") and release.has("hyperclip"):
        choices.gradient()
    run.loops["choose"] = (choices.sampled, choices.sampling_seconds)
    for row in few_shot_rows(preset):
        if release.has_row(row):
            choices.few_shot_rate(row)
    for name, adaptation in preset.adaptations.items():  # no choice, but how weights are made that the models know
        choices.made[f"adaptations_{name}"] = {"lr": adaptation.lr, "steps": adaptation.steps}
    # The ceiling is the best few-shot baseline, whichever that is.
    choices.made[CEILING] = {"row": max(FEW_SHOT_ROWS, key=lambda row: choices.metrics.get(f"few_shot_{row}", 0.0))}
    known = [task for task in run.dataset.tasks if task.split != "test"]
    save_known(run, known)
    write_release(
        run.output,
        {
            "preset": preset.name,
            "run": run.origin,
            "seed": run.seed,
            "descriptors": preset.descriptors,
            "dataset": run.dataset.identity["name"],
            BACKBONE_SHA256: run.backbone.identity.get("sha256"),  # simulated features have none
            "question_encoder": run.questions.identity,
            "network": run.network.spec(),
            "choices": choices.made,
            "scales": (fitted := scales(run, release) | choices.few_shot_scales),
            "thresholds": {"question": question_threshold(run)} | answer_threshold(run, release, fitted),
            "questions": [{"question": t.question, "answers": list(t.answers), "family": t.family} for t in known],
        },
        preset.backbone,
    )
    return choices.metrics


def answer_threshold(run: Run, release: AdapterGenerator, fitted: dict[str, float]) -> dict[str, float]:
    """The probability, as HyperLDM gives it, that 90% of the right answers about validation examples reach: below it, a
    page says "none of these". Nothing for a run without HyperLDM."""
    row = row_of("hyperldm", DEFAULT_GENERATOR)
    if not release.has_row(row):
        return {}
    judged = run.val_judged
    w = release.weights(judged.question, "hyperldm", generator=DEFAULT_GENERATOR)
    probability = run.network.logits(w, judged, scale=fitted[row]).softmax(-1).amax(-1)
    right = right_answers(run.network.logits(w, judged), judged)
    if not right.any():
        return {}
    return {"answer": round(float(probability[right].quantile(RIGHT_REFUSED)), 4)}


def fitted_scale(run: Run, w: Tensor, batch: TaskBatch) -> float:
    """The factor on cosines, fitted to a batch, with which the probabilities of weights w (T, P) are read out."""
    return round(fit_scale(run.network.logits(w, batch, scale=1.0), batch), 3)


def scales(run: Run, release: AdapterGenerator) -> dict[str, float]:
    """By zero-shot row: the factor on cosines with which probabilities are read out. Plain CLIP's is its own; the
    others' are fitted to the query examples of validation tasks."""
    preset, judged = run.preset, run.val_judged
    result = {"training": run.network.scale, "clip": getattr(run.backbone, "logit_scale", run.network.scale)}
    for method in METHODS:
        for name in preset.adaptations if method in SEARCHES else [""]:
            row = row_of(method, name)
            if method != "clip" and release.has_row(row):
                w = release.weights(judged.question, method, generator=name or DEFAULT_GENERATOR)
                result[row] = fitted_scale(run, w, judged)
    if how := guided_by(release.choice(GUIDED)):
        w = release.weights(judged.question, generator=DEFAULT_GENERATOR, **how)
        result[GUIDED] = fitted_scale(run, w, judged)
    return result


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    print("choose", run(training_run(parser(__doc__).parse_args(argv))))


if __name__ == "__main__":
    main()
