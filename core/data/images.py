"""Pictures in files: RGB pixels, or an error in words that names the file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags, Image

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
# What brings a picture upright, by the orientation that its EXIF data names.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(
    path: Path | str,
    *,
    max_pixels: int | None = None,
    formats: Sequence[str] | None = None,
    enough: int | None = None,
) -> Image.Image:
    """The picture in a file, RGB, upright: phones write down how they were held, and leave the pixels on their side.

    Args:
        formats: Pillow's names of those that may be tried (default: all).
        enough: pixels of the shorter side that serve. A JPEG is decoded at a half, a quarter or an eighth of its size
            where that leaves as many, which saves most of the time and memory of a photograph from a phone.

    Raises:
        ValueError: no such file, not a picture, a damaged one, or more than `max_pixels`, of which none is decoded
            then; the message names the file.
    """
    try:
        with Image.open(path, formats=formats) as image:
            width, height = image.size  # the header's: a small file can hold a picture that fills the memory
            if max_pixels is None or width * height <= max_pixels:
                if enough is not None:
                    image.draft(None, (enough, enough))  # of no effect on other formats
                image.load()
                turn = _TURNS.get(_orientation(image))
                return (image if turn is None else image.transpose(turn)).convert("RGB")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except Image.DecompressionBombError:  # Pillow's own limit is twice that at which it warns
        limit = 2 * Image.MAX_IMAGE_PIXELS
        raise ValueError(f"{path}: over {_mega(limit)}; allowed: up to {_mega(max_pixels or limit)}") from None
    except UNREADABLE:
        raise ValueError(f"{path}: not an image that can be read") from None
    size = f"{width} x {height} pixels, {_mega(width * height)}"
    raise ValueError(f"{path}: {size}; allowed: up to {_mega(max_pixels)}")


def _orientation(image: Image.Image) -> int | None:
    """What the EXIF data of a loaded picture says; None where there is none, or none that can be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except UNREADABLE:
        return None


def _mega(pixels: int) -> str:
    return f"{pixels / 1e6:.5g} megapixels"
