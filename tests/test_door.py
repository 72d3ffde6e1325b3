"""The page's door: what requests of any shape can make it read, how much it takes, and what it keeps."""

import asyncio
import io
import json
import os
import threading
import time
import uuid

import httpx
import pytest
from PIL import Image
from starlette.formparsers import MultiPartException

from app import build_demo
from core.classifier import MAX_ANSWER
from core.demo import examples
from core.demo.api import endpoints
from core.demo.door import middleware, page, temporary
from core.demo.door.page import PROTECTION, admitted
from core.demo.files import Downloads, read_pictures
from core.demo.limits import (
    ADAPTERS,
    MAX_BODY,
    MAX_FIELDS,
    MAX_FILE,
    MAX_PICTURES,
    MAX_QUESTION,
    VISITOR_FILES,
    VISITS,
)
from core.demo.studio import Studio
from core.demo.views import about
from core.generator import AdapterGenerator
from eval.demo import soak
from tests.conftest import ROOT, launch

gr = pytest.importorskip("gradio")
QUESTION = "What colour is the badge behind the dog?"
META = {"_type": "gradio.FileData"}
FORM, FILE = "multipart/form-data; boundary=bar", 'form-data; name="files"; filename="a.png"'


@pytest.fixture(scope="module")
def generator():
    return AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji")


@pytest.fixture(scope="module")
def demo(generator):
    return build_demo(generator)


@pytest.fixture(scope="module")
def browser(demo):
    launch(demo)
    with httpx.Client(base_url=demo.local_url, timeout=60) as client:
        yield client
    demo.close()


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    path = tmp_path_factory.mktemp("private") / "secret.png"
    Image.new("RGB", (20, 20), "red").save(path)
    return path


def _send(browser, name="a.png", data=None, count=1):
    if data is None:
        buffer = io.BytesIO()
        Image.new("RGB", (20, 20), "red").save(buffer, "PNG")
        data = buffer.getvalue()
    return browser.post("/gradio_api/upload", files=[("files", (name, data, "image/png"))] * count)


def _body(*parts):
    """An upload of (content dispositions, bytes)."""
    body = b""
    for lines, data in parts:
        head = "".join(f"Content-Disposition: {line}\r\n" for line in lines.split("|"))
        body += f"--bar\r\n{head}\r\n".encode() + data + b"\r\n"
    return body + b"--bar--"


def _post(browser, body, *kinds):
    return browser.post("/gradio_api/upload", content=body, headers=[("content-type", kind) for kind in kinds])


def _written():
    """Files that uploads left without having come to an end."""
    return {path for path in temporary.temporary_folder().glob("tmp*") if path.is_file()}


def _upload(door, body, chunk=7):
    """Let an upload pass the door, in chunks."""
    chunks = [{"body": body[i : i + chunk]} for i in range(0, len(body), chunk)]

    async def receive():
        return chunks.pop(0)

    async def all_of_them():
        counted = door._upload({"client": ("1.2.3.4", 5), "headers": [(b"content-type", FORM.encode())]}, receive)
        while chunks:
            await counted()

    asyncio.run(all_of_them())


def _run(browser, number, data, visit=None, query=""):
    """Whether an event succeeds, and its output."""
    visit = visit or uuid.uuid4().hex
    body = {"data": data, "fn_index": number, "session_hash": visit}
    joined = browser.post(f"/gradio_api/queue/join{query}", json=body)
    if joined.status_code != 200:
        return False, joined.json()
    with browser.stream("GET", "/gradio_api/queue/data", params={"session_hash": visit}) as lines:
        for line in lines.iter_lines():
            message = json.loads(line[5:]) if line.startswith("data:") else {}
            if message.get("msg") == "process_completed":
                return message["success"], message["output"]
    raise AssertionError("no answer")


def _forms(path):
    """What a client may say instead of having uploaded a file."""
    yield {"path": path}
    yield {"path": path, "meta": META}
    yield {"path": path, "meta": {"_type": "gradio.ImageData"}}
    yield {"path": path, "meta": None}
    yield {"path": path, "is_stream": True, "meta": META}
    yield {"path": None, "url": path, "meta": META}
    yield {"url": f"http://127.0.0.1/gradio_api/file={path}", "meta": META}
    yield {"path": f"http://127.0.0.1/gradio_api/file={path}", "meta": META}
    yield {"path": f"file://{path}", "meta": META}
    yield {"path": os.path.relpath(path), "meta": META}
    yield {"path": f"{temporary.temporary_folder()}/../../../../../../../../..{path}", "meta": META}
    yield {"path": [path], "meta": META}
    yield {"path": path + "\0", "meta": META}
    yield {"path": "http://example.org/a.png", "url": "http://example.org/a.png", "meta": META}
    yield {"url": "data:image/png;base64,iVBORw0KGgo="}


