"""Importing Gradio in half of the time."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import jinja2


@contextmanager
def quick_import() -> Iterator[None]:
    """While Gradio is imported: no files for editors, and each template of a docstring compiled once.

    Whenever it is imported, Gradio reads the sources of its components and writes a file for editors beside each. It
    leaves out components whose file is not known, and so learns of none. The docstrings of its events, about 220, are
    made of few templates.
    """
    getfile = inspect.getfile

    def unknown(value: Any) -> str:
        if isinstance(value, type) and value.__module__.startswith("gradio."):
            raise OSError(f"{value} is in no file")
        return getfile(value)

    with patch.object(inspect, "getfile", unknown), patch.object(jinja2, "Template", functools.cache(jinja2.Template)):
        yield
