import random

import numpy as np
import open_clip
import pytest
import torch

from core.backbones import load_backbone
from core.data.emoji.scene import draw_scene
from core.data.emoji.world import World, WorldConfig
from tests.conftest import ROOT
from train.pipeline.tiny_clip.heads import SceneHeads
from train.pipeline.tiny_clip.report import fit_probe, probe_accuracy
from train.pipeline.tiny_clip.scenes import SceneStream
from train.pipeline.tiny_clip.towers import _tokens

SHIPPED = ROOT / "weights" / "emoji" / "backbone"


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(f"local-dir:{SHIPPED}")


def test_shipped_backbone_is_an_open_clip_directory(backbone):
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{SHIPPED}", precision="fp32")
    image = draw_scene(World(WorldConfig()).compose(random.Random(0)))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.eval().encode_image(transform(image)[None]), dim=-1)
    torch.testing.assert_close(backbone.encode_images([image]), expected)
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 10 * 1024 * 1024


def test_arrays_and_pictures_encode_alike(backbone):
    images = [draw_scene(World(WorldConfig()).compose(random.Random(i))) for i in range(3)]
    one, other = backbone.encode_images(images), backbone.encode_images(np.stack([np.asarray(i) for i in images]))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one.norm(dim=-1), torch.ones(3))
    assert backbone.encode_texts(["a dog", "red"]).shape == (2, backbone.dim)


def test_question_pooling(backbone):
    questions = ["What colour is the badge behind the dog?", "Where is the cat?"]
    assert torch.equal(backbone.encode_questions(questions), backbone.encode_texts(questions))
    mean = backbone.encode_questions(questions, "mean")
    torch.testing.assert_close(mean.norm(dim=-1), torch.ones(2))
    # written out for one question alone: all states up to the end token, without the padding
    tokens = backbone.tokenizer(questions[1:])[:, : int(backbone.tokenizer(questions[1:]).argmax()) + 1]
    model = backbone.model
    with torch.no_grad():
        x = model.token_embedding(tokens) + model.positional_embedding[: tokens.shape[1]]
        x = model.transformer(x, attn_mask=model.attn_mask[: tokens.shape[1], : tokens.shape[1]])
        expected = torch.nn.functional.normalize(model.ln_final(x).mean(1) @ model.text_projection, dim=-1)
    torch.testing.assert_close(mean[1:], expected)
    with pytest.raises(ValueError, match="allowed: eos, mean"):
        backbone.encode_questions(questions, "last")


def test_bad_arrays_are_named(backbone):
    with pytest.raises(ValueError, match="uint8"):
        backbone.encode_images(np.zeros((2, 10, 10, 3), np.uint8))


def test_a_text_that_does_not_fit_is_refused(backbone):
    fits = " ".join(["cat"] * (backbone.tokenizer.context_length - 2))  # beside the tokens that mark its ends
    assert backbone.encode_texts([fits]).shape == backbone.encode_questions([fits], "mean").shape == (1, backbone.dim)
    for encode in (backbone.encode_texts, backbone.encode_questions):
        with pytest.raises(ValueError, match=r"text of more than \d+ tokens, 'cat cat .*allowed: \d+$"):
            encode(["short", f"{fits} cat"])


def test_word_by_word_tokens_are_clips():
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=40)
    captions = ["dog red star top left", "icecream pufferfish one", "star"]
    whole, ours = tokenizer(captions), _tokens(captions, tokenizer.encode, 40)
    assert torch.equal(whole[:, : ours.shape[1]], ours) and not whole[:, ours.shape[1] :].any()


def test_every_readout_of_the_heads_learns():
    images, labels = SceneStream(0, 64, 0, 1)[0]
    heads = SceneHeads(dim=16, cell_width=8)
    e = torch.nn.functional.normalize(torch.randn(64, 16), dim=-1)
    out = heads(e, torch.randn(64, 4, 8), labels)
    assert images.shape == (64, 80, 80, 3) and all(torch.isfinite(loss) for loss, _ in out.values())
    sum(loss for loss, _ in out.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in heads.parameters())


def test_probe_finds_a_linear_rule():
    g = torch.Generator().manual_seed(0)
    x, rule = torch.randn(2, 700, 8, generator=g), torch.randn(2, 8, 3, generator=g)
    y = (x @ rule).argmax(-1)
    assert (probe_accuracy(x[:, :500], y[:, :500], x[:, 500:], y[:, 500:], 3) > 0.85).all()


def test_probe_is_as_good_as_bayes_where_the_answer_lies_in_a_small_direction():
    """Gaussian classes of one covariance, told apart only along the direction of least variance."""
    g = torch.Generator().manual_seed(0)
    N, D, C = 700, 32, 3
    spread = torch.logspace(0, -1, D)
    rotation = torch.linalg.qr(torch.randn(D, D, generator=g))[0]
    y = torch.randint(C, (1, N), generator=g)
    mean = torch.zeros(C, D)
    mean[:, -1] = 3 * spread[-1] * torch.arange(C)
    plain = mean[y[0]] + spread * torch.randn(N, D, generator=g)
    bayes = ((plain[500:, None] - mean) / spread).square().sum(-1).argmin(-1)
    best = (bayes == y[0, 500:]).float().mean()
    x = (plain @ rotation)[None]
    assert probe_accuracy(x[:, :500], y[:, :500], x[:, 500:], y[:, 500:], C)[0] > best - 0.04


def test_probe_never_answers_what_it_has_not_seen():
    x, y = torch.randn(1, 60, 4), torch.randint(2, (1, 60))
    weight, bias = fit_probe(x, y, classes=5, shrinkage=0.1)
    assert torch.isfinite(weight).all() and (x @ weight + bias).argmax(-1).max() < 2
