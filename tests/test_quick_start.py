"""What is not imported before it is needed, and how the cheapest of equal settings is taken."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from train.choices.options import quick_options, sampling_options
from train.choose import NO_LOSS, cheapest
from train.pipeline.settings import SamplingConfig

HEAVY = ("torchvision", "timm", "open_clip", "matplotlib", "torch._dynamo")  # encoders of pictures, plots, compilers


def loaded(code):
    """Modules of a process that has run the code."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}\nprint('MODULES', *sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split("MODULES", 1)[1].split())


@pytest.mark.parametrize(
    "code, absent",
    [
        ("import app, core.cli; app.parser(); core.cli.parser()", ("torch", "gradio", "numpy", "pandas", "PIL")),
        ("import core.generator", (*HEAVY, "gradio", "pandas", "PIL")),
        ("from core import cli; cli.main(['Where is the cat?', '--json'])", (*HEAVY, "gradio", "pandas")),
        (
            "import app, ast\n"
            "reading, ast.get_source_segment = ast.get_source_segment, None  # of Gradio's own sources\n"
            "from core.demo.layout import page\n"
            "ast.get_source_segment = reading\n"
            "from core.demo.studio import open_worlds\n"
            "from core.generator import AdapterGenerator\n"
            "worlds = open_worlds([AdapterGenerator.from_pretrained(where) for where in app.WEIGHTS])\n"
            "page.build_demo(worlds, app.RESULTS)",
            HEAVY,
        ),
    ],
    ids=["flags", "library", "command", "page"],
)
def test_nothing_is_imported_before_it_is_needed(code, absent):
    assert not loaded(code) & set(absent)


def test_of_settings_that_lose_nothing_the_cheapest_is_taken():
    options = [{"n": n} for n in range(4)]
    assert cheapest(options, [0.7, 0.7 - NO_LOSS / 2, 0.5, 0.699], [320, 8, 1, 16]) == 1
    assert cheapest(options, [0.7, 0.7 - 2 * NO_LOSS, 0.5, 0.6], [320, 8, 1, 16]) == 0
    assert cheapest(options, [0.699, 0.7, 0.5, 0.6], [8, 8, 8, 8]) == 1


def test_quick_settings_keep_the_strength_that_was_chosen():
    sampling = SamplingConfig(quick=((1, 4), (2, 8)))
    assert {option["gamma"] for option in sampling_options(sampling)} == set(sampling.gammas)
    found = quick_options(sampling, 1.25)
    assert [(o["steps"], o["samples"], o["gamma"]) for o in found] == [(1, 4, 1.25), (2, 8, 1.25)]
    for quick in (((0, 1),), ((1, 0),), ((1, 1000),)):
        with pytest.raises(ValueError, match="sampling.quick"):
            SamplingConfig(quick=quick)
