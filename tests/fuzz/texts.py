"""What strangers send the page's endpoints: questions, answers, numbers and whatever else JSON can say, over HTTP."""

from __future__ import annotations

import functools
import io
import json
import random
from collections.abc import Iterator
from typing import Any

import httpx
from PIL import Image

Case = tuple[str, list[Any]]  # an endpoint and its arguments; PICTURE and ADAPTER stand for uploaded files

PICTURE, ADAPTER = "<picture>", "<adapter>"
_WORDS = (
    *("what", "colour", "is", "the", "badge", "behind", "dog", "where", "cat", "how", "many", "of", "red", "big"),
    *("left", "there", "any", "not", "animal", "猫", "größe"),
)
_HOSTILE = (
    "",
    " ",
    "\n\t",
    "?",
    "\0",
    "null",
    "NaN",
    "-1",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "{0.__class__}",
    "%s%n%x",
    "../../../../etc/passwd",
    "file:///etc/passwd",
    "C:\\Windows\\win.ini",
    "http://127.0.0.1:1/",
    "'; DROP TABLE questions; --",
    "\ufeff",
    "\u202eright to left",
    "Z\u0351\u0352\u0353" * 20,
    "\ud83d",  # half of an emoji
    "👩\u200d👩\u200d👧\u200d👦" * 10,
    "\u0000a\u0000",
    "ﷺ" * 40,
)
_METHODS = ("hyperldm", "hyperclip", "cond_multitask", "clip", "uncond_multitask", "magic")
_CLIENT = httpx.Client(timeout=60)
# Endpoints with what each argument is; the last ones have defaults.
_ARGUMENTS = {
    "suggest_answers": ("text",),
    "generate": ("text", "method", "gamma", "seed"),
    "classify": ("text", "texts", "pictures", "method", "gamma", "seed"),
    "try_on_scenes": ("text", "texts", "count", "seed", "gamma"),
    "infer_question": ("adapter", "count"),
    "compare_questions": ("texts", "seed"),
}


def _text(rng: random.Random, ordinary: float = 0.5) -> str:
    kind = rng.random() if rng.random() > ordinary else 0.0
    if kind < 0.1:
        return " ".join(rng.choices(_WORDS, k=rng.randint(1, 9))).capitalize() + rng.choice(("?", "", " ?", "!"))
    if kind < 0.6:
        return rng.choice(_HOSTILE)
    if kind < 0.8:
        return "".join(
            chr(rng.randrange(1, rng.choice((128, 0x3000, 0xFFFF, 0x10FFFF)))) for _ in range(rng.randint(1, 80))
        )
    return rng.choice(("a", "é", "猫", "x ", "😀", "\n")) * rng.choice((40, 60, 150, 299, 301, 5000, 100_000))


def _number(rng: random.Random) -> Any:
    return rng.choice((0, 1, 1.5, 3, -1, 10**30, 2**31, 1e308, -0.0, 0.1, "1", True))


