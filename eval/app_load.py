"""The demo under use: many visitors at once, its accuracy through the API, and pictures of its pages.

Without a flag, starts the demo in a process of its own and lets 20 visitors ask at once, each uploading 8 pictures to
be classified by all methods; measures how long they waited, from the first upload to the answer. With --accuracy, asks
50 random test questions about fresh scenes and compares with Table 1's evaluation of the same tasks. With
--screenshots, visits the pages in an installed Chromium.

Needs the demo's requirements and a release directory or Hub repository, HF_WEIGHTS as for app.py (default: the shipped
weights), of drawn scenes but for --screenshots, which needs playwright and shows the first of several. Prints what it
measured; writes it with --json. Each takes about a minute on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

import argparse
import contextlib
import io
import json
import os
import random
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
from PIL import Image

from core.console import Parser
from core.data.emoji.dataset import VERSION, EmojiVQA, draw_scenes_for_question
from core.data.tasks import Task
from core.demo import ask
from core.generator import AdapterGenerator
from core.release.default import default_release
from eval.demo.pages import screenshots
from eval.harness import releases
from eval.harness.results import ROOT, write_results
from eval.harness.rows import ROWS, accuracy
from train.pipeline.run import Run

WEIGHTS = os.environ.get("HF_WEIGHTS", str(default_release()))


@contextlib.contextmanager
def served(variables: Mapping[str, str] | None = None) -> Iterator[tuple[str, subprocess.Popen]]:
    """The demo of `WEIGHTS` in a process of its own, with environment `variables`: its address, and the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = dict(variables or {}, GRADIO_SERVER_PORT=str(port), GRADIO_SERVER_NAME="127.0.0.1", HF_WEIGHTS=WEIGHTS)
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=os.environ | own, stdout=subprocess.DEVNULL)
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                raise RuntimeError(f"app.py ended with {process.returncode}; see its messages above")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait()


def page_settings(generator: AdapterGenerator) -> dict[str, Any]:
    """What the Ask tab begins with: all methods, and for HyperLDM what validation tasks chose."""
    choice = generator.config.get("choices", {}).get("hvae_hyperldm", {})
    return {
        "methods": list(ask.available(generator)),
        "gamma": choice.get("gamma", 1.5),
        "steps": choice.get("steps", 50),
        "samples": choice.get("samples", 1),
    }


