"""What the demo's tabs compute, on the shipped weights, without a browser."""

import copy
import json
import re
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import parse_qsl

import gradio as gr
import pytest
import torch
from PIL import Image

from core.demo import ask, examples, guidance, pages, refine
from core.demo.api import endpoints
from core.demo.files import Downloads, open_adapter, read_pictures
from core.demo.layout.parts import Question
from core.demo.link import Shared, read_link, write_link
from core.demo.novelty import PictureNovelty
from core.demo.similarity import read_questions
from core.demo.studio import Studio
from core.demo.views import about, charts, results
from core.demo.views import tabs as views
from core.demo.world import describe, draw
from core.generator import METHODS, AdapterGenerator
from core.release.checkpoint import load_model, save_adapter
from core.texts import join_answers, split_answers
from eval.harness.comparison.variants import VARIANTS
from eval.harness.rows import ROWS
from tests.conftest import ROOT

QUESTION = "What colour is the badge behind the dog?"
HOSTILE = '<img src=x onerror="alert(1)"> \'{{ 7 * 7 }}'
ANSWERS = ["red", "blue", "green", "yellow", "white", "black"]


@pytest.fixture(scope="module")
def studio():
    return Studio(AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji"))


@pytest.fixture(scope="module")
def other_world():
    """The same weights, said to be of something else."""
    generator = AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji")
    generator.config = generator.config | {"dataset": "plankton"}
    return Studio(generator)


def test_the_first_question_is_one_of_the_releases_own(studio, other_world):
    """And so are its candidate answers."""
    assert studio.first_question == QUESTION
    known = {question["question"]: question["answers"] for question in other_world.generator.known_questions}
    assert other_world.suggest(other_world.first_question) == known[other_world.first_question]
    shared, complaints = pages.restore(other_world, {})
    assert shared.question == other_world.first_question and not complaints


@pytest.mark.parametrize("name, own", [("meta-vqa", False), ("meta-vqa-photos", False), ("meta-vqa of mine", True)])
def test_only_the_worlds_own_datasets_are_described_as_such(other_world, name, own):
    generator = copy.copy(other_world.generator)
    generator.config = generator.config | {"dataset": name}
    assert (describe(generator).title == name) is own


def test_a_release_that_knows_no_question_begins_with_one_about_anything(other_world, monkeypatch):
    monkeypatch.setattr(other_world, "generator", SimpleNamespace(known_questions=[]))
    assert other_world._first_question() == "What is in the picture?"


# Ask


def test_comparison_agrees_with_the_generator(studio):
    images, truths = draw(studio.world, QUESTION, 5, seed=3)
    c = studio.compare(QUESTION, ANSWERS, images, truths, list(studio.methods), drawn=True, gamma=1.5, seed=4)
    for method in ask.LABELS:
        gamma = 1.5 if method == "hyperldm" else None
        alone = studio.generator.generate(QUESTION, method, gamma=gamma, seed=4).probabilities(images, ANSWERS)
        torch.testing.assert_close(c.probabilities[method], alone, rtol=1e-4, atol=1e-4)
        best = [ANSWERS[i] for i in alone.argmax(-1).tolist()]
        right = [a == truth if truth in ANSWERS else None for a, truth in zip(best, truths, strict=True)]
        assert c.right(method) == right


def test_the_score_counts_a_scene_once_and_as_last_answered(studio):
    images, truths = draw(studio.world, QUESTION, 3, seed=0)
    compare = lambda truths, methods=("clip",): studio.compare(QUESTION, ANSWERS, images, truths, methods, drawn=True)
    best = [ANSWERS[i] for i in compare(truths).probabilities["clip"].argmax(-1).tolist()]
    right, wrong = compare(best), compare([next(a for a in ANSWERS if a not in best)] * 3)
    first = ask.add_to_score({}, right, seed=0)
    assert ask.totals(first) == {"clip": (3, 3)}
    assert ask.totals(ask.add_to_score(first, right, seed=0)) == {"clip": (3, 3)}
    assert ask.totals(ask.add_to_score(first, wrong, seed=0)) == {"clip": (0, 3)}
    both = ask.add_to_score(first, wrong, seed=1)
    assert ask.totals(both) == {"clip": (3, 6)} and ask.totals(first) == {"clip": (3, 3)}
    assert ask.totals(ask.add_to_score(both, compare([None] * 3), seed=2)) == {"clip": (3, 6)}
    assert ask.totals(ask.add_to_score(both, compare(["purple"] * 3), seed=2)) == {"clip": (3, 6)}


def test_scenes_whose_answer_is_no_candidate_do_not_count(studio):
    html, score, _, _ = _ask(studio, question="Where is the cat?", answers="top, banana")
    assert score == {"hyperldm": {}, "clip": {}} or not ask.totals(score)
    assert "of 3 right" not in html and "3 scenes are not counted" in html
    truths = draw(studio.world, QUESTION, 3, seed=0)[1]
    html, score, _, _ = _ask(studio, answers=", ".join([truths[0], "banana"]))
    fair = truths.count(truths[0])
    assert ask.totals(score)["clip"][1] == fair and f"of {fair} right" in html


def test_a_result_says_what_it_answers(studio, tmp_path):
    html, _, _, link = _ask(studio, question="  <b>Where</b> is the cat? ", answers="left, right", seed=3.0)
    assert "&lt;b&gt;Where&lt;/b&gt; is the cat?</h2>" in html and "<b>Where" not in html
    assert "decoder HVAE, gamma 1.25, 10 steps, 1 sample, seed 3" in html
    alone = _ask(studio, methods=["clip"])[0]
    assert ">seed 0<" in alone and "gamma" not in alone
    shared, complaints = pages.restore(studio, dict(parse_qsl(link)))
    assert not complaints and shared.question == "<b>Where</b> is the cat?" and shared.answers == "left, right"
    assert (shared.methods, shared.gamma, shared.seed, shared.steps) == (("hyperldm", "clip"), 1.25, 3, 10)
    picture = _white(tmp_path / "a.png", 90, 60)
    curves, _ = next(pages.guide(studio, QUESTION, "red, blue", False, 1, [picture], 0))
    assert f"{QUESTION}</h2>" in curves and "1 picture, seed 0" in curves and curves.count("<img") == 1
    curves, _ = next(pages.guide(studio, QUESTION, "red, blue", True, 2, [], 0))
    assert "2 drawn scenes, seed 0" in curves and "<img" not in curves
    curve, _, _ = next(pages.refine(studio, QUESTION, ", ".join(ANSWERS), True, 1, [], 7))
    assert f"{QUESTION}</h2>" in curve and ">seed 7<" in curve


def test_cards_mark_right_and_wrong_and_quote_what_people_type(studio):
    images, _ = draw(studio.world, QUESTION, 2, seed=0)
    comparison = studio.compare("<b>Where?</b>", ["<em>x</em>", "y"], images, ["y", None], ["clip"], drawn=True)
    html = pages.comparison_cards(comparison)
    assert html.count("<article") == 2 and html.count('class="qa-truth"') == 1
    assert "<em>" not in html and "<b>Where" not in html and "&lt;em&gt;" in html
    assert html.count('aria-label="right"') + html.count('aria-label="wrong"') == 1


def test_scenes_of_a_question_that_is_not_understood_are_said_to_be_unmarked(studio, tmp_path):
    told = "does not understand this question, so no answer is marked"
    assert told in _ask(studio, question="Is the zebra happy?", answers="happy, sad")[0]
    assert told not in _ask(studio)[0]
    path = _white(tmp_path / "a.png", 64, 64)
    own = _ask(studio, question="Is the zebra happy?", answers="happy, sad", drawn=False, paths=[path])[0]
    assert "qa-card" in own and "is marked" not in own and "is not known" not in own


def test_ask_is_deterministic(studio):
    answer = lambda seed: _ask(studio, seed=seed)[0].split("<article")[1:-1]
    assert answer(1) == answer(1) != answer(2)


def _ask(studio, **changes):
    values = dict(
        question=QUESTION,
        answers=", ".join(ANSWERS),
        drawn=True,
        count=3,
        paths=[],
        methods=["hyperldm", "clip"],
        name="hvae",
        gamma=1.25,
        steps=10,
        samples=1,
        seed=0,
        score={},
    )
    return pages.ask(studio, **(values | changes))


@pytest.mark.parametrize(
    "changes, word",
    [
        (dict(question="   "), "type a question"),
        (dict(question="why " * 100), "300 are allowed"),
        (dict(question="?" * 290), "tokens"),
        (dict(answers="red"), "two answers"),
        (dict(answers="red, red"), "more than once"),
        (dict(answers=", ".join(map(str, range(257)))), "2 to 256"),
        (dict(answers="red, " + "blue " * 41), "200 are allowed"),
        (dict(drawn=False), "at least one picture"),
        (dict(methods=[]), "at least one method"),
        (dict(count=65), "1 to 64"),
        (dict(seed=-5), "Seed -5; allowed: whole numbers from 0 to 2147483647"),
        (dict(seed=1.7), "Seed 1.7; allowed: whole"),
        (dict(seed=99999999999), "Seed 99999999999; allowed: whole"),
    ],
)
def test_mistakes_get_a_message(studio, changes, word):
    html, score, file, link = _ask(studio, **changes)
    assert 'role="alert"' in html and word in html and score == {} and file is None and link is None


def test_no_answers_are_looked_up_for_a_question_that_is_too_long(studio):
    with gr.Blocks():
        words = Question(studio, "test")
    assert words._fill("why " * 100, "why?") == (gr.skip(), gr.skip())  # what a visitor edits meanwhile stays
    assert words._fill("?" * 290, "why?") == (gr.skip(), gr.skip())
    assert words._fill(f" {QUESTION}", "why?") == (", ".join(studio.suggest(QUESTION)), QUESTION)


# What is strange


def test_unfamiliar_questions(studio):
    tasks = [k["question"] for k in studio.generator.known_questions]
    assert not any(studio.questions.reason(q) for q in tasks[::40])
    new = [q for questions in studio.examples.values() for q in questions]
    assert sum(bool(studio.questions.reason(q)) for q in new) <= 0.15 * len(new)
    for question in ("Is this person happy?", "Who won?", "Is the tumour malignant?"):
        assert studio.questions.reason(question), question
    # far is what is asked, not a word that is new
    assert not any(map(studio.questions.reason, ("Where is the giraffe?", "what color is the sign behind the puppy")))


def test_most_questions_of_another_world_are_unfamiliar(studio):
    questions = (ROOT / "eval" / "other_world.txt").read_text(encoding="utf-8").splitlines()
    assert len(questions) == 100 and sum(studio.questions.are_strange(questions)) > 90


def test_unfamiliar_pictures(studio):
    asked = [questions[0] for questions in studio.examples.values()]
    scenes = [draw(studio.world, q, 1, seed=9)[0][0] for q in asked]
    larger = [scene.resize((400, 400), Image.Resampling.NEAREST) for scene in scenes]
    assert sum(studio.pictures.are_strange(scenes)) <= 0.1 * len(scenes)
    assert sum(studio.pictures.are_strange(larger)) <= 0.2 * len(larger)
    g = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (80, 80, 3), generator=g, dtype=torch.uint8).numpy()
    smooth = torch.linspace(0, 255, 80).repeat(80, 1).to(torch.uint8).numpy()
    odd = [Image.fromarray(noise), Image.fromarray(smooth).convert("RGB"), Image.new("RGB", (80, 80), "teal")]
    assert all(studio.pictures.are_strange(odd))


