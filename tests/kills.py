"""Runs training scripts, killed by SIGKILL again and again at chosen writes, and started anew until they are through.

    python -m tests.kills JOB.json

where the job names "commands", each a script of `train/` with its arguments; and "places", pairs of a pattern of paths
and a number: the n-th write of such a file in one process. One process imports everything and forks one child after the
other; a child runs the commands and kills itself at the first place that no child before it was killed at. Every other
kill comes while the file is half written, the rest right after it took its place. Resume states are saved after every
step, so that each stage can be killed in its middle. Ends with status 1 if a place was never reached.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import io
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch

import train.pipeline.steps
import train.pipeline.tiny_clip.towers

Place = tuple[str, int]


class Killer:
    """Stands for `os.replace`, through which every file of a run takes its place."""

    def __init__(self, places: list[Place], log: int) -> None:
        self.places, self.log, self.replace = places, log, os.replace
        self.count = dict.fromkeys((pattern for pattern, _ in places), 0)

    def __call__(self, source: str | Path, target: str | Path) -> None:
        for pattern in self.count:
            if fnmatch.fnmatch(str(target), f"*/{pattern}"):
                self.count[pattern] += 1
                if [pattern, self.count[pattern]] in self.places:
                    self._kill(source, target, [pattern, self.count[pattern]])
        self.replace(source, target)

    def _kill(self, source: str | Path, target: str | Path, place: Place) -> None:
        os.write(self.log, json.dumps(place).encode())
        if len(self.places) % 2:
            self.replace(source, target)
        else:
            os.truncate(source, os.path.getsize(source) // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def child(commands: list[list[str]], places: list[Place], log: int) -> int:
    """Run the commands in this process, killed at one of the places, if any; returns an exit status."""
    os.replace = Killer(places, log)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            for script, *arguments in commands:
                importlib.import_module(f"train.{script}").main(arguments)
    except BaseException:
        print(printed.getvalue()[-2000:], traceback.format_exc(), sep="\n", file=sys.stderr, flush=True)
        return 1
    return 0


def run(commands: list[list[str]], places: list[Place]) -> int:
    """Children until one is through; returns the number of kills."""
    kills = 0
    while True:
        reader, writer = os.pipe()
        process = os.fork()
        if process == 0:
            status = 1
            try:
                status = child(commands, places, writer)
            finally:
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as pipe:
            told = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status == 0:
            break
        if status != -signal.SIGKILL or not told:
            sys.exit(f"a child ended with status {status} after {kills} kills")
        places = [place for place in places if place != json.loads(told)]
        kills += 1
    if places:
        sys.exit(f"never reached: {places}")
    return kills


if __name__ == "__main__":
    torch.set_num_threads(1)
    train.pipeline.steps._STATE_SECONDS = train.pipeline.steps._STATE_SHARE = 0
    train.pipeline.tiny_clip.towers._STATE_EVERY = 1
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for script, *_ in job["commands"]:
        importlib.import_module(f"train.{script}")
    print(run(job["commands"], [list(place) for place in job["places"]]))
