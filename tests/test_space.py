"""The repository as a Hugging Face Space: the README's front matter, and what a Space installs."""

import re

import gradio
import pytest
import yaml
from huggingface_hub import SpaceHardware
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT

COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}  # what a Space's thumbnail can have


@pytest.fixture(scope="module")
def front():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture(scope="module")
def required():
    lines = [
        line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ]
    assert not [line for line in lines if line.startswith(("-", ".", "git+", "http:", "https:"))], (
        "a Space installs plain packages"
    )
    return {Requirement(line).name: Requirement(line) for line in lines if line}


def test_sdk_is_a_gradio_that_the_requirements_allow(front, required):
    assert front["sdk"] == "gradio" and required["gradio"].specifier.contains(front["sdk_version"])
    assert Version(front["sdk_version"]).major == Version(gradio.__version__).major  # what the tests ran with


def test_python_is_one_that_the_code_is_written_for(front):
    version = Version(front["python_version"])
    assert isinstance(front["python_version"], str) and Version("3.11") <= version < Version("3.14")


def test_what_the_page_shows(front):
    assert (ROOT / front["app_file"]).is_file() and front["title"] and front["emoji"]
    assert {front["colorFrom"], front["colorTo"]} <= COLOURS
    assert 0 < len(front["short_description"]) <= 60  # the Hub takes no longer one
    assert front["suggested_hardware"] == SpaceHardware.CPU_BASIC.value


def test_licence_is_the_licence_files(front):
    assert front["license"] == "apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8") and "Version 2.0" in (
        ROOT / "LICENSE"
    ).read_text(encoding="utf-8")


def test_names_of_models_datasets_and_tags(front):
    for key in ("models", "datasets"):
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", name) for name in front.get(key, []))
    assert all(isinstance(tag, str) for tag in front.get("tags", []))


def test_weights_fit_a_space(front):
    files = [path for path in (ROOT / "weights").rglob("*") if path.is_file()]
    assert all(path.stat().st_size <= 10 * 1024 * 1024 for path in files), "the Hub takes no larger file without LFS"
