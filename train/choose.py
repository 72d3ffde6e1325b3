"""Make every choice that is left on validation tasks, and write OUTPUT/config.json.

Chooses gamma and the number of averaged samples for HyperLDM, starting scale, steps and rate for HyperCLIP guidance,
and the few-shot rate, for whatever models OUTPUT holds. Test tasks decide nothing. For emoji 6.5 minutes on
one CPU thread.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # so that the script runs from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from typing import Any

from core.adaptation.few_shot import FEW_SHOT_ROWS, OUR_FEW_SHOT_ROWS, few_shot_weights, has_few_shot
from core.config import to_dict
from core.files import write_json
from core.generator import GENERATORS, AdapterGenerator
from train.pipeline.run import Run, open_run, parser
from train.presets import Preset, SamplingConfig

_SEEDS = 3  # a choice should not hang on one draw of noise


def guidance_options(preset: Preset, generator: str) -> list[dict[str, Any]]:
    """Settings of HyperCLIP guidance to choose from: where it starts, its steps and its rate."""
    base = preset.guidance[generator]
    return [
        {"start": start, "steps": steps, "lr": lr, "lam": base.lam, "optimizer": base.optimizer}
        for start in ((1.0, 0.0) if generator == "hvae" else (1.0,))
        for steps in (base.steps, 3 * base.steps)
        for lr in (base.lr / 3, base.lr, 3 * base.lr)
    ]


def sampling_options(sampling: SamplingConfig) -> list[dict[str, Any]]:
    """Settings of HyperLDM to choose from."""
    common = {"sampler": sampling.sampler, "steps": sampling.steps}
    return [{"gamma": gamma, "samples": n, **common} for n in sampling.samples for gamma in sampling.gammas]


def denoiser_steps(option: dict[str, Any]) -> int:
    """How often trying an option runs the denoiser on every validation task."""
    return _SEEDS * option["samples"] * option["steps"] * (1 if option["gamma"] in (0.0, 1.0) else 2)


def run(run: Run) -> dict[str, float]:
    """Try the preset's small grids; returns the validation accuracy of every choice made."""
    preset, query = run.preset, run.val_query
    choices: dict[str, dict[str, Any]] = {}
    draft = {
        "seed": run.seed,
        "adapter": to_dict(preset.adapter),
        "question_pooling": preset.question_pooling,
        "choices": choices,
    }
    generator = AdapterGenerator(run.output, draft, run.device)
    metrics: dict[str, float] = {}

    def choose(key: str, method: str, name: str, options: list[dict[str, Any]]) -> None:
        scores = []
        for option in options:
            choices[key] = option
            w = [generator.weights(query.question, method, generator=name, seed=seed) for seed in range(_SEEDS)]
            scores.append(sum(run.accuracy(x, query) for x in w) / len(w))
        best = max(range(len(options)), key=lambda i: scores[i])
        choices[key] = {
            **options[best],
            "val_accuracy": round(scores[best], 4),
            "tried": [{**o, "val_accuracy": round(s, 4)} for o, s in zip(options, scores, strict=True)],
        }
        metrics[key] = scores[best]

    options, sampled, sampling_seconds = sampling_options(preset.sampling), 0, 0.0
    for name in GENERATORS:
        if generator.has("hyperldm", name):
            began = time.monotonic()
            choose(f"{name}_hyperldm", "hyperldm", name, options)
            sampled += sum(map(denoiser_steps, options))
            sampling_seconds += time.monotonic() - began
        if generator.has("hyperclip", name):
            choose(f"{name}_hyperclip", "hyperclip", name, guidance_options(preset, name))

    run.loops["choose"] = (sampled, sampling_seconds)

    for row in FEW_SHOT_ROWS + OUR_FEW_SHOT_ROWS:
        if has_few_shot(generator, row):
            tried = {
                lr: run.accuracy(few_shot_weights(generator, run.val_support, row, lr, preset.few_shot_steps), query)
                for lr in preset.few_shot_lrs
            }
            best = max(tried, key=tried.get)
            choices[f"few_shot_{row}"] = {
                "lr": best,
                "steps": preset.few_shot_steps,
                "val_accuracy": round(tried[best], 4),
                "tried": {str(lr): round(value, 4) for lr, value in tried.items()},
            }
            metrics[f"few_shot_{row}"] = tried[best]
    for name, adaptation in preset.adaptations.items():  # no choice, but how weights are made that the models know
        choices[f"adaptations_{name}"] = {"lr": adaptation.lr, "steps": adaptation.steps}
    # The ceiling is the best few-shot baseline, whichever that is.
    choices["few_shot_ceiling"] = {"row": max(FEW_SHOT_ROWS, key=lambda row: metrics.get(f"few_shot_{row}", 0.0))}
    if preset.tiny_clip is not None:  # a release is complete in itself
        backbone = Path(preset.backbone.removeprefix("local-dir:"))
        if backbone.resolve() != (run.output / "backbone").resolve():
            shutil.copytree(backbone, run.output / "backbone", dirs_exist_ok=True)
    write_json(
        run.output / "config.json",
        {
            "format_version": 1,
            "library": "question-to-adapter (HyperCLIP, HyperLDM)",
            "preset": preset.name,
            "seed": run.seed,
            "descriptors": preset.descriptors,
            "dataset": run.dataset.identity["name"],
            "backbone": "backbone" if preset.tiny_clip else preset.backbone,
            "question_pooling": preset.question_pooling,
            "adapter": to_dict(preset.adapter),
            "choices": choices,
            "questions": [
                {"question": t.question, "answers": list(t.answers), "family": t.family}
                for t in run.dataset.tasks
                if t.split != "test"
            ],
        },
    )
    return metrics


def main(argv: list[str] | None = None) -> None:
    print("choose", run(open_run(parser(__doc__).parse_args(argv))))


if __name__ == "__main__":
    main()
