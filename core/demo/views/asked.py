"""What a result is the answer to, as HTML above it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from markupsafe import Markup
from PIL import Image

from .templates import render

_SIZE, _SHOWN = 112, 6  # pixels of a small picture, and how many are shown


def asked(question: str, settings: Sequence[str], images: Sequence[Image.Image] = ()) -> Markup:
    """The question, with the settings and the first of the pictures that it was asked with."""
    pictures = [_small(image) for image in images[:_SHOWN]]
    return render(
        "asked.html", question=question, settings=settings, pictures=pictures, more=len(images) - len(pictures)
    )


def counted(count: int, what: str) -> str:
    """A number of things: "1 example", "2 examples", "no examples"."""
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


def _small(image: Image.Image) -> str:
    """A picture as a small JPEG, as the address that an element takes."""
    shown = image.convert("RGB")
    shown.thumbnail((_SIZE, _SIZE))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
