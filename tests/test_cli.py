"""The command line, through `main(argv)`."""

import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from core import cli
from core.classifier import Adapter
from core.generator import AdapterGenerator
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.release.checkpoint import save_adapter
from tests.conftest import ROOT

QUESTION = "What colour is the badge behind the dog?"
WEIGHTS = str(ROOT / "weights" / "emoji")


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """One generator for all calls: reading the backbone anew each time is most of a call."""
    release = AdapterGenerator.from_pretrained(WEIGHTS)
    real = AdapterGenerator.from_pretrained

    def from_pretrained(where, **settings):
        whole = where == WEIGHTS and settings == {"revision": None, "device": "cpu"}
        return release if whole else real(where, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdapterGenerator, "from_pretrained", from_pretrained)
        yield release


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Calls the command line in a folder with three pictures; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    for name, colour in (("b.png", "blue"), ("a.png", "red"), ("c.jpg", "green")):
        Image.new("RGB", (80, 80), colour).save(name)
    (tmp_path / "text.png").write_text("not a picture", encoding="utf-8")

    def call(*arguments: str) -> str:
        cli.main(["--weights", WEIGHTS, *arguments])
        printed = capsys.readouterr()
        assert not printed.err
        return printed.out

    return call


def test_table(run):
    out = run(QUESTION, "--answers", "red, blue", "--images", "?.png", "c.jpg", "--seed", "4").splitlines()
    assert QUESTION in out[0] and "hyperldm" in out[0] and out[1].split() == ["answer", "probability", "red", "blue"]
    assert [line.split()[0] for line in out[3:]] == ["a.png", "b.png", "c.jpg"]


def test_json(run, loaded):
    how = ["--method", "hyperclip", "--generator", "hnet", "--steps", "3", "--seed", "4"]
    result = json.loads(run(QUESTION, "--answers", "red,blue", "--images", "a.png", "b.png", "--json", *how))
    made = result["provenance"]
    assert (made["question"], made["method"], made["generator"], made["steps"]) == (QUESTION, "hyperclip", "hnet", 3)
    table = loaded.generate(QUESTION, "hyperclip", generator="hnet", steps=3, seed=4).classify(
        ["a.png", "b.png"], ["red", "blue"]
    )
    for record, name in zip(result["images"], ("a.png", "b.png"), strict=True):
        assert record["image"] == name and record["answer"] == table.loc[name, "answer"]
        assert record["probabilities"] == pytest.approx({a: table.loc[name, a] for a in ("red", "blue")})


def test_answers_come_from_the_nearest_known_question(run, loaded):
    known = loaded.known_questions[3]
    assert json.loads(run(known["question"], "--json", "--samples", "1", "--steps", "2"))["answers"] == known["answers"]


def test_saved_adapter_answers_alike(run, loaded, monkeypatch):
    rest = ["--images", "a.png", "b.png", "--json"]
    first = json.loads(run(QUESTION, "--gamma", "1.5", "--samples", "2", "--save", "dog.safetensors", *rest))
    monkeypatch.setattr(type(loaded), "generate", None)  # nothing is generated
    again = json.loads(run("--adapter", "dog.safetensors", *rest))
    assert again == first and first["provenance"]["gamma"] == 1.5
    assert Adapter.load("dog.safetensors", loaded.backbone).provenance == first["provenance"]


def test_a_saved_adapter_keeps_the_answers_that_it_was_made_for(run, loaded, tmp_path):
    answers = ["left side", "right side"]
    w, made = torch.zeros(loaded.network.num_params), {"question": QUESTION, "answers": answers}
    save_adapter(tmp_path / "own.safetensors", w, loaded.network, made)
    call = ["--adapter", "own.safetensors", "--images", "a.png", "--json"]
    assert json.loads(run(*call))["answers"] == answers
    assert json.loads(run(*call, "--answers", "red,blue"))["answers"] == ["red", "blue"]


def test_a_file_with_brackets_in_its_name_is_itself(run, tmp_path):
    for name, colour in (("img[1].png", "blue"), ("img1.png", "red")):
        Image.new("RGB", (80, 80), colour).save(tmp_path / name)
    out = json.loads(run(QUESTION, "--answers", "red,blue", "--json", "--images", "img[1].png", "img1.png"))
    assert [image["image"] for image in out["images"]] == ["img[1].png", "img1.png"]


def test_an_adapter_is_saved_beside_a_config_of_somebody_else(run, tmp_path):
    theirs = '{"of": "another program"}  // with a comment'
    (tmp_path / "config.json").write_text(theirs, encoding="utf-8")
    run(QUESTION, "--save", "dog.safetensors")
    assert (tmp_path / "dog.safetensors").is_file()
    assert (tmp_path / "config.json").read_text(encoding="utf-8") == theirs


def test_an_adapter_is_saved_by_a_release_that_knows_no_questions(run, loaded, tmp_path, monkeypatch):
    monkeypatch.setitem(loaded.config, "questions", [])
    monkeypatch.setattr(loaded, "known_questions", [], raising=False)
    assert "wrote mine.safetensors" in run(QUESTION, "--save", "mine.safetensors")
    assert json.loads(run(QUESTION, "--json"))["answers"] == []
    assert Adapter.load(tmp_path / "mine.safetensors", loaded.backbone).provenance["question"] == QUESTION


