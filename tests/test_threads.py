"""The number of threads changes the order of sums, and so rounding: nothing that training reaches may hang on it."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from train.pipeline import graph
from train.pipeline.flags import open_run, parser


@pytest.fixture
def threads():
    """Sets the number of threads; the one before comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("stage", ["cond_multitask", "hvae_hyperclip"])
def test_two_threads_train_what_one_does(tiny, tmp_path, threads, stage):
    """Eigenvectors, of questions' embeddings and of weights, have signs and rotations that hang on rounding."""
    reached, weights = [], []
    for count in (1, 2):
        threads(count)
        output = shutil.copytree(tiny / "seed-0" / "weights", tmp_path / f"threads-{count}")
        flags = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--output", str(output)]
        run = open_run(parser("").parse_args(flags))
        (output / f"{stage}.safetensors").unlink()
        reached.append(graph.build(run.preset)[stage].run(run))
        weights.append(load_file(output / f"{stage}.safetensors"))
    assert reached[1] == pytest.approx(reached[0], abs=0.005)
    for name, value in weights[0].items():
        far = (weights[1][name].float() - value.float()).abs().max() / value.float().abs().max().clamp(min=1e-3)
        assert far < 0.02, name
