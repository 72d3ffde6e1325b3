"""What the server writes for a while: a folder of its own for uploads and adapters, and who removes what is old."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import getpass
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import anyio

from ..limits import KEPT, SWEPT

_VARIABLE = "GRADIO_TEMP_DIR"  # where Gradio puts uploads, and what it serves


def temporary_folder() -> Path:
    """This process's folder, readable by its user alone; it goes when the process ends. Gradio uses it, too.

    It lies in the folder that the environment names for Gradio, else in the system's. What a killed process of the same
    user left behind is removed.
    """
    return Path(os.path.realpath(_folder().name))


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    parent = Path(os.environ.get(_VARIABLE) or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()  # Windows has no numbers
    prefix = f"question-to-adapter-{user}-"
    for left in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.lstat().st_mtime > 2 * KEPT:  # a running server touches its own
                shutil.rmtree(left)
    made = tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)  # mode 0700
    os.environ[_VARIABLE] = made.name
    return made


def sweep(root: Path, keep: Iterable[str] = (), age: float = KEPT) -> None:
    """Remove files under `root` that are older than `age` seconds, but those in `keep`, and folders that have been
    empty for as long. What another worker removes meanwhile is no error."""
    oldest, keep = time.time() - age, set(keep)
    os.utime(root)
    for folder, _, files in os.walk(root, topdown=False):
        for path in (os.path.join(folder, name) for name in files):
            with contextlib.suppress(OSError):
                if path not in keep and os.lstat(path).st_mtime < oldest:
                    os.unlink(path)
        with contextlib.suppress(OSError):
            if folder != str(root) and os.stat(folder).st_mtime < oldest:
                os.rmdir(folder)


@contextlib.asynccontextmanager
async def repeated(function: Callable[[], None], seconds: float = SWEPT) -> AsyncIterator[None]:
    """Run a function in a thread again and again while the context is open."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            await anyio.to_thread.run_sync(function)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
