"""What a question costs: accuracy beside time, by sampler; question to answers; start; memory. All in one run.

Sampling: seconds from the embedding of one test question, and of all at once, to weights, by sampler, steps and
samples at the release's gamma, with the accuracy on the test questions. The authors' way is 350 steps of DDPM, one
question at a time; it is timed on a few questions and scaled up. Questions: all test questions at once, from text to
weights, on two threads. Answers: seconds from a question in words and 8 pictures in memory to probabilities, on two
threads, for every shipped release, no question or picture asked about before. Start: seconds of whole processes, and to
the first page. Times are medians over repeats, else on as many threads as --threads says; they are to be compared with
each other, for other programs on the machine slow all of them.

Needs a release directory (default: weights/emoji); encodes the test images on the first use, then caches them. Prints
the tables; writes them with --json, and the plot. Five minutes on one CPU thread.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

import os
import re
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image

from core.demo.world import PHOTOS
from core.generator import AdapterGenerator
from core.release.default import shipped_releases
from eval.harness import figures
from eval.harness.releases import open_release
from eval.harness.results import write_results
from train.pipeline.environment import ROOT
from train.pipeline.run import Run

AUTHORS = ("ddpm", 350, 1)
SETTINGS = (  # sampler, steps, samples
    *(("ddim", steps, samples) for steps, samples in ((1, 1), (1, 4), (2, 8), (4, 8), (10, 1), (10, 32))),
    ("dpmpp_2m", 10, 8),
    AUTHORS,
)
QUESTION, PICTURES, FEW = "What colour is the badge behind the dog?", 8, 3


def median(function: Callable[[], object], repeats: int) -> float:
    """Seconds of a call; the first, which warms up, does not count."""
    function()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def sampling(run: Run, generator: AdapterGenerator, limit: int | None, repeats: int) -> list[dict[str, Any]]:
    """A record for each of `SETTINGS`."""
    test = run.task_set("test")
    batch = test.select(range(limit or len(test))).batch(part="all" if run.preset.pooled else "query").to(run.device)
    e, choice, records = batch.question, generator.choice("hvae_hyperldm"), []
    for sampler, steps, samples in SETTINGS:
        generator.config["choices"]["hvae_hyperldm"] = choice | {"sampler": sampler}
        weights = lambda e, steps=steps, samples=samples: generator.weights(e, steps=steps, samples=samples)
        one = median(lambda weights=weights: weights(e[:1]), repeats)
        if (sampler, steps, samples) == AUTHORS:
            each = [median(lambda i=i, weights=weights: weights(e[i : i + 1]), 1) for i in range(min(FEW, len(e)))]
            every = statistics.mean(each) * len(e)
        else:
            every = median(lambda weights=weights: weights(e), repeats)
        accuracy = run.accuracy(weights(e), batch)
        records.append({"row": "sampling", "sampler": sampler, "steps": steps, "samples": samples, "one": one})
        records[-1] |= {"all": every, "questions": len(e), "accuracy": accuracy, "gamma": choice.get("gamma")}
        records[-1]["default"] = (sampler, steps, samples) == tuple(map(choice.get, ("sampler", "steps", "samples")))
    generator.config["choices"]["hvae_hyperldm"] = choice
    for record in records:
        record["times_faster"] = records[-1]["all"] / record["all"]
    return records


def questions(run: Run, generator: AdapterGenerator, limit: int | None, repeats: int) -> dict[str, Any]:
    """The record of all test questions at once, from text to weights, on two threads."""
    texts = [task.question for task in run.task_set("test").tasks][:limit]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    seconds = median(lambda: generator.weights(generator.question_encoder.encode(texts)), repeats)
    torch.set_num_threads(threads)
    return {"row": "questions", "what": f"{len(texts)} questions, text to weights, 2 threads", "seconds": seconds}


def unseen(side: int) -> Iterator[list[Image.Image]]:
    """Pictures of about `side` times `side` pixels, different ones at every turn."""
    photo = Image.open(PHOTOS / "cat.jpg").convert("RGB").resize((side, side))
    turn = 0
    while True:
        turn += 1
        yield [photo.rotate(PICTURES * turn + i) for i in range(PICTURES)]


def answers(repeats: int) -> list[dict[str, Any]]:
    """A record for every shipped release and method of interest: embedding, adapter and probabilities."""
    records = []
    for directory in shipped_releases():
        generator = AdapterGenerator.from_pretrained(directory)
        known = [question["question"] for question in generator.known_questions]
        words, candidates = iter(known), generator.suggest_answers(known[0])
        pictures = unseen(80 if generator.config["preset"] == "emoji" else 1000)
        batches = [next(pictures) for _ in range(repeats + 1)]
        for method in ("hyperldm", "hyperclip", "cond_multitask", "clip"):
            if generator.has(method):
                ask = lambda method=method, generator=generator, words=words: generator.generate(next(words), method)
                what = f"{generator.config['preset']}: question to adapter, `{method}`"
                records.append({"row": "adapter", "what": what, "seconds": median(ask, repeats)})
        left, threads = iter(batches), torch.get_num_threads()
        torch.set_num_threads(2)

        def look(generator=generator, words=words, left=left, candidates=candidates):
            adapter = generator.generate(next(words))
            x, texts = generator.embed_images(next(left)), generator.embed_answers(candidates)
            return adapter.probabilities_of(x, texts)

        what = f"{generator.config['preset']}: question to answers for {PICTURES} pictures, HyperLDM, 2 threads"
        records.append({"row": "answers", "what": what, "seconds": median(look, repeats)})
        torch.set_num_threads(threads)
    return records


def start(repeats: int) -> list[dict[str, Any]]:
    """Seconds of whole processes, and until the first page is there."""
    commands = {
        "import torch": ["-c", "import torch"],
        "import core.generator": ["-c", "import core.generator"],
        "the demo, --help": ["app.py", "--help"],
        "core.generator, a question, --json": ["-m", "core.generator", QUESTION, "--json"],
    }
    run = lambda command: subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    records = [
        {"row": "start", "what": what, "seconds": median(lambda command=command: run(command), repeats)}
        for what, command in commands.items()
    ]
    records.append({"row": "memory", "what": "python -m core.generator", "gib": peak_memory()})
    return [*records, {"row": "start", "what": "first page", "seconds": median(first_page, repeats)}]


def peak_memory() -> float:
    """GiB that a question at the command line takes at most; on Linux."""
    code = f"from core import cli; cli.main([{QUESTION!r}]); print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", done.stdout)[1]) / 2**20


def first_page() -> None:
    """Serve the demo until its page is there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], env=dict(os.environ), **quiet)
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"app.py ended with {process.returncode}")
    finally:
        process.terminate()
        process.wait()


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Accuracy over the time that a question takes."""
    plt = figures.pyplot()
    figure, axis = plt.subplots(figsize=(7, 4))
    for record in (record for record in records if record["row"] == "sampling"):
        x, y = 1e3 * record["one"], 100 * record["accuracy"]
        authors = (record["sampler"], record["steps"], record["samples"]) == AUTHORS
        colour = "tab:red" if record["default"] else "tab:grey" if authors else "tab:blue"
        axis.scatter([x], [y], color=colour)
        label = f"{record['sampler']}, {record['steps']} x {record['samples']}"
        label += " (default)" if record["default"] else " (the authors')" if authors else ""
        aslant = {"xytext": (2, 5), "textcoords": "offset points", "rotation": 60, "rotation_mode": "anchor"}
        axis.annotate(label, (x, y), fontsize=8, **aslant)
    axis.set_xscale("log")
    axis.set_xlabel("ms from a question's embedding to weights")
    axis.set_ylabel("accuracy on test questions, %")
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.15, y=0.4)
    figure.tight_layout()
    figures.save(figure, path)


def show(records: list[dict[str, Any]]) -> None:
    """Print the records."""
    print(f"{'sampler':<9} {'steps':>5} {'samples':>7} {'one':>10} {'all':>10} {'faster':>8} {'accuracy':>8}")
    for r in records:
        if r["row"] == "sampling":
            mark = " (default)" if r["default"] else ""
            print(
                f"{r['sampler']:<9} {r['steps']:>5} {r['samples']:>7} {1e3 * r['one']:>7.1f} ms {r['all']:>8.2f} s "
                f"{r['times_faster']:>7.0f}x {100 * r['accuracy']:>8.1f}{mark}"
            )
        elif r["row"] == "memory":
            print(f"{r['what']}: {r['gib']:.2f} GiB")
        else:
            print(f"{r['what']}: {1e3 * r['seconds']:.0f} ms")


def main(argv: list[str] | None = None) -> None:
    arguments = figures.parser(__doc__, plot=Path("eval/results/latency.png"))
    arguments.add_argument("--repeats", type=int, default=5, help="medians over so many (default: %(default)s)")
    arguments.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    args = arguments.parse_args(argv)
    if args.repeats < 1 or args.threads < 1:
        arguments.error(f"--repeats {args.repeats} and --threads {args.threads} must be positive")
    torch.set_num_threads(args.threads)
    run, (generator, *_) = open_release(arguments, args)
    if not generator.has("hyperldm"):
        arguments.error(f"{generator.directory} holds no hvae_hyperldm, which this script times")
    timed = run, generator, args.limit_tasks, args.repeats
    records = [*sampling(*timed), questions(*timed), *answers(args.repeats), *start(args.repeats)]
    show(records)
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/bench.py", threads=args.threads)
    plot(records, args.plot)


if __name__ == "__main__":
    main()
