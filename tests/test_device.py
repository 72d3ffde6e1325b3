"""All that computes, on a device that is not the CPU: training, evaluation, the command line and the demo of the preset
`tiny` on `tests.fake_cuda`, each compared with the same on the CPU."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core import cli
from core.backbones import load_backbone
from core.data.emoji.dataset import draw_scenes_for_question
from core.demo import examples, pages
from core.demo.api import endpoints
from core.demo.studio import Studio
from core.demo.world import draw
from core.generator import METHODS, AdapterGenerator
from core.release.checkpoint import load_model
from eval import ablations, bench, descriptors, figure5, figure6, links, sanity, table1, table4, task_inference
from tests.fake_cuda import fake_cuda
from tests.test_pipeline import release, stage_metrics
from train import backbone, features, hvae, hyperclip, hyperldm, run_all, tune
from train.pipeline.run import Run
from train.pipeline.tiny_clip import towers
from train.pipeline.tiny_clip.config import TinyCLIPConfig

QUESTION, ANSWERS = "What colour is the badge behind the dog?", ["red", "blue", "green", "white"]


def flags(work: Path, device: str, *more: object) -> list[str]:
    return ["--preset", "tiny", "--work", str(work), "--device", device, *map(str, more)]


@pytest.fixture
def gpu():
    with fake_cuda():
        yield


@pytest.fixture
def pictures(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(6)]
    for path, (image, _) in zip(paths, draw_scenes_for_question(QUESTION, len(paths)), strict=True):
        image.save(path)
    return paths


@pytest.fixture(scope="module")
def work(tiny, tmp_path_factory):
    """Work folder of a `run_all --preset tiny` on the GPU, where half of the images were encoded before. Then it goes
    on from the CPU's features, which are the same to rounding: results are to be compared, too."""
    work = tmp_path_factory.mktemp("cuda")
    (work / "features").mkdir()
    for name in ("index.json", "images-00000.safetensors"):
        shutil.copy(tiny / "features" / name, work / "features")
    with fake_cuda():
        features.main(flags(work, "cuda"))
    encoded = [{path.name for path in (folder / "features").glob("*.safetensors")} for folder in (work, tiny)]
    both = sorted(encoded[0] & encoded[1])  # other tests may have had other texts encoded
    assert {name for name in encoded[1] if name.startswith("images")} <= encoded[0]
    assert sum(name.startswith("texts") for name in both) >= 4  # answers and questions, to train and to validate
    for name in both:
        own, plain = (load_file(folder / "features" / name)["features"].float() for folder in (work, tiny))
        torch.testing.assert_close(own, plain, rtol=0, atol=1e-3 if name.startswith("images") else 1e-6)
        shutil.copy(tiny / "features" / name, work / "features")
    with fake_cuda():
        run_all.main(flags(work, "cuda"))
    return work


def test_training_reaches_what_it_reaches_on_the_cpu(tiny, work):
    """To rounding: a GPU adapts other groups of tasks together, so that an answer here and there changes. HyperCLIP
    of the HVAE reads principal components, of which small ones of like size turn among themselves."""
    own, plain = stage_metrics(work), stage_metrics(tiny)
    assert own.keys() == plain.keys()
    for stage, metrics in plain.items():
        for name, value in metrics.items():
            turned = "hvae_hyperclip" in (stage, name)
            slack = 0.5 if turned and name == "loss" else 0.1 if turned else 0.01
            assert own[stage][name] == pytest.approx(value, rel=1e-3, abs=slack), (stage, name)
    assert {
        record["device"] for record in json.loads((release(work) / "stages.json").read_text(encoding="utf-8")).values()
    } == {"cuda"}


def test_weights_are_those_of_the_cpu(tiny, work):
    for name in ("uncond_multitask", "cond_multitask_film", "mnet_maml", "hnet_maml", "hvae", "hnet_hyperldm"):
        (_, own), (_, plain) = (load_model(release(folder) / f"{name}.safetensors") for folder in (work, tiny))
        for key, value in plain.items():
            # Adam makes much of gradients that are nothing but rounding: one weight in 50,000 may be further off.
            off = (own[key] - value).abs() > 2e-3 + 2e-3 * value.abs()
            assert off.float().mean() <= 2e-5, f"{name}.{key}"
            torch.testing.assert_close(
                own[key], value, rtol=2e-3, atol=5e-3, msg=lambda m, n=name, k=key: f"{n}.{k} {m}"
            )


