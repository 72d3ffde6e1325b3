"""Questions in other words: every rule on examples, files that say something wrong, the two files held apart."""

import random
import re

import pytest

from core.data.emoji.questions import QUESTIONS
from core.data.emoji.world import CATEGORIES, OBJECTS
from core.data.phrasings import Phrasings
from core.data.phrasings.sentences import Case, Endings, Frames, Templates
from core.data.phrasings.typing_errors import Typing
from core.data.phrasings.word_order import indirect
from core.data.phrasings.words import Number, Spelling, Synonyms
from tests.conftest import ROOT

FILES = {name: ROOT / name / "phrasings.toml" for name in ("train", "eval")}
BADGE = "What colour is the badge behind the dog?"


@pytest.fixture(scope="module")
def files():
    return {name: Phrasings.read(path) for name, path in FILES.items()}


# -- word order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "clause"),
    [
        (BADGE, "what colour the badge behind the dog is"),
        ("Which colour is behind the dog?", "which colour is behind the dog"),
        ("What colour does the one left of the dog stand on?", "what colour the one left of the dog stands on"),
        ("Which size does the thing have?", "which size the thing has"),
        ("In which corner is the dog?", "in which corner the dog is"),
        ("Which corner holds the dog?", "which corner holds the dog"),
        ("How many things are there, counting the dog?", "how many things there are, counting the dog"),
        ("How many animals do you see?", "how many animals you see"),
        ("What kind of thing is the dog with?", "what kind of thing the dog is with"),
        ("What kind of thing does not belong to the bugs?", "what kind of thing does not belong to the bugs"),
        ("Which shape is the other badge, not that of the dog?", "which shape the other badge is, not that of the dog"),
        ("What animal can you see?", "what animal you can see"),
        ("What is the man wearing on his face?", "what the man is wearing on his face"),
        ("What are these people riding?", "what these people are riding"),
        ("Where is this photo taken?", "where this photo is taken"),
        ("What time of year is it?", "what time of year it is"),
        ("Is there a cat on the sofa?", "if there is a cat on the sofa"),
        ("Is the cat black?", None),  # where the subject ends nobody can tell without a parser
        ("What did he eat?", None),
    ],
)
def test_word_order_of_a_clause(question, clause):
    assert indirect(question) == clause


def test_every_question_of_the_dataset_has_the_order_of_a_clause():
    """No verb is lost and no word comes from nowhere; "do" may go and its verb takes an s."""
    for question in QUESTIONS:
        plain = lambda text: sorted(word.rstrip("s") for word in re.findall(r"\w+", text.lower()))
        before, after = plain(question), plain(indirect(question))
        for auxiliary in ("doe", "do") if "not" not in before else ():
            if auxiliary in before:
                before.remove(auxiliary)
        assert after == before or ("have" in before and "ha" in after), question


# -- rules ---------------------------------------------------------------------------------------------------------


def test_spelling_goes_both_ways_and_keeps_capitals():
    rule = Spelling([["colour", "color"], ["axe", "ax"]])
    assert rule.all("Colour of the colourful axe?") == ["Color of the colourful ax?"]
    assert rule.all("What color is the ax?") == ["What colour is the axe?"]
    assert rule.all("WHAT COLOUR?") == ["WHAT COLOR?"]
    assert rule.all("Where is the dog?") == []


def test_case_and_endings():
    assert Case(["lower", "upper", "no capital", "title"]).all("Is TV on?") == [
        "is tv on?", "IS TV ON?", "is TV on?", "Is Tv On?",
    ]  # fmt: skip
    assert Case(["lower"]).all("where is it") == []
    assert Endings(["", "??", "?", " ?"]).all("Where is it?") == ["Where is it", "Where is it??", "Where is it ?"]
    assert Endings(["?"]).all("Where is it") == ["Where is it?"]


def test_frames():
    rule = Frames(["Tell me {i}.", "So, {q}?", "{Q} Thanks!"])
    assert rule.all("Where is the dog?") == [
        "Tell me where the dog is.", "So, where is the dog?", "Where is the dog? Thanks!",
    ]  # fmt: skip
    assert rule.all("Is the cat black?") == ["So, is the cat black?", "Is the cat black? Thanks!"]


def test_synonyms_are_whole_words_with_their_article():
    rule = Synonyms({"dog": ["puppy", "hound"], "badge": ["emblem"], "sea animal": ["fish"], "animal": ["beast"]})
    assert rule.all("Has the dog a badge?") == ["Has the puppy an emblem?", "Has the hound an emblem?"]
    assert rule.all("Dog's sea animal, an animal, a dogma?") == [
        "Puppy's fish, a beast, a dogma?", "Hound's fish, a beast, a dogma?",
    ]  # fmt: skip
    drawn = {rule.put("Has the dog a badge?", random.Random(seed)) for seed in range(20)}
    assert drawn == set(rule.all("Has the dog a badge?"))
    assert rule.put("Where is the cat?", random.Random(0)) is None


