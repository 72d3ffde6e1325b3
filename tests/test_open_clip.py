"""Every interface that open_clip's models have, as small randomly initialised models in directories of its format."""

import json
import math
import shutil
import types

import numpy as np
import open_clip
import pytest
import torch
from open_clip import hf_model
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from core.backbones import load_backbone
from core.backbones.clip import ClipBackbone
from core.backbones.frozen import no_tf32
from core.backbones.text_towers import token_mask
from core.release.manifest import list_anew, read_config, write_release

VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
SIGLIP = {**TEXT, "pool_type": "last", "no_causal_mask": True, "proj_bias": True}
CUSTOM = {"custom_text": True}
CONFIGS = {
    "CLIP": {},
    "CLIPA": {"text_cfg": {**TEXT, "pool_type": "last", "no_causal_mask": True}},
    "MetaCLIP 2": {"text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 49407}},
    "CustomTextCLIP": CUSTOM,
    "SigLIP": {**CUSTOM, "text_cfg": SIGLIP, "init_logit_scale": math.log(10), "init_logit_bias": -10.0},
    "SigLIP without projection": {**CUSTOM, "text_cfg": {**SIGLIP, "width": 32, "proj_type": "none"}},
    "CoCa": {
        **CUSTOM,
        "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
    },
}
QUESTIONS = ["Where is the cat?", "What colour is the badge behind the dog, tell me!?"]


def write_model(directory, *, weights=True, **changes):
    """A model of open_clip with random weights in its directory format."""
    config = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT, **changes}
    directory.mkdir(exist_ok=True)
    (directory / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
    if weights:
        arguments = {key: value for key, value in config.items() if key != "custom_text"}
        multimodal = open_clip.coca_model.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
        torch.manual_seed(0)
        model = (multimodal if "custom_text" in config else open_clip.CLIP)(**arguments)
        for value in model.parameters():  # CoCa leaves some as the memory had them
            value.data.nan_to_num_(0.0, 0.0, 0.0).clamp_(-10.0, 10.0)
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, directory / "m.safetensors")
    return directory


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def backbone(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    return load_backbone(f"local-dir:{write_model(directory, **CONFIGS[request.param])}")


def test_answers_and_pictures_are_what_open_clip_makes(backbone):
    pictures = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)) for i in range(2)]
    with torch.no_grad():
        texts = backbone.model.encode_text(backbone.tokenizer(QUESTIONS))
        images = backbone.model.encode_image(torch.stack([backbone.transform(picture) for picture in pictures]))
    torch.testing.assert_close(backbone.encode_texts(QUESTIONS), F.normalize(texts, dim=-1))
    torch.testing.assert_close(backbone.encode_questions(QUESTIONS, "eos"), F.normalize(texts, dim=-1))
    torch.testing.assert_close(backbone.encode_images(pictures), F.normalize(images, dim=-1))
    assert backbone.dim == texts.shape[-1] == images.shape[-1] == 32


