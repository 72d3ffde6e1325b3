"""Another base network through every stage by one setting: `--set network=lowrank`."""

import dataclasses
import json
import shutil

import pytest

from core import cli
from core.data.emoji.dataset import draw_scenes_for_question
from core.generator import METHODS, Adapter, AdapterGenerator
from core.methods import FEW_SHOT_ROWS, SEARCHES, row_of
from core.networks.lowrank import LowRank, LowRankConfig
from core.networks.weight_generator import WEIGHT_GENERATORS
from core.release.checkpoint import load_adapter
from tests.conftest import random_batch
from train import run_all
from train.pipeline import graph
from train.pipeline.flags import open_run, parser
from train.presets import get_preset

QUESTION, ANSWERS = "What colour is the badge behind the dog?", ["red", "blue", "green"]
D, P = 256, 2 * 4 * 256 + 256


@pytest.fixture(scope="module")
def arguments(tiny):
    """Flags of the run; features are those of the tiny run, everything else is its own."""
    return ["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--set", "network=lowrank"]


@pytest.fixture(scope="module")
def output(arguments):
    run_all.main(arguments)
    return open_run(parser("").parse_args(arguments)).output


@pytest.fixture(scope="module")
def generator(output):
    return AdapterGenerator.from_pretrained(output)


def test_every_stage_was_made_anew_but_features(output, tiny):
    stages = graph.build(get_preset("tiny"))
    records = json.loads((output / "stages.json").read_text(encoding="utf-8"))
    own = json.loads((tiny / "seed-0" / "weights" / "stages.json").read_text(encoding="utf-8"))
    assert records.keys() == {name for name, stage in stages.items() if stage.release}
    assert not {name for name in records if records[name]["identity"] == own[name]["identity"]}
    assert all(
        0 <= value <= 1 for record in records.values() for key, value in record["metrics"].items() if "acc" in key
    )


def test_the_release_describes_its_network(generator):
    network = LowRank(LowRankConfig(rank=4), D)
    assert generator.network == network and network.num_params == P
    assert generator.config["network"] == network.spec() and generator.config["run"]["set"] == ["network=lowrank"]
    for name in ("uncond_multitask", "mnet_maml"):
        w, own, _ = load_adapter(generator.directory / f"{name}.safetensors")
        assert own == network and w.shape == (P,)


@pytest.mark.parametrize("name", WEIGHT_GENERATORS.names())
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_weights_of_it(generator, method, name, tmp_path):
    images = [image for image, _ in draw_scenes_for_question(QUESTION, 3)]
    adapter = generator.generate(QUESTION, method, generator=name, seed=2)
    table = adapter.classify(images, ANSWERS)
    assert table[ANSWERS].sum(axis=1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert adapter.provenance["scale"] == generator.scale(row_of(method, name)) != 100.0
    if method == "clip":
        assert adapter.w is None
        return
    assert adapter.w.shape == (P,) and adapter.w.isfinite().all() and adapter.network.name == "lowrank"
    adapter.save(tmp_path / "a.safetensors")
    again = Adapter.load(tmp_path / "a.safetensors", generator.backbone)
    assert again.network == adapter.network and again.classify(images, ANSWERS).equals(table)
    if (method, name) in (("hyperldm", "hvae"), ("hyperclip", "hnet")):
        assert generator.infer_question(adapter, count=2, generator=name)[0]["probability"] > 0


@pytest.mark.parametrize("row", [*FEW_SHOT_ROWS, "hvae_hyperldm"])
def test_every_row_adapts_to_examples(generator, row):
    support = random_batch(T=3, N=20, D=D)
    asked = generator.embed_questions([QUESTION, "Where is the cat?", "How many fruits are there?"])
    support = dataclasses.replace(support, question=asked)
    start, adapted = (generator.few_shot_weights(support, row, lr=0.1, steps=steps) for steps in (0, 5))
    loss = lambda w: generator.network.loss(w, support).mean()
    assert adapted.shape == (3, P) and loss(adapted) < loss(start)


def test_its_weights_answer_better_than_none(generator, arguments):
    """The stages do learn: fine-tuned on support sets of validation tasks, weights beat the frozen embedding."""
    run = open_run(parser("").parse_args(arguments))
    choice = generator.choice("few_shot_mnet_maml")
    w = generator.few_shot_weights(run.val_support, "mnet_maml", choice["lr"], choice["steps"])
    assert run.accuracy(w, run.val_query) > run.accuracy(None, run.val_query) + 0.05


@pytest.mark.parametrize("method", SEARCHES)
def test_the_command_line_on_it(output, method, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw_scenes_for_question(QUESTION, 1)[0][0].save("a.png")
    release = ["--weights", str(output), "--images", "a.png", "--answers", ",".join(ANSWERS), "--json"]
    cli.main([QUESTION, "--method", method, "--save", "a.safetensors", *release])
    first = json.loads(capsys.readouterr().out)
    assert first["images"][0]["answer"] in ANSWERS and first["provenance"]["method"] == method
    cli.main(["--adapter", "a.safetensors", *release])
    assert json.loads(capsys.readouterr().out) == first


def test_it_is_done_when_run_again_and_a_copy_needs_nothing_else(output, arguments, tmp_path, capsys):
    run_all.main(arguments)
    assert "0 stages run" in capsys.readouterr().out
    moved = AdapterGenerator.from_pretrained(shutil.copytree(output, tmp_path / "elsewhere"))
    assert moved.weights(moved.embed_questions([QUESTION])).shape == (1, P)
