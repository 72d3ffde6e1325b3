"""Pictures as a viewer shows them: RGB pixels, or an error in words that names the file.

Every picture comes in here, from a file or as a PIL image: of the page, the API, the command line, datasets, encoders.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

# How pictures become pixels. Features of pictures are valid for one way of reading them: change it with the pixels.
READING = "first frame, upright, 8 bits, on white"
# What Pillow raises, depending on the format, at a file that is damaged or no picture at all.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
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
# Pictures that people have and Pillow does not read, by where in the file which bytes are.
_HEIC = "a HEIC picture, as phones take them; save it as JPEG (iPhone: Settings, Camera, Formats, Most Compatible)"
_FOREIGN: tuple[tuple[int, tuple[bytes, ...], str], ...] = (
    (4, tuple(b"ftyp" + brand for brand in (b"hei", b"hev", b"mif1", b"msf1")), _HEIC),
    (4, (b"ftypavi",), "an AVIF picture, which this installation of Pillow does not read; save it as JPEG"),
    (4, (b"ftyp",), "a video; save one of its frames as JPEG"),
    (0, (b"\xff\x0a", b"\0\0\0\x0cJXL "), "a JPEG XL picture; save it as JPEG"),
    (0, (b"<svg", b"<?xml", b"\xef\xbb\xbf<svg", b"\xef\xbb\xbf<?xml"), "an SVG drawing; save it as PNG"),
    (0, (b"%PDF",), "a PDF document; save its page as PNG"),
)
_HEAD = 16  # bytes that tell
_SAVE = "save it with 8 or 16 bits a channel"
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF


class PictureError(ValueError):
    """A picture whose pixels do not say how it looks; the message says why, and what to do."""


def read_image(
    path: Path | str,
    *,
    max_pixels: int | None = None,
    formats: Sequence[str] | None = None,
    enough: int | None = None,
) -> Image.Image:
    """The picture in a file, as `as_shown` has it; of an animation the first frame.

    Args:
        formats: Pillow's names of those that may be tried (default: all).
        enough: pixels of the shorter side that serve. A JPEG is decoded at a half, a quarter or an eighth of its size
            where that leaves as many, which saves most of the time and memory of a photograph from a phone.

    Raises:
        ValueError: no such file, not a picture, a damaged one, one of a kind that is not read, or more than
            `max_pixels`, of which none is decoded then; the message names the file.
    """
    try:
        with Image.open(path, formats=formats) as image:
            width, height = image.size  # the header's: a small file can hold a picture that fills the memory
            if max_pixels is None or width * height <= max_pixels:
                if enough is not None:
                    image.draft(None, (enough, enough))  # of no effect on other formats
                if image.info.get("default_image"):  # an animated PNG whose first picture is for old programs
                    image.seek(1)
                return as_shown(image)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (PermissionError, IsADirectoryError) as error:
        raise ValueError(f"{path}: not an image that can be read ({error.strerror})") from None
    except PictureError as error:
        raise ValueError(f"{path}: {error}") from None
    except Image.DecompressionBombError:  # Pillow's own limit is twice that at which it warns
        limit = 2 * Image.MAX_IMAGE_PIXELS
        raise ValueError(f"{path}: over {_mega(limit)}; allowed: up to {_mega(max_pixels or limit)}") from None
    except UNREADABLE:
        raise ValueError(f"{path}: not an image that can be read{_foreign(path)}") from None
    size = f"{width} x {height} pixels, {_mega(width * height)}"
    raise ValueError(f"{path}: {size}; allowed: up to {_mega(max_pixels)}")


def as_shown(image: Image.Image) -> Image.Image:
    """A picture as a viewer shows it, RGB: upright, since phones write down how they were held and leave the pixels on
    their side; 16 bits a channel brought to 8; what is transparent on white. Colours are taken for sRGB, whatever
    profile is embedded. The result carries nothing but pixels, so that it stays as it is when it comes in again.

    Raises:
        PictureError: numbers that no viewer agrees on how to show, or colours that Pillow does not turn to RGB.
    """
    if 0 in image.size:
        raise PictureError("it has no pixels")
    deep = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))  # told only before it is decoded
    image.load()
    turn = _TURNS.get(_orientation(image))  # none of a TIFF file: Pillow turns it as it decodes
    if image.mode[0] in "IF":
        image = _eight_bits(image)
    try:
        if image.has_transparency_data:
            key = image.info.get("transparency")
            if image.mode == "RGB" and deep and isinstance(key, tuple):  # Pillow halves pixels, not this colour
                image.info["transparency"] = tuple(value >> 8 for value in key)
            painted = image.convert("RGBA")
            image = Image.new("RGB", painted.size, "white")
            image.paste(painted, mask=painted.getchannel("A"))
        result = (image if turn is None else image.transpose(turn)).convert("RGB")
    except ValueError:
        raise PictureError(f"its colours ({image.mode}) cannot be shown; save it with RGB colours") from None
    result.info = {}
    return result


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey numbers of more than 8 bits as L or, where one of them means transparent, LA; a PictureError for numbers
    of no known range: shown by their smallest and largest, two pictures of one thing would look unlike."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image).astype(np.float32)  # (H, W)
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise PictureError(f"its pixels are floating-point numbers beyond 0 to 1; {_SAVE}")
        top = 1
    elif image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):  # these say I where they mean 16 bits
        top = 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    else:
        raise PictureError(f"its pixels are whole numbers of 32 bits, or with a sign; {_SAVE}")
    shares = np.clip(values / top, 0, 1)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        shares = 1 - shares
    grey = Image.fromarray(np.round(255 * shares).astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def _orientation(image: Image.Image) -> int | None:
    """What the EXIF data of a picture says; None where there is none, or none that can be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except UNREADABLE:
        return None


def _foreign(path: Path | str) -> str:
    """What a file is that is no picture to Pillow, as the end of a message; empty if that is not known."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError):
        return ""
    return next((f": it is {what}" for at, marks, what in _FOREIGN if head[at:].startswith(marks)), "")


def _mega(pixels: int) -> str:
    return f"{pixels / 1e6:.5g} megapixels"
