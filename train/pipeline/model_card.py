"""The model card of a release, with the Hub's metadata on top: training writes its text, pushing adds test results."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.files import write_text
from core.methods import METHODS
from core.release.manifest import CARD, RECORDS, read_config

from .environment import commit, hardware
from .flags import command_of
from .run import Run

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

_REPO = "USER/REPO"  # in a card that was not pushed
_BEGIN, _END = "<!-- test results -->", "<!-- /test results -->"
_TASK = "zero-shot-image-classification"  # no example of the question is seen
_TEMPLATE = """# Adapters from questions: `{preset}`, seed {seed}

Models that turn a question into the weights of a small network (`{network}`, P = {params:,}), after *Meta-Learning via
Classifier(-free) Diffusion Guidance* (Nava et al., TMLR 2023): `hvae` and `hnet_maml` decode latents to weights,
`*_hyperldm` sample latents for a question, `*_hyperclip` embed weights beside questions, the rest are baselines.

**Data.** {dataset}: {summary}

**Use**, from a checkout of the project:

```python
from core.generator import AdapterGenerator

adapter = AdapterGenerator.from_pretrained("{repo}").generate({question})
print(adapter.classify(["picture.png"], ["one answer", "another"]))
```

**Made by** `{command}`
at commit {commit}, PyTorch {torch}, Python {python}, on {hardware}, in {minutes:.0f} minutes.

**Test results**

{begin}
None in this card: `python eval/table1.py` measures them.
{end}

**Metrics** of the stages, accuracies on validation tasks unless said otherwise; validation tasks made all choices.

| stage | seconds | device | metrics |
|---|---:|---|---|
{rows}

**Bias.** {bias}

