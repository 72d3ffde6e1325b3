"""The demo over many visits: does its memory come back?

Starts the demo in a process of its own and lets visitors come one after another, every second by a browser's tab that
uploads a picture, asks about it and is closed, the others through the API, which ask about scenes and fetch an adapter.
Prints the server's memory and what lies in its temporary folder, in steps. The exit status is 1 if memory grows by 5%
or more after the first ten minutes, or after the first sixth of the visits where all take less than twenty minutes.

Needs the demo's requirements and Linux. A thousand visits as fast as they go take about half an hour on two CPU cores;
one hour's soak: `python eval/demo/soak.py --minutes 60`.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # so that `python eval/demo/soak.py` works from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import argparse
import json
import tempfile
import time
import uuid
from collections.abc import Sequence
from typing import Any

import httpx

from core.console import Parser
from core.data.emoji.dataset import draw_scenes_for_question
from eval.app_load import png, served
from eval.harness.results import write_results

QUESTION, ANSWERS = "What colour is the badge behind the dog?", "red, blue, green, yellow, black, white"
OWN, DRAWN = "My own pictures", "Drawn scenes"
GROWTH, MINUTES = 0.05, 10  # what is allowed, and after how long memory has to have settled


def memory(pid: int) -> float:
    """Resident memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def on_disk(folder: Path) -> tuple[int, float]:
    """(files, MiB) under a folder."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes) / 2**20


class Visitor:
    """Visits of the page at an address, as its own requests."""

    def __init__(self, address: str, pictures: int) -> None:
        self.browser, self.pictures = httpx.Client(base_url=address, timeout=120), pictures
        config = self.browser.get("/config").json()
        self.components = {component["id"]: component["props"] for component in config["components"]}
        self.events = {event["api_name"]: event for event in config["dependencies"] if event["api_name"]}
        self.picture = png(draw_scenes_for_question(QUESTION, 1)[0][0])

    def tab(self) -> None:
        """Open the page, upload pictures, ask about them, close the page."""
        visit = self._arrive()
        self.browser.get("/")
        with self.browser.stream("GET", f"/gradio_api/heartbeat/{visit}"):
            files = [("files", (f"{visit}-{i}.png", self.picture, "image/png")) for i in range(self.pictures)]
            paths = self.browser.post("/gradio_api/upload", files=files).raise_for_status().json()
            gallery = [{"image": {"path": p, "meta": {"_type": "gradio.FileData"}}, "caption": None} for p in paths]
            self.run("ask", visit, {"Pictures": OWN, "Your pictures": gallery})

    def program(self) -> None:
        """Ask about scenes and fetch an adapter."""
        visit = self._arrive()
        self.run("ask", visit, {"Pictures": DRAWN, "How many": self.pictures})
        answer = self.run("generate", visit, {}, [QUESTION, "hyperclip", None, 0])
        self.browser.get(answer["data"][0]["url"]).raise_for_status()

    def _arrive(self) -> str:
        """Another visitor, with an address of its own; returns the visit's name."""
        visit = uuid.uuid4().hex[:11]
        self.browser.headers["x-forwarded-for"] = f"visitor-{visit}"
        return visit

    def run(self, name: str, visit: str, values: dict[str, Any], data: Sequence[Any] | None = None) -> dict[str, Any]:
        """The output of an event; its components' own values, but for those whose label begins as in `values`."""
        event = self.events[name]
        if data is None:
            values = {"Question": QUESTION, "Candidate": ANSWERS, "Methods": ["clip", "hyperclip"], **values}
            data = []
            for i in event["inputs"]:
                label = self.components[i].get("label") or ""
                given = [value for start, value in values.items() if label.startswith(start)]
                data.append(given[0] if given else self.components[i].get("value"))
        body = {"data": list(data), "fn_index": event["id"], "session_hash": visit}
        self.browser.post("/gradio_api/queue/join", json=body).raise_for_status()
        with self.browser.stream("GET", "/gradio_api/queue/data", params={"session_hash": visit}) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise ValueError(f"the server says {message['output']}")
                    return message["output"]
        raise ValueError("the server ended without an answer")


def soak(visits: int, minutes: float, pictures: int, every: int) -> list[dict[str, Any]]:
    """Memory in MiB and files after every so many visits, which are spread over `minutes`."""
    records = []
    with tempfile.TemporaryDirectory() as folder:
        with served({"TMPDIR": folder}) as (address, process):
            visitor, begun = Visitor(address, pictures), time.monotonic()
            for done in range(visits + 1):
                if done % every == 0:
                    files, size = on_disk(Path(folder))
                    records.append(
                        {
                            "visits": done,
                            "minutes": round((time.monotonic() - begun) / 60, 1),
                            "memory": round(memory(process.pid), 1),
                            "files": files,
                            "disk": round(size, 1),
                        }
                    )
                    told = "{visits:5d} visits {minutes:6.1f} min {memory:8.1f} MiB; {files} files, {disk:.1f} MiB"
                    print(told.format(**records[-1]), flush=True)
                if done < visits:
                    (visitor.tab if done % 2 else visitor.program)()
                    time.sleep(max(0.0, begun + 60 * minutes * (done + 1) / visits - time.monotonic()))
        if left := [path.name for path in Path(folder).iterdir()]:
            raise RuntimeError(f"the demo left {left[0]!r} behind in its temporary folder")
    return records


def growth(records: Sequence[dict[str, Any]]) -> float:
    """By what share memory grew after it had time to settle, at most."""
    last = records[-1]
    long = last["minutes"] >= 2 * MINUTES
    settled = [r for r in records if (r["minutes"] >= MINUTES if long else 6 * r["visits"] >= last["visits"])]
    return max(r["memory"] for r in settled) / settled[0]["memory"] - 1


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=1000, help="default: 1000")
    parser.add_argument("--minutes", type=float, default=0, help="spread over so many (default: as fast as they go)")
    parser.add_argument("--pictures", type=int, default=16, help="of each visit (default: 16)")
    parser.add_argument("--every", type=int, default=50, help="visits between two lines (default: 50)")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args(argv)
    if args.visits < args.every or args.every < 1:
        parser.error(f"--visits {args.visits} --every {args.every}; allowed: 1 or more between two lines, and as many")
    records = soak(args.visits, args.minutes, args.pictures, args.every)
    grown = growth(records)
    print(f"memory grew by {grown:.1%} after it had settled; allowed: less than {GROWTH:.0%}")
    if args.json:
        write_results(args.json, "emoji", records, "eval/demo/soak.py")
    if grown >= GROWTH:
        sys.exit(1)


if __name__ == "__main__":
    main()
