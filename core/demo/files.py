"""What visitors send and fetch: pictures, adapter files."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from PIL import Image

from ..classifier import OtherBackbone
from ..data.images import UNREADABLE, read_image
from ..generator import Adapter, AdapterGenerator
from .ask import check_count
from .door.temporary import temporary_folder
from .limits import ADAPTERS, MAX_PIXELS, MAX_TOTAL_PIXELS, mega
from .world import TITLES

MAX_SIDE = 1024  # pixels of what is kept of a picture, more than any CLIP looks at
ENOUGH = 512  # pixels of the shorter side, for any CLIP and for what the page shows
Image.init()  # makes all formats known
# Not all that Pillow reads: an ICO file says nothing reliable about its size, an EPS file is a program.
FORMATS = tuple(name for name in ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP") if name in Image.OPEN)


class Downloads:
    """The latest adapters as files, named after their questions; older ones go, so that a server's disk never fills."""

    def __init__(self, keep: int = ADAPTERS) -> None:
        self._directory = temporary_folder() / f"adapters-{uuid4().hex}"  # where Gradio serves it from, without a copy
        self._keep = keep

    def save(self, adapter: Adapter) -> Path:
        """Write an adapter; returns its path. State is on disk alone: forked workers share it, and each may find that
        another has removed what it looks at."""
        slug = re.sub(r"[^a-z0-9]+", "-", adapter.provenance["question"].lower()).strip("-")[:60]
        self._directory.mkdir(mode=0o700, exist_ok=True)
        path = Path(tempfile.mkdtemp(dir=self._directory)) / f"{slug or 'adapter'}.safetensors"
        adapter.save(path)
        ages = {}
        for folder in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                for file in folder.iterdir():  # no folder whose file is still to be written
                    ages[folder] = file.stat().st_mtime_ns
        for old in sorted(ages, key=ages.__getitem__)[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)
        return path


def read_pictures(paths: Sequence[str | Path] | None) -> list[Image.Image]:
    """The pictures in files, shrunk to `MAX_SIDE` pixels.

    Raises:
        ValueError: none came, too many, one is no picture or has too many pixels, or all have; the message names the
            file, not its folder. Nothing is decoded before its size is known.
    """
    if not paths:
        raise ValueError("please add at least one picture")
    check_count(len(paths))
    sizes = [_pixels(path) for path in paths]
    if max(sizes) <= MAX_PIXELS and sum(sizes) > MAX_TOTAL_PIXELS:
        allowed = f"allowed: up to {mega(MAX_TOTAL_PIXELS)} megapixels at once"
        raise ValueError(f"{len(paths)} pictures of {mega(sum(sizes))} megapixels; {allowed}")
    images = []
    for path in map(Path, paths):
        try:
            image = read_image(path, max_pixels=MAX_PIXELS, formats=FORMATS, enough=ENOUGH)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{path.parent}/", "")) from None
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        images.append(image)
    return images


def _pixels(path: str | Path) -> int:
    """How many a picture's header says; 0 where it says nothing."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height
    except UNREADABLE:
        return 0


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
    except OtherBackbone as error:
        if error.preset in TITLES:
            title = TITLES[error.preset]
            raise ValueError(f"{path.name}: an adapter of {title}, and this is another world; open it there") from None
        raise ValueError(str(error).replace(f"{path.parent}/", "")) from None
    except ValueError as error:
        raise ValueError(str(error).replace(f"{path.parent}/", "")) from None
    return adapter
