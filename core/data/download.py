"""The official archives of VQA v2 and COCO 2014: fetched with resume, checked, unpacked."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from .vqa_v2 import annotation_file, question_file

_ATTEMPTS, _CHUNK, _TIMEOUT = 6, 1 << 20, 60.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Archive:
    """One zip file. `checksum` is "ALGORITHM:DIGEST"; unpacked, `pattern` matches `count` files; `size` is in bytes."""

    url: str
    checksum: str
    pattern: str
    count: int = 1
    size: int = 0

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def is_unpacked(self, directory: Path) -> bool:
        return sum(1 for _ in directory.glob(self.pattern)) >= self.count


_VQA = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2_"  # linked from https://visualqa.org/download.html
VQA_ARCHIVES = (
    Archive(
        _VQA + "Questions_Train_mscoco.zip",
        "sha256:05a64b6e2582d06d7585f5429674a9a33851878be1bff9f8668cdcf792df611e",
        question_file("train2014"),
    ),
    Archive(
        _VQA + "Questions_Val_mscoco.zip",
        "sha256:e71f6c5c3e97a51d050f28243e262b28cd0c48d11a6b4632d769d30d3f93222a",
        question_file("val2014"),
    ),
    Archive(
        _VQA + "Annotations_Train_mscoco.zip",
        "sha256:fb101bcefe91422c543c2bb6d70af11eb3119d0ff745ae283d09acdf66250853",
        annotation_file("train2014"),
    ),
    Archive(
        _VQA + "Annotations_Val_mscoco.zip",
        "sha256:0caae7c8d1dafd852727f5ac046bc1efca9b72026bd6ffa34fc489f3a7b3291e",
        annotation_file("val2014"),
    ),
)
COCO_ARCHIVES = (
    Archive(
        "http://images.cocodataset.org/zips/train2014.zip",
        "md5:0da8c0bd3d6becc4dcb32757491aca88",
        "train2014/*.jpg",
        count=82_783,
        size=13_510_573_713,
    ),
    Archive(
        "http://images.cocodataset.org/zips/val2014.zip",
        "md5:a3d79f5ed8d289b7a7554ce06a5782b3",
        "val2014/*.jpg",
        count=40_504,
        size=6_645_013_297,
    ),
)


def download(archives: Iterable[Archive], directory: Path) -> None:
    """Bring every archive's files into `directory`, skipping those that are there; archives go once unpacked.

    Raises:
        ValueError: an archive cannot be fetched, has another checksum, is damaged, or does not fit on the disk.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        if archive.is_unpacked(directory):
            continue
        path = directory / archive.name
        here = sum(file.stat().st_size for file in directory.glob(f"{archive.name}*"))
        needed, free = 2 * archive.size - here, shutil.disk_usage(directory).free  # the archive and what is in it
        if free < needed:
            raise ValueError(f"{directory}: {archive.name} needs {needed:,} bytes of disk, {free:,} are free")
        if not path.is_file():
            fetch(archive.url, path, archive.checksum)
        unpack(path, directory)
        if not archive.is_unpacked(directory):
            raise ValueError(f"{path}: unpacked, but it has no {archive.count:,} files {archive.pattern}")
        path.unlink()


def fetch(url: str, path: Path, checksum: str) -> None:
    """Download `url` to `path`, going on where an earlier call stopped (in `path`.part), and check it.

    Raises:
        ValueError: the server refuses or stays busy, the connection keeps breaking, or the checksum differs.
    """
    part = path.with_name(path.name + ".part")
    try:
        persistently(url, lambda: _go_on(url, part))
    except ConnectionError as error:
        kept = f"; {part} keeps what came, run again to go on" if part.is_file() else ""
        raise ValueError(f"{error}{kept}") from None
    algorithm, expected = checksum.split(":")
    digest = hashlib.new(algorithm)
    with part.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    found = digest.hexdigest()
    if found != expected:
        part.unlink()
        raise ValueError(f"{url}: {algorithm} is {found}, expected {expected}; removed, run again")
    part.replace(path)


def persistently(url: str, ask: Callable[[], _T]) -> _T:
    """What `ask` returns, which asks a server for `url`. It is called again, after a pause that doubles, where that may
    help: the connection broke, or the server is busy or in trouble (429, 500 and above).

    Raises:
        ValueError: the server refuses; asking again changes nothing.
        ConnectionError: it did not help; says what the last trouble was.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(2 ** (attempt - 1))
        try:
            return ask()
        except urllib.error.HTTPError as error:
            error.close()
            problem = f"the server says {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                raise ValueError(f"{url}: {problem}") from None
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
    raise ConnectionError(f"{url}: {problem}")


def unpack(path: Path, directory: Path) -> None:
    """Unpack a zip file's files, checked by their CRC; those that are there in full are skipped.

    Raises:
        ValueError: a damaged archive, or a member that would lie outside `directory`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in tqdm(members, desc=f"unpacking {path.name}", unit="file", mininterval=1, leave=False):
                target = directory / member.filename
                if not target.resolve().is_relative_to(directory.resolve()):
                    raise ValueError(f"{path}: member {member.filename!r} lies outside the archive")
                if target.is_file() and target.stat().st_size == member.file_size:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(target.name + ".tmp")
                with archive.open(member) as source, temporary.open("wb") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
                temporary.replace(target)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it and run again") from None


def _go_on(url: str, part: Path) -> None:
    """Append to `part` what the server has beyond it. An OSError if the connection closes early."""
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{start}":
            return  # nothing is left to fetch
        if error.code == 416:
            part.unlink()
            raise OSError("what came before is longer than the file; starting again") from None
        raise
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise OSError(f"asked for bytes from {start}, got {response.headers.get('Content-Range')!r}")
        start = start if resumed else 0  # a server without ranges sends all of it again
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                desc=part.stem, total=total, initial=start, unit="B", unit_scale=True, mininterval=1, leave=False
            ) as bar,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise OSError(f"the connection closed at byte {size:,} of {total:,}")
