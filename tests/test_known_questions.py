"""Nearest questions by meaning, and the answers they suggest."""

import pytest
import torch

from core.backbones.questions import SentenceQuestions
from core.data.emoji.dataset import EmojiVQA
from core.data.known_questions import KnownQuestion, KnownQuestions, fit_answers, nearness
from core.networks.whitening import Whitening
from core.release.default import default_sentence_encoder
from train.presets import get_preset

OTHER_WORLD = (
    "How do I renew my passport?",
    "Who painted the Mona Lisa?",
    "Is the tumour malignant?",
    "What is the boiling point of ethanol?",
)


@pytest.fixture(scope="module")
def encoder():
    return SentenceQuestions(default_sentence_encoder(), (0, 6))


@pytest.fixture(scope="module")
def tasks():
    return EmojiVQA(get_preset("emoji").dataset).tasks


@pytest.fixture(scope="module")
def known(encoder, tasks):
    """All training questions of Emoji-VQA."""
    asked = [KnownQuestion(t.question, t.answers, t.family) for t in tasks if t.split != "test"]
    return KnownQuestions(asked, encoder.encode([question.question for question in asked]))


def test_the_regression_is_ridge_regression_written_out():
    """The map solves the normal equations of least squares with noise of s.d. 0.5 on whitened inputs."""
    e = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    asked = [KnownQuestion(f"q{i}", ("a", "b") if i % 2 else ("b", "c", "d")) for i in range(6)]
    found = KnownQuestions(asked, e)
    whitening = Whitening(4, 0.1)
    whitening.fit(e)
    X = whitening(e).double()
    Y = torch.tensor([[1, 1, 0, 0] if i % 2 else [0, 1, 1, 1] for i in range(6)]).double()
    order = [0, 1, 2, 3]  # answers by first mention: b, c, d, a
    Y = Y[:, [1, 2, 3, 0]][:, order]
    expected = torch.linalg.solve(X.mT @ X + 6 * 0.25 * torch.eye(4).double(), X.mT @ (Y - Y.mean(0)))
    torch.testing.assert_close(found._map.double(), whitening.matrix.double() @ expected, atol=1e-5, rtol=1e-4)
    again = KnownQuestions(asked, e, fit_answers(asked, e[:, None].expand(-1, 3, -1)))  # thrice the same form
    torch.testing.assert_close(again._map, found._map, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "question, family",
    [
        ("what color is the sign behind the puppy", "badge colour"),
        ("could you please tell me what the colour of the dog's badge is", "badge colour"),
        ("hey, where abouts is the kitty sitting?", "place"),
        ("how many cats can you see", "how many"),
    ],
)
def test_what_is_asked_counts_in_the_words_of_a_stranger(known, encoder, question, family):
    nearest = known.nearest(encoder.encode([question])[0], 3)
    assert sum(near.family.startswith(family) for near in nearest) >= 2, [near.question for near in nearest]
    assert 1 >= nearest[0].similarity >= nearest[1].similarity >= nearest[2].similarity >= 0


def test_a_known_question_gets_its_own_answers(known, encoder):
    first = known.questions[0]
    typed = f"  {first.question.upper().rstrip('?')} "
    assert known.suggest_answers(typed, encoder.encode([typed])[0]) == list(first.answers)


def test_nothing_or_one_is_known(encoder):
    e = encoder.encode(["Where is the dog?"])
    assert KnownQuestions([], e[:0]).suggest_answers("Where is the dog?", e[0]) == []
    one = KnownQuestions([KnownQuestion("Is it red?", ("no", "yes"))], e)
    assert one.suggest_answers("Where is the dog?", e[0]) == ["no", "yes"]
    with pytest.raises(ValueError, match="0 questions, 1 embeddings"):
        KnownQuestions([], e)


def test_most_right_answers_of_test_questions_are_suggested(known, encoder, tasks):
    shares = []
    for task in [t for t in tasks if t.split == "test" and not t.new_family][::5]:
        suggested = set(known.suggest_answers(task.question, encoder.encode([task.question])[0]))
        shares.append(sum(task.answers[label] in suggested for label in task.query[1]) / len(task.query[1]))
    assert sum(shares) / len(shares) > 0.95


def test_far_questions_are_less_near(known, encoder, tasks):
    base = encoder.meaning(known.e)
    own = nearness(encoder.meaning(encoder.encode([t.question for t in tasks if t.split == "test"][::5])), base)
    far = nearness(encoder.meaning(encoder.encode(OTHER_WORLD)), base)
    assert far.max() < own.min()


def test_nearness_is_the_mean_cosine_to_the_nearest_five():
    known = torch.eye(8)
    x = torch.nn.functional.normalize(torch.arange(1.0, 9.0)[None], dim=-1)
    expected = float(x[0, 3:].mean())
    assert float(nearness(x, known)) == pytest.approx(expected)
    assert nearness(known, known.clone(), own=True).abs().max() == 0  # itself is no neighbour