def test_photographs_are_unfamiliar(studio):
    folder = ROOT / next(iter(gr.__path__)) / "media_assets" / "images"
    photographs = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jp*g"))]
    if not photographs:
        pytest.skip("this version of Gradio brings no photographs")
    assert all(studio.pictures.are_strange(photographs))


def test_the_page_says_that_a_question_or_picture_is_unfamiliar(studio, tmp_path):
    Image.effect_noise((200, 200), 90).save(tmp_path / "noise.png")
    html, *_ = _ask(studio, question="How do I renew my passport?", drawn=False, paths=[tmp_path / "noise.png"])
    assert "it is far in meaning" in html and 'class="qa-strange"' in html
    assert "qa-notice" not in _ask(studio)[0]
    assert "it asks for yes or no" in _ask(studio, question="Is there a dog?", answers="yes, no")[0]


def test_distance_needs_no_scale(studio):
    """The threshold is a quantile: about 2% of what was left out lies beyond it."""
    scenes = [draw(studio.world, q["question"], 1, 5)[0][0] for q in studio.generator.known_questions[:90]]
    novelty = PictureNovelty.of(studio.generator.backbone, scenes)
    assert sum(novelty.are_strange(scenes[::3])) <= 3


# Guidance


def test_sweep_walks_from_the_same_noise_and_ends_where_the_generator_does(studio):
    generator, plane = studio.generator, studio.plane
    images, truths = draw(studio.world, QUESTION, 6, seed=0)
    x = generator.backbone.encode_images(images)
    seen = list(guidance.sweep(generator, plane, QUESTION, ANSWERS, x, truths, seed=7))
    assert [guided.gamma for guided in seen] == list(guidance.GAMMAS)
    for guided in seen:
        torch.testing.assert_close(guided.path[0], seen[0].path[0])
    one = next(guided for guided in seen if guided.gamma == 1.5)
    z = generator.latents(generator.embed_questions([QUESTION]), gamma=1.5, seed=7)
    torch.testing.assert_close(one.end, plane(z)[0], rtol=1e-4, atol=1e-4)
    adapted = generator.network.forward(generator.weight_generator("hvae").decode(z), x[None])[0]
    best = (adapted @ generator.backbone.encode_texts(ANSWERS).mT).argmax(-1).tolist()
    assert one.accuracy == pytest.approx(sum(ANSWERS[k] == t for k, t in zip(best, truths, strict=True)) / 6)
    html = views.guidance_curves(seen, 1.25) + views.guidance_plane(plane, seen)
    assert html.count("<svg") == 2 and html.count('class="line way') == len(guidance.PATHS) and "nan" not in html


