"""COCO 2014's photographs by name: where they lie, and fetched one by one."""

from __future__ import annotations

import io
import re
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from ..files import replacing
from .built import ImageFiles
from .download import persistently

COCO = "COCO's train2014 and val2014 images, http://images.cocodataset.org/zips/train2014.zip and .../val2014.zip"
SERVER = "http://images.cocodataset.org/"
SIDE, QUALITY = 256, 95  # of fetched pictures, in pixels; of their JPEG files

_NAME = re.compile(r"COCO_(train2014|val2014)_\d{12}")
_PLACES = ("train2014", "val2014", ".", "images/train2014", "images/val2014", "images")
_CONNECTIONS, _TIMEOUT = 8, 30.0


def coco_files(names: Iterable[str], root: Path | str) -> dict[str, str]:
    """Those of the images `names` that lie below `root`, in COCO's folders or flat, with or without an `images` folder
    between: files relative to `root`, by name.

    Raises:
        ValueError: none of them is there; the message says where was searched.
    """
    root, names = Path(root), list(names)
    found = _lying(root)
    result = {name: found[name] for name in names if name in found}
    if not result:
        raise _missing(names, names, root)
    return result


def find_coco(names: Sequence[str], root: Path | str) -> ImageFiles:
    """The files of all of the images `names` below `root`.

    Raises:
        ValueError: some are not there; the message counts them, names the first and says where was searched.
    """
    found = _lying(Path(root))
    missing = [name for name in names if name not in found]
    if missing:
        raise _missing(missing, names, Path(root))
    return ImageFiles(Path(root), tuple(found[name] for name in names))


def fetch_pictures(names: Sequence[str], root: Path) -> int:
    """Fetch those of the images `names` that are not below `root`, each by its name, scaled to 256 x 256 pixels without
    keeping the aspect. A call that is cut short leaves whole pictures, and the next one goes on.

    Returns:
        How many were fetched.

    Raises:
        ValueError: a name that is not COCO's, the server refuses or stays busy, the connection keeps breaking, or
            something else than a picture comes.
    """
    strange = [name for name in names if not _NAME.fullmatch(name)]
    if strange:
        raise ValueError(f"{strange[0]!r} is no name of an image of COCO's train2014 or val2014")
    root.mkdir(parents=True, exist_ok=True)
    there = _lying(root)
    wanted = [name for name in names if name not in there]
    with (
        ThreadPoolExecutor(_CONNECTIONS) as pool,
        tqdm(desc="photographs", total=len(names), initial=len(names) - len(wanted), unit="file", leave=False) as bar,
    ):
        futures = [pool.submit(_fetch_picture, name, root / f"{name}.jpg") for name in wanted]
        try:
            for future in as_completed(futures):
                future.result()
                bar.update()
        except ValueError as error:
            pool.shutdown(cancel_futures=True)
            count = sum(name in _lying(root) for name in names)
            raise ValueError(f"{error}; {count:,} of {len(names):,} are in {root}, run again to go on") from None
        except BaseException:  # the user's interrupt: do not wait for thousands of others
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return len(wanted)


def _fetch_picture(name: str, path: Path) -> None:
    """Fetch one picture, scaled, into `path`."""
    from PIL import Image

    from .images import UNREADABLE, as_shown

    url = f"{SERVER}{_NAME.fullmatch(name)[1]}/{name}.jpg"
    content = _content(url)
    try:
        with Image.open(io.BytesIO(content)) as image:
            # Pillow's bicubic filter widens when it scales down, so that nothing aliases
            scaled = as_shown(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    except UNREADABLE:
        raise ValueError(f"{url}: what came is no picture ({len(content):,} bytes)") from None
    with replacing(path, sweep=False) as partial:  # among so many thousands sweeping takes longer than fetching
        scaled.save(partial, format="JPEG", quality=QUALITY)


def _content(url: str) -> bytes:
    """What lies at `url`; a ValueError if the server refuses or stays busy, or if the connection keeps breaking."""

    def ask() -> bytes:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            return response.read()

    try:
        return persistently(url, ask)
    except ConnectionError as error:
        raise ValueError(str(error)) from None


def _lying(root: Path) -> dict[str, str]:
    """All picture files in the folders below `root` where COCO's may lie, relative to it, by name."""
    found: dict[str, str] = {}
    for folder in _searched(root):
        for file in folder.iterdir():
            if file.suffix.lower() in (".jpg", ".jpeg", ".png"):
                found.setdefault(file.stem, file.relative_to(root).as_posix())
    return found


def _searched(root: Path) -> list[Path]:
    return [folder for place in _PLACES if (folder := root / place).is_dir()]


def _missing(missing: Sequence[str], names: Sequence[str], root: Path) -> ValueError:
    searched = ", ".join(map(str, _searched(root))) or f"nothing, there is no directory {root}"
    return ValueError(
        f"--images {root}: {len(missing):,} of {len(names):,} images are missing, such as {missing[0]}.jpg; searched "
        f"{searched}. They are {COCO}; --download fetches them"
    )
