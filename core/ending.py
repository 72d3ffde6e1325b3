"""How a script ends that cannot go on: in one line on standard error, with an exit status that says why."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")


class Stopped(KeyboardInterrupt):
    """A signal that asks to stop."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """For a script's `main`: bad input, damaged files, numbers that are no more, a full disk (exit status 2), and being
    asked to stop (128 and the signal's number, as shells have it) end it in one line, after everything has been tidied
    up. A second signal meanwhile changes nothing."""
    before = _listen()
    try:
        yield
    except (ValueError, OSError) as error:
        status, line = 2, f"error: {in_words(error)}"
        traceback.clear_frames(error.__traceback__)  # progress bars end before the line is printed
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        status, line = 128 + number, f"stopped by {signal.Signals(number).name}; the same command goes on from here"
        traceback.clear_frames(error.__traceback__)
    else:
        return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr, flush=True)
    raise SystemExit(status)


def in_words(error: Exception) -> str:
    """An error's message in one line; the file first where the system has one."""
    named = isinstance(error, OSError) and error.filename is not None and error.strerror
    return " ".join((f"{error.filename}: {error.strerror}" if named else str(error) or type(error).__name__).split())


def _listen() -> dict[int, object]:
    """Make signals raise `Stopped`; returns what they did before. One that was ignored, as under nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [getattr(signal, name) for name in _STOPPING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    before = {n: h for n, h in before.items() if h in (signal.SIG_DFL, signal.default_int_handler)}

    def stop(number: int, frame: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    for number in before:
        signal.signal(number, stop)
    return before
