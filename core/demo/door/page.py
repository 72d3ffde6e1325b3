"""What events get: of a request's values, files are those that were uploaded, numbers are finite, texts can be written.

Every event of the page passes here, by whichever of Gradio's routes it is called, before anything else sees its values.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import gradio as gr
from starlette.middleware import Middleware

from ..limits import KEPT, MAX_FILE, UNREAD, VISITS
from ..views.templates import escape_html
from .middleware import Door
from .temporary import repeated, sweep, temporary_folder

_SERVED = "/gradio_api/file="  # begins the path of an uploaded file's address


def admitted(value: Any, root: Path) -> Any:
    """A value of a request, of any shape, as the page may see it.

    Whatever Gradio could take for a file (an object that has a path or an address, with "meta" or without) is one that
    lies under `root`, where uploads do, once links are followed, and says no more than that. Uploads lie in folders
    whose names cannot be guessed: whoever names one has uploaded it, or has been told. Halves of characters, which no
    answer could repeat, become "?".

    Raises:
        ValueError: another file, or a number that is not finite.
    """
    if isinstance(value, dict):
        if "path" in value or "url" in value:
            return _uploaded(value, root)
        return {admitted(key, root): admitted(part, root) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [admitted(part, root) for part in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number is {value}; allowed: finite ones")
    return value


def _uploaded(file: dict[str, Any], root: Path) -> dict[str, Any]:
    named = file.get("path") or file.get("url")
    if isinstance(named, str):
        if _SERVED in named:  # where a program was told that its upload lies
            named = unquote(urlsplit(named).path).partition(_SERVED)[2]
        with contextlib.suppress(ValueError, OSError):  # no path that the system can follow
            path = Path(os.path.realpath(named))
            if path.is_relative_to(root) and path.is_file():
                name = admitted(file.get("orig_name"), root)
                name = name if isinstance(name, str) else path.name
                return {"path": str(path), "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    raise ValueError(
        f"only files that were uploaded here within {KEPT // 60} minutes are read: please upload it again "
        "(with gradio_client, wrap its path in handle_file)"
    )


class Page(gr.Blocks):
    """Blocks whose every event, by whichever route it is called, gets `admitted` values; what is wrong with them is
    told to whoever sent them."""

    def __init__(self, **settings: Any) -> None:
        self.uploads = temporary_folder()  # before a component asks Gradio where files go
        super().__init__(**settings)

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **settings: Any) -> list[Any]:
        self._forget_unread()
        if len(inputs) < len(block_fn.inputs):
            raise gr.Error(f"{len(inputs)} values; allowed: {len(block_fn.inputs)}", print_exception=False)
        try:
            return await super().preprocess_data(block_fn, admitted(inputs, self.uploads), *args, **settings)
        except gr.Error as error:  # a component's own, which may quote the value
            message = error.message
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            message = str(error.__cause__ or error)
        raise gr.Error(escape_html(" ".join(message.split())[:300]), print_exception=False)

    def _forget_unread(self) -> None:
        """Answers that nobody fetches are kept in memory by Gradio without a limit: those of whom has most go."""
        unread, running = self._queue.pending_messages_per_session, self._queue.pending_event_ids_session
        for visit in [visit for visit, events in running.items() if not events or visit not in unread]:
            del running[visit]
        count = sum(messages.qsize() for messages in unread.values())
        while count > UNREAD:
            most = max(unread.values(), key=lambda messages: messages.qsize())
            count -= most.qsize()
            while not most.empty():
                most.get_nowait()

    def sweep(self) -> None:
        """Remove old files, and what Gradio remembers of files that are gone."""
        kept = [getattr(block, "keep_in_cache", ()) for block in self.blocks.values()]  # pictures to try
        sweep(self.uploads, set().union(*kept))
        for paths in self.temp_file_sets:
            paths.difference_update([path for path in list(paths) if not os.path.exists(path)])


@contextlib.asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    async with repeated(lambda: app.get_blocks().sweep()):
        yield


PROTECTION: dict[str, Any] = {  # arguments of `launch` for a `Page`
    "max_file_size": MAX_FILE,
    "state_session_capacity": VISITS,
    "run_history": False,
    "enable_monitoring": False,
    "app_kwargs": {"middleware": [Middleware(Door)], "lifespan": _lifespan},
}
