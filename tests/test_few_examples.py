"""Few examples that choose among samples: likelihoods and caches on known cases, guidance, and the whole scripts."""

import dataclasses
import json
import math

import pytest
import torch

from core.data.emoji.dataset import EmojiVQA
from core.data.emoji.questions import FAMILIES, QUESTIONS, phrasings
from core.generator import AdapterGenerator
from eval.samples import ambiguous, draws, few_examples, learners, two_readings
from eval.samples.choosing import Pool, first_of, tip_adapter
from eval.samples.learners import Bench
from eval.samples.worth import crossing, worth
from tests.conftest import random_batch
from tests.fake_cuda import means_on_both
from tests.test_figures import PNG, flags
from tests.test_pipeline import release


@pytest.fixture(scope="module")
def bench(tiny):
    generator = AdapterGenerator.from_pretrained(release(tiny))
    dim, E = generator.network.dim, generator.module("hvae_hyperldm").dim
    question = torch.nn.functional.normalize(torch.randn(4, E, generator=torch.Generator().manual_seed(2)), dim=-1)
    support, query = (dataclasses.replace(random_batch(D=dim, seed=seed), question=question) for seed in (0, 1))
    query = dataclasses.replace(query, answers=support.answers, answer_mask=support.answer_mask)
    return Bench(generator, "hvae", support, query, samples=6)


def test_first_examples_are_nested():
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    found = {count: first_of(mask, count, seed=1) for count in (1, 2, 5, 0)}
    assert {count: seen.sum(1).tolist() for count, seen in found.items()} == {
        1: [1, 1],
        2: [2, 2],
        5: [5, 3],
        0: [6, 3],
    }
    assert bool((found[1] <= found[2]).all() and (found[2] <= found[5]).all() and (found[5] <= mask).all())


@pytest.fixture
def pool():
    """Two samples of one task with three examples and two answers."""
    right = torch.tensor([[[0.9, 0.1, 0.5]], [[0.6, 0.6, 0.5]]])
    query = torch.tensor([[[[1.0, 0.0]]], [[[0.2, 0.8]]]])
    return Pool(torch.tensor([[[0.0]], [[1.0]]]), right, query, torch.tensor([2]))


def test_examples_choose_by_likelihood(pool):
    seen = torch.tensor([[True, True, False]])
    plain = pool.log_likelihood(seen, 0.0)
    torch.testing.assert_close(plain, torch.tensor([[0.09], [0.36]]).log())
    smooth = pool.log_likelihood(seen, 0.2)[0]
    torch.testing.assert_close(smooth, torch.tensor([0.82 * 0.18]).log())
    assert pool.best(seen, among=2, smoothing=0.0).tolist() == [1]
    assert pool.best(seen, among=1, smoothing=0.0).tolist() == [0]
    assert pool.best(torch.tensor([[False, False, True]]), among=2, smoothing=0.0).tolist() == [0]  # a tie: the first
    torch.testing.assert_close(pool.answers_of(torch.tensor([1])), torch.tensor([[[0.2, 0.8]]]))


def test_samples_are_weighted_by_likelihood(pool):
    seen = torch.tensor([[True, True, False]])
    weights = pool.weights(seen, temperature=1.0, smoothing=0.0)
    torch.testing.assert_close(weights, torch.tensor([[0.2], [0.8]]))
    half = pool.weights(seen, temperature=2.0, smoothing=0.0)
    torch.testing.assert_close(half, torch.tensor([[1 / 3], [2 / 3]]))
    torch.testing.assert_close(pool.mean_latent(weights), torch.tensor([[0.8]]))
    torch.testing.assert_close(pool.mean_answers(weights), torch.tensor([[[0.36, 0.64]]]))


def test_tip_adapter_is_its_formula(batch):
    support, query = batch, random_batch(seed=3)
    logits = torch.randn(4, 12, 5)
    found = tip_adapter(logits, support.images, support, query.images, alpha=1.5, beta=4.0)
    for t, m in ((0, 0), (1, 3), (3, 7)):
        expected = logits[t, m].clone()
        for n in range(12):
            if support.example_mask[t, n]:
                cosine = float(query.images[t, m] @ support.images[t, n])
                expected[support.labels[t, n]] += 1.5 * math.exp(-4.0 * (1 - cosine))
        torch.testing.assert_close(found[t, m], expected)


def test_a_sentence_is_worth_where_the_curves_meet():
    curve = torch.tensor([[0.2, 0.4, 0.8], [0.5, 0.6, 0.7], [0.1, 0.2, 0.3]], dtype=torch.float64)
    found = crossing(curve, (1, 10, 100), torch.tensor([0.6, 0.4, 0.9], dtype=torch.float64))
    assert found.tolist() == [pytest.approx(10**1.5), pytest.approx(1.0), math.inf]
    straight = torch.tensor([[0.0] * 5, [1.0] * 5])  # (K, T)
    same = worth(straight[None], (1, 4), torch.full((1, 5), 0.5), draws=50)
    assert same == {"examples": 2.0, "low": 2.0, "high": 2.0}
    assert worth(torch.zeros(1, 2, 5), (1, 4), torch.ones(1, 5), draws=50) == dict.fromkeys(same)
    alone = torch.tensor([0.25, 0.5, 0.75])[:, None].expand(-1, 5)  # the tasks agree, the training seeds do not
    found = worth(straight.expand(3, -1, -1), (1, 4), alone, draws=500)
    assert found == {"examples": 2.0, "low": round(4**0.25, 2), "high": round(4**0.75, 2)}


