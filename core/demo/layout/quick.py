"""Importing Gradio in half of the time."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def without_stubs() -> Iterator[None]:
    """No interface files while Gradio is imported.

    Whenever it is imported, Gradio reads the sources of its components and writes a file for editors beside each: half
    of its import, for nothing here. It leaves out components whose file is not known, and so learns of none.
    """
    getfile = inspect.getfile

    def unknown(value: Any) -> str:
        if isinstance(value, type) and value.__module__.startswith("gradio."):
            raise OSError(f"{value} is in no file")
        return getfile(value)

    with patch.object(inspect, "getfile", unknown):
        yield