def test_mean_pooling_written_out(backbone):
    """For one question alone: states of the words by the tower's parts, their mean, through its projection."""
    tower = getattr(backbone.model, "text", backbone.model)
    tokens = backbone.tokenizer(QUESTIONS[:1])
    n = int(tokens[0].argmax()) + 1
    mask = getattr(tower, "attn_mask", None)
    if mask is not None:  # words see what is before them alone: whatever follows can be left away
        tokens, mask = tokens[:, :n], mask[:n, :n]
    with torch.no_grad():
        x = tower.token_embedding(tokens) + tower.positional_embedding[: tokens.shape[1]]
        pooled = tower.ln_final(tower.transformer(x, attn_mask=mask))[:, :n].mean(1)
        projection = tower.text_projection
        if projection is not None:
            pooled = projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection
    mean = backbone.encode_questions(QUESTIONS, "mean")
    torch.testing.assert_close(mean[:1], F.normalize(pooled, dim=-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean.norm(dim=-1), torch.ones(2))
    assert not torch.allclose(mean, backbone.encode_questions(QUESTIONS), atol=0.1)


def test_logit_scale_gives_the_models_own_probabilities(backbone):
    """SigLIP's bias, the same for every answer, is not needed for a choice among answers."""
    pixels = torch.randn(3, 3, 32, 32)
    x, answers = backbone.encode_images(pixels), backbone.encode_texts(["red", "blue", "green"])
    model = backbone.model
    with torch.no_grad():
        if hasattr(model, "get_logits"):
            logits = model.get_logits(pixels, backbone.tokenizer(["red", "blue", "green"]))[0]
        else:  # CoCa
            logits = model.logit_scale.exp() * x @ answers.mT
    torch.testing.assert_close((backbone.logit_scale * x @ answers.mT).softmax(-1), logits.softmax(-1))


def test_embeddings_are_ordinary_tensors(backbone):
    """Gradients can run through them: no caller has to copy them first."""
    x, answers = backbone.encode_images(torch.randn(2, 3, 32, 32)), backbone.encode_texts(["red", "blue"])
    for e in (x, answers, *(backbone.encode_questions(QUESTIONS, pooling) for pooling in ("eos", "mean"))):
        assert not e.is_inference() and not e.requires_grad and e.dtype == torch.float32
    w = torch.eye(backbone.dim, requires_grad=True)
    (x @ w @ answers.mT).sum().backward()
    torch.testing.assert_close(w.grad, x.sum(0)[:, None] * answers.sum(0))


def test_images_are_encoded_in_float32_whatever_training_allows(backbone):
    """Else one identity would stand for features of a GPU (TF32, half precision) and of a CPU."""
    seen = []
    hook = backbone.model.visual.register_forward_hook(
        lambda *_: seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
    )
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")  # as training on a GPU does
    try:
        backbone.encode_images(torch.zeros(1, 3, 32, 32))
        assert seen == [("highest", False)]
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", before[1])
    finally:
        torch.set_float32_matmul_precision(before[0])
        hook.remove()


def test_threads_that_overlap_leave_the_precision_as_it_was():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        first, second = no_tf32(), no_tf32()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)  # the one that came first leaves first, as threads do
        assert torch.get_float32_matmul_precision() == "highest"
        second.__exit__(None, None, None)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_another_precision_is_another_identity(backbone):
    half = ClipBackbone(backbone.name, backbone.model, backbone.transform, backbone.tokenizer, "fp16")
    assert half.identity == {**backbone.identity, "precision": "fp16"} and "precision" not in backbone.identity
    pixels = torch.randn(2, 3, 32, 32)
    one, other = backbone.encode_images(pixels), half.encode_images(pixels)
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, atol=1e-2, rtol=0)


def test_precision_is_part_of_the_name(monkeypatch):
    asked = []
    monkeypatch.setattr("core.backbones.clip.download", lambda *arguments: asked.append(arguments))
    for spec in ("ViT-B-32/openai", "fp16:ViT-B-32/openai", "fp16:hf-hub:timm/ViT-B-16-SigLIP"):
        load_backbone(spec)
    cpu = torch.device("cpu")
    assert asked == [
        ("ViT-B-32/openai", cpu, "fp32"),
        ("ViT-B-32/openai", cpu, "fp16"),
        ("hf-hub:timm/ViT-B-16-SigLIP", cpu, "fp16"),
    ]


# -- text towers of the transformers library ---------------------------------------------------------------------


class Words:
    """A tokenizer as transformers has them: numbers of letters, then 1 as the end and as padding, as SigLIP's."""

    tokenizer, context_length = types.SimpleNamespace(pad_token_id=1), 64

    def __call__(self, texts, context_length=64):
        rows = [[2 + ord(c) % 20 for c in text][: context_length - 1] for text in texts]
        return torch.tensor([row + [1] * (context_length - len(row)) for row in rows])