def test_guidance_of_no_strength_is_plain_sampling(bench):
    seen = first_of(bench.support.example_mask, 2, 0)
    ((_, found),) = learners._guided(bench, seen, [(0.0,)])
    e = bench.query.question
    z = draws.latents(bench.generator, "hvae", e, [(1.0, 0)], samples=learners.GUIDED_SAMPLES)[0].mean(0)
    torch.testing.assert_close(found, bench.accuracy(bench.decode(z).detach()))


def test_descents_pass_fewer_steps_on_the_way():
    loss = lambda x: x.square().sum(-1)
    found = {
        option: float(x) for option, x in learners._descents(torch.ones(1, 1), loss, [(0.1, 3), (0.1, 1), (0.2, 2)])
    }
    assert found == pytest.approx({(0.1, 1): 0.8, (0.1, 3): 0.8**3, (0.2, 2): 0.6**2})


def test_every_row_makes_as_many_tries_and_takes_its_options(bench):
    seen = first_of(bench.support.example_mask, 3, 0)
    rows = (*learners.LEARNERS, learners.BEST_REFINED)
    assert {len(learner.options) for learner in rows} == {9}
    for learner in rows:
        two = [(2, 0.0), (6, 0.1)] if learner.id == "best" else learner.options[:2]
        found = dict(learner.tried(bench, seen, two))
        assert set(found) == set(two) and all(a.shape == (4,) and float(a.min()) >= 0 for a in found.values())


@pytest.fixture
def small(monkeypatch):
    """Two tries a row, two numbers of examples."""
    few = lambda row: dataclasses.replace(row, options=((4, 0.0), (8, 0.1)) if row.id == "best" else row.options[:2])
    for script in (few_examples, two_readings):
        monkeypatch.setattr(script, "LEARNERS", tuple(map(few, learners.LEARNERS)))
    monkeypatch.setattr(two_readings, "BEST_REFINED", few(learners.BEST_REFINED))
    monkeypatch.setattr(few_examples, "COUNTS", (1, 0))
    monkeypatch.setattr(two_readings, "COUNTS", (1, 2))
    monkeypatch.setattr(few_examples.measure, "__defaults__", (8,))
    monkeypatch.setattr(two_readings.bench_of, "__defaults__", (8,))


def test_few_examples(tiny, small, tmp_path, capsys):
    file, plot = tmp_path / "f.json", tmp_path / "f.png"
    few_examples.main(flags(tiny, "--draws", 2, "--json", file, "--plot", plot))
    document = json.loads(file.read_text(encoding="utf-8"))
    records = {(r["row"], r["count"], r["tasks"]): r for r in document["results"]}
    assert len(records) == (1 + 9 * 2) * 3 and plot.read_bytes().startswith(PNG)
    alone = records["question", None, "all"]["mean"]
    for (row, count, tasks), r in records.items():
        if row != "question":
            mean, low, high = r["against_question"]
            assert low <= mean <= high and len(r["options"]) == len(r["val_accuracy"]) == 1
            assert tasks != "all" or mean == pytest.approx(r["mean"] - alone, abs=2e-4)
            assert r["examples"] == 1 if count else r["examples"] > 1
    assert [value["row"] for value in document["worth"]] == ["no_question", "maml", "tip_clip"]
    out = capsys.readouterr().out
    assert "sampler guided by likelihood" in out and "is worth so many examples" in out


# -- two readings ------------------------------------------------------------------------------------------------------


def test_questions_have_two_readings_that_training_does_not_ask():
    dataset = EmojiVQA()
    asked = {task.question for task in dataset.tasks if task.split != "test"}
    parts = {part: ambiguous.build(dataset.world, asked, part) for part in ("val", "test")}
    kinds = len(ambiguous.KINDS)
    assert {part: len(questions) for part, questions in parts.items()} == {"val": 5 * kinds, "test": 16 * kinds}
    readings = {part: {frozenset(q.readings) for q in questions} for part, questions in parts.items()}
    assert not readings["val"] & readings["test"] and len(readings["test"]) == 16 * kinds
    for question in parts["test"]:
        for i, reading in enumerate(question.readings):
            assert not asked.intersection(phrasings(reading)) and question.text != reading
            family, argument = QUESTIONS[reading].family, QUESTIONS[reading].argument
            scene, label = question.scenes[0], question.labels[i][0]
            expected = _answer(family, argument[0], scene)
            assert question.answers[label] == expected
        assert all(a != b for a, b in zip(*question.labels, strict=True))
    assert ambiguous.digest(parts["test"]).startswith(DIGEST)


