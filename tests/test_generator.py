import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from core.data.emoji.dataset import draw_scenes_for_question
from core.diffusion.samplers import SAMPLERS
from core.generator import METHODS, Adapter, AdapterGenerator
from core.methods import FEW_SHOT_ROWS, GUIDED, method_of, row_of
from core.networks.lowrank import LowRank, LowRankConfig
from core.networks.weight_generator import WEIGHT_GENERATORS
from tests.conftest import random_batch

QUESTION = "What colour is the badge behind the dog?"
ANSWERS = ["red", "blue", "green"]


@pytest.fixture(scope="module")
def generator(tiny):
    return AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights")


@pytest.fixture(scope="module")
def images():
    return [image for image, _ in draw_scenes_for_question(QUESTION, 4)]


@pytest.mark.parametrize("method", [m for m in METHODS if m != "clip"])
@pytest.mark.parametrize("name", WEIGHT_GENERATORS.names())
def test_every_method_gives_an_adapter(generator, images, method, name):
    adapter = generator.generate(QUESTION, method, generator=name, gamma=1.5, steps=3, samples=2, seed=4)
    table = adapter.classify(images, ANSWERS)
    assert list(table.columns) == ["answer", "probability", *ANSWERS] and len(table) == 4
    assert table[ANSWERS].sum(axis=1).tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert adapter.provenance["question"] == QUESTION and adapter.w.shape == (generator.network.num_params,)


def test_seed_decides_and_gamma_zero_ignores_the_question(generator):
    w = lambda question=QUESTION, **k: generator.generate(question, **{"gamma": 1.0, **k}).w
    assert torch.equal(w(seed=1), w(seed=1)) and not torch.equal(w(seed=1), w(seed=2))
    assert torch.allclose(w(gamma=0.0), w("How many fruits are there?", gamma=0.0), atol=1e-5)
    assert not torch.allclose(w(), w("How many fruits are there?"), atol=1e-5)


def random_questions(release, count):
    rng = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(count, release.question_encoder.dim, generator=rng), dim=-1)