class Layers(torch.nn.Module):
    """Stands for an encoder of transformers: each token's state depends on it and on the tokens attended to."""

    def __init__(self, width):
        super().__init__()
        self.embedding = torch.nn.Embedding(32, width)

    def forward(self, input_ids, attention_mask):
        x = self.embedding(input_ids)
        context = (x * attention_mask[..., None]).sum(1, keepdim=True)
        return types.SimpleNamespace(last_hidden_state=torch.tanh(x + 0.1 * context))


@pytest.mark.parametrize("pooler", [hf_model.MeanPooler, hf_model.ClsLastHiddenStatePooler])
def test_hugging_face_towers(tmp_path, pooler):
    """`HFTextEncoder.forward` and its poolers are open_clip's; what they wrap is not the real library's."""
    host = load_backbone(str(write_model(tmp_path, **CUSTOM)))
    tower = hf_model.HFTextEncoder.__new__(hf_model.HFTextEncoder)
    torch.nn.Module.__init__(tower)
    tower.config, tower.output_tokens = types.SimpleNamespace(pad_token_id=1), False
    tower.transformer, tower.pooler = Layers(24), pooler()
    tower.proj = torch.nn.Sequential(torch.nn.Linear(24, 28), torch.nn.GELU(), torch.nn.Linear(28, 32))
    host.model.text = tower
    backbone = ClipBackbone("local", host.model, host.transform, Words())
    eos, mean = (backbone.encode_questions(QUESTIONS, pooling) for pooling in ("eos", "mean"))
    with torch.no_grad():
        ids = Words()(QUESTIONS)[:1, : len(QUESTIONS[0])]  # no padding
        states = tower.transformer(ids, torch.ones_like(ids)).last_hidden_state
        torch.testing.assert_close(mean[:1], F.normalize(tower.proj(states.mean(1)), dim=-1))
        first = states.mean(1) if pooler is hf_model.MeanPooler else states[:, 0]
        torch.testing.assert_close(eos[:1], F.normalize(tower.proj(first), dim=-1))


def test_padding_that_is_also_the_end_and_texts_without_a_token():
    tokens = torch.tensor([[7, 8, 1, 1], [1, 1, 1, 1], [7, 8, 9, 1]])
    mask = token_mask(Words(), tokens)
    assert mask.tolist() == [[True, True, False, False], [True, False, False, False], [True, True, True, False]]


def test_clips_exclamation_mark_is_no_padding():
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=16)
    tokens = tokenizer(["what!; now", "x " * 40])
    assert (tokens[0] == 0).nonzero()[0] < tokens[0].argmax()  # "!" before the end
    assert token_mask(tokenizer, tokens).sum(1).tolist() == [int(tokens[0].argmax()) + 1, 16]


