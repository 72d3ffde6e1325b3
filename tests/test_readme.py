"""The documents say what is there: links lead somewhere, examples run in the order in which they are written, commands
parse, paths and settings exist."""

import argparse
import importlib
import re
import shlex

import pytest

from app import build_demo
from core import cli
from core.config import override
from core.generator import AdapterGenerator
from eval.report import DOCUMENTS, ROOT
from tests.conftest import launch
from train.presets import get_preset

PAGES = (*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
README = TEXTS["README.md"]
# by the package that an example imports first
BLOCKS = {
    package: code
    for text in TEXTS.values()
    for code, package in re.findall(r"```python\n(from (\w+).*?)```", text, re.DOTALL)
}


def anchors(text):
    """What GitHub calls the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_are_there(document):
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_a_newcomers_page_is_short():
    assert len(README.split()) < 1200
    caption = re.search(r"^!\[.*?\n\n(\*.*?\*)\n\n", README, re.MULTILINE | re.DOTALL)[1]
    assert len(re.findall(r"\d%", caption)) <= 2


# -- commands, paths, settings -----------------------------------------------------------------------------------------


def invocations(text):
    """(script, flags) of every script of ours in a line of a shell; `name.py` alone is one of train/ or eval/."""
    words = shlex.split(text, comments=True)
    for i, word in enumerate(words):
        if " " in word and ".py" in word:  # a command handed to another
            yield from invocations(word)
        elif word.endswith(".py"):
            options = [word] if "/" in word else [name for name in (f"train/{word}", f"eval/{word}", word)]
            script = next((name for name in options if (ROOT / name).is_file()), word)
            rest = words[i + 1 :]
            end = next((k for k, other in enumerate(rest) if other in ("&&", "|", ";")), len(rest))
            yield script, tuple(re.sub(r"\$\w+", "0", flag) for flag in rest[:end])


def commands():
    """Every invocation in a block of commands, and those in sentences that have flags."""
    found = {}
    for name, text in TEXTS.items():
        blocks = [block.replace("\\\n", " ") for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
        for line in "".join(blocks).splitlines():
            found |= {invocation: name for invocation in invocations(line)}
        sentences = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for span in re.findall(r"`([^`]*\.py\s[^`]*)`", sentences):
            found |= {invocation: name for invocation in invocations(" ".join(span.split())) if invocation[1]}
    return sorted(found)


class Parsed(Exception):
    """Carries the parsed flags out of a script, before it does anything."""


@pytest.mark.parametrize(
    ("script", "flags"), commands(), ids=lambda part: part if isinstance(part, str) else " ".join(part)
)
def test_commands_parse(script, flags, monkeypatch):
    assert (ROOT / script).is_file()
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, argv=None, namespace=None):
        raise Parsed(parse(self, argv, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    main = importlib.import_module(script.removesuffix(".py").replace("/", ".")).main
    with pytest.raises(Parsed) as stopped:
        main(list(flags))
    (args,) = stopped.value.args
    if getattr(args, "set", None):
        override(get_preset(args.preset), args.set)


@pytest.mark.parametrize("name", TEXTS)
def test_no_command_names_a_folder_that_the_next_change_of_a_setting_renames(name):
    """Releases of changed settings lie in folders that are named after all settings of their preset."""
    assert not re.findall(r"weights-[0-9a-f]{8}\b", TEXTS[name])


def test_commands_were_found():
    """What the documents are about is among them, each way in which a command can be written."""
    scripts = {script for script, _ in commands()}
    assert {"app.py", "train/run_all.py", "train/push.py", "eval/table1.py", "eval/report.py"} <= scripts
    assert ("train/run_all.py", ("--preset", "metavqa", "--seeds", "0")) in commands()
    assert ("eval/bench.py", ("--costs", "runs/metavqa")) in commands() and ("app.py", ("--mcp",)) in commands()


@pytest.mark.parametrize("name", TEXTS)
def test_paths_and_settings_are_there(name):
    text = re.sub(r"```.*?```", "", TEXTS[name], flags=re.DOTALL)
    for path in re.findall(r"`((?:core|train|eval|tests|weights)/[\w/.-]*)`", text):
        measured = path.startswith("eval/results/") and path.endswith(".json")  # some of them still to be measured
        assert measured or (ROOT / path).exists(), path
    for span in re.findall(r"`(?:--set )?((?:[a-z_][\w.]*=[\w.\"\[\],/:-]+ ?)+)`", text):
        if not re.search(r"=[A-Z]+", span):  # a placeholder
            override(get_preset("emoji"), shlex.split(span))


# -- examples ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader would be, without the code."""
    return tmp_path_factory.mktemp("readme")


def test_python_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert len([line for line in BLOCKS["core"].splitlines() if line]) <= 10
    exec(BLOCKS["core"], {})
    out = capsys.readouterr().out
    assert "truth" in out and len(out.splitlines()) == 2 + 6
    assert (folder / "badge.safetensors").is_file() and (folder / "scene.png").is_file()


def test_shell_lines_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    lines = re.findall(r"^python -m core\.generator (.*?)(?:   #.*)?$", README, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        cli.main(shlex.split(line))
        assert "scene.png" in capsys.readouterr().out


def test_client_runs(folder, monkeypatch, capsys):
    pytest.importorskip("gradio")
    demo = build_demo(AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji"))
    url = launch(demo)
    try:
        monkeypatch.chdir(folder)
        code = BLOCKS["gradio_client"]
        assert "http://127.0.0.1:7860" in code
        exec(code.replace("http://127.0.0.1:7860", url), {})
    finally:
        demo.close()
    out = capsys.readouterr().out
    assert "black" in out and ".safetensors" in out
