"""Pictures in files: RGB pixels, or an error in words that names the file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

# What Pillow raises, depending on the format, at a file that is damaged or no picture at all.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(path: Path | str, *, max_pixels: int | None = None, formats: Sequence[str] | None = None) -> Image.Image:
    """The picture in a file, RGB. `formats` are Pillow's names of those that may be tried (default: all).

    Raises:
        ValueError: no such file, not a picture, a damaged one, or more than `max_pixels`, of which none is decoded
            then; the message names the file.
    """
    try:
        with Image.open(path, formats=formats) as image:
            width, height = image.size  # the header's: a small file can hold a picture that fills the memory
            if max_pixels is None or width * height <= max_pixels:
                return image.convert("RGB")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except Image.DecompressionBombError:  # Pillow's own limit is twice that at which it warns
        limit = 2 * Image.MAX_IMAGE_PIXELS
        raise ValueError(f"{path}: over {_mega(limit)}; allowed: up to {_mega(max_pixels or limit)}") from None
    except UNREADABLE:
        raise ValueError(f"{path}: not an image that can be read") from None
    size = f"{width} x {height} pixels, {_mega(width * height)}"
    raise ValueError(f"{path}: {size}; allowed: up to {_mega(max_pixels)}")


def _mega(pixels: int) -> str:
    return f"{pixels / 1e6:.5g} megapixels"
