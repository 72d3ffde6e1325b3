"""What is not imported before it is needed, and how the cheapest of equal settings is taken."""

import subprocess
import sys

import pytest
import torch

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
    shares = torch.tensor([0.25, 0.75], dtype=torch.float64)
    of = lambda *means: torch.tensor(means, dtype=torch.float64)[:, None].expand(-1, 2)
    assert cheapest(of(0.7, 0.7 - NO_LOSS / 2, 0.5, 0.699), shares, [320, 8, 1, 16]) == 1
    assert cheapest(of(0.7, 0.7 - 2 * NO_LOSS, 0.5, 0.6), shares, [320, 8, 1, 16]) == 0
    assert cheapest(of(0.699, 0.7, 0.5, 0.6), shares, [8, 8, 8, 8]) == 1


def test_where_few_tasks_leave_a_doubt_the_quick_setting_is_taken():
    scores = torch.tensor([[0.6, 0.6, 0.6, 0.6], [0.5, 0.5, 0.5, 0.5], [0.8, 0.4, 0.7, 0.46]], dtype=torch.float64)
    shares, costs = torch.full((4,), 0.25, dtype=torch.float64), [320, 1, 8]
    # losses of the last: -0.2, 0.2, -0.1, 0.14; mean 0.01, standard error 0.0826. The second loses 0.1 everywhere.
    assert [cheapest(scores, shares, costs, quick) for quick in (0, 1, 2)] == [0, 2, 2]
    assert cheapest(scores[[0, 2, 1]], shares, [320, 8, 1], 1) == 0  # nothing else has the benefit of the doubt
    weighted = torch.tensor([0.0, 0.5, 0.0, 0.5], dtype=torch.float64)  # mean 0.17, standard error 0.0212
    assert cheapest(scores, weighted, costs, 1) == 0


def test_quick_settings_keep_the_strength_that_was_chosen():
    sampling = SamplingConfig(quick=((1, 4), (2, 8)))
    assert {option["gamma"] for option in sampling_options(sampling)} == set(sampling.gammas)
    found = quick_options(sampling, 1.25)
    assert [(o["steps"], o["samples"], o["gamma"]) for o in found] == [(1, 4, 1.25), (2, 8, 1.25)]
    for quick in (((0, 1),), ((1, 0),), ((1, 1000),)):
        with pytest.raises(ValueError, match="sampling.quick"):
            SamplingConfig(quick=quick)
