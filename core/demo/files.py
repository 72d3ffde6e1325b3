"""What visitors send and fetch: pictures, adapter files."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..data.images import read_image
from ..generator import Adapter, AdapterGenerator
from .ask import check_count

# A few kilobytes can hold a picture that fills the memory once it is decoded, so its size is limited, too.
MAX_PIXELS = 25_000_000
MAX_SIDE = 1024  # pixels of what is kept of a picture, more than any CLIP looks at
ENOUGH = 512  # pixels of the shorter side, for any CLIP and for what the page shows
Image.init()  # makes all formats known
# Not all that Pillow reads: an ICO file says nothing reliable about its size, an EPS file is a program.
FORMATS = tuple(name for name in ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP") if name in Image.OPEN)


class Downloads:
    """The latest adapters as files, named after their questions; older ones go, so that a server's disk never fills."""

    def __init__(self, keep: int = 64) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="adapters-")
        self._keep = keep

    def save(self, adapter: Adapter) -> Path:
        """Write an adapter; returns its path. State is on disk alone: forked workers share it."""
        slug = re.sub(r"[^a-z0-9]+", "-", adapter.provenance["question"].lower()).strip("-")[:60]
        root = Path(self._directory.name)
        path = Path(tempfile.mkdtemp(dir=root)) / f"{slug or 'adapter'}.safetensors"
        adapter.save(path)
        for old in sorted(root.iterdir(), key=lambda folder: folder.stat().st_mtime_ns)[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)
        return path


def read_pictures(paths: Sequence[str | Path] | None) -> list[Image.Image]:
    """The pictures in files, shrunk to `MAX_SIDE` pixels.

    Raises:
        ValueError: none came, too many, one is no picture or has too many pixels; the message names the file, not its
            folder. Nothing is decoded before its size is known.
    """
    if not paths:
        raise ValueError("please add at least one picture")
    check_count(len(paths))
    images = []
    for path in map(Path, paths):
        try:
            image = read_image(path, max_pixels=MAX_PIXELS, formats=FORMATS, enough=ENOUGH)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{path.parent}/", "")) from None
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        images.append(image)
    return images


def open_adapter(path: str | Path | None, generator: AdapterGenerator) -> Adapter:
    """The adapter in a file; a ValueError that names the file, not its folder, if it is none or fits another model."""
    if not path:
        raise ValueError("please choose an adapter file (.safetensors), such as one downloaded from the Ask tab")
    path = Path(path)
    try:
        adapter = Adapter.load(path, generator.backbone)
        if adapter.network != generator.network:
            raise ValueError(f"{path}: an adapter of another size than this release's")
    except FileNotFoundError:
        raise ValueError(f"{path.name}: no such file") from None
    except ValueError as error:
        raise ValueError(str(error).replace(f"{path.parent}/", "")) from None
    return adapter