DIGEST = "27a0a56a4ce7"


def _answer(family, name, scene):
    """The answer of a family's question about an object, read from the scene anew."""
    assert family in FAMILIES
    own = next(thing for thing in scene.things if thing.name == name)
    if family in ("background of object", "frame of object"):
        return scene.background if family.startswith("background") else scene.frame
    attribute = {"colour": "colour", "shape": "shape", "size": "size"}[family.removesuffix(" of object").split()[-1]]
    if family.startswith("company"):
        (own,) = [thing for thing in scene.things if thing.name != name]
    return getattr(own, attribute)


def test_too_few_questions_are_named():
    dataset = EmojiVQA()
    with pytest.raises(ValueError, match="whose badge colour: 0 questions that training does not ask; needed: 21"):
        ambiguous.build(dataset.world, set(QUESTIONS), "test")


def test_spread_counts_sides_and_covered_readings(bench):
    """Four samples of one question, which answer its two query examples by either reading."""
    first, second = [1.0, 0.0], [0.0, 1.0]
    query = torch.tensor([[first, first], [first, first], [first, first], [second, second]])  # (S, M, C)
    answers = query[:, None].expand(-1, 2, -1, -1)
    labels = torch.tensor([[0, 0], [1, 1]])
    batch = dataclasses.replace(
        bench.query[:2], labels=labels, example_mask=torch.ones_like(labels, dtype=torch.bool),
        answer_mask=torch.ones(2, 2, dtype=torch.bool),
    )  # fmt: skip
    right = torch.stack([answers[s, torch.arange(2)[:, None], torch.arange(2), labels] for s in range(4)])
    fake = dataclasses.replace(bench, support=batch, query=batch)
    fake.__dict__["pool"] = Pool(torch.zeros(4, 2, 1), right, answers, torch.tensor([2, 2]))
    found = two_readings.spread(fake, {"precise": torch.tensor([1.0, 0.9]), "mean": torch.tensor([1.0, 0.0])})
    expected = {"lesser_side": 0.25, "both_sides": 1, "both_covered": 1, "both_covered_by_mean": 0}
    expected |= {"readings_covered": 1, "readings_covered_by_mean": 0.5, "better_reading_of_mean": 1, "best_of_all": 1}
    assert {key: float(found[key]) for key in expected} == expected


def test_two_readings(tiny, small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ambiguous, "VAL", 1)
    monkeypatch.setattr(ambiguous, "TEST", 2)
    monkeypatch.setattr(ambiguous, "SCENES", 8)
    file, plot = tmp_path / "a.json", tmp_path / "a.png"
    two_readings.main(flags(tiny, "--draws", 1, "--json", file, "--plot", plot))
    document = json.loads(file.read_text(encoding="utf-8"))
    records = {(r["row"], r["count"], r["tasks"]): r for r in document["results"]}
    assert len(records) == (5 + 2 * 6) * 7 and plot.read_bytes().startswith(PNG)
    best, refined = (records[row, 2, "all"] for row in ("best", "refined"))
    assert best["against_refined"][0] == pytest.approx(best["mean"] - refined["mean"], abs=2e-4)
    assert "against_refined" not in refined and records["precise", 0, "all"]["n_tasks"] == 12
    sides = {r["row"]: r for r in document["spread"] if r["tasks"] == "all"}
    assert 0 <= sides["lesser_side"]["mean"] <= 0.5 and len(document["sha256"]) == 64
    assert "samples weighted, as probabilities" in capsys.readouterr().out


@pytest.mark.parametrize("script", [few_examples, two_readings])
def test_a_gpu_gives_what_the_cpu_gives(tiny, small, tmp_path, script, monkeypatch):
    for name, value in {"VAL": 1, "TEST": 1, "SCENES": 6}.items():
        monkeypatch.setattr(ambiguous, name, value)
    some = ["--limit-tasks", 6] if script is few_examples else []
    main = lambda device, file: script.main(flags(tiny, *some, "--draws", 1, "--device", device, "--json", file))
    on_gpu, on_cpu = means_on_both(main, tmp_path)
    assert on_gpu == pytest.approx(on_cpu, abs=0.02)


@pytest.mark.parametrize(
    "script, arguments, word",
    [
        (few_examples, ["--draws", "0"], "--draws 0; allowed: 1 or more"),
        (few_examples, ["--limit-tasks", "99"], "--limit-tasks 99; allowed: 1 to 24"),
        (two_readings, ["--draws", "-1"], "--draws -1; allowed: 1 or more"),
        (two_readings, ["--limit-tasks", "3"], "--limit-tasks: the questions are this script's own"),
    ],
)
def test_bad_flags_are_named(tiny, script, arguments, word, capsys):
    with pytest.raises(SystemExit):
        script.main(flags(tiny, *arguments))
    assert word in capsys.readouterr().err