def test_confidence_over_gamma_is_read_out_at_the_release_s_scale(studio, monkeypatch):
    generator = studio.generator
    x = generator.backbone.encode_images(draw(studio.world, QUESTION, 4, seed=0)[0])
    scales = {"training": 100.0, "hvae_hyperldm": 7.0, "mnet_maml": 9.0}
    monkeypatch.setattr(generator, "config", generator.config | {"scales": scales})
    guided = next(guidance.sweep(generator, studio.plane, QUESTION, ANSWERS, x, [None] * 4, seed=7))
    w = generator.generate(QUESTION, gamma=guided.gamma, seed=7).w
    cosine = generator.network.forward(w[None], x[None])[0] @ generator.backbone.encode_texts(ANSWERS).mT
    assert guided.confidence == pytest.approx(float((7.0 * cosine).softmax(-1).amax(-1).mean()), abs=1e-4)
    assert studio.calibrated
    examples = refine.Labelled(x, torch.zeros(4, dtype=torch.long))
    for row, scale in (("hvae_hyperldm", 7.0), ("mnet_maml", 9.0)):
        assert refine.refined(generator, QUESTION, ANSWERS, examples[:0], row).scale == scale


def test_one_sample_ends_its_path_at_its_latent(studio):
    generator = AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji")
    choices = generator.config["choices"]
    choices["hvae_hyperldm"] = choices["hvae_hyperldm"] | {"samples": 1, "steps": guidance.WAY}
    x = torch.nn.functional.normalize(torch.randn(2, generator.network.dim), dim=-1)
    first = next(guidance.sweep(generator, studio.plane, QUESTION, ANSWERS, x, [None, None]))
    torch.testing.assert_close(first.path[-1], first.end, rtol=1e-3, atol=1e-3)
    assert first.accuracy is None


def test_latent_plane_finds_a_plane():
    g = torch.Generator().manual_seed(0)
    flat = torch.randn(50, 2, generator=g) @ torch.linalg.qr(torch.randn(7, 7, generator=g))[0][:2] + 3
    plane = guidance.LatentPlane(flat)
    assert plane.share == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(torch.pdist(plane.points), torch.pdist(flat), rtol=1e-4, atol=1e-4)


# Refine

# Nine drawn at random among the test questions, less two whose scenes too seldom have one of the suggested answers.
DRAWN_QUESTIONS = (
    "What shape is the badge behind the thing with the blue badge?",
    "Which shape is behind the one on the black badge?",
    "How many black badges are there?",
    "What colour is the badge behind the bee?",
    "What shape is next to the fruit?",
    "What size is the top right thing?",
    "Which background colour goes with the pear?",
)