**Licence.** {licence}
"""


@dataclass(frozen=True)
class _Data:
    """What a card says about a family of datasets."""

    summary: str  # with {images}, how many it has, and {verdict} where one is known
    bias: str
    licence: str
    credit: tuple[str, ...] = ()  # datasets on the Hub that it is made from


_DATA = {
    "emoji-vqa": _Data(
        "questions about drawn scenes of OpenMoji glyphs (CC BY-SA 4.0). The models know nothing else.",
        "Scenes follow arbitrary habits drawn at random (which thing tends to have which colour, place and company); "
        "the models have learned to expect them.",
        "Apache-2.0 for code and weights; the weights were trained on CC BY-SA 4.0 artwork.",
    ),
    "meta-vqa-photos": _Data(  # before those it begins like
        "the questions of Meta-VQA, the paper's dataset, about {images:,} of its COCO photographs. For everyday "
        "photos, and to study how weights follow from a question; not for deciding anything about people, nor where "
        "errors cost much: {verdict}",
        "COCO and VQA v2 show mostly everyday life of the West as annotators named it, stereotypes of gender, age and "
        "origin included; the ImageNet trunk and the sentence encoder bring their own.",
        "Apache-2.0 for code and encoders; VQA v2's annotations are CC BY 4.0. There are no photographs here.",
    ),
    "meta-vqa": _Data(
        "questions of VQA v2 about COCO photographs, one task per question.",
        "VQA v2's answers to one question differ in distribution with whom the picture shows, and some express "
        "stereotypes; the models inherit that. Do not use them to decide anything about people.",
        "Apache-2.0 for code and weights; VQA v2's annotations are CC BY 4.0, COCO's images belong to their owners.",
        ("HuggingFaceM4/VQAv2",),
    ),
    "simulated": _Data(
        "features drawn from a seeded generative model, for timing and memory. No result on them is one about vision.",
        "None that means anything: the features are noise around drawn facts.",
        "Apache-2.0 for code and weights.",
    ),
}
_OTHER = _Data(
    "a dataset of the user's own.",
    "The models inherit the habits of the data they were trained on.",
    "Apache-2.0 for the code; what the data allows decides about the weights.",
)

SHIPPED_PHOTOS = "60d03a850cceec9d102d950e4066e07ba24e01f2e5ea1fec3d7ec74ede87722f"  # questions of weights/photos/data
_VERDICT = "most answers to unseen questions are wrong. Best at rooms, sports, animals; colours, counts and text fail."
_NO_VERDICT = "which questions are answered well was not measured."


def write_card(run: Run, records: dict[str, dict[str, Any]]) -> None:
    """Write OUTPUT/README.md from the records of the stages."""
    dataset, preset = str(run.dataset.identity["name"]), run.preset
    about = _about(dataset)
    verdict = _VERDICT if run.dataset.identity.get("questions") == SHIPPED_PHOTOS else _NO_VERDICT
    text = _TEMPLATE.format(
        preset=preset.name,
        seed=run.seed,
        network=run.network.name,
        params=run.network.num_params,
        dataset=dataset,
        repo=_REPO,
        begin=_BEGIN,
        end=_END,
        command=command_of(run, run.seed, preset.descriptors),
        commit=commit(),
        torch=torch.__version__,
        python=platform.python_version(),
        hardware=hardware(run.device),
        minutes=sum(record["seconds"] for record in records.values()) / 60,
        rows="\n".join(_row(name, record) for name, record in records.items()),
        summary=about.summary.format(images=run.dataset.num_images, verdict=verdict),
        question=_example(run),
        bias=about.bias,
        licence=about.licence,
    )
    backbone = "backbone" if preset.tiny_clip else preset.backbone
    data = _metadata(dataset, preset.name, run.seed, backbone, _validation_results(dataset, records))
    write_text(run.output / CARD, f"---\n{data.to_yaml()}\n---\n\n{text}")


def release_card(directory: Path, repo: str, results: Path | None = None) -> ModelCard:
    """The card of a release as it goes to `repo`: its README.md, with metadata, and test results where given.

    Args:
        results: what `eval/table1.py --json` wrote, over the seeds that it was given.

    Raises:
        ValueError: no release, no README.md, or results of another preset or other seeds.
    """
    from huggingface_hub import ModelCard  # seconds to import, and no stage of training needs it

    config = {"dataset": "an unnamed dataset", **read_config(directory)}
    if not (directory / CARD).is_file():
        raise ValueError(f"{directory} has no {CARD}; `python train/run_all.py` writes one at its end")
    card = ModelCard((directory / CARD).read_text(encoding="utf-8"), ignore_metadata_errors=True)
    records = json.loads((directory / RECORDS).read_text(encoding="utf-8")) if (directory / RECORDS).is_file() else {}
    evaluations = _validation_results(config["dataset"], records)
    text = card.text.replace(_REPO, repo)
    if results is not None:
        evaluations += [_test_result(config["dataset"], r) for r in _read_results(results, config)["results"]]
        text = with_test_results(text, results, config)
    data = _metadata(config["dataset"], config["preset"], config["seed"], config["backbone"], evaluations)
    for key, value in vars(data).items():
        if value is not None:
            setattr(card.data, key, value)  # what else a card's owner has put there stays
    card.text = text
    return card


def with_test_results(text: str, results: Path, config: dict[str, Any]) -> str:
    """A card's text with what `eval/table1.py --json` wrote of the release of this config; a ValueError if that is of
    another."""
    section = f"{_BEGIN}\n{_test_table(_read_results(results, config))}\n{_END}"
    text, found = re.subn(f"{_BEGIN}.*?{_END}", lambda _: section, text, flags=re.DOTALL)
    # without such marks: a card of one's own, or of before there were any
    return text if found else f"{text.rstrip()}\n\n**Test results**\n\n{section}\n"


def _example(run: Run) -> str:
    """A question that the release knows, as Python writes it."""
    return json.dumps(next(task.question for task in run.dataset.tasks if task.split == "train"), ensure_ascii=False)


def _metadata(
    dataset: str, preset: str, seed: int, backbone: str, evaluations: list[EvalResult] | None
) -> ModelCardData:
    from huggingface_hub import ModelCardData

    return ModelCardData(
        license="apache-2.0",
        library_name="pytorch",
        pipeline_tag=_TASK,
        language="en",
        base_model=_base_model(backbone),
        datasets=[*_about(dataset).credit, dataset.split()[0]],
        metrics=["accuracy"],
        tags=["clip", "clip-adapter", "hypernetworks", "meta-learning", "diffusion", "weight-generation"],
        model_name=f"question-to-adapter-{preset}-seed-{seed}",
        eval_results=evaluations or None,
    )


def _about(dataset: str) -> _Data:
    return next((about for name, about in _DATA.items() if dataset.startswith(name)), _OTHER)


def _base_model(backbone: str) -> str | None:
    """The Hub's name of a backbone, from its `core.backbones.load_backbone` spec; None for one trained here."""
    import open_clip  # takes seconds, which most who read a card need not wait

    backbone = backbone.removeprefix("fp16:")
    if backbone.startswith("hf-hub:"):
        return backbone.removeprefix("hf-hub:")
    architecture, _, tag = backbone.partition("/")
    return (open_clip.get_pretrained_cfg(architecture, tag) or {}).get("hf_hub", "").rstrip("/") or None


