"""The official archives, from a server on this machine that breaks off, refuses, or knows no ranges."""

import errno
import hashlib
import http.server
import io
import json
import re
import threading
import time
import zipfile

import pytest
from PIL import Image

from core.data import coco
from core.data import download as vqa_download
from core.data.built import image_names, read_dataset, write_dataset
from core.data.download import Archive, download, fetch
from core.data.vqa_v2 import VQA_FILES
from tests.test_meta_vqa import VQAFiles, small_split
from train import make_data


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; `server.cut` closes each connection after so many bytes."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        if server.busy > 0:
            server.busy -= 1
            return self.send_error(server.trouble)
        content = server.files.get(self.path.lstrip("/"))
        if content is None:
            return self.send_error(404)
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and server.ranges:
            start = int(asked[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.cut, server.ranges, server.pauses = {}, [], None, True, pauses
    server.busy, server.trouble = 0, 503  # so many answers are an error, of this number
    server.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


CONTENT = bytes(range(256)) * 20


def test_a_broken_connection_goes_on_where_it_was(server, tmp_path):
    server.files["a.zip"], server.cut = CONTENT, 2000
    fetch(server.url + "a.zip", tmp_path / "a.zip", sha256(CONTENT))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and not (tmp_path / "a.zip.part").exists()
    assert [asked for _, asked in server.asked] == [None, "bytes=2000-", "bytes=4000-"]


def test_another_call_goes_on_too(server, tmp_path):
    server.files["a.zip"], server.cut = CONTENT, 100
    with pytest.raises(ValueError, match=r"closed at byte 600 of 5,120; .*a.zip.part keeps what came"):
        fetch(server.url + "a.zip", tmp_path / "a.zip", sha256(CONTENT))
    server.cut = None
    fetch(server.url + "a.zip", tmp_path / "a.zip", sha256(CONTENT))
    assert server.asked[-1][1] == "bytes=600-" and (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("there", [0, 50, len(CONTENT), len(CONTENT) + 4])
@pytest.mark.parametrize("ranges", [True, False])
def test_whatever_is_there_the_file_comes_out_whole(server, tmp_path, there, ranges):
    server.files["a.zip"], server.ranges = CONTENT, ranges
    (tmp_path / "a.zip.part").write_bytes((CONTENT + b"more")[:there])
    fetch(server.url + "a.zip", tmp_path / "a.zip", sha256(CONTENT))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_another_checksum_is_refused_and_removed(server, tmp_path):
    server.files["a.zip"] = CONTENT
    with pytest.raises(ValueError, match="a.zip: md5 is .*, expected 00"):
        fetch(server.url + "a.zip", tmp_path / "a.zip", "md5:00")
    assert not list(tmp_path.iterdir())


def test_refusals_are_not_tried_again(server, tmp_path):
    with pytest.raises(ValueError, match="b.zip: the server says 404"):
        fetch(server.url + "b.zip", tmp_path / "b.zip", "md5:00")
    assert len(server.asked) == 1


@pytest.fixture(params=["an archive", "a photograph"])
def downloader(request, photographs, tmp_path):
    """Fetches one file from the server and says where it lies: both ways to do so."""

    def archive():
        photographs.files["a.zip"] = CONTENT
        fetch(photographs.url + "a.zip", tmp_path / "a.zip", sha256(CONTENT))
        return tmp_path / "a.zip"

    def photograph():
        assert coco.fetch_pictures(NAMES[:1], tmp_path) == 1
        return tmp_path / f"{NAMES[0]}.jpg"

    return archive if request.param == "an archive" else photograph


@pytest.mark.parametrize("trouble", [429, 500, 503])
def test_every_downloader_asks_a_busy_server_again(downloader, server, tmp_path, trouble):
    server.busy, server.trouble = 3, trouble
    path = downloader()
    assert server.pauses == [1, 2, 4] and len(server.asked) == 4 and [*tmp_path.iterdir()] == [path]
    server.busy = 100
    path.unlink()
    with pytest.raises(ValueError, match=f"the server says {trouble} (?!.*keeps what came)"):
        downloader()
    assert server.busy == 94 and not [*tmp_path.iterdir()]


@pytest.mark.parametrize("trouble", [400, 403, 404, 410])
def test_no_downloader_asks_again_where_it_is_refused(downloader, server, tmp_path, trouble):
    server.busy, server.trouble = 1, trouble
    with pytest.raises(ValueError, match=f"the server says {trouble} "):
        downloader()
    assert len(server.asked) == 1 and not server.pauses and not [*tmp_path.iterdir()]


def test_what_came_before_the_server_was_busy_is_kept(server, tmp_path):
    server.files["a.zip"], server.busy = CONTENT, 100
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:100])
    with pytest.raises(ValueError, match=r"says 503 .*; .*a.zip.part keeps what came, run again to go on"):
        fetch(server.url + "a.zip", tmp_path / "a.zip", sha256(CONTENT))
    assert (tmp_path / "a.zip.part").read_bytes() == CONTENT[:100]
    server.busy = 1
    fetch(server.url + "a.zip", tmp_path / "a.zip", sha256(CONTENT))
    assert {asked for _, asked in server.asked} == {"bytes=100-"} and (tmp_path / "a.zip").read_bytes() == CONTENT


def test_what_is_there_is_not_fetched(server, tmp_path):
    content = zipped({"a.json": "1", "b.json": "2"})
    server.files["a.zip"] = content
    archive = Archive(server.url + "a.zip", sha256(content), "*.json", count=2)
    download([archive], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json"}
    download([archive], tmp_path)
    assert len(server.asked) == 1
    (tmp_path / "b.json").unlink()
    download([archive], tmp_path)
    assert len(server.asked) == 2 and (tmp_path / "b.json").read_text(encoding="utf-8") == "2"


def test_bad_archives(server, tmp_path):
    for content, count, message in (
        (b"no zip", 1, "damaged"),
        (zipped({"../out.json": "1"}), 1, "outside"),
        (zipped({"a.json": "1"}), 2, "no 2 files"),
    ):
        server.files["a.zip"] = content
        with pytest.raises(ValueError, match=message):
            download([Archive(server.url + "a.zip", sha256(content), "*.json", count)], tmp_path / "into")
        assert not (tmp_path / "out.json").exists()
        (tmp_path / "into" / "a.zip").unlink()
    with pytest.raises(ValueError, match="needs .* bytes of disk"):
        download([Archive(server.url + "a.zip", "md5:00", "*.json", size=10**18)], tmp_path / "other")


def test_make_data_downloads_and_builds(server, tmp_path, monkeypatch, capsys):
    files, source = VQAFiles(), tmp_path / "source"
    train, test = small_split()
    files.add_split(train, test)
    source.mkdir()
    files.write(source)
    Image.new("RGB", (4, 4)).save(source / "picture.jpg")
    picture = (source / "picture.jpg").read_bytes()
    archives = []
    for name in VQA_FILES:
        server.files[name + ".zip"] = zipped({name: (source / name).read_text(encoding="utf-8")})
        archives.append(Archive(server.url + name + ".zip", sha256(server.files[name + ".zip"]), name))
    images = {f"train2014/COCO_train2014_{i:012d}.jpg": picture for i in range(60)}
    server.files["coco.zip"] = zipped(images)
    coco = Archive(server.url + "coco.zip", sha256(server.files["coco.zip"]), "train2014/*.jpg", count=60)
    monkeypatch.setattr(vqa_download, "VQA_ARCHIVES", tuple(archives))
    monkeypatch.setattr(vqa_download, "COCO_ARCHIVES", (coco,))
    arguments = ["--preset", "metavqa", "--output", str(tmp_path / "built"), "--vqa-dir", str(tmp_path / "vqa")]
    with pytest.raises(SystemExit):
        make_data.main(arguments)
    assert "--download fetches them" in capsys.readouterr().err
    make_data.main([*arguments, "--images", str(tmp_path / "coco"), "--download"])
    assert "built" in capsys.readouterr().out and len(server.asked) == 5
    assert json.loads((tmp_path / "built" / "meta_train.json").read_text(encoding="utf-8")) == train
    assert len(json.loads((tmp_path / "built" / "images.json").read_text(encoding="utf-8"))["files"]) == 60


# -- single photographs ----------------------------------------------------------------------------------------------

NAMES = ["COCO_train2014_000000000009", "COCO_train2014_000000000025", "COCO_val2014_000000000042"]


@pytest.fixture
def photographs(server, monkeypatch):
    """A server that has three photographs: a strip at the left edge, fine stripes, and blue on the right."""
    monkeypatch.setattr(coco, "SERVER", server.url)
    for i, name in enumerate(NAMES):
        picture = Image.new("RGB", (640, 300 + i), "black")
        for x in range(0, 320, 2):
            picture.paste("white", (x, 0, x + 1, 400))
        picture.paste((250, 0, 0), (0, 0, 40, 400))
        picture.paste((0, 0, 250), (320, 0, 640, 400))
        stream = io.BytesIO()
        picture.save(stream, format="JPEG", quality=95)
        server.files[f"{name.split('_')[1]}/{name}.jpg"] = stream.getvalue()
    return server


def test_photographs_come_by_name_and_scaled(photographs, tmp_path):
    assert coco.fetch_pictures(NAMES, tmp_path / "coco") == 3
    assert sorted(path for path, _ in photographs.asked) == sorted(f"/{path}" for path in photographs.files)
    assert {path.name for path in (tmp_path / "coco").iterdir()} == {f"{name}.jpg" for name in NAMES}
    files = coco.find_coco(NAMES, tmp_path / "coco").files
    for file in files:
        with Image.open(tmp_path / "coco" / file) as image:
            assert image.size == (256, 256) and image.format == "JPEG"
            colours = {x: image.getpixel((x, 128)) for x in (4, 80, 216)}
        # all of the width is there, and stripes narrower than a pixel become grey
        expected = {4: (250, 0, 0), 80: (127, 127, 127), 216: (0, 0, 250)}
        assert all(colours[x] == pytest.approx(colour, abs=20) for x, colour in expected.items())


def test_photographs_that_are_there_are_not_fetched(photographs, tmp_path):
    (tmp_path / "train2014").mkdir()
    Image.new("RGB", (5, 5)).save(tmp_path / "train2014" / f"{NAMES[0]}.jpg")
    (tmp_path / f"{NAMES[1]}.jpg.123.tmp").write_bytes(b"half")  # of a call that was killed
    assert coco.fetch_pictures(NAMES, tmp_path) == 2 and coco.fetch_pictures(NAMES, tmp_path) == 0
    assert len(photographs.asked) == 2 and not any(NAMES[0] in path for path, _ in photographs.asked)


def test_a_refused_photograph_is_named_and_the_others_stay(photographs, tmp_path):
    missing = "COCO_val2014_000000000073"
    message = rf"{missing}.jpg: the server says 404 .*; 3 of 4 are in .*, run again to go on"
    coco.fetch_pictures(NAMES, tmp_path)
    with pytest.raises(ValueError, match=message):
        coco.fetch_pictures([*NAMES, missing], tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_busy_server_and_a_broken_connection_are_tried_again(photographs, tmp_path):
    photographs.busy = 2
    assert coco.fetch_pictures(NAMES[:1], tmp_path) == 1 and len(photographs.asked) == 3
    photographs.busy = 100
    with pytest.raises(ValueError, match="the server says 503"):
        coco.fetch_pictures(NAMES[1:2], tmp_path)
    photographs.busy, photographs.cut = 0, 500
    with pytest.raises(ValueError, match=rf"{NAMES[1]}.jpg: .*500 bytes read"):
        coco.fetch_pictures(NAMES[1:2], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAMES[0]}.jpg"]


def test_a_photograph_that_cannot_be_written_leaves_nothing(photographs, tmp_path, monkeypatch):
    def full(image, path, **settings):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match=rf"No space left on device: '.*{NAMES[0]}.jpg'"):
        coco.fetch_pictures(NAMES[:1], tmp_path)
    assert not [*tmp_path.iterdir()]


def test_what_is_no_photograph(photographs, tmp_path):
    photographs.files[f"train2014/{NAMES[0]}.jpg"] = b"<html>please log in</html>"
    with pytest.raises(ValueError, match=rf"{NAMES[0]}.jpg: what came is no picture"):
        coco.fetch_pictures(NAMES[:1], tmp_path)
    whole = photographs.files[f"train2014/{NAMES[1]}.jpg"]
    photographs.files[f"train2014/{NAMES[1]}.jpg"] = whole[: len(whole) // 2]
    with pytest.raises(ValueError, match=rf"{NAMES[1]}.jpg: what came is no picture"):
        coco.fetch_pictures(NAMES[1:2], tmp_path)
    for name in ("dog.jpg", "../x", "COCO_test2014_000000000001", NAMES[0] + "\n"):
        with pytest.raises(ValueError, match="is no name of an image of COCO"):
            coco.fetch_pictures([name], tmp_path)
    with pytest.raises(ValueError, match="http://127.0.0.1:1/"):
        coco.SERVER = "http://127.0.0.1:1/"  # nobody listens; the fixture puts the server back
        coco.fetch_pictures(NAMES[1:2], tmp_path)
    assert not list(tmp_path.iterdir())


def test_make_data_fetches_the_photographs_of_a_dataset(photographs, tmp_path, capsys):
    """As of the shipped one: the questions are there, the pictures come by one command."""
    train, test = small_split()
    images = image_names((train, test))
    picture = photographs.files[f"train2014/{NAMES[0]}.jpg"]
    photographs.files |= {f"train2014/{image}.jpg": picture for image in images}
    elsewhere, built = tmp_path / "elsewhere", tmp_path / "built"
    elsewhere.mkdir()
    for image in images:
        Image.new("RGB", (9, 7)).save(elsewhere / f"{image}.jpg")
    splits, files = {"train": train, "test": test}, coco.find_coco(images, elsewhere)
    write_dataset(built, splits, name="photos", source="s", prompts={}, images=files)
    (built / "images.json").unlink()
    before = read_dataset(built)
    flags = ["--preset", "photos", "--data", str(built), "--images", str(tmp_path / "coco")]
    make_data.main([*flags, "--download", "--preview", "--output", str(tmp_path / "sheet.png")])
    out = capsys.readouterr().out
    assert f"fetched {len(images)} of {len(images)} photographs" in out and "differ a little" in out
    assert read_dataset(built) == before and (tmp_path / "sheet.png").is_file()
    make_data.main([*flags, "--download"])
    assert "fetched 0 of" in capsys.readouterr().out and len(photographs.asked) == len(images)


def test_the_official_archives_hold_what_the_builder_reads():
    assert {archive.pattern for archive in vqa_download.VQA_ARCHIVES} == set(VQA_FILES)
    for archive in (*vqa_download.VQA_ARCHIVES, *vqa_download.COCO_ARCHIVES):
        algorithm, digest = archive.checksum.split(":")
        assert len(digest) == 2 * hashlib.new(algorithm).digest_size and archive.name.endswith(".zip")
