"""Cases of one kind, one after another in this process, watched: what came of them, files, memory, time."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"pictures": 2000, "texts": 2000, "releases": 500, "tables": 500}  # and how many cases of each
FIRST, GROWTH = 50, 1.1  # cases after which memory is measured, and what it may be at the end beside that
SECONDS = 60  # for one case
# What a program reads besides a visitor's files: itself, its libraries, the system's fonts, time zones and devices.
_OWN = (ROOT, sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), "/usr", "/lib", "/proc", "/sys", "/dev")
_OWN_FILES = ("/etc/mime.types", "/etc/localtime", "/etc/ssl", "/etc/fonts", "/etc/ld.so.cache")
_OWN_FILES += ("/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf")


@dataclass
class Found:
    """What came of `count` cases of a kind: how many gave a result and how many were refused, and what went wrong."""

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: tuple[int, int] = (0, 0)  # bytes, after `FIRST` cases and at the end; zeros where the system does not say
    seconds: float = 0.0

    def grew(self) -> bool:
        """Whether more memory is in use at the end than allowed."""
        return self.memory[1] > GROWTH * self.memory[0]

    def line(self) -> str:
        """One line of the table."""
        first, last = (f"{size / 2**20:,.0f}" for size in self.memory)
        counts = [f"{self.outcomes[name]:,}" for name in ("result", "refused")]
        return (
            f"{self.kind:>9} {sum(self.outcomes.values()):>6,} {counts[0]:>8} {counts[1]:>8} {len(self.wrong):>6} "
            f"{first:>9} {last:>7}{' !' if self.grew() else '  '} {self.seconds:>8.0f}"
        )


HEADER = "     kind  cases  results  refused  wrong MiB at 50  at end    seconds"


class Watch:
    """Which files this process opens or lists while it works on a case; Python tells an audit hook, which stays."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.outside: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or event not in ("open", "os.listdir", "os.scandir", "subprocess.Popen", "os.system"):
            return
        if event in ("subprocess.Popen", "os.system"):
            self.outside.append(f"{event}: {arguments[0]!r}")
            return
        path = arguments[0]
        if isinstance(path, (str, bytes, os.PathLike)):
            real = os.path.realpath(os.fsdecode(path))
            writes = event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
            own = (self.folder,) if writes and "__pycache__" not in real else (self.folder, *_OWN, *_OWN_FILES)
            if not any(real == str(root) or real.startswith(f"{root}{os.sep}") for root in own) and real != os.devnull:
                self.outside.append(f"{event}: {real}")

    @contextlib.contextmanager
    def case(self, folder: Path) -> Iterator[None]:
        """Watch one case. An AssertionError names what it opened outside of `folder`."""
        self.folder, self.outside = folder, []
        try:
            yield
        finally:
            self.folder = None
        assert not self.outside, f"outside the temporary folder: {self.outside}"


WATCH = Watch()


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """A TimeoutError for what takes longer, where the system has alarms."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds} seconds")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _memory() -> int:
    """Bytes of memory that this process has; 0 where the system does not say. What C's allocator keeps for later use is
    given back first: it depends on the largest case so far, and is no leak."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc's own
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = Path("/proc/self/statm")
    return int(status.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def _forget(module: Any) -> None:
    """Make anew, in the temporary folder of the run, what a module made once and keeps."""
    for value in vars(module).values():
        getattr(value, "cache_clear", lambda: None)()


def fuzz(kind: str, count: int, seed: int) -> Found:
    """Work on `count` cases of a kind, in a temporary folder that goes afterwards.

    The module `tests.fuzz.KIND` has `cases(seed, count)` and `check(case)`, which returns "result" or "refused" and
    raises whatever else came of it; if need be `prepare()`, run before the first case, and `close()`, after the last.
    """
    module = importlib.import_module(f"tests.fuzz.{kind}")
    found, begun, first = Found(kind), time.perf_counter(), 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        folder = Path(folder).resolve()
        before, tempfile.tempdir = tempfile.tempdir, str(folder)
        try:
            _forget(module)
            getattr(module, "prepare", lambda: None)()
            for i, case in enumerate(module.cases(seed, count)):
                try:
                    with _limited(SECONDS), WATCH.case(folder):
                        outcome = module.check(case)
                    assert outcome in ("result", "refused"), f"check returned {outcome!r}"
                except Exception:
                    outcome = "wrong"
                    shown = repr(case)
                    shown = shown if len(shown) < 500 else f"{shown[:500]} ..."
                    found.wrong.append(f"{kind} {i} of seed {seed}: {shown}\n{traceback.format_exc(limit=-6)}")
                found.outcomes[outcome] += 1
                if i + 1 == min(FIRST, count):
                    first = _memory()
            found.memory = (first, _memory())
        finally:
            tempfile.tempdir = before
            getattr(module, "close", lambda: None)()
            _forget(module)
    found.seconds = time.perf_counter() - begun
    return found
