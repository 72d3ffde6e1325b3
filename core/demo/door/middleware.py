"""What comes in at all: not too many bytes and files, and nothing by a route that the page has no use for."""

from __future__ import annotations

import re
import time
from collections import Counter, deque

from fastapi import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..limits import KEPT, MAX_BODY, MAX_PICTURES, MAX_UPLOAD, SERVER_BYTES, VISITOR_BYTES, VISITOR_FILES, mega

# Routes of Gradio's that write files, fetch addresses or run what components offer.
_CLOSED = re.compile(
    r"/gradio_api/(deep_link|process_recording|component_server|custom_component|stream/|proxy=|run-history|runs|"
    r"(undo-)?vibe-|file[=/]\s*[a-z][a-z0-9+.-]*:/)|/monitoring",
    re.IGNORECASE,
)


class Door:
    """ASGI middleware that bounds what a request, a visitor and all visitors send, and closes unused routes.

    A visitor is the address that a request comes from, with those that proxies name. Without a proxy a client can make
    these up, and be several visitors: what all may send has a limit of its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._uploads: deque[tuple[float, str, Counter]] = deque()  # when, who, how much: "bytes" and "files"
        self._sent: dict[str, Counter] = {}  # by visitor, of these

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http":
            if _CLOSED.search(scope["path"]):
                app = PlainTextResponse("Not found", status_code=404)
            elif scope["path"].rstrip("/").endswith("/gradio_api/upload"):
                receive = self._upload(scope, receive)
            else:
                receive = _limited(receive)
        await app(scope, receive, send)

    def _upload(self, scope: Scope, receive: Receive) -> Receive:
        """An upload's messages, counted. Gradio makes the refusal an answer, and removes what it has written."""
        headers = dict(scope["headers"])
        visitor = f"{(scope.get('client') or ('',))[0]} {headers.get(b'x-forwarded-for', b'').decode('latin-1')}"
        self._forget(time.monotonic() - KEPT)
        sent, mine = Counter(files=-1), self._sent.setdefault(visitor, Counter())  # one edge more than files
        mine.update(sent)
        self._uploads.append((time.monotonic(), visitor, sent))
        found = re.search(rb'boundary="?([^";,\s]+)', headers.get(b"content-type", b""))
        edge, tail = b"--" + (found[1] if found else b""), b""

        async def counted() -> Message:
            nonlocal tail
            message = await receive()
            body = message.get("body", b"")
            new = Counter(bytes=len(body), files=(tail + body).count(edge))
            tail = (tail + body)[-len(edge) + 1 :]
            sent.update(new)
            mine.update(new)
            everyone = sum(counts["bytes"] for counts in self._sent.values())
            for count, allowed, what in (
                (sent["files"], MAX_PICTURES, f"{MAX_PICTURES} files at once"),
                (sent["bytes"], MAX_UPLOAD, f"{mega(MAX_UPLOAD)} MB at once"),
                (mine["files"], VISITOR_FILES, f"{VISITOR_FILES} files of one visitor in {KEPT // 60} minutes"),
                (mine["bytes"], VISITOR_BYTES, f"{mega(VISITOR_BYTES)} MB of one visitor in {KEPT // 60} minutes"),
                (everyone, SERVER_BYTES, f"{mega(SERVER_BYTES)} MB of all visitors in {KEPT // 60} minutes"),
            ):
                if count > allowed:
                    raise MultiPartException(f"The maximum allowed size of uploads is {what}.")
            return message

        return counted

    def _forget(self, before: float) -> None:
        """Uploads whose files are deleted count no more."""
        while self._uploads and self._uploads[0][0] < before:
            _, visitor, sent = self._uploads.popleft()
            self._sent[visitor].subtract(sent)
            if not any(visitor == other for _, other, _ in self._uploads):
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