def _wrapped(file):
    """A file as values of components hold it."""
    yield file
    yield [file]
    yield [{"image": file, "caption": None}]
    yield [{"video": file, "caption": None}]
    yield {"deeply": [[{"nested": file}]]}


def test_no_event_reads_what_was_not_uploaded(browser, demo, secret):
    """Every event, with a file first and last among its values, and one with every form of a file."""
    events = [event for event in demo.get_config_file()["dependencies"] if event["backend_fn"] and event["inputs"]]
    assert len(events) > 20
    for event in events:
        for place in {0, len(event["inputs"]) - 1}:
            data = [None] * len(event["inputs"])
            data[place] = [{"image": {"path": str(secret)}, "caption": None}]
            done, said = _run(browser, event["id"], data)
            assert not done and "only files that were uploaded here" in said["error"], (event["id"], place)
    ask = next(event for event in events if event["api_name"] == "ask")
    for form in _forms(str(secret)):
        done, said = _run(browser, ask["id"], [[{"image": form}], *[None] * (len(ask["inputs"]) - 1)])
        assert not done and "only files that were uploaded here" in said["error"], form


def test_no_value_of_any_shape_names_a_file_that_was_not_uploaded(secret):
    root = temporary.temporary_folder()
    for form in (form for file in _forms(str(secret)) for form in _wrapped(file)):
        with pytest.raises(ValueError, match="only files that were uploaded here"):
            admitted(form, root)


def test_no_route_reads_what_was_not_uploaded(browser, secret):
    values = {"question": QUESTION, "answers": ["a", "b"], "pictures": [{"path": str(secret), "meta": META}]}
    data = [*values.values(), "clip", None, 0]
    for route in ("call/classify", "call/v2/classify", "run/classify", "api/classify"):
        posted = browser.post(f"/gradio_api/{route}", json=values if "v2" in route else {"data": data})
        text = posted.text
        if posted.status_code == 200:
            text = browser.get(f"/gradio_api/call/classify/{posted.json()['event_id']}").text
        assert "probability" not in text and (posted.status_code != 200 or "only files" in text), route


def test_uploads_are_read_however_they_are_named(browser, demo, secret):
    (path,) = _send(browser).json()
    root = temporary.temporary_folder()
    link = root / "link.png"
    link.symlink_to(secret)
    with pytest.raises(ValueError, match="only files that were uploaded"):
        admitted({"path": str(link)}, root)
    plain = {"path": path, "orig_name": "a.png", "meta": META}
    for form in ({"path": path}, {"path": path, "meta": 3, "url": "http://elsewhere/"}):
        assert admitted([{"image": form}], root) == [{"image": plain}]
    assert admitted({"path": f"http://x/gradio_api/file={path}"}, root) == plain
    done, said = _run(
        browser,
        next(e["id"] for e in demo.get_config_file()["dependencies"] if e["api_name"] == "classify"),
        [QUESTION, ["red", "blue"], [{"path": path, "meta": META}], "clip", None, 0],
    )
    assert done and said["data"][0][0]["answer"] in ("red", "blue")


def test_values_that_no_answer_could_repeat(tmp_path):
    assert admitted({"a": ["x\ud800y", 1, None, True]}, tmp_path) == {"a": ["x?y", 1, None, True]}
    with pytest.raises(ValueError, match="nan; allowed: finite"):
        admitted([1.0, [float("nan")]], tmp_path)


@pytest.mark.parametrize(
    "route",
    ["deep_link?session_hash=a", "proxy=http://127.0.0.1/", "file=http://127.0.0.1/a", "file/HTTP://127.0.0.1/a"],
)
def test_routes_without_a_use_are_closed(browser, route):
    assert browser.get(f"/gradio_api/{route}").status_code == 404


def test_writing_routes_without_a_use_are_closed(browser):
    for route in ("component_server", "process_recording", "stream/abc", "vibe-edit", "run-history/connect"):
        assert browser.post(f"/gradio_api/{route}", json={}).status_code == 404
    assert browser.get("/monitoring/summary").status_code == 404
    assert browser.get(f"/gradio_api/file={ROOT / 'app.py'}").status_code == 403


