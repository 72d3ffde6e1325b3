"""Releases that read candidate answers besides the question: embeddings, training through to a release, asking it."""

import json

import pytest
import torch

from core.backbones.questions import (
    WIDTH,
    SentenceQuestions,
    TowerQuestions,
    beside,
    candidates_part,
    open_question_encoder,
    question_dim,
    question_part,
)
from core.backbones.stored import StoredQuestions, note_encoder
from core.cli import main as ask
from core.demo.studio import Studio
from core.generator import AdapterGenerator
from core.release.config import check_config
from core.release.default import default_sentence_encoder
from eval import table1
from eval.harness.phrasings import asked_as
from train import run_all
from train.pipeline.adapted import questions as asked_of
from train.pipeline.flags import open_run, parser

QUESTION, OTHER = "What colour is the badge behind the dog?", "Where is the cat?"
COLOURS, PLACES = ["red", "blue", "green"], ["left", "right"]
SPEC = {"encoder": "sentence", "layers": [2, 6], "answers": True}
READING = ["--preset", "tiny", "--device", "cpu", "--set", "question_answers=true"]
ROWS = ("hvae_hyperldm", "cond_multitask", "latent_regression", "kernel_ridge", "hvae_hyperclip")


@pytest.fixture(scope="module")
def encoder():
    return open_question_encoder(SPEC, lambda: pytest.fail("no backbone is needed"), default_sentence_encoder())


@pytest.fixture(scope="module")
def release(tiny, tmp_path_factory):
    """A release whose rows read answers; what does not depend on questions is the preset's own run's. It lies apart,
    where no table of the preset's own releases finds it."""
    directory = tmp_path_factory.mktemp("answers") / "weights"
    run_all.main([*READING, "--work", str(tiny), "--output", str(directory), "--rows", *ROWS])
    return AdapterGenerator.from_pretrained(directory)


def reading_run(tiny, *more):
    return open_run(parser("").parse_args([*READING, "--work", str(tiny), *more]))