def test_adaptations_that_the_gpu_cannot_hold_stay_outside(work, tmp_path):
    """The HVAE learns the same from them."""
    learned = []
    for memory in (2**34, 0):
        output = tmp_path / str(memory)
        output.mkdir()
        shutil.copy(release(work) / "mnet_maml.safetensors", output)
        with fake_cuda(memory):
            hvae.main(flags(work, "cuda", "--output", output))
        learned.append(load_model(output / "hvae.safetensors")[1])
    assert all(learned[0][name].equal(learned[1][name]) for name in learned[0])


def test_mixed_precision_learns_alike(work, tmp_path, monkeypatch):
    """Autocast, of which `fake_cuda` knows nothing, on the CPU: bfloat16 where a GPU has it."""
    monkeypatch.setattr(Run, "autocast", lambda self: torch.autocast("cpu", torch.bfloat16))
    for name in ("mnet_maml", "hnet_maml"):
        shutil.copy(release(work) / f"{name}.safetensors", tmp_path)
    for script, stage in ((hvae, "hvae"), (hyperclip, "hvae_hyperclip"), (hyperldm, "hvae_hyperldm")):
        script.main(flags(work, "cpu", "--output", tmp_path))
        reached = load_model(tmp_path / f"{stage}.safetensors")[0]["metadata"]
        loss = "reconstruction" if stage == "hvae" else "loss"
        assert reached[loss] == pytest.approx(stage_metrics(work)[stage][loss], rel=0.15), stage


def same_results(evaluate: Callable[[str], None], file: Path, slack: float) -> None:
    """What a script writes to `file` is the same on both devices."""
    with fake_cuda():
        evaluate("cuda")
    own = json.loads(file.read_text(encoding="utf-8"))["results"]
    evaluate("cpu")
    plain = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert [(r["row"], r.get("tasks")) for r in own] == [(r["row"], r.get("tasks")) for r in plain] != []
    for a, b in zip(own, plain, strict=True):
        assert a["mean"] == pytest.approx(b["mean"], rel=0.01, abs=slack), b


@pytest.mark.parametrize(
    "script, more",
    [
        (table1, []),
        (table4, []),
        (figure5, []),
        (figure6, []),
        (links, []),
        (sanity, []),
        (sanity, ["--generator", "hnet"]),
        (task_inference, []),
    ],
)
def test_tables_and_figures_are_those_of_the_cpu(work, script, more, tmp_path):
    file, slack = tmp_path / "r.json", 0.2 if script is task_inference else 0.02  # of six tasks one may change its rank
    plot = ["--plot", tmp_path / "f.png"] if script in (figure5, figure6, task_inference) else []
    arguments = ["--limit-tasks", 6, "--json", file, *plot, *more]
    same_results(lambda device: script.main(flags(work, device, *arguments)), file, slack)


def test_inferred_descriptors_are_those_of_the_cpu(work, tmp_path):
    file, wanted = tmp_path / "r.json", ["hvae", "latents_hvae", "cond_multitask", "choose"]
    with fake_cuda():
        run_all.main(flags(work, "cuda", "--descriptors", 0.5, "--stages", *wanted))
    same_results(lambda device: descriptors.main(flags(work, device, "--descriptors", 0.5, "--json", file)), file, 0.05)


def test_tuning_ablations_and_timing_run(work, gpu, tmp_path, capsys):
    tune.main(flags(work, "cuda", "--rows", "cond_multitask_film", "--json", tmp_path / "t.json"))
    ablations.main(flags(work, "cuda", "--only", 1, "--json", tmp_path / "a.json"))
    some = ["--sizes", "emoji", "--only", "hyperclip", "--tasks", "2", "--repeats", "1"]
    bench.main([*some, "--device", "cuda", "--json", str(tmp_path / "b.json")])
    for name in "tab":
        assert json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["results"]


def test_the_backbone_trains_goes_on_and_is_loaded(gpu, tmp_path, monkeypatch):
    config = TinyCLIPConfig(image_steps=3, image_batch=8, text_steps=2, text_batch=8, caption_scenes=16)
    device = torch.device("cuda")
    monkeypatch.setattr(towers, "_STATE_EVERY", 2)  # a state is left, as of a run that was killed
    record = backbone.run(config, 0, tmp_path / "backbone", tmp_path / "work", device, workers=0)
    again = backbone.run(config, 0, tmp_path / "again", tmp_path / "work", device, workers=0)
    assert record["readouts"] == again["readouts"] and math.isfinite(record["caption_loss"])
    own, plain = (load_backbone(f"local-dir:{tmp_path / 'backbone'}", where) for where in ("cuda", "cpu"))
    scenes = [image for image, _ in draw_scenes_for_question(QUESTION, 2)]
    torch.testing.assert_close(own.encode_images(scenes), plain.encode_images(scenes))
    torch.testing.assert_close(own.encode_questions([QUESTION], "mean"), plain.encode_questions([QUESTION], "mean"))