def test_templates_take_the_first_that_fits_and_drop_words():
    ways = [
        {"match": "What {a} is the {b} {p:behind|next to} {r}?", "put": ["{p} {r}, what {a} is the {b}?"]},
        {"match": "What {x}?", "put": ["{x}, what?"]},
    ]
    rule = Templates(ways)
    assert rule.all(BADGE) == ["Behind the dog, what colour is the badge?"]
    assert rule.all("what is it") == ["Is it, what?"]
    assert rule.all("Where is the dog?") == []
    terse = Templates([{"match": "What {a} is {r}?", "put": ["{r} {a}", "{a} {r}"]}], drop=["the", "next to"])
    assert terse.all("What colour is the badge next to the dog?") == ["badge dog colour", "colour badge dog"]


def test_number_changes_one_noun_and_what_agrees_with_it():
    rule = Number(["dog", "badge", "thing", "cherry"], irregular=[["man", "men"]], heads=["colour"])
    assert rule.all(BADGE) == [
        "What colour are the badges behind the dog?", "What colour is the badge behind the dogs?",
    ]  # fmt: skip
    assert rule.all("How many things are there?") == ["How many thing is there?"]
    assert rule.all("What does this man hold?") == ["What do these men hold?"]
    assert rule.all("Where is the big red cherry?") == ["Where are the big red cherries?"]
    assert rule.all("Which badge colour has a dog?") == []


@pytest.mark.parametrize("error", Typing.ERRORS)
def test_typing_errors(error):
    rule = Typing([error], one_in=6)
    question = "Which of the four cups is red or blue, the first one, or which?"  # 14 words: two errors
    for seed in range(30):
        typed = rule.put(question, random.Random(seed))
        changed = [(a, b) for a, b in zip(question.split(), typed.split(), strict=True) if a != b]
        assert 1 <= len(changed) <= 2
        for before, after in changed:
            letters = len(re.sub(r"\W", "", before))
            assert letters >= 4 and before[0] == after[0]
            assert len(after) - len(before) == {"drop": -1, "double": 1, "insert": 1}.get(error, 0)
            if error == "swap":
                assert sorted(before) == sorted(after)
    assert rule.put("Is it on?", random.Random(0)) is None


def test_the_same_seed_says_the_same(files):
    for phrasings in files.values():
        for kind in phrasings.kinds:
            for question in (BADGE, "How many pizzas are on the table?"):
                said = [phrasings.put(question, kind, random.Random(3)) for _ in range(2)]
                assert said[0] == said[1] != question