def _validation_results(dataset: str, records: dict[str, dict[str, Any]]) -> list[EvalResult]:
    """Accuracies on validation tasks: of the stages that make a row of their own, and of all that the last stage chose
    there."""
    reached = {name: r["metrics"]["val_accuracy"] for name, r in records.items() if name in METHODS}
    reached |= records.get("choose", {}).get("metrics", {})
    about = f"{dataset}, validation tasks (they made all choices)"
    return [_result(dataset, about, "validation", round(float(value), 4), name) for name, value in reached.items()]


def _read_results(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What `eval/table1.py --json` wrote, less the rows of another share of descriptors or of other settings."""
    share, own = config.get("descriptors", 1.0), sorted(config.get("run", {}).get("set", ()))
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        preset = document["preset"]
        records = [r for r in document["results"] if r["descriptors"] == share and sorted(r.get("settings", ())) == own]
        seeds = sorted({seed for r in records for seed in r["seeds"]})
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not what `eval/table1.py --json` writes ({type(error).__name__}: {error})") from None
    if preset != config["preset"] or config["seed"] not in seeds:
        raise ValueError(
            f"{path}: results of preset {preset!r}, seeds {seeds}; this release is {config['preset']!r}, "
            f"seed {config['seed']}"
        )
    return {**document, "results": records}


def _test_result(dataset: str, record: dict[str, Any]) -> EvalResult:
    """Mean over training seeds, its standard deviation in the name, where the Hub shows it, and in the arguments."""
    seeds = record["seeds"]
    sd = "" if record["sd"] is None else f"{record['sd']:.4f}"
    spread = f"mean of {len(seeds)} training seeds, s.d. {sd}" if sd else "one training seed"
    about = f"{dataset}, test tasks, {record['tasks']} families"
    return replace(
        _result(dataset, about, "test", record["mean"], f"{record['label']} ({spread})"),
        dataset_config=record["tasks"],
        metric_args={
            key: record[key] for key in ("sd", "seeds", "gamma", "gammas", "n_tasks") if record.get(key) is not None
        },
    )


def _result(dataset: str, about: str, split: str, value: float, name: str) -> EvalResult:
    from huggingface_hub import EvalResult

    few_shot = name.startswith(("few_shot", "Few-shot"))
    return EvalResult(
        task_type="image-classification" if few_shot else _TASK,
        task_name="Questions with a few examples" if few_shot else "Questions without examples",
        dataset_type=dataset.split()[0],
        dataset_name=about,
        dataset_split=split,
        metric_type="accuracy",
        metric_name=name,
        metric_value=value,
    )


def _test_table(document: dict[str, Any]) -> str:
    records = document["results"]
    columns = list(dict.fromkeys(r["tasks"] for r in records))
    cells: dict[str, dict[str, str]] = {}
    for record in records:
        spread = "" if record["sd"] is None else f" ± {100 * record['sd']:.1f}"
        cells.setdefault(record["label"], {})[record["tasks"]] = f"{100 * record['mean']:.1f}{spread}"
    lines = ["| row | " + " | ".join(columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    lines += [f"| {label} | " + " | ".join(row.get(c, "") for c in columns) + " |" for label, row in cells.items()]
    seeds = ", ".join(map(str, sorted({seed for r in records for seed in r["seeds"]})))
    return "\n".join(lines) + (
        f"\n\nAccuracy in % on test tasks; mean ± s.d. over training seeds ({seeds}).\n"
        f"Measured by `{document['command']}` at commit {document['commit']}."
    )


def _row(name: str, record: dict[str, Any]) -> str:
    metrics = ", ".join(f"{metric} {value:.3f}" for metric, value in record["metrics"].items())
    return f"| {name} | {record['seconds']:.0f} | {record.get('device', '')} | {metrics} |"
