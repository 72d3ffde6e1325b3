"""What comes in at all: not too many bytes and files, and nothing by a route that the page has no use for."""

from __future__ import annotations

import re
import time
from collections import Counter, deque

from fastapi import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..limits import (
    KEPT,
    MAX_BODY,
    MAX_FIELDS,
    MAX_PICTURES,
    MAX_UPLOAD,
    SERVER_BYTES,
    VISITOR_BYTES,
    VISITOR_FILES,
    mega,
)
from .parts import Parts

# Routes of Gradio's that write files, fetch addresses or run what components offer.
_CLOSED = re.compile(
    r"/gradio_api/(deep_link|process_recording|component_server|custom_component|stream/|proxy=|run-history|runs|"
    r"(undo-)?vibe-|file[=/]\s*[a-z][a-z0-9+.-]*:/)|/monitoring",
    re.IGNORECASE,
)
_LONGEST = 200  # characters of a header that names visitors: proxies write at its end


class Door:
    """ASGI middleware that bounds what a request, a visitor and all visitors send, and closes unused routes.

    A visitor is the address that a request comes from, with those that proxies name. A client can make some of these
    up, and be several visitors: what all may send has a limit of its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._uploads: deque[tuple[float, str, Counter]] = deque()  # when, who, how much, as `Parts` counts
        self._sent: dict[str, Counter] = {}  # by visitor, of the same, and how many uploads
        self._bytes = 0  # of all visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http":
            if _CLOSED.search(scope["path"]):
                app = PlainTextResponse("Not found", status_code=404)
            elif scope["path"].rstrip("/").endswith("/gradio_api/upload"):
                try:
                    receive = self._upload(scope, receive)
                except ValueError as error:
                    app = PlainTextResponse(str(error), status_code=400)
            else:
                receive = _limited(receive)
        await app(scope, receive, send)

    def _upload(self, scope: Scope, receive: Receive) -> Receive:
        """An upload's messages, counted. Gradio makes the refusal an answer, and removes what it has written.

        Raises:
            ValueError: the headers do not say how the upload is to be read.
        """
        parts = Parts(scope)
        forwarded = dict(scope["headers"]).get(b"x-forwarded-for", b"").decode("latin-1")
        visitor = f"{(scope.get('client') or ('',))[0]} {forwarded[-_LONGEST:]}"
        self._forget(time.monotonic() - KEPT)
        sent, mine = Counter(), self._sent.setdefault(visitor, Counter())
        self._uploads.append((time.monotonic(), visitor, sent))
        mine["uploads"] += 1
        sent["kept"] = 1

        async def counted() -> Message:
            message = await receive()
            try:
                new = parts.read(message.get("body", b""))
            except ValueError as error:
                raise MultiPartException(f"The upload cannot be read: {error}") from error
            sent.update(new)
            mine.update(new)
            self._bytes += new["bytes"] * sent["kept"]  # an upload may last until it is forgotten
            for count, allowed, what in (
                (sent["files"], MAX_PICTURES, f"{MAX_PICTURES} files at once"),
                (sent["fields"], MAX_FIELDS, f"{MAX_FIELDS} bytes in parts without a filename"),
                (sent["bytes"], MAX_UPLOAD, f"{mega(MAX_UPLOAD)} MB at once"),
                (mine["files"], VISITOR_FILES, f"{VISITOR_FILES} files of one visitor in {KEPT // 60} minutes"),
                (mine["bytes"], VISITOR_BYTES, f"{mega(VISITOR_BYTES)} MB of one visitor in {KEPT // 60} minutes"),
                (self._bytes, SERVER_BYTES, f"{mega(SERVER_BYTES)} MB of all visitors in {KEPT // 60} minutes"),
            ):
                if count > allowed:
                    raise MultiPartException(f"The maximum allowed size of uploads is {what}.")
            return message

        return counted

    def _forget(self, before: float) -> None:
        """Uploads whose files are deleted count no more."""
        while self._uploads and self._uploads[0][0] < before:
            _, visitor, sent = self._uploads.popleft()
            self._bytes -= sent["bytes"]
            sent["kept"] = 0
            mine = self._sent[visitor]
            mine.subtract(sent)
            mine["uploads"] -= 1
            if not mine["uploads"]:
                del self._sent[visitor]


def _limited(receive: Receive) -> Receive:
    """The messages of a request that uploads nothing; an error, which becomes an answer, once they are too long."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY:
            raise HTTPException(413, f"the request has over {mega(MAX_BODY)} MB, the maximum allowed size")
        return message

    return counted
