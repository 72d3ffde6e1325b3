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
from core.data.known_questions import FALSE_ALARMS, KnownQuestion, fit_answers, nearness
from core.data.phrasings import Phrasings
from core.data.tasks import Task
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
from core.networks.base import right_answers
from core.release.checkpoint import save_model
from core.release.manifest import BACKBONE_SHA256, KNOWN, write_release
from train.choices.options import (
    SEEDS,
    denoiser_steps,
    gradient_options,
    guidance_options,
    quick_options,
    sampling_options,
)
from train.pipeline.asked import RULES, other_words
from train.pipeline.flags import parser, training_run
from train.pipeline.run import Run
from train.pipeline.settings import Preset
from train.pipeline.stage import Stage

NO_LOSS = (
    0.002  # of validation accuracy, less than draws of the noise differ by: among such options the cheapest is taken
)
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


def cheapest(options: Sequence[dict[str, Any]], scores: Sequence[float], costs: Sequence[float]) -> int:
    """Which option costs least among those that lose no more than `NO_LOSS` against the best; of equals the best."""
    good = [i for i, score in enumerate(scores) if score >= max(scores) - NO_LOSS]
    return min(good, key=lambda i: (costs[i], -scores[i]))


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
        self.release = draft_release(run, self.made)
        self.sampled, self.sampling_seconds = 0, 0.0

    def sampling(self, name: str) -> None:
        """gamma, samples and steps of HyperLDM."""
        sampling, began = self.run.preset.sampling, time.monotonic()
        options = sampling_options(sampling)
        scores = [self._score("hyperldm", name, option) for option in options]
        best = options[max(range(len(options)), key=lambda i: scores[i])]
        quick = quick_options(sampling, best["gamma"])
        options += quick
        scores += [self._score("hyperldm", name, option) for option in quick]
        self._take(row_of("hyperldm", name), options, scores, [denoiser_steps(option) for option in options])
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

    def _score(self, method: str, name: str, option: dict[str, Any]) -> float:
        """Validation accuracy of a search, over draws of the noise."""
        self.made[row_of(method, name)] = option
        query, how = self.run.val_judged, {"gradient_scale": option.get("gradient_scale", 0.0), "generator": name}
        w = [self.release.weights(query.question, method, seed=seed, **how) for seed in range(SEEDS)]
        return sum(self.run.accuracy(x, query) for x in w) / len(w)

    def _take(self, row: str, options: list[dict[str, Any]], scores: list[float], costs: list[int]) -> None:
        taken = cheapest(options, scores, costs)
        self.made[row] = {
            **options[taken],
            "val_accuracy": round(scores[taken], 4),
            "tried": [{**o, "val_accuracy": round(s, 4)} for o, s in zip(options, scores, strict=True)],
        }
        self.metrics[row] = scores[taken]

    def few_shot_rate(self, row: str) -> None:
        preset, support, query = self.run.preset, self.run.val_support, self.run.val_query
        tried = {
            lr: self.run.accuracy(self.release.few_shot_weights(support, row, lr, preset.few_shot_steps), query)
            for lr in preset.few_shot_lrs
        }
        best = max(tried, key=lambda lr: tried[lr])
        self.made[f"few_shot_{row}"] = {
            "lr": best,
            "steps": preset.few_shot_steps,
            "val_accuracy": round(tried[best], 4),
            "tried": {str(lr): round(value, 4) for lr, value in tried.items()},
        }
        self.metrics[f"few_shot_{row}"] = tried[best]


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
            "scales": (fitted := scales(run, release)),
            "thresholds": {"question": question_threshold(run)} | answer_threshold(run, release, fitted),
            "questions": [{"question": t.question, "answers": list(t.answers), "family": t.family} for t in known],
        },
        preset.backbone,
    )
    return choices.metrics


def save_known(run: Run, known: Sequence[Task]) -> None:
    """Write what a release keeps of its known questions: their embeddings, and the regression from these, in all forms
    that training uses, to their answers."""
    e = run.store.questions([task.question for task in known], run.questions)
    forms = in_other_words(run, [task.question for task in known])
    answers = [KnownQuestion(task.question, task.answers) for task in known]
    mean, fitted = fit_answers(answers, torch.cat([e[:, None], forms], dim=1))
    save_model(run.output / KNOWN, {"e": e, "mean": mean, "map": fitted}, kind="questions", config={})


def in_other_words(run: Run, questions: Sequence[str]) -> Tensor:
    """Embeddings (Q, K, E) of questions in the other words that training uses."""
    forms = other_words(questions, Phrasings.read(RULES))
    e = run.store.questions([form for own in forms for form in own], run.questions)
    return e.view(len(questions), -1, e.shape[-1])


def question_threshold(run: Run) -> float:
    """The nearness to training questions that 98% of the validation questions reach, as they are and in the forms that
    training uses: below it, a question is called strange."""
    forms = in_other_words(run, [task.question for task in run.val.tasks])
    e = torch.cat([run.val.question_features, forms.flatten(0, 1)])
    near = nearness(run.questions.meaning(e), run.questions.meaning(run.train.question_features))
    return round(float(near.quantile(FALSE_ALARMS)), 4)


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


def scales(run: Run, release: AdapterGenerator) -> dict[str, float]:
    """By row: the factor on cosines with which probabilities are read out. Plain CLIP's is its own; the others' are
    fitted to the query examples of validation tasks."""
    preset, support, query, judged = run.preset, run.val_support, run.val_query, run.val_judged
    fitted = lambda w, batch: round(fit_scale(run.network.logits(w, batch, scale=1.0), batch), 3)
    result = {"training": run.network.scale, "clip": getattr(run.backbone, "logit_scale", run.network.scale)}
    for method in METHODS:
        for name in preset.adaptations if method in SEARCHES else [""]:
            row = row_of(method, name)
            if method != "clip" and release.has_row(row):
                result[row] = fitted(
                    release.weights(judged.question, method, generator=name or DEFAULT_GENERATOR), judged
                )
    if how := guided_by(release.choice(GUIDED)):
        result[GUIDED] = fitted(release.weights(judged.question, generator=DEFAULT_GENERATOR, **how), judged)
    for row in few_shot_rows(preset):
        choice = release.choice(f"few_shot_{row}")
        if choice:
            result[f"few_shot_{row}"] = fitted(
                release.few_shot_weights(support, row, choice["lr"], choice["steps"]), query
            )
    return result


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    print("choose", run(training_run(parser(__doc__).parse_args(argv))))


if __name__ == "__main__":
    main()