# The command line


def test_command_line(work, pictures, tmp_path, capsys):
    saved = str(tmp_path / "a.safetensors")
    common = ["--weights", str(release(work)), "--answers", ",".join(ANSWERS), "--images", *pictures]

    def call(device: str, *more: str) -> list[dict[str, float]]:
        cli.main([*common, "--json", "--device", device, *more])
        return [image["probabilities"] for image in json.loads(capsys.readouterr().out)["images"]]

    for how in (["hyperldm"], ["hyperclip", "--generator", "hnet"], ["cond_multitask"], ["clip"]):
        asked = ["--method", *how, "--", QUESTION]
        with fake_cuda():
            own = call("cuda", *asked)
        assert own == [pytest.approx(plain, abs=1e-4) for plain in call("cpu", *asked)], how
    with fake_cuda():
        generated = call("cuda", "--save", saved, "--", QUESTION)
        assert call("cuda", "--adapter", saved) == generated
        cli.main([*common, "--device", "cuda", "--", QUESTION])
    assert Path(pictures[0]).name in capsys.readouterr().out


# The demo


@pytest.fixture(scope="module")
def studio(work):
    with fake_cuda():
        return Studio(AdapterGenerator.from_pretrained(release(work), device="cuda"))


@pytest.mark.parametrize("name", ["hvae", "hnet"])
def test_every_method_answers_as_on_the_cpu(work, studio, gpu, name):
    images, truths = draw(studio.world, QUESTION, 3, seed=0)
    compare = lambda where: (
        where.compare(QUESTION, ANSWERS, images, truths, METHODS, drawn=True, name=name).probabilities
    )
    own, plain = compare(studio), compare(Studio(AdapterGenerator.from_pretrained(release(work))))
    assert own.keys() == set(METHODS)
    for method, probabilities in own.items():
        torch.testing.assert_close(probabilities, plain[method], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("drawn", [True, False])
def test_pages(studio, gpu, pictures, drawn):
    answers, own, shown = ", ".join(ANSWERS), [] if drawn else pictures[:2], []
    how = {
        "methods": list(studio.methods),
        "name": "hvae",
        "gamma": 1.5,
        "steps": 3,
        "samples": 2,
        "seed": 0,
        "score": {},
    }
    cards, _, file, _ = pages.ask(studio, QUESTION, answers, drawn, 2, own, **how)
    shown += [cards, *[*pages.guide(studio, QUESTION, answers, drawn, 2, own, 0)][-1]]
    labelled = [] if drawn else examples.label([], pictures, "red")
    *curve_and_cards, refined = [*pages.refine(studio, QUESTION, answers, drawn, 2, labelled, 0)][-1]
    shown += [*curve_and_cards, pages.identify(studio, file), pages.identify(studio, refined)]
    shown += [pages.identify(studio, pages.example_adapter(studio, QUESTION)) if drawn else ""]
    shown += [pages.compare(studio, f"{QUESTION}\nWhere is the dog?", 0)]
    assert all("alert" not in html for html in shown) and sum(map(bool, shown)) >= 7


def test_endpoints(studio, gpu, pictures):
    api = endpoints([studio])
    file = lambda path: {"path": str(path), "meta": {"_type": "gradio.FileData"}}
    assert api["suggest_answers"](QUESTION)
    made = api["generate"](QUESTION, "hyperclip")
    (record,) = api["classify"](QUESTION, ANSWERS, [file(pictures[0])])
    assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert set(api["try_on_scenes"](QUESTION, ANSWERS, 2)["answers"]) == set(studio.methods)
    assert len(api["infer_question"](file(made.path))) == 5
    assert len(api["compare_questions"]([QUESTION, "Where is the dog?"])["adapters"]) == 2


def test_it_ends():
    """Nothing of the GPU is left to other tests."""
    with fake_cuda():
        assert torch.cuda.is_available()
        left = torch.ones(2, device="cuda")
    assert not torch.cuda.is_available() or torch.cuda.get_device_name() != "no GPU"
    assert torch.tensor([1.0]).device.type == "cpu" and type(torch.zeros(2)) is torch.Tensor
    assert (left + 1).is_cuda
    with pytest.raises(RuntimeError, match="same device"):
        left + torch.ones(2)