def test_examples_help_and_the_start_is_what_was_generated(studio):
    generator, encode = studio.generator, studio.generator.backbone.encode_images

    def curve(question):
        answers = studio.suggest(question)
        sets = [
            refine.label_pictures(encode(images), truths, answers)
            for images, truths in (draw(studio.world, question, 64, seed) for seed in (1, 2))
        ]
        return answers, sets, list(refine.k_shot_curve(generator, question, answers, *sets, 50))

    answers, sets, points = curve(QUESTION)
    assert [point.k for point in points] == list(refine.KS)
    first, last = points[0].accuracy, points[-1].accuracy
    assert first["hvae_hyperldm"][0] > first["mnet_maml"][0] + 0.1
    assert last["mnet_maml"][0] > first["mnet_maml"][0] + 0.1
    gain = lambda curve: curve[-1].accuracy["hvae_hyperldm"][0] - curve[0].accuracy["hvae_hyperldm"][0]
    # A good start gains less than 61 scenes of one question can tell.
    gains = [gain(points), *(gain(curve(question)[2]) for question in DRAWN_QUESTIONS)]
    assert sum(gains) / len(gains) > 0.02
    start = refine.refined(generator, QUESTION, answers, sets[0][:0], "hvae_hyperldm")
    torch.testing.assert_close(start.w, generator.generate(QUESTION).w, rtol=1e-3, atol=1e-3)
    refined = refine.refined(generator, QUESTION, answers, sets[0][:20], "hvae_hyperldm")
    own = (refined.probabilities_of(sets[0].x, generator.backbone.encode_texts(answers)).argmax(-1) == sets[0].labels)[
        :20
    ]
    assert own.float().mean() > 0.8 and refined.provenance["examples"] == 20


def test_own_examples_are_never_tested_on_themselves(studio):
    """Random labels can be learned and not predicted: accuracy on what is held out stays near chance."""
    g = torch.Generator().manual_seed(0)
    images = [image for image, _ in (draw(studio.world, QUESTION, 1, s) for s in range(24)) for image in image]
    x = studio.generator.backbone.encode_images(images)
    noise = refine.Labelled(x.clone(), torch.randint(0, 4, (24,), generator=g))
    *_, last = refine.k_shot_curve(studio.generator, QUESTION, ANSWERS[:4], noise, None, 16)
    assert last.k == 16 and all(mean < 0.6 for mean, _, _ in last.accuracy.values())


def test_refine_page_with_own_pictures(studio, tmp_path):
    images, truths = draw(studio.world, QUESTION, 12, seed=0)
    labelled = []
    for i, (image, truth) in enumerate(zip(images, truths, strict=True)):
        image.save(tmp_path / f"{i}.png")
        labelled.append((str(tmp_path / f"{i}.png"), truth))
    answers = ", ".join(sorted(set(truths)))
    *_, (curve, cards, file) = pages.refine(studio, QUESTION, answers, False, 50, labelled, 0)
    assert "<svg" in curve and "<article" in cards and open_adapter(file, studio.generator)
    for bad, word in (
        (labelled[:2], "at least 4"),
        ([], "at least one picture"),
        ([(labelled[0][0], "mauve")], "1 of 1 labelled picture is left out: the right answer &#39;mauve&#39;"),
        (labelled[:1], "1 labelled picture is too few"),
    ):
        ((message, _, _),) = pages.refine(studio, QUESTION, answers, False, 50, bad, 0)
        assert 'role="alert"' in message and word in message


def test_labels_of_an_earlier_question_are_left_out_and_said(studio, tmp_path):
    images, truths = draw(studio.world, QUESTION, 12, seed=0)
    labelled = []
    for i, (image, truth) in enumerate(zip(images, truths, strict=True)):
        image.save(tmp_path / f"{i}.png")
        labelled.append((str(tmp_path / f"{i}.png"), truth.upper() if i == 0 else truth))  # one answer in any case
    mauve = [(labelled[0][0].replace("0.png", "m.png"), "mauve"), (str(tmp_path / "gone.png"), truths[0])]
    *_, (curve, cards, _) = pages.refine(
        studio, QUESTION, ", ".join(sorted(set(truths))), False, 50, [*labelled, *mauve], 0
    )
    assert "1 of 14 labelled pictures is left out: the right answer &#39;mauve&#39;" in curve
    assert "1 labelled picture is no longer kept here; please add it again" in curve and "<article" in cards


