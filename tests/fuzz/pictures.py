"""Random pictures in files, whole and damaged: each is read as RGB pixels or refused in one line that names it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from core.data.images import read_image

MAX_PIXELS = 1_000_000
_MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "ICO", "TGA", "JPEG2000", "PCX", "DDS", "SGI")
_ANIMATED = ("PNG", "GIF", "TIFF", "WEBP")
_MARKS = (
    b"",
    b"\0\0\0\x18ftypheic",
    b"<svg>",
    b"%PDF-1.7",
    b"\xff\x0a",
    b"GIF89a",
    b"\x89PNG\r\n\x1a\n",
    b"II*\0",
    b"P6\n",
)


def cases(seed: int, count: int) -> Iterator[bytes]:
    """`count` files: of random modes, formats, orientations and transparency, animated, cut, with bytes changed."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        if rng.random() < 0.1:
            yield bytes(rng.choice(_MARKS)) + rng.bytes(int(rng.integers(0, 300)))
            continue
        yield _damaged(rng, _file(rng))


def check(case: bytes) -> str:
    """ "result" for RGB pixels, "refused" for a ValueError of one line that names the file; AssertionError else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(case)
        try:
            image = read_image(path, max_pixels=MAX_PIXELS)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error), error
            return "refused"
        assert image.mode == "RGB" and 0 < image.width * image.height <= MAX_PIXELS and not image.info
        return "result"


def _file(rng: np.random.Generator) -> bytes:
    """A picture of a mode that its format takes, else of RGB."""
    size = tuple(int(side) for side in rng.integers(1, 40, 2))
    mode, format, buffer = str(rng.choice(_MODES)), str(rng.choice(_FORMATS)), io.BytesIO()
    noise = Image.frombytes("RGB", size, rng.bytes(3 * size[0] * size[1]))
    options: dict[str, object] = {}
    if rng.random() < 0.4:
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(0, 12))
        options["exif"] = exif
    if rng.random() < 0.3:
        options["transparency"] = 0
    if format in _ANIMATED and rng.random() < 0.3:
        options |= {"save_all": True, "append_images": [noise, noise.rotate(90)], "default_image": rng.random() < 0.5}
    for image, given in ((_in_mode(noise, mode, rng), options), (noise, {})):
        try:
            image.save(buffer, format, **given)
            return buffer.getvalue()
        except Exception:  # whatever Pillow raises where a format takes no such picture
            buffer = io.BytesIO()
    return b""


def _in_mode(noise: Image.Image, mode: str, rng: np.random.Generator) -> Image.Image:
    grey = np.asarray(noise.convert("L"))
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / rng.choice([255, 100, 1]))
    if mode in ("I", "I;16"):
        return Image.fromarray(grey.astype(np.int32 if mode == "I" else np.uint16) * int(rng.choice([1, 257])))
    if mode == "LAB":
        return Image.frombytes("LAB", noise.size, noise.tobytes())
    return noise.convert(mode)


def _damaged(rng: np.random.Generator, data: bytes) -> bytes:
    """As it is, cut, or with some bytes changed, most of them of the header."""
    damage = rng.choice(["none", "cut", "bytes"])
    if not data or damage == "none":
        return data
    if damage == "cut":
        return data[: int(rng.integers(0, len(data)))]
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        changed[int(rng.integers(0, min(len(data), int(rng.choice([80, 10_000])))))] = int(rng.choice([0, 1, 127, 255]))
    return bytes(changed)