def test_few_shot_clip_starts_from_the_training_seed(tiny):
    releases = [AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights") for _ in range(2)]
    releases[1].config["seed"] = 1
    support = random_batch(T=2, D=256)
    start = lambda release, **seed: release.few_shot_weights(support, "clip", lr=1.0, steps=0, **seed)
    starts = [start(release) for release in releases]
    assert starts[0].shape == (2, releases[0].network.num_params) and not torch.equal(*starts)
    assert torch.equal(start(releases[0], seed=1), starts[1])
    expected = releases[0].network.init(torch.Generator().manual_seed(0))
    torch.testing.assert_close(starts[0], expected.expand(2, -1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("row", [*FEW_SHOT_ROWS, "hvae_hyperldm", "hnet_hyperclip"])
def test_few_shot_adaptation_starts_at_the_rows_own_weights_and_lowers_the_loss(generator, row):
    support = random_batch(T=3, N=24, D=256)
    support = dataclasses.replace(support, question=random_questions(generator, 3))
    start = generator.few_shot_weights(support, row, lr=0.1, steps=0)
    if row != "clip":
        method, name = method_of(row)
        expected = generator.weights(support.question, method, generator=name)
        torch.testing.assert_close(start, expected, rtol=1e-4, atol=1e-4)
    adapted = generator.few_shot_weights(support, row, lr=0.1, steps=5)
    loss = lambda w: generator.network.loss(w, support).mean()
    assert not adapted.requires_grad and loss(adapted) < loss(start)


def test_a_model_is_read_once(tiny, tmp_path):
    """After the first call the files may be gone."""
    directory = shutil.copytree(tiny / "seed-0" / "weights", tmp_path / "release")
    release = AdapterGenerator.from_pretrained(directory)
    e = random_questions(release, 2)
    calls = [
        lambda method=method, name=name: release.weights(e, method, generator=name, steps=2)
        for method in METHODS
        for name in WEIGHT_GENERATORS.names()
    ]
    first = [call() for call in calls]
    shutil.rmtree(directory)
    for before, after in zip(first, (call() for call in calls), strict=True):
        assert (before is None and after is None) or torch.equal(before, after)


def test_probabilities_are_read_out_at_the_calibrated_scale(generator, images):
    """Plain CLIP at the backbone's own scale, a method at the one that validation tasks gave it."""
    scales = json.loads((generator.directory / "config.json").read_text(encoding="utf-8"))["scales"]
    rows = {row_of(method, name) for method in METHODS for name in WEIGHT_GENERATORS.names()}
    held = {row for row in rows if generator.has_row(row)}
    few_shot = {f"few_shot_{row}" for row in FEW_SHOT_ROWS} | {f"few_shot_{g}_hyperldm" for g in ("hvae", "hnet")}
    assert held == rows and scales.keys() == {"training", GUIDED, *rows, *few_shot}
    assert scales["training"] == generator.network.scale == 100.0
    assert scales["clip"] == generator.backbone.logit_scale == pytest.approx(19.09, abs=0.01)
    assert all(1.0 < scale < 100.0 for row, scale in scales.items() if row != "training")
    for method in ("clip", "cond_multitask", "hyperldm"):
        adapter = generator.generate(QUESTION, method)
        assert adapter.scale == adapter.provenance["scale"] == scales[row_of(method)] == generator.scale(row_of(method))
        x, answers = generator.backbone.encode_images(images), generator.backbone.encode_texts(ANSWERS)
        if adapter.w is not None:
            x = generator.network.forward(adapter.w[None], x[None])[0]
        expected = (adapter.scale * x @ answers.mT).softmax(-1)
        torch.testing.assert_close(adapter.probabilities(images, ANSWERS), expected)


def test_a_release_without_scales_uses_that_of_training(generator):
    bare = AdapterGenerator(generator.directory, {k: v for k, v in generator.config.items() if k != "scales"})
    assert bare.scale("hvae_hyperldm") == bare.scale("clip") == bare.network.scale
    network = generator.network
    assert Adapter(torch.zeros(network.num_params), network, generator.backbone).scale == network.scale


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


@pytest.mark.parametrize("name", WEIGHT_GENERATORS.names())
def test_guidance_of_hyperclip_is_a_function_of_question_and_seed_too(generator, name):
    e = generator.embed_questions([QUESTION, "Where is the cat?"])
    latents = lambda e: generator.latents(e, "hyperclip", generator=name, steps=5)
    torch.testing.assert_close(latents(e.flip(0))[1], latents(e[:1])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", WEIGHT_GENERATORS.names())
@pytest.mark.parametrize("samples", [1, 3])
def test_hyperclip_can_guide_hyperldm_besides(generator, name, samples):
    """Eq. 11: the stronger its gradient, the likelier the question is to HyperCLIP, given the weights; without it, and
    for each question by itself, all is as before."""
    e = generator.embed_questions([QUESTION, "Where is the cat?", "How many fruits are there?"])
    how = {"generator": name, "gamma": 1.5, "steps": 20, "samples": samples, "seed": 3}
    latents = lambda e, **more: generator.latents(e, **how, **more)
    torch.testing.assert_close(latents(e, gradient_scale=0.0), latents(e), rtol=0, atol=0)
    clip, decode = generator.module(f"{name}_hyperclip"), generator.weight_generator(name).decode
    target = clip.embed_questions(e)
    scales = (0.0, 0.02, 0.1, 0.3, 1.0, 3.0, 6.0, 20.0)
    cosine = torch.stack([(clip(decode(latents(e, gradient_scale=s))) * target).sum(-1) for s in scales])  # (8, 3)
    gain = cosine[-1] - cosine[0]  # of one question 0.0098 on some CPUs: training rounds otherwise
    assert (cosine.diff(dim=0) > 0).all() and (gain > 0.0095).all() and gain.mean() > 0.01
    guided = latents(e, gradient_scale=0.3)
    torch.testing.assert_close(latents(e[:1], gradient_scale=0.3)[0], guided[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(latents(e.flip(0), gradient_scale=0.3)[-1], guided[0], rtol=1e-4, atol=1e-4)
    w = generator.weights(e, **how, gradient_scale=0.3)
    torch.testing.assert_close(w, decode(guided))
    assert not torch.allclose(generator.weights(e, **{**how, "seed": 4}, gradient_scale=0.3), w, atol=1e-3)


@pytest.mark.parametrize(
    "method, scale, word",
    [
        ("hyperldm", -1.0, "gradient_scale -1.0; allowed: 0 or more"),
        ("hyperldm", float("nan"), "gradient_scale nan"),
        ("hyperldm", float("inf"), "gradient_scale inf"),
        ("hyperclip", 1.0, "method 'hyperclip' has no samples to guide"),
        ("cond_multitask", 1.0, "method 'cond_multitask' has no samples to guide"),
    ],
)
def test_a_gradient_that_cannot_guide_is_refused(generator, method, scale, word):
    with pytest.raises(ValueError, match=word):
        generator.weights(torch.zeros(1, 256), method, gradient_scale=scale)


def test_the_gradient_is_that_of_the_log_probability_at_the_scale_of_training(generator):
    """HyperCLIP's scale is held at 100 in its loss and in task inference, and so here."""
    model, clip = generator.module("hvae_hyperldm"), generator.module("hvae_hyperclip")
    e, z = generator.embed_questions([QUESTION]), torch.zeros(1, model.latent)
    before = clip.logit_scale.clone()
    try:
        values = []
        for factor in (100.0, 1000.0):
            clip.logit_scale.copy_(torch.tensor(factor).log())
            values.append(generator._hyperclip_log_prob("hvae", e, model)(z))
    finally:
        clip.logit_scale.copy_(before)
    torch.testing.assert_close(*values)
    assert float(values[0].abs()) > 0.1


def test_steps_that_a_release_cannot_take_are_its_own_fault(generator, monkeypatch):
    monkeypatch.setitem(generator.config["choices"]["hvae_hyperldm"], "steps", 351)
    with pytest.raises(ValueError, match="hvae_hyperldm is to take 351 steps by config.json; it knows 350"):
        generator.generate("Where is the cat?")
    with pytest.raises(ValueError, match="steps 360; allowed: 1 to 350"):
        generator.generate("Where is the cat?", steps=360)


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
        (dict(generator="gan"), "generator 'gan'; allowed: hnet, hvae"),
        (dict(gamma=-1.0), "gamma"),
        (dict(steps=0), "steps"),
        (dict(samples=1000), "samples"),
        (dict(steps=2.5), "steps"),
        (dict(gamma="2"), "gamma '2'; allowed: 0 to 10"),
        (dict(seed=np.int64(3)), r"seed np.int64\(3\); allowed: whole numbers"),
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


def test_many_images_are_opened_a_few_at_a_time(generator, images, monkeypatch):
    adapter, counts = generator.generate(QUESTION), []
    together = adapter.classify(images[:1] * 40, ANSWERS)
    encode = generator.backbone.encode_images
    monkeypatch.setattr(generator.backbone, "encode_images", lambda few: (counts.append(len(few)), encode(few))[1])
    table = adapter.classify(images[:1] * 40, ANSWERS)
    assert counts == [16, 16, 8] and table.equals(together) and list(table.index) == list(range(40))
    counts.clear()
    assert adapter.probabilities(images[:1] * 17, ANSWERS).shape == (17, len(ANSWERS)) and counts == [16, 1]


def test_bad_images_are_named(generator, tmp_path):
    adapter = generator.generate(QUESTION)
    (tmp_path / "notes.png").write_text("not a picture", encoding="utf-8")
    with pytest.raises(ValueError, match=r"notes\.png"):
        adapter.classify([tmp_path / "notes.png"], ANSWERS)
    with pytest.raises(ValueError, match="no such file"):
        adapter.classify([tmp_path / "none.png"], ANSWERS)
    with pytest.raises(ValueError, match="no image"):
        adapter.classify([], ANSWERS)


def test_suggested_answers_and_inferred_questions(generator):
    known = generator.known_questions[3]
    assert generator.suggest_answers(known["question"]) == known["answers"]
    hnet = generator.generate(QUESTION, generator="hnet")  # read by the HyperCLIP of its own generator
    assert generator.infer_question(hnet) == generator.infer_question(hnet, generator="hnet")
    assert generator.infer_question(hnet) != generator.infer_question(hnet, generator="hvae")
    assert not generator.task_probabilities(hnet.w[None], generator.known_embeddings).requires_grad
    guesses = generator.infer_question(generator.generate(QUESTION), count=3)
    assert len(guesses) == 3 and guesses[0]["probability"] >= guesses[2]["probability"]
    with pytest.raises(ValueError, match="plain CLIP has no adapter weights"):
        generator.infer_question(generator.generate(QUESTION, "clip"))


@pytest.mark.parametrize("path", ["/nowhere/at/all", "./x"])
def test_not_a_release(path, tmp_path):
    with pytest.raises(ValueError, match="neither a directory .* is not a Hub repository"):
        AdapterGenerator.from_pretrained(path)
    with pytest.raises(ValueError, match="config.json"):
        AdapterGenerator.from_pretrained(tmp_path)


def test_pictures_that_differ_only_in_what_is_no_pixel_have_their_own_embeddings(generator):
    picture = Image.new("P", (32, 32))
    picture.putpalette([255, 0, 0])
    other = picture.copy()
    other.putpalette([0, 0, 255])
    ours, theirs = generator.embed_images([picture]), generator.embed_images([other])
    assert not torch.equal(ours, theirs)
    assert torch.equal(theirs, generator.embed_images([Image.new("RGB", (32, 32), "blue")]))


def test_an_adapter_can_be_copied_before_its_backbone_is_loaded(tiny, images):
    fresh = AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights")
    adapter = fresh.generate(QUESTION)
    twin = copy.deepcopy(adapter)
    assert torch.equal(twin.w, adapter.w)
    assert twin.classify(images, ANSWERS).equals(adapter.classify(images, ANSWERS))


def test_nothing_has_no_embeddings(generator):
    dim = generator.backbone.dim
    assert generator.backbone.encode_texts([]).shape == (0, dim)
    for pooling in ("eos", "mean"):
        assert generator.backbone.encode_questions([], pooling).shape == (0, dim)


def test_provenance_says_what_was_used_and_nothing_else(generator):
    made = lambda method, **how: generator.generate(QUESTION, method, **how).provenance
    clip = made("hyperclip", generator="hnet", gamma=2.0, samples=3)
    assert clip["generator"] == "hnet" and clip["steps"] == generator.guidance_steps("hnet")
    assert clip["gamma"] is None and clip["samples"] is None
    ridge = made("kernel_ridge", generator="hnet", gamma=2.0, steps=3)
    assert (ridge["generator"], ridge["gamma"], ridge["steps"]) == ("hvae", None, None)
    assert made("cond_multitask")["generator"] is None
    assert made("hyperldm", gamma=1.5, steps=2, samples=3)["gamma"] == 1.5
    assert made("hyperldm")["sampler"] == generator.choice("hvae_hyperldm")["sampler"]
    assert made("hyperldm", sampler="dpmpp_2m")["sampler"] == "dpmpp_2m" and clip["sampler"] is None


def test_a_sampler_can_be_asked_for(generator, tiny, tmp_path):
    other = AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights")
    other.config["choices"]["hvae_hyperldm"]["sampler"] = "ddpm"
    asked = generator.generate(QUESTION, steps=10, sampler="ddpm")
    assert torch.equal(asked.w, other.generate(QUESTION, steps=10).w)
    assert not torch.equal(asked.w, generator.generate(QUESTION, steps=10, sampler="ddim").w)
    asked.save(tmp_path / "a.safetensors")
    assert Adapter.load(tmp_path / "a.safetensors", generator.backbone).provenance["sampler"] == "ddpm"
    with pytest.raises(ValueError, match="sampler 'euler'; allowed: ddpm, ddim, dpmpp_2m"):
        generator.generate(QUESTION, sampler="euler")


def test_an_adapter_of_another_network_is_no_question(generator):
    network = LowRank(LowRankConfig(rank=2), generator.network.dim)
    other = Adapter(torch.zeros(network.num_params), network, generator.backbone)
    with pytest.raises(ValueError, match="the adapter is for"):
        generator.infer_question(other)
