"""Questions in other words: what training draws, and what the evaluation of them says."""

import json

import pytest
import torch

from core.data.phrasings import Phrasings
from eval.demo import suggestions
from eval.harness.phrasings import AS_IT_IS
from train.pipeline.asked import RULES, WAYS, Asked, other_words

QUESTIONS = ["What colour is the badge behind the dog?", "Where is the cat?", "Is there no red circle?"]


def test_every_question_has_as_many_forms_and_they_depend_on_it_alone():
    rules = Phrasings.read(RULES)
    put = other_words(QUESTIONS, rules)
    assert [len(own) for own in put] == [WAYS] * 3
    assert put[1] == other_words(QUESTIONS[1:2], rules)[0]
    for question, own in zip(QUESTIONS, put, strict=True):
        assert question not in own and len(set(own)) > WAYS // 2


def test_a_question_that_no_rule_changes_is_repeated():
    rules = Phrasings.read(RULES)
    only = Phrasings({"spelling": rules.rules["spelling"]})
    assert other_words(["Where is the cat?"], only, 3) == [["Where is the cat?"] * 3]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_other_words(share):
    e = torch.arange(3.0)[None, :, None].expand(5, 3, 1).contiguous()  # form k is the number k
    rows = torch.arange(5).repeat(2000)
    drawn = Asked(e, share).draw(rows, torch.Generator().manual_seed(0)).squeeze(1)
    counts = torch.bincount(drawn.long(), minlength=3) / len(rows)
    assert counts.tolist() == pytest.approx([1 - share, share / 2, share / 2], abs=0.02)
    assert Asked(e, share).all(torch.tensor([1, 3])).flatten().tolist() == [0, 1, 2, 0, 1, 2]


def test_without_other_words_nothing_is_drawn():
    rng = torch.Generator().manual_seed(0)
    before = rng.get_state()
    asked = Asked(torch.randn(4, 1, 2), 0.0)
    assert torch.equal(asked.draw(torch.tensor([2, 0]), rng), asked.e[[2, 0], 0])
    assert torch.equal(before, rng.get_state())


def test_suggestions_and_warnings_are_judged(tiny, tmp_path, capsys):
    file = tmp_path / "s.json"
    suggestions.main(["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--json", str(file)])
    assert "missed_warnings" in capsys.readouterr().out
    records = {(r["row"], r["kind"]): r for r in json.loads(file.read_text(encoding="utf-8"))["results"]}
    assert records["missed_warnings", "another world"]["n_questions"] == 100
    assert records["missed_warnings", "another world"]["mean"] < 0.4  # 72 questions are known
    assert records["right_kind", AS_IT_IS]["mean"] > 0.5 and records["false_warnings", AS_IT_IS]["mean"] < 0.3