def _anything(rng: random.Random, depth: int = 0) -> Any:
    """Any value that JSON has."""
    kind = rng.randrange(8 if depth < 3 else 5)
    if kind < 5:
        return (None, rng.random() < 0.5, _number(rng), _text(rng), rng.choice(([], {}, [[]], "")))[kind]
    parts = [_anything(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind == 5:
        return parts
    if kind == 6:
        return {_text(rng)[:50]: part for part in parts}
    path = rng.choice(("/etc/passwd", "README.md", "weights/emoji/config.json", "eval/results/app.png", _text(rng)))
    return {"path": path, "meta": {"_type": "gradio.FileData"}} if rng.random() < 0.7 else {"path": path, "url": path}


def _argument(rng: random.Random, kind: str) -> Any:
    """A value of the kind that an endpoint expects, though not always one that it can do with."""
    if kind == "text":
        return _text(rng)
    if kind == "texts":
        return [_text(rng, 0.9) for _ in range(rng.choice((0, 1, 2, 2, 2, 3, 5, 300)))]
    if kind == "pictures":
        return [PICTURE] * rng.choice((0, 1, 1, 1, 2))
    if kind == "adapter":
        return ADAPTER
    if kind == "method":
        return rng.choice(_METHODS)
    return {
        "count": rng.choice((1, 2, 3, 0, 65)),
        "gamma": rng.choice((0, 0.5, 1, 2.5, -1, 99)),
        "seed": rng.choice((0, 1, -1)),
    }[kind]


def cases(seed: int, count: int) -> Iterator[Case]:
    """`count` requests. Most arguments are of the right kind; one in six is any value, some are missing or too many."""
    rng = random.Random(seed)
    for _ in range(count):
        endpoint = rng.choice([*_ARGUMENTS])
        data = [_anything(rng) if rng.random() < 1 / 6 else _argument(rng, kind) for kind in _ARGUMENTS[endpoint]]
        if rng.random() < 0.05:
            data = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.5 else [*data, _anything(rng)]
        yield endpoint, data


@functools.cache
def served() -> tuple[str, Any]:
    """The demo of the shipped drawn scenes on a free port of this machine: its address, and what stops it."""
    from app import build_demo
    from core.generator import AdapterGenerator
    from core.release.default import default_release
    from tests.conftest import launch

    demo = build_demo(AdapterGenerator.from_pretrained(default_release()))
    return launch(demo), demo


def prepare() -> None:
    _uploads(served()[0])


def close() -> None:
    if served.cache_info().currsize:
        served()[1].close()
        served.cache_clear()


@functools.cache
def _uploads(address: str) -> dict[str, Any]:
    """The picture and the adapter that cases mean, uploaded."""
    picture = io.BytesIO()
    Image.new("RGB", (80, 80), "red").save(picture, "PNG")
    made = _call(address, "generate", ["Where is the cat?", "cond_multitask", None, 0])
    adapter = _CLIENT.get(json.loads(made.partition("data: ")[2])[0]["url"]).content
    files = {PICTURE: ("picture.png", picture.getvalue()), ADAPTER: ("cat.safetensors", adapter)}
    result = {}
    for name, file in files.items():
        (path,) = _CLIENT.post(f"{address}gradio_api/upload", files={"files": file}).raise_for_status().json()
        result[name] = {"path": path, "meta": {"_type": "gradio.FileData"}}
    return result


def _call(address: str, endpoint: str, data: list[Any]) -> str:
    """The last event that the endpoint answers with."""
    body = json.dumps({"data": data}, allow_nan=True)  # ASCII: halves of characters become escapes
    headers = {"content-type": "application/json"}
    posted = _CLIENT.post(f"{address}gradio_api/call/{endpoint}", content=body, headers=headers)
    if posted.status_code != 200:
        return f"event: error\ndata: {json.dumps(posted.json()['detail'])}"
    event = posted.json()["event_id"]
    answer = _CLIENT.get(f"{address}gradio_api/call/{endpoint}/{event}").text
    return [part for part in answer.strip().split("\n\n") if "heartbeat" not in part][-1]


def check(case: Case, address: str | None = None) -> str:
    """ "result" for an answer that is whole JSON, "refused" for a message that says why; AssertionError else."""
    endpoint, data = case
    address = served()[0] if address is None else address
    uploads = _uploads(address)
    stand_in = lambda value: uploads.get(value, value) if isinstance(value, str) else value
    sent = [[stand_in(part) for part in value] if isinstance(value, list) else stand_in(value) for value in data]
    event, _, text = _call(address, endpoint, sent).partition("\ndata: ")
    value = json.loads(text, parse_constant=_refuse)
    if event == "event: complete":
        foreign = '"path"' in json.dumps(data)  # a file that nobody uploaded
        assert not foreign, f"{case}: {text[:300]}"
        return "result"
    assert event == "event: error", event
    message = value.get("error") if isinstance(value, dict) else value
    assert isinstance(message, str) and message.strip() and "Traceback" not in message, f"{case}: {text[:300]}"
    assert "\n" not in message.strip() and len(message) < 1000, message
    return "refused"


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")
