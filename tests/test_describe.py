"""Descriptors inferred from a task's data, against tasks whose question follows from it."""

import itertools

import pytest
import torch

from core.adaptation.descriptors import carriers, describe, infer_descriptors, mean_images, name_images, task_features
from core.data.tasks import Task, TaskSet
from core.networks.whitening import Whitening
from tests.conftest import random_batch


def test_whitening_has_an_inverse():
    e = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(6, 6)
    whitening = Whitening(6)
    whitening.fit(e)
    assert torch.allclose(whitening.inverse(whitening(e)), e, atol=1e-4)


def test_features_are_balanced_and_see_only_examples_of_the_task():
    batch, z, guess = random_batch(T=20, N=12, C=5, D=16), torch.randn(20, 3), torch.randn(20, 16)
    images = mean_images(batch)
    parts = list(itertools.chain(*task_features(batch, images, guess, z)))
    assert [part.shape for part in parts] == [(20, 16), (20, 16), (20, 16), (20, 3), (20, 16)]
    assert all(torch.allclose(part.square().sum(1).mean(), torch.tensor(0.95), atol=1e-4) for part in parts)
    counts = batch.example_mask.sum(1).tolist()
    assert torch.allclose(images, torch.stack([x[:n].mean(0) for x, n in zip(batch.images, counts, strict=True)]))


def infer(e, described, features, guess=None):
    hidden = e.masked_fill(~described[:, None], float("nan"))
    found = infer_descriptors(hidden, described, features, torch.zeros_like(e) if guess is None else guess)
    assert torch.equal(found[described], e[described])
    return found[~described]


def test_missing_descriptors_are_recovered_and_given_ones_stay():
    """Questions that are a smooth function of the task come back; what stands in undescribed rows does not matter."""
    g = torch.Generator().manual_seed(0)
    features = torch.randn(300, 2, generator=g) * 2
    e = torch.stack([features[:, 0].sin(), features[:, 1].cos(), features.sum(1).tanh()], dim=1)
    described = torch.arange(300) % 2 == 0
    missing = e[~described]
    found = infer(e, described, [[features]])
    assert (found - missing).square().mean() < 0.05 * (missing - missing.mean(0)).square().mean()


def test_groups_add_up():
    """Two functions of two groups are told apart: their sum comes back for pairs of values never seen together."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(400, 1, generator=g) * 4, torch.rand(400, 1, generator=g) * 4
    e = torch.cat([a.sin() + b.cos(), (2 * a).cos() - b], dim=1)
    described = (a < 2).squeeze() | (b < 2).squeeze()  # a quarter of the plane is never described
    found = infer(e, described, [[a], [b]])
    assert (found - e[~described]).square().mean() < 0.02 * e.var(0).mean()


def test_unrelated_features_give_the_mean():
    g = torch.Generator().manual_seed(0)
    e, features = torch.randn(200, 3, generator=g), torch.randn(200, 8, generator=g)
    found = infer(e, torch.arange(200) < 100, [[features]])
    assert (found - e[:100].mean(0)).square().mean() < 0.2 * e.var()


@pytest.mark.parametrize("scale", [3.0, 0.5])
def test_a_guess_is_taken_at_its_worth_where_features_say_nothing(scale):
    g = torch.Generator().manual_seed(0)
    e, features = torch.randn(200, 6, generator=g), torch.randn(200, 8, generator=g)
    guess = scale * (e + 0.1 * torch.randn(200, 6, generator=g))
    found = infer(e, torch.arange(200) < 100, [[features]], guess)
    assert (found - e[100:]).square().mean() < 0.1 * e.var()


def test_a_task_is_called_what_its_images_show():
    g = torch.Generator().manual_seed(0)
    words = torch.nn.functional.normalize(torch.randn(12, 32, generator=g), dim=-1)
    images = words.roll(1, 0) + 0.05 * torch.randn(12, 32, generator=g)
    named = name_images(images + 5.0, words)  # whatever all images have in common
    assert torch.allclose(named.sum(1), torch.ones(12))
    assert named.argmax(1).tolist() == [11, *range(11)]


def test_sentences_lose_the_word_that_names_their_images():
    questions = ["Where is the cat?", "Is a CAT a cat?", "What colour is the catfish?", "How many (c) dogs?"]
    assert sorted(carriers(questions, ["cat", "cat", "cat", "(c)"])) == [
        ("How many ", " dogs?"),
        ("Is a ", " a ", "?"),
        ("Where is the ", "?"),
    ]
    assert carriers(["Who?"], ["cat"]) == [("", "")]
    many = [f"{i} cat" for i in range(99)]
    assert len(carriers(many, ["cat"] * 99)) == 16 and carriers(many, ["cat"] * 99) == carriers(many, ["cat"] * 99)


def test_what_no_question_speaks_of_is_described_by_its_name():
    """Half of the tasks are asked about things of their own; the others' things are on no list but that of answers."""
    g = torch.Generator().manual_seed(0)
    T, D = 60, 64
    things = [f"thing{i}" for i in range(T)]
    vectors = torch.nn.functional.normalize(torch.randn(T, D, generator=g), dim=-1)
    sound = dict(zip(things, torch.randn(T, D, generator=g), strict=True))
    sound |= {word: torch.randn(D, generator=g) for word in ("where", "is")}
    encode = lambda texts: torch.stack([sum(sound[word] for word in text.split()) for text in texts])
    images = vectors[:, None] + 0.05 * torch.randn(T, 4, D, generator=g)
    example = (((0, 1), (0, 1)), ((2, 3), (0, 1)))
    tasks = tuple(
        Task(f"where is {things[i]}", (things[i - 1], things[i - 2]), *shifted(example, 4 * i), split="train")
        for i in range(T)
    )
    rows = tuple(((i - 1) % T, (i - 2) % T) for i in range(T))
    e = encode([task.question for task in tasks])
    train = TaskSet(tasks, images.flatten(0, 1), vectors, e, rows)
    described = torch.arange(T) % 2 == 0
    found = describe(train, train.batch(), described, torch.randn(T, 3, generator=g), encode)
    centred = lambda x: x - e[described].mean(0)
    cosine = torch.nn.functional.cosine_similarity(centred(found), centred(e))
    assert torch.equal(found[described], e[described]) and cosine[~described].min() > 0.7


def shifted(parts, by):
    return [(tuple(i + by for i in images), labels) for images, labels in parts]


def test_too_few_descriptors_are_named():
    with pytest.raises(ValueError, match="4 described tasks"):
        infer_descriptors(torch.randn(9, 3), torch.arange(9) < 4, [[torch.randn(9, 2)]], torch.randn(9, 3))