def test_requests_are_bounded(browser, monkeypatch):
    before = _written()
    told = browser.post("/gradio_api/queue/join", json={"data": ["a" * MAX_BODY], "session_hash": "a", "fn_index": 0})
    assert told.status_code == 413 and "1 MB" in told.text
    assert _send(browser, data=b"a" * (MAX_FILE + 1)).status_code == 413
    assert _send(browser, count=MAX_PICTURES).status_code == 200
    told = _send(browser, count=MAX_PICTURES + 1)
    assert told.status_code == 413 and f"{MAX_PICTURES} files at once" in told.text
    for name, limit, word in (
        ("MAX_UPLOAD", 10**5, "0.1 MB at once"),
        ("VISITOR_BYTES", 10**5, "0.1 MB of one visitor"),
        ("VISITOR_FILES", 10, "10 files of one visitor"),
        ("SERVER_BYTES", 10**5, "0.1 MB of all visitors"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(middleware, name, limit)
            told = _send(browser, data=b"a" * 200_000)
            assert told.status_code == 413 and word in told.text, name
    assert _written() == before


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; xboundary=foo; boundary=bar",
        'multipart/form-data; x="boundary=foo"; boundary=bar',
        "multipart/form-data; boundary=foo; boundary=bar",
        'multipart/form-data; BOUNDARY = "bar"',
    ],
)
def test_files_are_counted_however_their_edge_is_named(browser, kind):
    before = _written()
    assert len(_post(browser, _body(*[(FILE, b"a")] * MAX_PICTURES), kind).json()) == MAX_PICTURES
    told = _post(browser, _body(*[(FILE, b"a")] * (MAX_PICTURES + 1)), kind)
    assert told.status_code == 413 and f"{MAX_PICTURES} files at once" in told.text
    assert _written() == before


def test_uploads_whose_edge_is_not_named_once_are_refused(browser):
    body = _body((FILE, b"a"))
    for kinds, word in (
        ((), "names a boundary"),
        (("multipart/form-data",), "names a boundary"),
        (("multipart/form-data; boundary=",), "names a boundary"),
        (("multipart/form-data; xboundary=bar",), "names a boundary"),
        ((FORM, "multipart/form-data; boundary=foo"), "header; this one has several"),
        ((FORM, FORM), "header; this one has several"),
        (("multipart/form-data; boundary=foo",), "The upload cannot be read"),
    ):
        told = _post(browser, body, *kinds)
        assert told.status_code == 400 and word in told.text, kinds
    assert _post(browser, body, FORM).status_code == 200