def test_a_set_of_answers_is_the_mean_of_its_members_in_any_order(encoder):
    found = encoder.candidates([COLOURS, COLOURS[::-1], PLACES])
    mean = SentenceQuestions(default_sentence_encoder(), (2, 6)).encode(COLOURS).mean(0)
    torch.testing.assert_close(found[0], mean / mean.norm(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert found[0] @ found[2] < 0.99
    with pytest.raises(ValueError, match="no candidate answers for one of the questions"):
        encoder.candidates([COLOURS, []])


def test_the_halves_of_e_and_its_sizes(encoder):
    question, answers = encoder.encode([QUESTION, OTHER]), encoder.candidates([COLOURS, PLACES])
    e = beside(question, answers)
    assert e.shape == (2, encoder.dim) == (2, question_dim(SPEC, 0)) == (2, 4 * WIDTH)
    torch.testing.assert_close(e.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(question_part(e, encoder), question)
    forms = torch.stack([question, question], dim=1)  # (T, K, Q)
    torch.testing.assert_close(beside(forms, answers[:, None])[:, 1], e)
    torch.testing.assert_close(encoder.meaning(question_part(e, encoder)), encoder.meaning(question))


def test_an_encoder_that_reads_none_says_nothing_of_them():
    plain = SentenceQuestions(default_sentence_encoder(), (2, 6))
    question = plain.encode([QUESTION])
    assert plain.candidates([COLOURS]).shape == (1, 0)
    assert torch.equal(beside(question, plain.candidates([COLOURS])), question)
    assert torch.equal(question_part(question, plain), question) and "answers" not in plain.identity


def test_the_tower_reads_answers_too():
    class Tower:
        dim = 3

        def encode_questions(self, texts, pooling):
            return torch.nn.functional.normalize(torch.tensor([[1.0, len(t), t.count("r")] for t in texts]), dim=1)

    encoder = open_question_encoder({"encoder": "clip", "pooling": "eos", "answers": True}, Tower, None)
    assert isinstance(encoder, TowerQuestions) and encoder.dim == 6
    assert encoder.candidates([COLOURS]).shape == (1, 3)


def test_carried_features_are_of_an_encoder_that_reads_the_same(encoder, tmp_path):
    plain = {name: value for name, value in encoder.identity.items() if name != "answers"}
    note_encoder(tmp_path, plain)
    with pytest.raises(ValueError, match="holds no questions"):
        StoredQuestions(tmp_path, SPEC)
    note_encoder(tmp_path, encoder.identity)
    assert StoredQuestions(tmp_path, SPEC).reads_answers
    stored = StoredQuestions(tmp_path, {"encoder": "sentence", "layers": [2, 6]})
    assert not stored.reads_answers and stored.candidates([COLOURS]).shape == (1, 0)
    with pytest.raises(ValueError, match="such as 'red'"):
        StoredQuestions(tmp_path, SPEC).candidates([COLOURS])


@pytest.mark.parametrize("value", [False, 1, "yes", None])
def test_a_release_says_true_or_nothing(release, value):
    config = json.loads((release.directory / "config.json").read_text(encoding="utf-8"))
    config["question_encoder"]["answers"] = value
    with pytest.raises(ValueError, match="question_encoder.answers is .*; allowed: true, or no such field"):
        check_config(config)


def test_every_row_reads_the_answers(release):
    assert release.config["question_encoder"]["answers"] is True
    gammas = {"hyperldm": 2.0}  # validation tasks of `tiny` may choose 0, which reads nothing
    for row in ("hyperldm", "cond_multitask", "latent_regression", "kernel_ridge", "hyperclip"):
        made = lambda answers, row=row: release.generate(QUESTION, row, answers=answers, gamma=gammas.get(row)).w
        one, again, other = map(made, (COLOURS, COLOURS[::-1], PLACES))
        torch.testing.assert_close(one, again, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(one, other, atol=1e-6), row


def test_without_answers_those_that_are_suggested_are_read(release):
    suggested = release.suggest_answers(QUESTION)
    assert release.generate(QUESTION, "cond_multitask").provenance["answers"] == suggested
    assert release.generate(QUESTION, "cond_multitask", answers=COLOURS).provenance["answers"] == COLOURS
    torch.testing.assert_close(
        release.generate(QUESTION, "cond_multitask").w,
        release.generate(QUESTION, "cond_multitask", answers=suggested).w,
    )
    with pytest.raises(ValueError, match="at least two answers"):
        release.generate(QUESTION, answers=["red"])
    again = AdapterGenerator(release.directory, {**release.config, "questions": []})
    with pytest.raises(ValueError, match="read candidate answers, too; please give some"):
        again.embed_questions([QUESTION])


def test_what_is_stored_of_known_questions_is_their_task_embedding(release):
    known = release.known_questions[:6]
    fresh = release.embed_questions([k["question"] for k in known], [k["answers"] for k in known])
    torch.testing.assert_close(release.known_embeddings[:6], fresh, atol=2e-3, rtol=0)


def test_training_asks_in_other_words_with_the_same_answers(tiny, release):
    run = reading_run(tiny)
    e, half = run.asked.e, run.questions.dim // 2  # (T, 1 + K, E)
    torch.testing.assert_close(e[..., half:], e[:, :1, half:].expand(-1, e.shape[1], -1), atol=1e-3, rtol=0)
    assert not torch.allclose(e[:, 1:, :half], e[:, :1, :half].expand(-1, e.shape[1] - 1, -1), atol=1e-2)


def test_a_task_whose_question_is_inferred_keeps_its_answers(tiny, release):
    run = reading_run(tiny, "--descriptors", "0.5")
    half, missing = run.questions.dim // 2, torch.ones(len(run.train), dtype=torch.bool)
    missing[run.described] = False
    z = torch.randn(len(run.train), 8)
    inferred, none = (asked_of(run, infer, z).e for infer in (True, False))
    torch.testing.assert_close(inferred[missing][:, 0, half:], run.train_batch.question[missing][:, half:])
    assert not torch.allclose(inferred[missing][:, 0, :half], run.train_batch.question[missing][:, :half], atol=1e-3)
    assert not none[missing].any()


def test_the_table_and_the_command_line_take_it(release, tiny, tmp_path, capsys):
    table1.main(["--weights", str(release.directory), "--device", "cpu", "--json", str(tmp_path / "table.json")])
    rows = {record["row"] for record in json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))["results"]}
    assert set(ROWS) <= rows
    capsys.readouterr()
    ask([QUESTION, "--answers", "red, blue", "--weights", str(release.directory), "--json"])
    assert json.loads(capsys.readouterr().out)["answers"] == ["red", "blue"]


def test_a_question_put_otherwise_keeps_the_answers_of_its_task(tiny, release):
    test = reading_run(tiny).task_set("test").select(range(3))
    e, questions, answers = test.question_features, [t.question for t in test.tasks], [t.answers for t in test.tasks]
    torch.testing.assert_close(asked_as(release, e, questions), e, atol=1e-3, rtol=0)
    others = [f"Please, {question[0].lower()}{question[1:]}" for question in questions]
    torch.testing.assert_close(
        asked_as(release, e, others), release.embed_questions(others, answers), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(candidates_part(e, release.question_encoder).norm(dim=1), torch.ones(3))


def test_the_page_reads_the_answers_that_are_typed(release):
    studio = Studio(release)
    pictures, truths = studio.gather(QUESTION, True, 2, None, 0)
    asked = lambda answers: studio.compare(QUESTION, answers, pictures, truths, ["hyperldm"], drawn=True, gamma=2.0)
    weights = {len(a): asked(a).adapters["hyperldm"].w for a in (COLOURS, PLACES)}
    torch.testing.assert_close(weights[3], release.generate(QUESTION, answers=COLOURS, gamma=2.0).w)
    assert not torch.allclose(weights[3], weights[2], atol=1e-6)