@pytest.mark.parametrize("most, learned", [(50, 8), (5, 5), (0, 0)])
def test_own_pictures_that_are_shown_as_held_out_are_not_learned_from(studio, tmp_path, monkeypatch, most, learned):
    images, truths = draw(studio.world, QUESTION, 12, seed=0)
    paths = [str(tmp_path / f"{i}.png") for i in range(12)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    used, judged, refined, cards = [], [], refine.refined, views.refine_cards
    monkeypatch.setattr(refine, "refined", lambda *a, **k: used.append(a[3]) or refined(*a, **k))
    monkeypatch.setattr(pages, "refine_cards", lambda *a: judged.append(a) or cards(*a))
    labelled = list(zip(paths, truths, strict=True))
    *_, (_, html, file) = pages.refine(studio, QUESTION, ", ".join(sorted(set(truths))), False, most, labelled, 3)
    ((shown, told, _, _, x),) = judged
    assert html.count("<article") == len(shown) == 4 and f"{learned or 'no'} examples" in html
    assert open_adapter(file, studio.generator).provenance["examples"] == learned
    assert sorted(map(len, used)) == ([0, learned, learned] if learned else [0, 0])
    for learned_from in used:
        assert not any(torch.allclose(a, b, atol=1e-4) for a in learned_from.x for b in x)
    everything = studio.generator.backbone.encode_images(images)
    for row, truth in zip(x, told, strict=True):  # each with its own truth
        assert truth == truths[int((everything @ row).argmax())]


def test_too_few_own_pictures_are_not_shown_as_held_out(studio, tmp_path):
    images, truths = draw(studio.world, QUESTION, 3, seed=0)
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
    labelled = [(str(tmp_path / f"{i}.png"), truth) for i, truth in enumerate(truths)]
    answers = ", ".join({*truths, "mauve"})
    ((message, cards, file),) = pages.refine(studio, QUESTION, answers, False, 50, labelled, 0)
    assert "3 labelled pictures are too few to hold any out: at least 4" in message and cards == "" and file == ""


def test_what_is_held_out_is_what_the_curve_tests_with_first():
    examples = refine.Labelled(torch.eye(10), torch.zeros(10, dtype=torch.long))
    learned, held_out = refine.hold_out(examples, seed=5)
    assert sorted([*learned.tolist(), *held_out.tolist()]) == list(range(10)) and len(held_out) == 4
    first = torch.randperm(10, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.cat([held_out, learned]), first)


def test_zero_examples(studio):
    *_, (curve, cards, _) = pages.refine(studio, QUESTION, ", ".join(ANSWERS), True, 0, [], 0)
    labels = re.findall(r'class="who">([^<]*)', cards)[:3]
    assert labels == ["Plain CLIP", "Generated, no examples", "MNet-MAML, no examples"]
    assert 'role="alert"' not in curve and "nan" not in curve


# What is this adapter for, Compare


def test_the_kind_of_question_that_an_adapter_was_fine_tuned_for_is_found(studio):
    """Among the first eight, where chance finds it one time in six."""
    known = studio.generator.known_questions[::30]
    paths = [pages.example_adapter(studio, k["question"]) for k in known]
    found = [studio.generator.infer_question(open_adapter(path, studio.generator), 8) for path in paths]
    right = sum(k["family"] in {item["family"] for item in items} for k, items in zip(known, found, strict=True))
    assert right >= len(known) / 2
    html = pages.identify(studio, paths[0])
    assert html.count("<li>") == 8 and f"made for “{known[0]['question']}” by fine-tuning on examples" in html


def test_wrong_adapter_files_are_named_without_their_folder(studio, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    save_file({"w": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    save_file({"w": torch.zeros(3)}, tmp_path / "crafted.safetensors", metadata={"header": '{"kind": "adapter"}'})
    own = studio.generator.network
    save_adapter(tmp_path / "list.safetensors", torch.zeros(own.num_params), own)
    header, tensors = load_model(tmp_path / "list.safetensors")
    header = json.dumps(header | {"metadata": []})
    save_file(tensors, tmp_path / "list.safetensors", metadata={"header": header})
    assert 'role="alert"' in pages.identify(studio, None)
    for name in ("notes.txt", "foreign.safetensors", "crafted.safetensors", "list.safetensors", "gone.safetensors"):
        html = pages.identify(studio, str(tmp_path / name))
        assert 'role="alert"' in html and name in html and str(tmp_path) not in html
    html = pages.identify(studio, str(ROOT / "weights" / "emoji" / "hvae_hyperldm.safetensors"))
    assert "expected a" in html


def test_an_adapter_of_the_other_world_says_where_it_was_made(studio, tmp_path):
    """And one of a release that is not shipped, of which preset."""
    config = json.loads((ROOT / "weights" / "photos" / "config.json").read_text(encoding="utf-8"))
    own = studio.generator.network
    for name, made in (("photos", {"backbone_sha256": config["backbone_sha256"]}), ("mine", {"backbone_sha256": "1"})):
        save_adapter(tmp_path / f"{name}.safetensors", torch.zeros(own.num_params), own, made | {"preset": name})
    html = pages.identify(studio, str(tmp_path / "photos.safetensors"))
    assert "an adapter of Photographs, and this is another world" in html and str(tmp_path) not in html
    html = pages.identify(studio, str(tmp_path / "mine.safetensors"))
    assert "made for another backbone, of preset" in html and "mine" in html and str(tmp_path) not in html


def test_an_adapter_of_the_hnet_is_read_where_there_is_no_encoder_for_it(studio, tmp_path, monkeypatch):
    generator = studio.generator
    generator.generate(QUESTION, "hyperldm", generator="hnet").save(tmp_path / "a.safetensors")
    asked, read = [], generator.task_probabilities
    monkeypatch.setattr(generator, "task_probabilities", lambda w, e, name: asked.append(name) or read(w, e, name))
    pages.identify(studio, str(tmp_path / "a.safetensors"))
    has = generator.has
    monkeypatch.setattr(generator, "has", lambda method, name: name == "hvae" and has(method, name))
    pages.identify(studio, str(tmp_path / "a.safetensors"))
    assert asked == ["hnet", "hvae"]


def test_what_an_adapter_s_file_says_of_itself_is_shown_as_text(studio, tmp_path):
    adapter = studio.generator.generate(QUESTION, "cond_multitask")
    adapter.provenance.update(question=HOSTILE, method=HOSTILE, generator=HOSTILE)
    adapter.save(tmp_path / "a.safetensors")
    html = pages.identify(studio, str(tmp_path / "a.safetensors"))
    assert "<img" not in html and html.count("&lt;img src=x onerror=&#34;") == 2
    (tmp_path / "<img src=x>.safetensors").write_text("hello", encoding="utf-8")
    html = pages.identify(studio, str(tmp_path / "<img src=x>.safetensors"))
    assert 'role="alert"' in html and "<img" not in html and "&lt;img src=x&gt;.safetensors" in html


def test_what_visitors_type_and_send_is_shown_as_text(studio, tmp_path):
    path = tmp_path / "<img src=x>.png"
    path.write_text("no picture", encoding="utf-8")
    drawn = _ask(studio, question=HOSTILE, answers=f"{HOSTILE}, b")[0]
    broken = _ask(studio, drawn=False, paths=[path])[0]
    twice = _ask(studio, answers=f"{HOSTILE}, {HOSTILE}")[0]
    alike = pages.compare(studio, f"{HOSTILE}\n{QUESTION}", 0)
    ((unknown, _, _),) = pages.refine(
        studio, QUESTION, "red, blue", False, 5, [(_white(tmp_path / "a.png", 9, 9), HOSTILE)], 0
    )
    for html in (drawn, broken, twice, alike, unknown):
        assert "&lt;img src=x" in html and not re.search(r"<img(?! class=)|onerror=\"", html)


def test_a_page_begins_with_what_its_address_says(studio):
    shared, complaints = pages.restore(studio, {"question": " Where  is the cat? ", "gamma": "1"})
    assert shared.question == "Where is the cat?" and shared.gamma == 1.0 and not complaints
    assert shared.answers == ", ".join(studio.suggest("Where is the cat?"))
    shared, complaints = pages.restore(studio, {"answers": "a, b", "method": "magic"})
    assert shared.answers == "a, b" and shared.methods == tuple(studio.methods) and len(complaints) == 1
    shared, complaints = pages.restore(studio, {"question": "?" * 290})  # more tokens than the encoder reads
    assert shared.question == QUESTION and "tokens" in complaints[0]


def test_bad_pictures_are_named_without_their_folder(tmp_path):
    (tmp_path / "notes.png").write_text("hello", encoding="utf-8")
    (tmp_path / "size.ppm").write_bytes(b"P6\nwide 4\n255\n")
    for name, word in (("gone.png", "no such file"), ("notes.png", "not an image"), ("size.ppm", "not an image")):
        with pytest.raises(ValueError, match=rf"^{name}: {word}"):
            read_pictures([tmp_path / name])


def _white(path, width, height):
    """A file of a few kilobytes that is many megabytes of pixels."""
    Image.new("1", (width, height), 1).save(path)
    return path


def test_a_picture_with_too_many_pixels_is_not_decoded(studio, tmp_path, monkeypatch):
    path = _white(tmp_path / "huge.png", 13_000, 13_000)
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    for html in (
        _ask(studio, drawn=False, paths=[path])[0],
        next(pages.guide(studio, QUESTION, "red, blue", False, 1, [path], 0))[0],
        next(pages.refine(studio, QUESTION, "red, blue", False, 5, [(path, "red")] * 5, 0))[0],
    ):
        assert "huge.png: 13000 x 13000 pixels, 169 megapixels; allowed: up to 25 megapixels" in html
        assert str(tmp_path) not in html


def test_too_many_pictures_are_refused_before_any_is_read(studio, tmp_path):
    paths = [tmp_path / "gone.png"] * 65
    for html in (
        _ask(studio, drawn=False, paths=paths)[0],
        next(pages.guide(studio, QUESTION, "red, blue", False, 1, paths, 0))[0],
        next(pages.refine(studio, QUESTION, "red, blue", False, 5, [(path, "red") for path in paths], 0))[0],
    ):
        assert "65 pictures; 64 are allowed" in html


def test_little_is_kept_of_a_large_picture(tmp_path):
    large, small = _white(tmp_path / "large.png", 5000, 2500), _white(tmp_path / "small.png", 1024, 80)
    assert [image.size for image in read_pictures([large, small])] == [(1024, 512), (1024, 80)]


def test_pictures_that_do_not_say_how_large_they_are_or_are_programs_are_refused(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.ico")
    Image.new("RGB", (16, 16)).save(tmp_path / "a.eps")
    for name in ("a.ico", "a.eps"):
        with pytest.raises(ValueError, match=f"^{name}: not an image"):
            read_pictures([tmp_path / name])


def test_pictures_are_labelled_once_and_not_without_end():
    labelled = examples.label([], ["a.png", "b.png"], " red ")
    assert labelled == [("a.png", "red"), ("b.png", "red")]
    assert examples.label(labelled, ["b.png", "c.png"], "blue") == [
        ("a.png", "red"),
        ("b.png", "blue"),
        ("c.png", "blue"),
    ]
    for paths, answer in (([], "red"), (["a.png"], "  "), (["a.png"], None)):
        with pytest.raises(ValueError, match="choose pictures"):
            examples.label(labelled, paths, answer)
    with pytest.raises(ValueError, match="66 pictures; 64 are allowed"):
        examples.label(labelled, [f"{i}.png" for i in range(64)], "red")


def test_examples_that_could_not_be_used_are_refused_at_once(tmp_path):
    picture = _white(tmp_path / "a.png", 9, 9)
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4")
    assert examples.add([], [picture], " RED ", "red, blue") == [(picture, "RED")]
    with pytest.raises(ValueError, match="'mauve' is not among the candidate answers"):
        examples.add([], [picture], "mauve", "red, blue")
    with pytest.raises(ValueError, match=r"b\.pdf"):
        examples.add([], [picture, str(tmp_path / "b.pdf")], "red", "red, blue")
    with pytest.raises(ValueError, match="two answers"):
        examples.add([], [picture], "red", "red")


def test_pictures_that_were_not_added_as_examples_are_asked_for(studio, tmp_path):
    ask_for = lambda labelled, pending: next(
        pages.refine(studio, QUESTION, "red, blue", False, 5, labelled, 0, pending)
    )[0]
    assert "1 chosen picture is not among the examples yet" in ask_for([], 1) and "Add as examples" in ask_for([], 1)
    labelled = [(_white(tmp_path / f"{i}.png", 9 + i, 9), ("red", "blue")[i % 2]) for i in range(6)]
    assert "2 chosen pictures are not among" in ask_for(labelled, 2) and "<svg" in ask_for(labelled, 2)
    assert "not among" not in ask_for(labelled, 0)
    one = list(pages.refine(studio, QUESTION, "red, blue", False, 1, labelled, 0))[-1][1]
    assert "Generated, 1 example<" in one and "MNet-MAML, 1 example<" in one


def test_the_seed_of_other_scenes():
    assert [pages.next_seed(seed) for seed in (None, 3, 3.0, 2**31 - 1)] == [1, 4, 4, 0]
    assert [pages.next_seed(seed) for seed in (1.7, -5)] == [1.7, -5]


def test_similarity_of_adapters_sees_through_wording(studio):
    questions = [QUESTION, "What colour is the badge behind the cat?", "Where is the dog?"]
    adapters, embeddings = studio.similarity(questions)
    for matrix in (adapters, embeddings):
        torch.testing.assert_close(matrix, matrix.mT)
        torch.testing.assert_close(matrix.diag(), torch.ones(3))
    assert adapters[0, 1] > 0.6 > adapters[0, 2] + 0.2
    html = pages.compare(studio, "\n".join(questions), 0)
    assert html.count("<table") == 2 and html.count("<td ") == 18


@pytest.mark.parametrize("text, word", [("", "2 to 12"), ("a?\na?", "more than once"), ("x\n" * 13, "2 to 12")])
def test_bad_lists_of_questions(studio, text, word):
    assert word in pages.compare(studio, text, 0)
    with pytest.raises(ValueError, match=re.escape(word)):
        read_questions(text)


# Results, About, links, files, worlds


def test_results_show_the_committed_numbers():
    table = results.read(ROOT / "eval" / "results", "table1")
    html = results.table1(table)
    for record in table["results"]:
        if record["tasks"] == "all" and record["descriptors"] == 1.0:
            assert f">{100 * record['mean']:.1f}</td>" in html
            if "vs_strongest" in record:
                assert "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * value for value in record["vs_strongest"])) in html
    whole = [r for r in table["results"] if r["tasks"] == "all" and r["descriptors"] == 1.0]
    groups = {record["strongest"] for record in whole if "strongest" in record}
    assert len(groups) == 3 and html.count(">strongest</td>") == 3 and html.count("against the best baseline") == 1
    for label in groups:
        (row,) = [row for row in html.split("<tr>") if row.startswith(f'<th scope="row">{label}</th>')]
        assert ">strongest</td>" in row
    assert "best baseline of its own settings" in html and "Few-shot rows see examples" in html
    assert "<svg" in results.figure5_panels(results.read(ROOT / "eval" / "results", "figure5"))
    assert "plain CLIP" in results.links(results.read(ROOT / "eval" / "results", "links"))
    assert results.read(ROOT / "eval" / "results", "nothing") is None


def test_results_of_photographs_are_found_under_their_own_name(tmp_path):
    directory = ROOT / "eval" / "results"
    document = results.find(directory, "table1", "photos")
    assert document == results.read(directory, "photo_table1") and results.find(directory, "table1", "nothing") is None
    assert results.find(directory, "table1", "emoji") == results.read(directory, "table1")
    html = results.table1(document)
    pairs = {record["tasks"]: record["n_pairs"] for record in document["results"]}
    assert f"all ({pairs['all']:,} pairs)" in html and f"image-disjoint ({pairs['image_disjoint']:,} pairs)" in html
    for name in ("own_table1", "other_table1", "table1"):  # not in a file whose name only ends alike
        (tmp_path / f"{name}.json").write_text(json.dumps({"preset": name}), encoding="utf-8")
    (tmp_path / "mytable1.json").write_text(json.dumps({"preset": "mine"}), encoding="utf-8")
    assert results.find(tmp_path, "table1", "other_table1") == {"preset": "other_table1"}
    assert results.find(tmp_path, "table1", "mine") is None


@pytest.mark.parametrize("less", [{"descriptors": 0.5}, {"tasks": "image_disjoint"}])
def test_results_of_fewer_questions_or_of_some_tasks_alone_are_shown(less):
    directory = ROOT / "eval" / "results"
    table, figure = (results.read(directory, name) for name in ("table1", "figure5"))
    for document in (table, figure):
        records = [r for r in document["results"] if r["tasks"] == "all" and r["descriptors"] == 1.0]
        document["results"] = [record | less for record in records]
    assert f">{100 * table['results'][0]['mean']:.1f}</td>" in results.table1(table)
    assert "<svg" in results.figure5_panels(figure)
    figure["results"] = [record for record in figure["results"] if record["gamma"] is None]
    assert "<svg" not in results.figure5_panels(figure)


def test_where_the_hub_keeps_a_release_is_not_told(tmp_path):
    told = results.missing("table1", "emoji", tmp_path / "models--user--repo" / "snapshots" / "abc")
    assert "--weights DIR --json DIR/results/table1.json" in told and str(tmp_path) not in told
    assert f"--weights {tmp_path}" in results.missing("table1", "emoji", tmp_path)


def test_ours_have_one_colour():
    """Ensembles and variants of HyperLDM too; no baseline has it."""
    document = results.read(ROOT / "eval" / "results", "table1")
    rows = [*ROWS, *(replace(variant.row, id=variant.id) for variant in VARIANTS)]
    ours = {row.id: row.baseline is False and not row.few_shot for row in rows}
    for record in document["results"]:
        alone = results.table1(document | {"results": [record | {"tasks": "all", "descriptors": 1.0}]})
        assert ('barred c0"' in alone) == ours[record["row"]], record["label"]


def test_links():
    default = Shared("Q?", "", ("hyperldm", "clip"), 1.25, 0)
    state, complaints = read_link({}, default)
    assert state == default and not complaints
    query = {
        "question": " Where  is it? ",
        "answers": "a,b",
        "method": "clip",
        "gamma": "2",
        "seed": "7",
        "__theme": "dark",
    }
    assert read_link(query, default) == (Shared("Where is it?", "a, b", ("clip",), 2.0, 7), [])
    chosen = replace(default, decoder="hvae", steps=50, samples=1)
    usual = {"question": "Q?", "answers": "a, b", "method": "hyperldm,clip", "gamma": "1.25", "seed": "7"}
    asked = replace(chosen, answers="a, b", seed=7)
    assert dict(parse_qsl(write_link(asked, chosen))) == usual
    asked = replace(asked, decoder="hnet", steps=7, samples=3)
    link = dict(parse_qsl(write_link(asked, chosen)))
    assert link == usual | {"decoder": "hnet", "steps": "7", "samples": "3"}
    assert read_link(link, chosen, ["hvae", "hnet"]) == (asked, [])
    state, complaints = read_link({"decoder": "vae", "steps": "101", "samples": "0"}, chosen, ["hvae", "hnet"])
    assert state == chosen and len(complaints) == 3 and "'vae' is none of hvae, hnet" in complaints[0]
    assert read_link({"steps": "101"}, replace(chosen, steps=150))[0].steps == 101
    bad = {"question": "", "answers": "a", "method": "magic", "gamma": "nan", "seed": "-1"}
    state, complaints = read_link(bad, default)
    assert state == default and len(complaints) == 5 and "magic" in complaints[2]


def test_the_score_forgets_the_oldest_scenes(studio, monkeypatch):
    monkeypatch.setattr(ask, "SCORED", 4)
    score = {}
    for seed in range(3):
        score = _ask(studio, seed=seed, score=score)[1]
    assert all([seed for _, seed, _ in scenes] == [1, 2, 2, 2] for scenes in score.values())


def test_an_answer_does_not_need_a_file(studio, monkeypatch):
    def full(adapter):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(studio.downloads, "save", full)
    html, _, file, _ = _ask(studio)
    assert "qa-card" in html and file is None
    with pytest.raises(gr.Error, match="No space left"):
        endpoints([studio])["generate"](QUESTION)


def test_what_a_release_says_of_its_encoder_is_text(studio):
    assert r"embedded by \<img src\=x" in about.text(studio.world, encoder=HOSTILE)


def test_the_page_says_whose_answers_may_be_claimed_and_what_its_encoder_was_made_from(studio, other_world):
    told = lambda studio: " ".join(
        about.text(studio.world, encoder="a tower", least=0.1666, trunk=studio.trunk).replace("\n", " ").split()
    )
    assert "less than 16.7%" in told(studio) and "nor are scenes drawn here" in told(studio)
    assert "scenes drawn here" not in told(other_world) and "EfficientNet" not in told(studio)
    photos = Studio(AdapterGenerator.from_pretrained(ROOT / "weights" / "photos"))
    assert "EfficientNet-Lite2, Apache-2.0" in told(photos)


def test_downloads_keep_the_latest_and_are_named_after_questions():
    class Saved:
        provenance = {"question": "Où est / le chat?"}

        def save(self, path):
            path.write_text("w", encoding="utf-8")

    downloads = Downloads(keep=2)
    paths = [downloads.save(Saved()) for _ in range(3)]
    assert [path.is_file() for path in paths] == [False, True, True] and paths[2].name == "o-est-le-chat.safetensors"


def test_a_world_that_cannot_be_drawn(other_world):
    assert not other_world.world.drawn and "plankton" in other_world.world.summary
    assert other_world.pictures is None and "no drawn scenes" in _ask(other_world)[0]
    assert "try_on_scenes" not in endpoints([other_world])
    assert "Pictures are not judged" in " ".join(about.text(other_world.world, encoder="a tower").split())
    assert describe(other_world.generator) == other_world.world and other_world.examples


def test_labels_are_methods():
    assert set(ask.LABELS) <= set(METHODS)


def test_charts_scale_to_their_data():
    html = charts.line_chart([charts.Line("a", [0, 1], [0, 100], "c0")], x_label="x", y_label="y", x_ticks=[0, 1])
    xs = [float(v) for v in re.findall(r'cx="([\d.]+)"', html)]
    ys = [float(v) for v in re.findall(r'cy="([\d.]+)"', html)]
    assert xs[0] < xs[1] <= charts.WIDTH and ys[0] > ys[1] >= 0


@pytest.mark.parametrize(
    "text", ["cat, dog", "cat; dog;", "cat\ndog\n", "cat\uff0cdog", "cat\u3001 dog", " cat ,, dog"]
)
def test_answers_are_parted_as_people_part_them(text):
    assert ask.read_answers(text) == ["cat", "dog"]


def test_answers_with_commas_stand_in_quotes():
    assert ask.read_answers('"red, white, blue", 5" pipe; "a ""b"", c"') == ["red, white, blue", '5" pipe', 'a "b", c']
    for release in ("photos", "emoji"):
        config = json.loads((ROOT / "weights" / release / "config.json").read_text(encoding="utf-8"))
        for known in config["questions"]:
            assert ask.read_answers(join_answers(known["answers"])) == known["answers"]
    for answers in (['"', "a,b"], ["a;b", '"c"'], ["x\ny", "z"], ['""', "b"]):
        assert split_answers(join_answers(answers)) == answers


@pytest.mark.parametrize("seed", [-5, 1.7, float("inf"), float("nan"), 1e300])
def test_a_seed_that_is_none_is_named(seed):
    with pytest.raises(ValueError, match="^seed .*; allowed: whole numbers from 0 to"):
        ask.read_seed(seed)
    assert ask.read_seed(None) == 0 and ask.read_seed(3.0) == 3