def test_no_upload_lowers_a_visitors_count():
    door = middleware.Door(None)
    for body in (b"", b"\r\n"):
        for _ in range(50):
            _upload(door, body)
    (mine,) = door._sent.values()
    assert mine["files"] == 0
    with pytest.raises(MultiPartException, match=f"{VISITOR_FILES} files of one visitor"):
        for _ in range(VISITOR_FILES // 16 + 1):
            _upload(door, _body(*[(FILE, b"")] * 16), chunk=1000)
    assert VISITOR_FILES < mine["files"] <= VISITOR_FILES + 16
    door._forget(time.monotonic())
    assert not door._uploads and not door._sent


def test_what_gradio_keeps_in_memory_is_bounded(browser):
    """Parts without a filename, by the last of several dispositions as Gradio has it; a file before them goes."""
    before, field = _written(), 'form-data; name="note"'
    for lines in (field, f"{FILE}|{field}"):
        assert _post(browser, _body((FILE, b"a"), (lines, b"b" * MAX_FIELDS)), FORM).status_code == 200
        for most in (MAX_FIELDS + 1, 3 * 10**6):
            told = _post(browser, _body((FILE, b"a"), (lines, b"b" * most)), FORM)
            assert told.status_code == 413 and f"{MAX_FIELDS} bytes in parts without a filename" in told.text, lines
    half = (field, b"b" * (MAX_FIELDS // 2))
    assert _post(browser, _body(half, half), FORM).status_code == 200
    assert _post(browser, _body(half, half, (field, b"b")), FORM).status_code == 413
    assert _post(browser, _body((f"{field}|{FILE}", b"b" * 10**6)), FORM).status_code == 200  # a file
    assert _written() == before


@pytest.mark.parametrize("chunk", [1, 7, 64, 5000])
def test_parts_are_counted_in_chunks_of_any_size(chunk):
    door = middleware.Door(None)
    _upload(door, _body((FILE, b"\r\n--ba" * 9), ('form-data; name="x"', b"\r\n--ba" * 5), (FILE, b"")), chunk)
    (mine,) = door._sent.values()
    assert (mine["files"], mine["fields"]) == (3, 30)


def test_an_hour_later_a_visitor_may_upload_again():
    door = middleware.Door(None)
    for _ in range(3):
        _upload(door, b"")
    assert len(door._uploads) == 3 and len(door._sent) == 1
    door._forget(time.monotonic())
    assert not door._uploads and not door._sent


def test_what_all_visitors_sent_is_counted_as_it_comes_and_goes(monkeypatch):
    door = middleware.Door(None)
    body = _body((FILE, b"a" * 1000))
    for _ in range(3):
        _upload(door, body)
    assert door._bytes == 3 * len(body)
    scope = {"type": "http", "headers": [(b"content-type", FORM.encode()), (b"x-forwarded-for", b"1" * 5000)]}

    async def receive():
        return {"body": body}

    slow = door._upload(scope, receive)  # it has not come when it is forgotten
    assert max(map(len, door._sent)) < 250
    door._forget(time.monotonic())
    asyncio.run(slow())
    assert door._bytes == 0 and not door._sent
    monkeypatch.setattr(middleware, "SERVER_BYTES", 2 * len(body))
    for _ in range(2):
        _upload(door, body)
    with pytest.raises(MultiPartException, match="of all visitors"):
        _upload(door, body)


def test_all_pixels_of_a_request_are_bounded(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(17)]
    for path in paths:
        Image.new("1", (5000, 5000)).save(path)
    with pytest.raises(ValueError, match="17 pictures of 425 megapixels; allowed: up to 400 megapixels at once"):
        read_pictures(paths)


# Memory and disk


def test_visits_and_unread_answers_are_forgotten(browser, demo, monkeypatch):
    number = next(e["id"] for e in demo.get_config_file()["dependencies"] if e["api_name"] == "suggest_answers")
    holder, queue = demo.app.state_holder, demo._queue
    assert holder.capacity == VISITS
    monkeypatch.setattr(holder, "capacity", 8)
    for visit in list(holder.session_data)[8:]:
        del holder.session_data[visit]
    for visit in range(12):
        _run(browser, number, [""], f"visit-{visit}")
    assert list(holder.session_data) == [f"visit-{visit}" for visit in range(4, 12)]
    monkeypatch.setattr(page, "UNREAD", 20)
    for _ in range(30):  # nobody fetches these: two messages each
        browser.post("/gradio_api/queue/join", json={"data": [""], "fn_index": number, "session_hash": "deaf"})
    done, said = _run(browser, number, [""], "listens")
    assert not done and "type a question" in said["error"]
    assert sum(messages.qsize() for messages in queue.pending_messages_per_session.values()) <= 20
    assert len(queue.pending_event_ids_session) <= 2


def test_answers_in_a_visits_memory_are_as_long_as_answers_may_be():
    assert examples.label([], ["a.png"], f" {'a' * MAX_ANSWER} ") == [("a.png", "a" * MAX_ANSWER)]
    with pytest.raises(ValueError, match=f"the right answer has {MAX_ANSWER + 1} characters; {MAX_ANSWER} are allowed"):
        examples.label([], ["a.png"], "a" * (MAX_ANSWER + 1))


def test_questions_in_a_visits_memory_are_as_long_as_questions_may_be(browser, demo):
    config = demo.get_config_file()
    tabs = {block["id"] for block in config["components"] if block["type"] == "tabitem"}
    opened = [event for event in config["dependencies"] if tabs & {number for number, _ in event["targets"]}]
    events = [event for event in opened if len(event["inputs"]) == 3]  # as `Question.follow` has them
    assert events
    allowed, long, other = "b" * MAX_QUESTION, "c" * (MAX_QUESTION + 1), "Where is the cat?"
    for event in events:
        visit, marks = uuid.uuid4().hex, []
        for theirs, answers, filled in (
            (allowed, "x, y", allowed),
            (long, "x, y", allowed),
            (allowed, "x, y", allowed),  # taken over already: an own one may be newer
            (allowed, "x, z", allowed),  # its answers are new
            (other, "x, z", other),
        ):
            done, said = _run(browser, event["id"], [theirs, answers, None], visit)
            assert done and long not in str(said["data"])
            filled_for, mark = (demo.app.state_holder[visit][number] for number in event["outputs"][2:])
            assert filled_for == filled and isinstance(mark, int)
            marks.append(mark)
        assert marks[0] == marks[1] == marks[2] and len(set(marks)) == 3


def test_old_files_go_and_what_the_page_shows_stays(tmp_path):
    for name in ("old/a.png", "old/kept.png", "young/a.png", "empty/deep/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a", encoding="utf-8")
        if "young" not in name:
            os.utime(tmp_path / name, (0, 0))
    kept = [str(tmp_path / "old" / "kept.png")]
    temporary.sweep(tmp_path, kept)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png")} == {"old/kept.png", "young/a.png"}
    for _ in range(4):  # folders go when they have been empty for as long
        time.sleep(0.02)
        temporary.sweep(tmp_path, kept, age=0.01)
    assert {p.name for p in tmp_path.iterdir()} == {"old"}


def test_the_temporary_folder_is_a_users_own_and_goes(tmp_path, monkeypatch):
    """Also of a process that was killed: the next one removes it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    left = tmp_path / f"question-to-adapter-{os.getuid()}-left"
    (left / "upload").mkdir(parents=True)
    os.utime(left, (0, 0))
    made = temporary._folder.__wrapped__()
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith(f"question-to-adapter-{os.getuid()}-") and folder.stat().st_mode & 0o777 == 0o700
    assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
    (folder / "a.png").touch()
    made.cleanup()
    assert not list(tmp_path.iterdir())


def test_savings_of_several_visitors_do_not_race():
    class Made:
        provenance = {"question": QUESTION}

        def save(self, path):
            path.write_bytes(b"x")

    downloads, failed = Downloads(keep=4), []

    def visit():
        try:
            for _ in range(150):
                downloads.save(Made())
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=visit) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed and len(list(downloads._directory.iterdir())) <= 8
    assert downloads._directory.is_relative_to(temporary.temporary_folder()) and ADAPTERS > 64


def test_what_about_says_are_the_limits(demo):
    said = " ".join(str(block.value) for block in demo.blocks.values() if isinstance(block, gr.Markdown))
    for fact in (
        "10 MB",
        "25 megapixels",
        "400",
        "64 pictures",
        "256 candidate",
        "300 characters",
        "128 visits",
        "60 minutes",
    ):
        assert fact in " ".join(said.split()), fact
    assert PROTECTION["state_session_capacity"] == VISITS and about.citation()


# Programs


WRONG = (
    None,
    True,
    5,
    1.5,
    "",
    "text",
    [],
    [None],
    [1, 2],
    {},
    {"a": 1},
    [["a"]],
    [{}],
    "1e999",
    -1,
    10**30,
    "x" * 400,
)


@pytest.fixture(scope="module")
def ends(generator):
    return endpoints([Studio(generator)])


def test_whatever_programs_send_gets_an_answer_or_a_reason(ends):
    """Every argument of every endpoint, with values of every JSON type."""
    good = {
        "question": QUESTION,
        "answers": ["red", "blue"],
        "pictures": [],
        "questions": [QUESTION, "Where is the cat?"],
        "adapter": None,
        "method": "clip",
        "count": 1,
    }
    refused = 0
    for name, function in ends.items():
        names = list(function.__signature__.parameters)
        for changed in names:
            for value in WRONG:
                values = {key: good[key] for key in names if key in good} | {changed: value}
                try:
                    function(**values)
                except gr.Error as error:
                    assert len(error.message) > 8 and len(error.message) < 1300, (name, changed, value)
                    refused += 1
    assert refused > 100


def test_numbers_that_can_be_meant_are_taken(ends):
    assert ends["try_on_scenes"](QUESTION, [1, 2.5], "2", 0.0, "1.5")["truths"]
    with pytest.raises(gr.Error, match=r"answers\[1\] True; allowed: texts and numbers"):
        ends["try_on_scenes"](QUESTION, ["a", True])
    with pytest.raises(gr.Error, match=r"count 1.5; allowed: a whole number"):
        ends["try_on_scenes"](QUESTION, ["a", "b"], 1.5)
    with pytest.raises(gr.Error, match=r"question 5; allowed: a text"):
        ends["suggest_answers"](5)


def test_too_few_values_get_a_reason(browser, demo):
    for event in demo.get_config_file()["dependencies"]:
        if event["backend_fn"] and event["inputs"]:
            done, said = _run(browser, event["id"], [])
            assert not done and "0 values; allowed:" in said["error"]


def test_growth_is_told_from_settling():
    told = [{"visits": 100 * i, "minutes": i, "memory": m} for i, m in enumerate([100, 200, 210, 205, 205, 205, 205])]
    assert soak.growth(told) == pytest.approx(0.05)  # short: after a sixth of the visits
    long = [{"visits": i, "minutes": 5 * i, "memory": m} for i, m in enumerate([100, 150, 200, 210, 206, 208])]
    assert soak.growth(long) == pytest.approx(0.05)  # long: after ten minutes