def test_plain_clip(run):
    out = json.loads(run(QUESTION, "--method", "clip", "--answers", "red,blue", "--images", "a.png", "--json"))
    assert out["provenance"]["method"] == "clip" and out["images"][0]["answer"] == "red"


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "a question is needed, or --adapter FILE"),
        (["  "], "the question is empty"),
        ([QUESTION, "--method", "magic"], "invalid choice: 'magic'"),
        ([QUESTION, "--generator", "gan"], "generator 'gan'; allowed: hnet, hvae"),
        ([QUESTION, "--generator", "gan"], "generator 'gan'; allowed: "),
        ([QUESTION, "--sampler", "euler"], "sampler 'euler'; allowed: ddpm, ddim, dpmpp_2m"),
        ([QUESTION, "--method", "clip", "--gamma", "1"], "--gamma: method 'clip' does not read it"),
        ([QUESTION, "--method", "hyperclip", "--samples", "2"], "--samples: method 'hyperclip' does not read it"),
        ([QUESTION, "--method", "kernel_ridge", "--generator", "hnet"], "--generator: method 'kernel_ridge' does not"),
        ([QUESTION, "--gamma", "99"], "gamma 99.0; allowed: 0 to 10"),
        ([QUESTION, "--gamma", "much"], "invalid float value: 'much'"),
        ([QUESTION, "--gamma", "nan"], "gamma nan"),
        ([QUESTION, "--steps", "0"], "steps 0"),
        ([QUESTION, "--samples", "1000"], "samples 1000"),
        ([QUESTION, "--seed", "-1"], "seed -1"),
        ([QUESTION, "--answers", "red"], "at least two answers"),
        ([QUESTION, "--answers", ""], "one of the answers is empty"),
        ([QUESTION, "--answers", "red,,blue"], "one of the answers is empty"),
        ([QUESTION, "--answers", "red,red"], "'red' is given more than once"),
        ([QUESTION, "--images", "none.png"], "none.png: no such file"),
        ([QUESTION, "--images", "*.gif"], "*.gif: no such file"),
        ([QUESTION, "--images", "text.png"], "text.png: not an image"),
        ([QUESTION, "--images", "."], ".: not an image"),
        ([QUESTION, "--images"], "expected at least one argument"),
        ([QUESTION, "--save", "a.png/x.safetensors"], "a.png"),
        ([QUESTION, "--method", "clip", "--save", "x.safetensors"], "plain CLIP has no adapter weights"),
        ([QUESTION, "--device", "cuda:99"], "--device 'cuda:99' is not usable here"),
        ([QUESTION, "--device", "toaster"], "--device 'toaster' is not usable here"),
        (
            [QUESTION, "--weights", "none"],
            "'none' is neither a directory nor to be had: 'none' is not a Hub repository",
        ),
        ([QUESTION, "--weights", "."], "no config.json"),
        ([QUESTION, "--revision", "seed-1"], "only Hub repositories have revisions"),
        (["--adapter", "none.safetensors", "--images", "a.png"], "none.safetensors: no such checkpoint"),
        (["--adapter", "text.png", "--images", "a.png"], "text.png: damaged or not a safetensors file"),
        (["--adapter", "other.safetensors", "--images", "a.png"], "for another backbone; give --weights RELEASE"),
        (["--adapter", "photos.safetensors", "--images", "a.png"], "backbone, of preset 'photos'; give --weights "),
        (["--adapter", "mine.safetensors", "--images", "a.png"], "of preset 'mine'; give --weights RELEASE"),
        (["--adapter", "bare.safetensors", "--images", "a.png"], "--answers is needed"),
        (["--adapter", "bare.safetensors"], "--adapter needs --images"),
        (["--adapter", "bare.safetensors", "--images", "a.png", "--seed", "1"], "--seed does not go with it"),
        (["--adapter", "bare.safetensors", "--images", "a.png", "--save", "b"], "--save does not go with it"),
        ([QUESTION, "--adapter", "bare.safetensors", "--images", "a.png"], "a question does not go with it"),
        ([QUESTION, "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, loaded, capsys, arguments, said):
    for name, dim in (("bare", loaded.network.dim), ("other", 16)):
        network = CLIPAdapter(AdapterConfig(hidden=4), dim)
        save_adapter(f"{name}.safetensors", torch.zeros(network.num_params), network)
    digest = json.loads((ROOT / "weights" / "photos" / "config.json").read_text(encoding="utf-8"))["backbone_sha256"]
    for name, made in (("photos", {"backbone_sha256": digest}), ("mine", {"backbone_sha256": "1", "preset": "mine"})):
        save_adapter(f"{name}.safetensors", torch.zeros(network.num_params), network, made)
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and not printed.out
    assert printed.err.startswith("python -m core.generator: error: ") and printed.err.count("\n") == 1
    assert said in printed.err


def test_help_has_examples_needs_and_times(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert stopped.value.code == 0 and out.count("\n  python -m core.generator ") >= 4
    for part in ("What it needs", "How long it takes", "exit status 2", *(f"--{flag}" for flag in cli._GENERATION)):
        assert part in out


def test_it_runs_as_a_module_and_readers_may_stop_early():
    command = f"{sys.executable} -m core.generator '{QUESTION}' --method clip --json | true"
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT,
        env=buffered,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Broken" not in done.stderr
