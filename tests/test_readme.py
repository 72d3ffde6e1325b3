"""The documents' links lead somewhere, and the README's examples run, in the order in which they are written."""

import re
import shlex

import pytest

from core import cli
from core.generator import AdapterGenerator
from eval.report import DOCUMENTS, ROOT

README = (ROOT / "README.md").read_text()
# by the package that an example imports first; the one on the Hub imports none
BLOCKS = {package: code for code, package in re.findall(r"```python\n(from (\w+).*?)```", README, re.DOTALL)}


def anchors(text):
    """What GitHub calls the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_are_there(document):
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader would be, without the code."""
    path = tmp_path_factory.mktemp("readme")
    (path / "weights").symlink_to(ROOT / "weights")
    return path


def test_python_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    exec(BLOCKS["core"], {})
    out = capsys.readouterr().out
    assert "truth" in out and len(out.splitlines()) == 2 + 6 and (folder / "badge.safetensors").is_file()


def test_shell_lines_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    lines = re.findall(r"^python -m core\.generator (.*?)(?:   #.*)?$", README, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        cli.main(shlex.split(line))
        out = capsys.readouterr().out
        assert all(f"scene{i}.png" in out for i in range(6))


def test_client_runs(folder, monkeypatch, capsys):
    pytest.importorskip("gradio")
    import app

    demo = app.build_demo(AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji"))
    _, url, _ = demo.queue(max_size=app.QUEUE).launch(
        prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **app.LAUNCH
    )
    try:
        monkeypatch.chdir(folder)
        code = BLOCKS["gradio_client"]
        assert "http://127.0.0.1:7860" in code
        exec(code.replace("http://127.0.0.1:7860", url), {})
    finally:
        demo.close()
    out = capsys.readouterr().out
    assert "black" in out and ".safetensors" in out