def load(address: str, visitors: int, pictures: int, settings: dict[str, Any]) -> tuple[list[float], list[str]]:
    """Waits in seconds of visitors that all ask at once with `page_settings`, and what failed.

    Visitors share the server's cores, so they speak plain HTTP, which costs less than a client library.
    """
    waits: list[float] = []
    failures: list[str] = []
    gate = threading.Barrier(visitors)
    tasks = _test_tasks(EmojiVQA(), visitors, seed=0)
    files = [
        [png(image) for image, _ in draw_scenes_for_question(task.question, pictures, seed=number)]
        for number, task in enumerate(tasks)
    ]

    def visit(number: int) -> None:
        with httpx.Client(base_url=address, timeout=120) as browser:
            browser.get("/")  # the page is open; the wait begins with the click
            gate.wait()
            begun = time.perf_counter()
            try:
                html = _ask(browser, tasks[number], files[number], settings, seed=number)
                if html.count("<article") != pictures:
                    failures.append(f"visitor {number}: {html[:200]}")
            except (httpx.HTTPError, ValueError) as error:
                failures.append(f"visitor {number}: {type(error).__name__}: {error}")
            waits.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(visitors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return waits, failures


def _ask(browser: httpx.Client, task: Task, files: Sequence[bytes], settings: dict[str, Any], seed: int) -> str:
    """The Ask tab's answer about uploaded pictures."""
    upload = [("files", (f"{i}.png", data, "image/png")) for i, data in enumerate(files)]
    paths = browser.post("/gradio_api/upload", files=upload).raise_for_status().json()
    gallery = [{"image": {"path": path, "meta": {"_type": "gradio.FileData"}}, "caption": None} for path in paths]
    how = [settings["methods"], "HVAE", settings["gamma"], settings["steps"], settings["samples"], seed]
    data = [task.question, ", ".join(task.answers), "My own pictures", 1, gallery, *how]
    event = browser.post("/gradio_api/call/ask", json={"data": data}).raise_for_status().json()["event_id"]
    kind = ""
    with browser.stream("GET", f"/gradio_api/call/ask/{event}") as lines:
        for line in lines.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind == "complete":
                return json.loads(line.removeprefix("data: "))[0]
            elif line.startswith("data: ") and kind == "error":
                raise ValueError(f"the server says {line}")
    raise ValueError("the server ended without an answer")


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    image.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def ask_about_scenes(address: str, tasks: Sequence[Task], scenes: int) -> dict[str, float]:
    """Mean accuracy over tasks, by method, on fresh scenes of each through the API."""
    from gradio_client import Client

    client = Client(address, verbose=False)
    scores: dict[str, list[float]] = {}
    for task in tasks:
        right: dict[str, int] = {}
        fair = 0
        for seed in range(-(-scenes // 64)):
            told = client.predict(task.question, list(task.answers), 64, seed, api_name="/try_on_scenes")
            kept = [i for i, truth in enumerate(told["truths"]) if truth in task.answers]
            fair += len(kept)
            for method, answers in told["answers"].items():
                right[method] = right.get(method, 0) + sum(answers[i] == told["truths"][i] for i in kept)
        for method, count in right.items():
            scores.setdefault(method, []).append(count / fair)
    return {method: statistics.mean(values) for method, values in scores.items()}


def summary(waits: Sequence[float], failures: Sequence[str]) -> dict[str, Any]:
    """What visitors waited, in seconds, and how many requests failed."""
    ordered = sorted(waits)
    seconds = {
        "median": statistics.median(ordered),
        "95%": ordered[int(0.95 * (len(ordered) - 1))],
        "longest": ordered[-1],
    }
    return {name: round(value, 2) for name, value in seconds.items()} | {"failed": len(failures)}


def compare_accuracy(
    address: str, run: Run, generator: AdapterGenerator, questions: int, scenes: int, seed: int
) -> list[dict[str, Any]]:
    """Print accuracies through the API beside Table 1's way on the same tasks; a record for every method."""
    chosen = _test_tasks(run.dataset, questions, seed)
    told = ask_about_scenes(address, chosen, scenes)
    test = run.task_set("test")
    rows = {task.question: i for i, task in enumerate(test.tasks)}
    test = test.select([rows[task.question] for task in chosen])
    support, query = test.batch(part="support"), test.batch(part="query")
    everything = test.batch()
    print(f"{questions} random test questions, {scenes} fresh scenes each through the API; accuracy in %")
    print(f"{'method':<18} {'API':>6} {'table 1, query images':>22} {'support and query images':>25}")
    names = {"hyperldm": "hvae_hyperldm", "hyperclip": "hvae_hyperclip"}
    records = []
    for method, value in told.items():
        row = next(row for row in reversed(ROWS) if row.id == names.get(method, method))
        on_query, on_all = (float(accuracy(row, generator, support, batch).mean()) for batch in (query, everything))
        print(f"{method:<18} {100 * value:6.1f} {100 * on_query:22.1f} {100 * on_all:25.1f}")
        told_and_known = {"api": value, "query": on_query, "support_and_query": on_all}
        records.append(
            {"test": "accuracy", "method": method, "questions": questions, "scenes": scenes, "seed": seed}
            | {name: round(share, 4) for name, share in told_and_known.items()}
        )
    return records


def agree(records: Sequence[dict[str, Any]]) -> bool:
    """Whether HyperLDM is within two points of Table 1's way, and above plain CLIP."""
    by_method = {record["method"]: record for record in records}
    ours = by_method["hyperldm"]
    return abs(ours["api"] - ours["support_and_query"]) <= 0.02 and ours["api"] > by_method["clip"]["api"]


def _test_tasks(dataset: EmojiVQA, count: int, seed: int) -> list[Task]:
    return random.Random(seed).sample([task for task in dataset.tasks if task.split == "test"], count)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=20, help="who ask at once (default: 20)")
    parser.add_argument("--pictures", type=int, default=8, help="of each visitor (default: 8)")
    parser.add_argument("--accuracy", action="store_true", help="compare accuracy through the API with Table 1")
    parser.add_argument("--questions", type=int, default=50, help="of --accuracy (default: 50)")
    parser.add_argument("--scenes", type=int, default=128, help="a question, in steps of 64 (default: 128)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of questions (default: 0)")
    parser.add_argument("--screenshots", type=Path, metavar="DIR", help="write pictures of the pages here")
    parser.add_argument("--json", type=Path, help="write the results here; not with --screenshots")
    args = parser.parse_args(argv)
    if args.json and args.screenshots:
        parser.error("--json does not go with --screenshots, which measure nothing")
    try:
        generator = AdapterGenerator.from_pretrained(WEIGHTS.split(",")[0])  # the world that the page opens with
    except ValueError as error:
        parser.error(f"HF_WEIGHTS={WEIGHTS}: {error}")
    drawn = generator.config.get("dataset") == VERSION
    if not args.screenshots and "," in WEIGHTS:
        parser.error(f"HF_WEIGHTS={WEIGHTS}: one release is asked about; --screenshots takes several")
    if not drawn and not args.screenshots:
        parser.error(f"HF_WEIGHTS={WEIGHTS} knows no drawn scenes to ask about; --screenshots takes any release")
    if args.accuracy:
        run, _ = releases.open_release(parser, releases.parser("").parse_args(["--weights", WEIGHTS]))
        releases.require(parser, run, [generator], lambda g: [] if g.has("hyperldm") else ["HVAE + HyperLDM"])
    wrong = ""
    with served() as (address, _):
        if args.screenshots:
            screenshots(address, args.screenshots, drawn)
            return
        if args.accuracy:
            records = compare_accuracy(address, run, generator, args.questions, args.scenes, args.seed)
            if not agree(records):
                wrong = "HyperLDM is not within two points of Table 1, or not above plain CLIP"
        else:
            settings = page_settings(generator)
            waits, failures = load(address, args.visitors, args.pictures, settings)
            asked = {"visitors": args.visitors, "pictures": args.pictures, "cores": os.cpu_count()}
            record = {"test": "load", **asked, "settings": settings, **summary(waits, failures)}
            print(
                f"{args.visitors} visitors at once, {args.pictures} pictures each, {record['cores']} CPU cores: "
                f"median wait {record['median']:.2f} s, 95% {record['95%']:.2f} s, longest {record['longest']:.2f} s, "
                f"{record['failed']} failed"
            )
            records, wrong = [record], "\n".join(failures)
    if args.json:  # what went wrong is a result, too
        write_results(args.json, generator.config["preset"], records, "eval/app_load.py")
    if wrong:
        sys.exit(wrong)


if __name__ == "__main__":
    main()
