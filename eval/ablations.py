"""What each departure from the paper is worth: one taken back, or one more made, at a time; all else as it is.

Every line is a preset with one setting changed (`train/run_all.py --set ...`), judged on the test tasks. HyperLDM takes
gamma 1 and the most samples of the preset, HyperCLIP guidance what validation tasks choose.

Needs the preset's own run, complete, of which it takes what a line shares with it. Trains what is not there yet, into
releases of its own under --work. Prints the table; with --json writes every line as it is done, beside the other lines
that the file has already. About an hour on one CPU thread, then seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from core.methods import method_of
from core.networks.base import accuracies
from eval.harness import tables
from eval.harness.results import write_results
from train import tune
from train.pipeline.environment import commit
from train.pipeline.flags import parser
from train.presets import PAPERS_DESCRIPTORS, PAPERS_HVAE, PAPERS_WAY


@dataclass(frozen=True)
class Ablation:
    """A row of Table 1 with settings changed, and the share of training questions that it knows."""

    row: str
    label: str
    setting: tuple[str, ...] = ()
    descriptors: float = 1.0


_END_TOKEN = ("question_encoder=clip", "question_pooling=eos")  # the paper's way

ABLATIONS = (
    Ablation("hvae_hyperldm", "HVAE + HyperLDM, as it is"),
    Ablation("hvae_hyperldm", "all departures off that settings undo (the paper's way)", PAPERS_WAY),
    Ablation("hvae_hyperldm", "HVAE learns coordinates, not behaviour", PAPERS_HVAE),
    Ablation(
        "hvae_hyperldm",
        "HVAE learns from weights of 50 steps at rate 1",
        ("adaptations.hvae.steps=50", "adaptations.hvae.lr=1"),
    ),
    Ablation("hvae_hyperldm", "HyperLDM learns behaviour too", ("diffusion.behaviour_weight=1",)),
    Ablation("hvae_hyperldm", "predicts the noise instead of v", ("hyperldm.prediction=eps",)),
    Ablation("hvae_hyperldm", "latents of 64 numbers instead of 32", ("hvae.latent=64",)),
    Ablation("hvae_hyperldm", "24 draws of fine-tuned weights a task instead of 8", ("adaptations.hvae.draws=24",)),
    Ablation("hvae_hyperldm", "no noise on questions in training", ("hyperldm.cond_noise=0",)),
    Ablation("hvae_hyperldm", "questions centred and scaled, not whitened", ("hyperldm.whitening=1000",)),
    Ablation("hvae_hyperldm", "no other words in training", ("other_words=0",)),
    Ablation("hvae_hyperldm", "questions embedded by CLIP's text tower, at the end token", _END_TOKEN),
    Ablation("cond_multitask", "Cond. Multitask, as it is"),
    Ablation("cond_multitask", "no noise on questions in training", ("cond_hnet.cond_multitask.cond_noise=0",)),
    Ablation(
        "cond_multitask", "questions centred and scaled, not whitened", ("cond_hnet.cond_multitask.whitening=1000",)
    ),
    Ablation("cond_multitask", "no other words in training", ("other_words=0",)),
    Ablation("cond_multitask", "questions embedded by CLIP's text tower, at the end token", _END_TOKEN),
    Ablation("hvae_hyperclip", "HVAE + HyperCLIP guidance, as it is"),
    Ablation("hvae_hyperclip", "HyperCLIP learns from fine-tuned weights alone", ("hyperclip.hvae.decoded=false",)),
    Ablation("hvae_hyperclip", "HyperCLIP reads all weights, not components", ("hyperclip.hvae.components=0",)),
    Ablation(
        "hvae_hyperclip",
        "fine-tuned weights alone, and all of them (the paper's way)",
        ("hyperclip.hvae.components=0", "hyperclip.hvae.decoded=false"),
    ),
    Ablation("hnet_hyperclip", "HNet + HyperCLIP guidance, as it is"),
    Ablation("hnet_hyperclip", "HyperCLIP learns from weights without noise", ("hyperclip.hnet.decoded=false",)),
    Ablation("hnet_hyperclip", "HyperCLIP reads all weights, not components", ("hyperclip.hnet.components=0",)),
    Ablation(
        "hnet_hyperclip",
        "weights without noise, and all of them (the paper's way)",
        ("hyperclip.hnet.components=0", "hyperclip.hnet.decoded=false"),
    ),
    Ablation("hvae_hyperldm", "HVAE + HyperLDM, half of the questions", descriptors=0.5),
    Ablation("hvae_hyperldm", "half of the questions, no descriptors inferred", PAPERS_DESCRIPTORS, 0.5),
    Ablation(
        "hvae_hyperldm", "half of the questions, all tasks drawn equally often", ("diffusion.described_weight=1",), 0.5
    ),
    Ablation("hvae_hyperldm", "half of the questions, not whitened", ("hyperldm.whitening=1000",), 0.5),
    Ablation("hvae_hyperldm", "a tenth of the questions", descriptors=0.1),
    Ablation("hvae_hyperldm", "a tenth of the questions, no descriptors inferred", PAPERS_DESCRIPTORS, 0.1),
)


def evaluate(args: argparse.Namespace, ablation: Ablation) -> list[dict[str, Any]]:
    """Records of one line, after training what it lacks."""
    run = tune.train_setting(args, ablation.row, ablation.setting)
    release, val_accuracy = tune.chosen_release(run, ablation.row)
    method, generator = method_of(ablation.row)
    test = run.task_set("test")
    query = test.batch(part="query").to(run.device)
    w = release.weights(query.question, method, generator=generator, seed=run.seed)
    scores = accuracies(run.network, w, query)
    return [
        {
            "row": ablation.row,
            "label": ablation.label,
            "setting": list(ablation.setting),
            "gamma": 1.0 if method == "hyperldm" else None,
            "descriptors": ablation.descriptors,
            **summary,
            "val_accuracy": round(val_accuracy, 4),
            "command": shlex.join(["python", "eval/ablations.py", *sys.argv[1:]]),
            "commit": commit(),
        }
        for summary in tables.summaries(scores[None].cpu(), test, [run.seed])
    ]


Line = tuple[str, tuple[str, ...], float]  # row, settings, share of questions: what tells lines apart


def line_of(ablation: Ablation) -> Line:
    """The key of a line. Its label is none: it may be worded anew."""
    return ablation.row, ablation.setting, ablation.descriptors


def read_lines(path: Path, preset: str, seed: int) -> dict[Line, list[dict[str, Any]]]:
    """The records of each line that a file has, of lines that there still are; a ValueError if it is of another preset
    or seed."""
    if not path.is_file():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    seeds = sorted({own for record in document["results"] for own in record["seeds"]})
    if document["preset"] != preset or seeds not in ([], [seed]):
        raise ValueError(
            f"--json {path}: results of preset {document['preset']!r}, seeds {seeds}; these are of {preset!r}, {seed}"
        )
    made = {key: document[key] for key in ("command", "commit")}  # of files from before every record had its own
    found: dict[Line, list[dict[str, Any]]] = {}
    for record in document["results"]:
        line = record["row"], tuple(record["setting"]), record["descriptors"]
        found.setdefault(line, []).append(made | record)
    lines = list(map(line_of, ABLATIONS))
    for line in found.keys() - set(lines):
        print(f"{path} loses {line[0]}: {found[line][0]['label']}, no line of this table any more", flush=True)
    return {line: found[line] for line in lines if line in found}


def write_lines(path: Path, preset: str, lines: dict[Line, list[dict[str, Any]]]) -> None:
    """The file, in the order and with the labels of `ABLATIONS`."""
    records = [
        record | {"label": ablation.label} for ablation in ABLATIONS for record in lines.get(line_of(ablation), [])
    ]
    write_results(path, preset, records, "eval/ablations.py")


def as_table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A line for every ablation, a column for every set of tasks and one for validation tasks."""
    table = tables.grid(records, lambda r: f"{r['row']}: {r['label']}")
    of_line = {f"{r['row']}: {r['label']}": f"{100 * r['val_accuracy']:.2f}" for r in records}
    table.insert(1, "validation", [of_line[line] for line in table.index])
    return table


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--only", nargs="+", type=int, metavar="LINE", help="only these lines, counted from 1")
    arguments.add_argument("--json", type=Path, help="write the results here")
    args = arguments.parse_args(argv)
    if args.set or args.descriptors != 1.0 or args.output or args.start or args.steps_share != 1.0:
        arguments.error(
            "--set, --descriptors, --start, --steps-share and --output are for the table's lines to say; leave them out"
        )
    lines = args.only or range(1, len(ABLATIONS) + 1)
    if wrong := [line for line in lines if not 1 <= line <= len(ABLATIONS)]:
        arguments.error(f"--only {wrong[0]}; allowed: 1 to {len(ABLATIONS)}")
    try:
        kept = read_lines(args.json, args.preset, args.seed) if args.json else {}
    except ValueError as error:
        arguments.error(str(error))
    records = []
    for line in lines:
        ablation = ABLATIONS[line - 1]
        args.descriptors = ablation.descriptors
        kept[line_of(ablation)] = evaluate(args, ablation)
        records += kept[line_of(ablation)]
        if args.json:
            write_lines(args.json, args.preset, kept)
    print(as_table(records).to_string())
    print("\nAccuracy in % on query sets.")


if __name__ == "__main__":
    main()
