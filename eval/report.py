"""Remake the result tables of the documents, and the plots, from the committed files under eval/results/.

Needs the JSON files there, each written by the `--json` flag of the script of its name (eval/README.md has the
commands), and the release's stages.json. Rewrites the marked parts of README.md, eval/README.md and train/README.md,
the test results in the cards of the shipped releases, and the plots beside the JSON files. Ten seconds. A test fails
while the documents and the files disagree.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

import argparse
import re
from collections.abc import Callable

from core.console import Parser
from core.release.manifest import CARD, read_config
from eval import calibration, figure5, figure6, phrasings, table1, task_inference
from eval.demo import latency
from eval.harness.parts import costs, methods, photos, questions, samples, shapes, zero_shot
from eval.harness.results import NOT_YET, RESULTS, ROOT, read_results
from eval.samples import few_examples, gammas, two_readings
from train.pipeline.model_card import with_test_results

DOCUMENTS = tuple(ROOT / name for name in ("README.md", "eval/README.md", "train/README.md"))
CARDS = {"weights/emoji": "table1.json", "weights/photos": "photo_table1.json"}  # a shipped release, and its Table 1


PARTS: dict[str, Callable[[], str]] = {
    "headline": zero_shot.headline,
    "table1": zero_shot.table1,
    "fewer_questions": zero_shot.fewer_questions,
    "asked_before": zero_shot.asked_before,
    "weakest": zero_shot.weakest,
    "links": methods.links,
    "table4": methods.table4,
    "ablations": methods.ablations,
    "tuning": methods.tuning,
    "emoji_folds": methods.emoji_folds,
    "tuning_tower": lambda: methods.tuning("tuning_tower.json"),
    "sanity": methods.sanity,
    "calibration": methods.calibration,
    "phrasings": questions.phrasings,
    "suggestions": questions.suggestions,
    "shapes_readings": shapes.shapes_readings,
    "shapes_table1": shapes.shapes_table1,
    "lowrank": zero_shot.lowrank,
    "photo_table1": photos.photo_table1,
    "photo_floors": photos.photo_floors,
    "photo_kinds": photos.photo_kinds,
    "photo_links": photos.photo_links,
    "photo_few_shot": photos.photo_few_shot,
    "photo_folds": photos.photo_folds,
    "photo_start": photos.photo_start,
    "inference": questions.inference,
    "descriptors": questions.descriptors,
    "figure5": questions.figure5_made,
    "figure6": questions.figure6_made,
    "figure5_samples": samples.figure5_samples,
    "few_examples": samples.few_examples,
    "two_readings": samples.two_readings,
    "probes": questions.probes,
    "stages": costs.stages,
    "speed": costs.speed,
    "costs": costs.costs,
    "demo": costs.demo,
    "latency": costs.latency,
}
OPTIONAL = (  # filled later
    *("tuning", "tuning_tower", "ablations", "calibration", "phrasings", "suggestions", "shapes_readings", "lowrank"),
    *("shapes_table1", "photo_table1", "photo_floors", "photo_kinds", "photo_links", "photo_few_shot", "photo_start"),
    *("emoji_folds", "photo_folds", "latency", "figure5_samples", "few_examples", "two_readings"),
)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)


def render(text: str) -> str:
    """A document with every marked part that stands in it remade from the result files."""
    for name, part in PARTS.items():
        if _pattern(name).search(text):
            body = part() if _is_there(name) else NOT_YET
            text = _pattern(name).sub(lambda match, body=body: match.group(1) + body + match.group(2), text)
    return text


def card_of(directory: str, results: str) -> str:
    """The text of a shipped release's card, with its test results."""
    where = ROOT / directory
    return with_test_results((where / CARD).read_text(encoding="utf-8"), RESULTS / results, read_config(where))


def homeless(texts: list[str]) -> list[str]:
    """The parts that stand in none of the documents."""
    return [name for name in PARTS if not any(_pattern(name).search(text) for text in texts)]


def _is_there(name: str) -> bool:
    """Whether a part or a plot has results, as those must that are not optional."""
    return name not in OPTIONAL or (RESULTS / f"{name}.json").is_file()


def _plot_figure5(path: Path) -> None:
    """Both parts, if there are several shares of descriptors."""
    records = read_results("figure5.json")["results"]
    parts = ["A", "B"] if len({record["descriptors"] for record in records}) > 1 else ["A"]
    figure5.plot(records, parts, path)


FIGURES: dict[str, Callable[[Path], None]] = {
    "table1.png": lambda path: table1.plot(read_results("table1.json")["results"], path),
    "figure5.png": _plot_figure5,
    "figure6.png": lambda path: figure6.plot(read_results("figure6.json")["map"], path),
    "calibration.png": lambda path: calibration.plot(read_results("calibration.json")["results"], path),
    "phrasings.png": lambda path: phrasings.plot(read_results("phrasings.json")["results"], path),
    "latency.png": lambda path: latency.plot(read_results("latency.json")["results"], path),
    "figure5_samples.png": lambda path: gammas.plot(read_results("figure5_samples.json")["results"], path),
    "few_examples.png": lambda path: few_examples.plot(read_results("few_examples.json")["results"], path),
    "two_readings.png": lambda path: two_readings.plot(read_results("two_readings.json")["results"], path),
    "task_inference.png": lambda path: task_inference.plot(read_results("task_inference.json")["results"], path),
}


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    try:
        texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
        if lost := homeless(texts):
            raise ValueError(f"no document has a part marked <!-- {lost[0]} --> ... <!-- /{lost[0]} -->")
        for path, text in zip(DOCUMENTS, texts, strict=True):
            path.write_text(render(text), encoding="utf-8")
        for directory, results in CARDS.items():
            card = ROOT / directory / CARD
            card.write_text(card_of(directory, results), encoding="utf-8")
        figures = {name: plot for name, plot in FIGURES.items() if _is_there(Path(name).stem)}
        for name, plot in figures.items():
            plot(RESULTS / name)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    names = ", ".join([*(str(path.relative_to(ROOT)) for path in DOCUMENTS), *(f"{name}/{CARD}" for name in CARDS)])
    print(f"remade {names} and {', '.join(figures)} in {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