# -- models that cannot be used ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, said",
    [
        ({**CUSTOM, "text_cfg": {**TEXT, "pool_type": "none"}}, r"it makes \(1, 16, 32\) of a text"),
        ({**CUSTOM, "text_cfg": {**TEXT, "output_tokens": True}}, "it makes tuple of a text"),
        ({**CUSTOM, "text_cfg": {**TEXT, "proj_type": "none"}}, r"\(1, 64\) of a text and \(1, 32\) of a picture"),
        ({"vision_cfg": {**VISION, "output_tokens": True}}, "tuple of a picture"),
    ],
)
def test_models_without_one_embedding_are_refused(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said) as caught:
        load_backbone(str(write_model(tmp_path, **changes)))
    assert "must make one vector of each" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hf_model, "transformers", None)
    text = {"hf_model_name": "roberta-base", "hf_tokenizer_name": "roberta-base"}
    write_model(tmp_path, text_cfg=text, weights=False)
    save_file({"x": torch.zeros(1)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="pip install transformers"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda d: (d / "m.safetensors").write_bytes((d / "m.safetensors").read_bytes()[:-1000]), "m.safetensors"),
        (lambda d: (d / "m.safetensors").write_bytes(b""), "m.safetensors"),
        (lambda d: (d / "m.safetensors").unlink(), "no weights there"),
        (lambda d: save_file({"w": torch.zeros(3)}, d / "m.safetensors"), "m.safetensors"),
        (lambda d: save_file({}, d / "m.safetensors"), "m.safetensors"),
        (
            lambda d: (d / "open_clip_config.json").write_text('{"model_cfg": ', encoding="utf-8"),
            "open_clip_config.json",
        ),
        (lambda d: (d / "open_clip_config.json").write_text("{}", encoding="utf-8"), "model_cfg"),
        (
            lambda d: (d / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 3}}', encoding="utf-8"),
            "text_cfg",
        ),
        (lambda d: (d / "open_clip_config.json").unlink(), "must hold one of open_clip_config.json"),
    ],
)
def test_damaged_directories_are_named_in_one_line(tmp_path, damage, said):
    damage(write_model(tmp_path))
    with pytest.raises(ValueError, match=said) as caught:
        load_backbone(f"local-dir:{tmp_path}")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_release_holds_no_pickles(tmp_path):
    """Pickled weights become safetensors, which its list covers; a release with pickles alone is refused."""
    source, release = write_model(tmp_path / "pickled"), tmp_path / "release"
    torch.save(load_file(source / "m.safetensors"), source / "open_clip_pytorch_model.bin")
    (source / "m.safetensors").unlink()
    release.mkdir()
    network = {"name": "clip_adapter", "config": {"hidden": 4}, "dim": 32, "scale": 10.0}
    write_release(
        release,
        {"preset": "tiny", "seed": 0, "network": network, "question_encoder": {"encoder": "clip", "pooling": "eos"}},
        f"local-dir:{source}",
    )
    held = sorted(path.name for path in (release / "backbone").iterdir())
    assert held == ["open_clip_config.json", "open_clip_model.safetensors"]
    assert "backbone/open_clip_model.safetensors" in read_config(release)["files"]
    assert load_backbone(str(release / "backbone")).identity == load_backbone(str(source)).identity

    (release / "backbone" / "open_clip_model.safetensors").unlink()
    shutil.copy(source / "open_clip_pytorch_model.bin", release / "backbone")
    list_anew(release)
    with pytest.raises(ValueError, match="'open_clip_pytorch_model.bin', are pickled; allowed: safetensors"):
        read_config(release)
    config = json.loads((release / "config.json").read_text(encoding="utf-8"))
    listed = config.pop("files")
    (release / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert read_config(release) == config  # as releases of before were
    sizes = {path: entry["size"] for path, entry in listed.items() if path != "config.json"}
    (release / "config.json").write_text(json.dumps(config | {"files": sizes}), encoding="utf-8")
    assert read_config(release)["files"] == sizes

    other = tmp_path / "other"
    other.mkdir()
    (other / "kind.json").write_text("{}", encoding="utf-8")
    (other / "w.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="other: its weights, 'w.pth', are pickled; allowed: safetensors"):
        write_release(tmp_path / "another", {}, f"local-dir:{other}")


@pytest.mark.parametrize(
    "spec, said",
    [
        ("nonsense", "allowed: 'local-dir:PATH'"),
        ("a/b/c", "allowed: 'local-dir:PATH'"),
        ("local-dir:/nowhere", "no directory /nowhere"),
        ("fp16:nonsense", "allowed: 'local-dir:PATH'"),
        ("ViT-B-33/openai", "like it: ViT-B-32"),
        ("ViT-B-32/openia", "'openia' of ViT-B-32; allowed: openai, "),
    ],
)
def test_bad_names_are_told_what_is_allowed(spec, said):
    with pytest.raises(ValueError, match=said):
        load_backbone(spec)
