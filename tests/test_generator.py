import pytest
import torch

from core import generator as module
from core.adaptation import few_shot
from core.data.emoji.dataset import draw_scenes_for_question
from core.diffusion.samplers import SAMPLERS
from core.generator import Adapter, AdapterGenerator
from tests.conftest import ROOT

QUESTION = "What colour is the badge behind the dog?"
ANSWERS = ["red", "blue", "green"]


@pytest.fixture(scope="module")
def generator(tiny):
    release = AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights")
    release.config["backbone"] = str(ROOT / "weights" / "emoji" / "backbone")
    return release


@pytest.fixture(scope="module")
def images():
    return [image for image, _ in draw_scenes_for_question(QUESTION, 4)]


@pytest.mark.parametrize("method", [m for m in module.METHODS if m != "clip"])
@pytest.mark.parametrize("name", module.GENERATORS)
def test_every_method_gives_an_adapter(generator, images, method, name):
    adapter = generator.generate(QUESTION, method, generator=name, gamma=1.5, steps=3, samples=2, seed=4)
    table = adapter.classify(images, ANSWERS)
    assert list(table.columns) == ["answer", "probability", *ANSWERS] and len(table) == 4
    assert table[ANSWERS].sum(axis=1).tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert adapter.provenance["question"] == QUESTION and adapter.w.shape == (generator.adapter.num_params,)


def test_seed_decides_and_gamma_zero_ignores_the_question(generator):
    w = lambda question=QUESTION, **k: generator.generate(question, **{"gamma": 1.0, **k}).w
    assert torch.equal(w(seed=1), w(seed=1)) and not torch.equal(w(seed=1), w(seed=2))
    assert torch.allclose(w(gamma=0.0), w("How many fruits are there?", gamma=0.0), atol=1e-5)
    assert not torch.allclose(w(), w("How many fruits are there?"), atol=1e-5)


def test_few_shot_clip_starts_from_the_training_seed(tiny):
    releases = [AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights") for _ in range(2)]
    releases[1].config["seed"] = 1
    starts = [few_shot.start_and_decoder(release, "clip", torch.zeros(2, 256))[0] for release in releases]
    assert starts[0].shape == (2, releases[0].adapter.num_params) and not torch.equal(*starts)
    assert torch.equal(few_shot.start_and_decoder(releases[0], "clip", torch.zeros(2, 256), seed=1)[0], starts[1])


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("samples", [1, 3])
def test_a_result_is_a_function_of_question_and_seed(generator, monkeypatch, sampler, samples):
    """Not of how many questions are asked at once, and where this one stands among them."""
    monkeypatch.setitem(generator.config["choices"]["hvae_hyperldm"], "sampler", sampler)
    e = generator.embed_questions(
        [QUESTION, *(f"Where is the {thing}?" for thing in ["cat", "dog", "sun", "car", "cup", "bee", "key"])]
    )
    latents = lambda e, seed=0: generator.latents(e, gamma=1.5, steps=5, samples=samples, seed=seed)
    alone, first, last = latents(e[:1])[0], latents(e)[0], latents(e.flip(0))[-1]
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(latents(e[:1], seed=1)[0], alone, atol=1e-3)


@pytest.mark.parametrize("name", module.GENERATORS)
def test_guidance_of_hyperclip_is_a_function_of_question_and_seed_too(generator, name):
    e = generator.embed_questions([QUESTION, "Where is the cat?"])
    latents = lambda e: generator.latents(e, "hyperclip", generator=name, steps=5)
    torch.testing.assert_close(latents(e.flip(0))[1], latents(e[:1])[0], rtol=1e-4, atol=1e-4)


def test_save_and_load(generator, images, tmp_path):
    adapter = generator.generate(QUESTION)
    adapter.save(tmp_path / "a.safetensors")
    again = Adapter.load(tmp_path / "a.safetensors", generator.backbone)
    assert (
        again.classify(images, ANSWERS).equals(adapter.classify(images, ANSWERS))
        and again.provenance == adapter.provenance
    )
    adapter.provenance["backbone_sha256"] = "another"
    adapter.save(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="another backbone"):
        Adapter.load(tmp_path / "b.safetensors", generator.backbone)
    with pytest.raises(ValueError, match="no adapter weights"):
        generator.generate(QUESTION, "clip").save(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    "arguments, word",
    [
        (dict(question="  "), "question is empty"),
        (dict(method="magic"), "allowed: hyperldm"),
        (dict(generator="gan"), "hvae, hnet"),
        (dict(gamma=-1.0), "gamma"),
        (dict(steps=0), "steps"),
        (dict(samples=1000), "samples"),
        (dict(steps=2.5), "steps"),
        (dict(seed=-1), "seed"),
        (dict(seed=2**64), "seed"),
    ],
)
def test_bad_requests_are_named(generator, arguments, word):
    with pytest.raises(ValueError, match=word):
        generator.generate(**{"question": QUESTION, **arguments})


@pytest.mark.parametrize(
    "answers, word",
    [
        ([], "two answers"),
        (["red"], "two answers"),
        (["red", "red"], "more than once"),
        (["red", " "], "empty"),
        ("red,blue", "list"),
        (["yes", "answer"], "column"),
    ],
)
def test_bad_answers_are_named(generator, images, answers, word):
    with pytest.raises(ValueError, match=word):
        generator.generate(QUESTION).classify(images, answers)


def test_bad_images_are_named(generator, tmp_path):
    adapter = generator.generate(QUESTION)
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"notes\.png"):
        adapter.classify([tmp_path / "notes.png"], ANSWERS)
    with pytest.raises(ValueError, match="no such file"):
        adapter.classify([tmp_path / "none.png"], ANSWERS)
    with pytest.raises(ValueError, match="no image"):
        adapter.classify([], ANSWERS)


def test_nearest_questions_and_inference(generator):
    known = generator.known_questions[3]
    nearest = generator.nearest_questions(known["question"])
    assert nearest[0].question == known["question"] and generator.suggest_answers(known["question"]) == known["answers"]
    guesses = generator.infer_question(generator.generate(QUESTION), count=3)
    assert len(guesses) == 3 and guesses[0]["probability"] >= guesses[2]["probability"]


@pytest.mark.parametrize("path", ["/nowhere/at/all", "./x"])
def test_not_a_release(path, tmp_path):
    with pytest.raises(ValueError, match="neither a directory .* is not a Hub repository"):
        AdapterGenerator.from_pretrained(path)
    with pytest.raises(ValueError, match="config.json"):
        AdapterGenerator.from_pretrained(tmp_path)