def test_put_draws_what_all_lists_and_never_the_question(files):
    for phrasings in files.values():
        for kind in phrasings.kinds:
            if kind == "typing":
                with pytest.raises(ValueError, match="drawn, not listed"):
                    phrasings.all(BADGE, kind)
                continue
            for question in random.Random(0).sample(sorted(QUESTIONS), 40):
                ways = phrasings.all(question, kind)
                assert question not in ways and len(set(ways)) == len(ways)
                said = phrasings.put(question, kind, random.Random(1))
                assert said in ways if ways else said is None


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_file_that_anyone_writes(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'opposites = [["left", "right"]]\n[kinds.bow]\nrule = "frames"\nframes = ["Pray, {q}?"]\n', encoding="utf-8"
    )
    mine = Phrasings.read(path)
    assert mine.kinds == ("bow",) and mine.opposites == (("left", "right"),)
    assert mine.put(BADGE, "bow", random.Random(0)) == "Pray, what colour is the badge behind the dog?"
    with pytest.raises(ValueError, match="kind 'bows'; allowed: bow"):
        mine.put(BADGE, "bows", random.Random(0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kinds = [", "no TOML"),
        ("", "kinds = None; allowed: tables"),
        ("[kind.a]", "key 'kind'; allowed: kinds, opposites"),
        ("kinds = {a = 1}", "kinds.a: 1; allowed: a table with the key rule"),
        ("[kinds.a]\nrule = 'frame'", "kinds.a: rule = 'frame'; allowed: spelling, case"),
        ("[kinds.a]\nrule = 'frames'", "kinds.a: lacks 'frames'; a rule 'frames' has: frames"),
        ("[kinds.a]\nrule = 'frames'\nframe = ['{q}']", "kinds.a: key 'frame'; allowed: rule, frames"),
        ("[kinds.a]\nrule = 'frames'\nframes = ['Hello {x}']", "frames has 'Hello {x}'; allowed: .*{q}, {i}, {Q}"),
        ("[kinds.a]\nrule = 'frames'\nframes = ['Hello']", "frames has 'Hello'"),
        ("[kinds.a]\nrule = 'frames'\nframes = ['{q} {q}']", "frames has"),
        ("[kinds.a]\nrule = 'frames'\nframes = '{q}'", "frames = '{q}'; allowed: a list of texts"),
        ("[kinds.a]\nrule = 'case'\nforms = ['small']", "forms has 'small'; allowed: some of 'lower', 'upper'"),
        ("[kinds.a]\nrule = 'typing'\nerrors = ['swap']\none_in = 0", "one_in = 0; allowed: a whole number from 1"),
        ("[kinds.a]\nrule = 'typing'\nerrors = ['swop']", "errors has 'swop'; allowed: some of 'swap'"),
        ("[kinds.a]\nrule = 'spelling'\npairs = [['a']]", r"pairs has \['a'\]; allowed: pairs of texts"),
        ("[kinds.a]\nrule = 'spelling'\npairs = []", r"pairs = \[\]; allowed: a list of pairs"),
        ("[kinds.a]\nrule = 'synonyms'\nwords = ['dog']", r"words = \['dog'\]; allowed: a table of words"),
        ("[kinds.a]\nrule = 'synonyms'\nwords = {dog = 'pup'}", "words.dog = 'pup'; allowed: a list of texts"),
        ("[kinds.a]\nrule = 'number'\nnouns = ['']", "nouns has ''"),
        ("[kinds.a]\nrule = 'templates'\ntemplates = ['x']", "templates has 'x'; allowed: tables with the keys match"),
        (
            "[kinds.a]\nrule = 'templates'\ntemplates = [{match = 'What {a}?', put = ['{b}']}]",
            "put has '{b}' with the slot {b}; allowed: {a}",
        ),
        (
            "[kinds.a]\nrule = 'templates'\ntemplates = [{match = '{a} or {a}?', put = ['{a}']}]",
            "match has '{a} or {a}\\?'; allowed: a text with different slots",
        ),
        ("opposites = [['a', 'a']]\n[kinds.a]\nrule = 'case'\nforms = ['lower']", "opposites has .*different words"),
        ("opposites = 'a'\n[kinds.a]\nrule = 'case'\nforms = ['lower']", "opposites has 'a'; allowed"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        Phrasings.read(path)
    assert str(error.value).startswith(str(path))


# -- the two files -------------------------------------------------------------------------------------------------

FUNCTION_WORDS = {"a", "an", "the", "of", "to", "on", "in", "at", "for", "with", "and", "or"}


def words_of(text):
    return re.findall(r"[a-z'-]+", text.lower())


def synonyms_of(phrasings):
    """The synonyms of a file, and the words that they bring, other than those that they replace."""
    whole, words = set(), set()
    for rule in phrasings.rules.values():
        for word, synonyms in rule.words.items() if isinstance(rule, Synonyms) else ():
            whole |= {synonym.lower() for synonym in synonyms}
            words |= {new for synonym in synonyms for new in words_of(synonym)} - set(words_of(word))
    return whole, words - FUNCTION_WORDS - {word for question in QUESTIONS for word in words_of(question)}


def frames_of(phrasings):
    return [frame for rule in phrasings.rules.values() if isinstance(rule, Frames) for frame in rule.frames]


def runs_of(frame, length=3):
    """All runs of three words around the question, or the words on a side that has fewer."""
    result = set()
    for side in re.split(r"\{[qiQ]\}", frame):
        words = words_of(side)
        result |= {tuple(words[i : i + length]) for i in range(max(1, len(words) - length + 1))} - {()}
    return result


def test_the_two_files_share_no_synonym(files):
    (train, train_words), (kept, kept_words) = (synonyms_of(files[name]) for name in FILES)
    assert train & kept == set() and train_words & kept_words == set()
    assert len(train) > 100 and len(kept) > 100


def test_the_two_files_share_no_frame(files):
    train, kept = (frames_of(files[name]) for name in FILES)
    shared = {run for frame in train for run in runs_of(frame)} & {run for frame in kept for run in runs_of(frame)}
    assert shared == set()


def test_the_two_files_share_no_spelling_form_ending_or_typing_error(files):
    def entries(phrasings):
        for rule in phrasings.rules.values():
            if isinstance(rule, Spelling):
                yield from (word for pair in rule.pairs for word in pair)
            for name in ("forms", "endings", "errors"):
                yield from ((name, entry) for entry in getattr(rule, name, ()))

    assert set(entries(files["train"])) & set(entries(files["eval"])) == set()


def test_some_kinds_are_kept_for_the_test_alone(files):
    train, kept = (files[name].kinds for name in FILES)
    assert set(train) < set(kept)
    assert {"order", "terse", "number", "chatty"} <= set(kept) - set(train)
    for name in FILES:
        for kind, rule in files[name].rules.items():
            if isinstance(rule, Frames):
                assert len(rule.frames) >= 20, (name, kind)


def test_synonyms_name_nothing_else_of_the_dataset(files):
    """A synonym that is another object's or category's name would ask something else."""
    asked = {word for question in QUESTIONS for word in words_of(question)}
    for phrasings in files.values():
        for word, synonyms in phrasings.rules["synonyms"].words.items():
            if word in asked:
                assert not set(synonyms) & {*OBJECTS, *CATEGORIES}, word
