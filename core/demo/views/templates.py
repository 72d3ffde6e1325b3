"""Templates become HTML here. All that goes into one is escaped, unless it is a finished piece of HTML itself."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

FOLDER = Path(__file__).parent / "templates"
STYLE = Path(__file__).parent / "style.css"


def tenths(share: float, rounded: Callable[[float], int]) -> str:
    """A share in percent with one digit behind the point, `rounded` up or down."""
    return f"{rounded(round(1000 * share, 6)) / 10:.1f}%"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=True,
    undefined=StrictUndefined,  # a value that a template misses is a mistake, not an empty text
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "fixed": lambda number, digits=0: f"{number:.{digits}f}",
    "percent": lambda share, digits=0: f"{100 * share:.{digits}f}%",
    "at_least": lambda share: tenths(share, math.ceil),
    "shortest": lambda number: f"{number:g}",
}


def render(template: str, **values: Any) -> Markup:
    """A template with its values, as HTML that other templates take over as it is.

    Raises:
        jinja2.TemplateNotFound: no such file under `FOLDER`.
        jinja2.UndefinedError: a value that the template uses is missing.
    """
    return Markup(_ENVIRONMENT.get_template(template).render(values))


def escape_html(text: str) -> str:
    """Text as HTML that shows it letter by letter, for what Gradio takes for HTML: warnings and errors."""
    return str(escape(text))


def escape_markdown(text: str) -> str:
    """Text that Markdown shows letter by letter: no formatting, no link, no HTML."""
    text = " ".join(text.split())  # a line that begins with a dash or a number would begin a list
    return re.sub(r"([!-,./:-@\[-`{-~])", r"\\\1", text)  # all punctuation of ASCII but the dash
