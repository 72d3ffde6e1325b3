"""Question encoders: the sentence encoder and the backbone's tower behind one object; what a release names, it gets."""

import json
import shutil

import pytest
import torch
from torch.nn import functional as F

from core.backbones.questions import (
    WIDTH,
    SentenceQuestions,
    TowerQuestions,
    check_layers,
    open_question_encoder,
    question_dim,
)
from core.backbones.stored import StoredQuestions, note_encoder
from core.generator import AdapterGenerator
from core.release.default import default_sentence_encoder
from core.release.hub import contents
from core.release.manifest import list_anew
from train.presets import get_preset

DIRECTORY = default_sentence_encoder()
ASKED = ["What colour is the badge behind the dog?", "Where is the cat?"]
SPEC = {"encoder": "sentence", "layers": [0, 6]}


class Tower:
    dim, identity = 3, {"sha256": "x"}

    def encode_questions(self, questions, pooling):
        return torch.eye(3)[[len(pooling) % 3] * len(questions)]


@pytest.fixture(scope="module")
def encoder():
    return SentenceQuestions(DIRECTORY, (0, 6))


def test_layers_stand_side_by_side_and_make_one_unit_vector(encoder):
    e = encoder.encode(ASKED)
    assert e.shape == (2, encoder.dim) == (2, 2 * WIDTH)
    words, last = (SentenceQuestions(DIRECTORY, (layer,)).encode(ASKED) for layer in (0, 6))
    torch.testing.assert_close(e, torch.cat([words, last], 1) / 2**0.5, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(e.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("layers", [(0, 6), (6, 0), (6,)])
def test_the_meaning_is_the_last_layer(layers):
    encoder = SentenceQuestions(DIRECTORY, layers)
    expected = SentenceQuestions(DIRECTORY, (6,)).encode(ASKED)
    torch.testing.assert_close(encoder.meaning(encoder.encode(ASKED)), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layers", [(), (7,), (-1,), (2, 2)])
def test_layers_that_are_none(layers):
    with pytest.raises(ValueError, match="allowed: different ones from 0 to 6"):
        check_layers(layers)


def test_the_tower_s_way():
    asked = open_question_encoder({"encoder": "clip", "pooling": "eos"}, Tower, DIRECTORY)
    assert (
        isinstance(asked, TowerQuestions) and asked.dim == 3 and asked.identity == {"encoder": "clip", "pooling": "eos"}
    )
    e = asked.encode(ASKED)
    assert torch.equal(e, Tower().encode_questions(ASKED, "eos")) and torch.equal(asked.meaning(e), e)
    assert question_dim(asked.identity, 3) == 3 and question_dim(SPEC, 3) == 768


def test_another_encoder_than_a_release_names_is_refused(encoder):
    never = lambda: pytest.fail("the backbone is not needed")
    assert open_question_encoder(encoder.identity, never, DIRECTORY).identity == encoder.identity
    with pytest.raises(
        ValueError, match=r"another sentence encoder \(sha256 .*than the release was trained with \(aeiou\)"
    ):
        open_question_encoder(SPEC | {"sha256": "aeiou"}, never, DIRECTORY)
    with pytest.raises(ValueError, match="question encoder 'word2vec'; allowed: 'sentence', 'clip'"):
        open_question_encoder({"encoder": "word2vec"}, never, DIRECTORY)


def test_settings_become_a_spec_and_a_size():
    preset = get_preset("tiny")
    assert preset.questions["encoder"] == "sentence"
    assert preset.question_dim(256) == WIDTH * len(preset.question_layers)


def test_a_release_names_its_encoder_and_a_pushed_one_holds_it(tiny, tmp_path):
    release = tiny / "seed-0" / "weights"
    generator = AdapterGenerator.from_pretrained(release)
    named = generator.config["question_encoder"]
    assert named == generator.question_encoder.identity and len(named["sha256"]) == 64
    files = contents(release, "a card")
    assert {"sentence/config.json", "sentence/vocab.txt"} <= files.keys()
    whole = tmp_path / "whole"
    for name, content in files.items():
        (whole / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (whole / name).write_bytes(content)
        else:
            shutil.copy(content, whole / name)
    pulled = AdapterGenerator.from_pretrained(whole)
    assert pulled.question_encoder.encoder is not None
    assert torch.equal(pulled.embed_questions(ASKED), generator.embed_questions(ASKED))
    config = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    config["question_encoder"]["sha256"] = "0" * 64
    (whole / "config.json").write_text(json.dumps(config), encoding="utf-8")
    list_anew(whole)
    with pytest.raises(ValueError, match="holds another sentence encoder"):
        AdapterGenerator.from_pretrained(whole).embed_questions(ASKED)


def test_known_questions_are_stored_with_their_embeddings(tiny):
    generator = AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights")
    fresh = generator.embed_questions([known["question"] for known in generator.known_questions[:5]])
    cosine = F.cosine_similarity(generator.known_embeddings[:5], fresh)
    assert cosine.min() > 0.9999  # half precision on disk


def test_what_is_carried_knows_its_encoder_and_embeds_nothing(encoder, tmp_path):
    for _ in range(2):
        note_encoder(tmp_path, {"encoder": "clip", "pooling": "eos"})
        note_encoder(tmp_path, encoder.identity)
    assert len(json.loads((tmp_path / "questions.json").read_text(encoding="utf-8"))) == 2
    stored = StoredQuestions(tmp_path, SPEC)
    assert stored.identity == encoder.identity and stored.dim == encoder.dim
    with pytest.raises(ValueError, match="lacks features of questions such as 'Where is it"):
        stored.encode(["Where is it?"])
    with pytest.raises(ValueError, match="holds no questions that .*\\[6\\].* embedded"):
        StoredQuestions(tmp_path, {"encoder": "sentence", "layers": [6]})
    with pytest.raises(ValueError, match="holds no questions that"):
        StoredQuestions(tmp_path / "nothing", SPEC)


def test_what_is_in_memory_is_not_loaded_again(encoder, tmp_path):
    """Releases share the sentence encoder, until its files change."""
    other = SentenceQuestions(DIRECTORY / ".." / DIRECTORY.name, (6,), torch.device("cpu"))
    assert other.encoder is encoder.encoder and other.layers == (6,)
    copy = shutil.copytree(DIRECTORY, tmp_path / "copy")
    own = SentenceQuestions(copy, (6,))
    assert own.encoder is not encoder.encoder and SentenceQuestions(copy, (0,)).encoder is own.encoder
    (copy / "vocab.txt").write_text("changed", encoding="utf-8")
    with pytest.raises(ValueError, match="vocab.txt"):
        SentenceQuestions(copy, (6,))
