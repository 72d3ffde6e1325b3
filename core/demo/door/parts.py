"""The parts of an upload, as the parser that Gradio uses finds them: what is counted here is what Gradio will keep."""

from __future__ import annotations

from collections import Counter

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.types import Scope


class Parts:
    """Counts the parts of one upload ("files"), and the bytes of those without a filename ("fields")."""

    def __init__(self, scope: Scope) -> None:
        """Of the request that `scope` describes.

        Raises:
            ValueError: the request does not say once, and only once, where its parts begin.
        """
        kinds = Headers(scope=scope).getlist("content-type")
        if len(kinds) > 1:  # which of them is read depends on who reads
            raise ValueError("an upload has one content-type header; this one has several")
        _, options = parse_options_header("".join(kinds))
        if not options.get(b"boundary"):
            raise ValueError("an upload has a content-type header that names a boundary; this one has none")
        self._count: Counter = Counter()
        self._is_file = False
        self._name = self._value = self._disposition = b""
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
            },
        )

    def read(self, body: bytes) -> Counter:
        """What the next bytes of the request add to the counts.

        Raises:
            ValueError: they are not what uploads are made of.
        """
        self._count = Counter(bytes=len(body), files=0, fields=0)
        if body:
            self._parser.write(body)
        return self._count

    def _begin(self) -> None:
        self._disposition = b""
        self._count["files"] += 1

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":  # the last of several, as in Gradio
            self._disposition = self._value
        self._name = self._value = b""

    def _headers_end(self) -> None:
        self._is_file = b"filename" in parse_options_header(self._disposition)[1]

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._count["fields"] += end - start
