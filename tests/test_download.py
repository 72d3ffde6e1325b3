"""The official archives, from a server on this machine that breaks off, refuses, or knows no ranges."""

import hashlib
import http.server
import io
import json
import re
import threading
import zipfile

import pytest
from PIL import Image

from core.data import download as vqa_download
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
    monkeypatch.setattr(vqa_download.time, "sleep", lambda seconds: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.cut, server.ranges = {}, [], None, True
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
    assert len(server.asked) == 2 and (tmp_path / "b.json").read_text() == "2"


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
        server.files[name + ".zip"] = zipped({name: (source / name).read_text()})
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
    with pytest.raises(SystemExit):  # seven training tasks: too few for 87 validation tasks
        make_data.main([*arguments, "--images", str(tmp_path / "coco"), "--download"])
    assert "built" in capsys.readouterr().out and len(server.asked) == 5
    assert json.loads((tmp_path / "built" / "meta_train.json").read_text()) == train
    assert len(json.loads((tmp_path / "built" / "images.json").read_text())["files"]) == 60


def test_the_official_archives_hold_what_the_builder_reads():
    assert {archive.pattern for archive in vqa_download.VQA_ARCHIVES} == set(VQA_FILES)
    for archive in (*vqa_download.VQA_ARCHIVES, *vqa_download.COCO_ARCHIVES):
        algorithm, digest = archive.checksum.split(":")
        assert len(digest) == 2 * hashlib.new(algorithm).digest_size and archive.name.endswith(".zip")
