"""The project installed as a package: what lands in an environment of its own, and that it answers from any folder.

The environment sees the packages that these tests run with, so that nothing is downloaded."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import core
from core import cli
from core.data.emoji.dataset import draw_scenes_for_question
from core.generator import Adapter, AdapterGenerator
from core.release.default import default_release
from tests.conftest import ROOT

QUESTION = "What colour is the badge behind the dog?"
CHECKOUT = ("app.py", "pyproject.toml", "setup.py", "MANIFEST.in", "requirements.txt", "LICENSE", "README.md")
OPTIONAL = {"spaces"}  # there on the Hub's shared GPUs alone


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where `pip install .` put the package and the command. Building writes into the source: a copy of it."""
    pytest.importorskip("setuptools", minversion="77")
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed") / "venv"
    for folder in ("core", "train", "eval", "tests", "weights"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "*.tmp"))
    for file in CHECKOUT:
        shutil.copy(ROOT / file, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    scripts = place / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(
        subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True, encoding="utf-8").stdout.strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-build-isolation", source]
    done = subprocess.run(pip, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(site=site, python=python, command=scripts / "question-to-adapter")


def run(folder, *command):
    """Run in a folder away from the checkout, without a network."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(part) for part in command], cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8"
    )


def files(directory):
    paths = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file() and path.suffix != ".tmp")
    own = ("__pycache__", "images.json")  # images.json says where pictures lie on one machine
    return {path.as_posix() for path in paths if not set(own) & set(path.parts)}


def test_one_name_lands_in_site_packages(installed):
    there = {path.name for path in installed.site.iterdir()} - {"dependencies.pth"}
    assert there == {"question_to_adapter", f"question_to_adapter-{core.__version__}.dist-info"}


def test_all_of_core_and_of_the_shipped_weights_is_there(installed):
    weights = {f"weights/{path}" for path in files(ROOT / "weights")}
    assert files(installed.site / "question_to_adapter") == files(ROOT / "core") | weights
    assert not list(installed.site.rglob("images.json"))


def test_importing_is_cheap(installed, tmp_path):
    code = """if True:
        import sys
        import question_to_adapter
        from question_to_adapter.release.default import default_release, default_sentence_encoder
        assert "torch" not in sys.modules
        print(default_release(), default_sentence_encoder(), sep="\\n")
        """
    done = run(tmp_path, installed.python, "-c", code)
    assert done.returncode == 0, done.stderr
    weights = installed.site / "question_to_adapter" / "weights"
    assert [Path(line) for line in done.stdout.splitlines()] == [weights / "emoji", weights / "sentence"]


def test_the_package_gives_the_facade():
    assert core.AdapterGenerator is AdapterGenerator and core.Adapter is Adapter
    with pytest.raises(AttributeError, match="no attribute 'Generator'"):
        core.Generator  # noqa: B018


def test_the_command_answers_from_another_folder(installed, tmp_path):
    ((image, truth),) = draw_scenes_for_question(QUESTION, 1)
    image.save(tmp_path / "scene.png")
    done = run(tmp_path, installed.command, QUESTION, "--images", "scene.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split()[:2] == ["scene.png", truth]


def test_help_and_bad_flags_do_not_wait_for_pytorch(installed, tmp_path):
    code = "import sys; sys.modules['torch'] = None; from question_to_adapter.cli import main; main()"
    said = run(tmp_path, installed.python, "-c", code, "--help")
    assert said.returncode == 0 and "What it needs" in said.stdout, said.stderr
    bad = run(tmp_path, installed.command, "--gamma")
    assert bad.returncode == 2 and bad.stderr.startswith("question-to-adapter: error: ")


def test_the_package_requires_what_core_imports_and_no_test_tools(installed):
    (distribution,) = importlib.metadata.distributions(name="question-to-adapter", path=[str(installed.site)])
    required = names(distribution.requires)
    assert not required & {"pytest", "matplotlib", "accelerate"}
    for bringing in ("open_clip_torch", "jinja2", "gradio"):  # timm, markupsafe, and what Gradio's server is made of
        required |= names(importlib.metadata.requires(bringing))
    providers = importlib.metadata.packages_distributions()
    for path in (ROOT / "core").rglob("*.py"):
        for name in imported(path) - sys.stdlib_module_names - OPTIONAL:
            assert names(providers[name]) & required, f"{path} imports {name}"


def names(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported(path):
    """Top-level names that a module imports, but for its own package's."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_core_imports_nothing_of_the_checkout():
    for path in (ROOT / "core").rglob("*.py"):
        assert not imported(path) & {"core", "train", "eval", "tests", "app"}, path


# -- the shipped release, in a checkout ----------------------------------------------------------------------------


def test_the_shipped_release_is_the_default_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert default_release() == ROOT / "weights" / "emoji" == AdapterGenerator.from_pretrained().directory
    cli.main([QUESTION, "--method", "clip", "--answers", "red,blue", "--json"])
    assert '"preset": "emoji"' in capsys.readouterr().out
    with pytest.raises(ValueError, match="only Hub repositories have revisions"):
        AdapterGenerator.from_pretrained(revision="main")


def test_a_checkouts_scripts_run_from_any_folder(tmp_path):
    done = run(tmp_path, sys.executable, ROOT / "eval" / "table1.py", "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


# -- citation and changelog ----------------------------------------------------------------------------------------


def test_citation_is_the_readmes():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert citation["version"] == core.__version__
    paper, readme = citation["preferred-citation"], (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{{{paper['title']}}}" in readme and f"{{{paper['year']}}}" in readme and paper["journal"] in readme
    names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"{{{names}}}" in readme


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == core.__version__
