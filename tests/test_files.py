"""Releases and adapters are what they say: digests, numbers, sizes and fields, of files that anyone may have made."""

import json
import shutil
import struct
import time

import pytest
import torch
from safetensors.torch import save_file

from core.backbones import load_backbone
from core.data.look import Look
from core.files import digest_of_file, parse_json, read_json
from core.generator import AdapterGenerator
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.hvae import HVAE, HVAEConfig
from core.release import manifest
from core.release.checkpoint import load_adapter, load_model, load_module, save_adapter, save_model, save_module
from core.release.config import check_config
from core.release.manifest import list_anew, read_config
from core.tensors import load_tensors, save_tensors
from tests.conftest import ROOT
from tests.fuzz import releases as fuzz

NETWORK = CLIPAdapter(AdapterConfig(hidden=3), dim=8)
SHIPPED = [ROOT / "weights" / name for name in ("emoji", "photos")]


@pytest.fixture
def whole(tmp_path):
    """A small release, whole, with a backbone."""
    import shutil

    return shutil.copytree(fuzz.whole_release(), tmp_path / "release")


def unlisted(directory):
    """The release as it was before releases listed digests."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    del config["files"]
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


# -- releases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directory", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_releases_list_what_their_files_are(directory):
    config = read_config(directory)
    files = manifest.weight_files(directory, config)
    assert config["files"].keys() == {"config.json", *files} and len(files) > 20
    for path, file in files.items():
        assert config["files"][path] == {"sha256": digest_of_file(file), "size": file.stat().st_size}


@pytest.mark.parametrize("case", fuzz.cases(seed=0, count=24), ids=lambda case: f"{case.spoil}-{case.listing}")
def test_a_spoiled_release_gives_a_result_or_one_line(case):
    assert fuzz.check(case) in ("result", "refused")


@pytest.mark.parametrize("name", ["hvae_hyperldm", "cond_multitask", "mnet_maml", "known_questions", "backbone"])
def test_one_bit_is_enough(whole, name):
    path = whole / ("backbone/open_clip_model.safetensors" if name == "backbone" else f"{name}.safetensors")
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes(data)
    generator = AdapterGenerator.from_pretrained(whole)  # content is looked at when it is used
    with pytest.raises(
        ValueError, match=f"'{path.relative_to(whole)}' holds something else than its config.json lists"
    ):
        if name == "known_questions":
            generator.suggest_answers("Where?")
        else:
            generator.generate("Where?", {"hvae_hyperldm": "hyperldm", "backbone": "clip"}.get(name, name))


def test_files_of_one_shape_cannot_be_exchanged(whole):
    a, b = (whole / f"{name}.safetensors" for name in ("mnet_maml", "mnet_fomaml"))
    first = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(first)
    with pytest.raises(ValueError, match=r"'mnet_maml\.safetensors'"):
        AdapterGenerator.from_pretrained(whole).generate("Where?", "mnet_maml")


def test_a_changed_setting_is_seen_and_can_be_listed_anew(whole, capsys):
    path = whole / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"gamma": 1.5', '"gamma": 2.5'), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"config\.json has changed since it was written; .* -m core\.release\.manifest"
    ):
        read_config(whole)
    manifest.main([str(whole)])
    assert "9 files listed" in capsys.readouterr().out
    assert read_config(whole)["choices"]["hvae_hyperldm"]["gamma"] == 2.5


def test_a_model_that_is_saved_into_a_release_is_listed(whole):
    generator = AdapterGenerator.from_pretrained(whole)
    save_module(whole / "mnet_maml.safetensors", generator.module("mnet_fomaml"))
    w = AdapterGenerator.from_pretrained(whole).generate("Where?", "mnet_maml").w
    assert torch.equal(w, generator.module("mnet_fomaml").w)


def test_a_release_of_before_is_taken_and_one_line_says_what_is_unchecked(whole, caplog):
    unlisted(whole)
    for _ in range(2):
        assert AdapterGenerator.from_pretrained(whole).generate("Where?").w is not None
    assert [r.getMessage() for r in caplog.records if "releases listed digests" in r.getMessage()] == [
        f"{whole} was written before releases listed digests: what its files hold is unchecked"
    ]
    config = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    sizes = {path: file.stat().st_size for path, file in manifest.weight_files(whole, config).items()}
    (whole / "config.json").write_text(json.dumps(config | {"files": sizes}), encoding="utf-8")
    assert read_config(whole)["files"] == sizes  # as those on the Hub had them


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["hvae", "hvae_hyperclip", "cond_multitask", "known_questions", "backbone"])
def test_numbers_that_are_none_are_refused_where_nothing_is_listed(whole, name, value):
    path = unlisted(whole) / ("backbone/open_clip_model.safetensors" if name == "backbone" else f"{name}.safetensors")

    def put(header, tensors):
        largest = max((k for k in tensors if tensors[k].is_floating_point()), key=lambda k: tensors[k].numel())
        tensors[largest].view(-1)[0] = value

    fuzz.rewrite(path, put)
    generator = AdapterGenerator.from_pretrained(whole)
    with pytest.raises(ValueError, match=r"release.* are infinite or not numbers"):
        generator.suggest_answers("Where?") if name == "known_questions" else generator.generate(
            "Where?", {"hvae": "hyperldm", "hvae_hyperclip": "hyperclip", "backbone": "clip"}.get(name, name)
        )


# -- config.json -------------------------------------------------------------------------------------------------------

WRONG = {
    ("backbone",): [None, 1, [], {}, ""],
    ("preset",): [None, 1, [], {}],
    ("seed",): [None, -1, 1.5, "0", True, 10**40, []],
    ("descriptors",): [None, "1", 0, -1.0, 2, []],
    ("network",): [None, "x", [], {}],
    ("network", "dim"): [None, -8, 0, "8", 8.0, 10**30, True],
    ("network", "scale"): [None, -1, "x", []],
    ("network", "config", "hidden"): [None, -1, 0, 2.5, "3"],
    ("question_encoder",): [None, "clip", [], {}],
    ("question_encoder", "encoder"): [None, "bert", 1, ["clip"]],
    ("question_encoder", "pooling"): [None, "max", 0],
    ("choices",): [None, [], "x", 1],
    ("choices", "hvae_hyperldm"): [None, [], "x", 1],
    ("choices", "hvae_hyperldm", "gamma"): [None, "1.5", -1, 11, [], True],
    ("choices", "hvae_hyperldm", "steps"): [None, 0, 1.0, 1001, "10"],
    ("choices", "hvae_hyperldm", "samples"): [None, 0, 65, 1.0],
    ("choices", "hvae_hyperldm", "sampler"): [None, "euler", ["ddim"], {}],
    ("scales",): [None, [], 1],
    ("scales", "clip"): [None, "1", 0, -1],
    ("questions",): [None, "x", {}, [None], ["x"], [{}], [{"question": "q?"}], [{"question": 1, "answers": ["a"]}]],
    ("questions", 0, "answers"): [None, "ab", [], [1], [""]],
    ("questions", 0, "family"): [None, 1],
    ("run",): ["x", [], {"preset": None}, {"preset": "tiny", "set": "x"}, {"preset": "tiny", "data": 1}],
}


@pytest.mark.parametrize("keys", WRONG, ids=lambda keys: ".".join(map(str, keys)))
def test_a_field_that_holds_something_else_is_named(keys):
    text = (fuzz.whole_release() / "config.json").read_text(encoding="utf-8")
    for value in WRONG[keys]:
        config = inner = json.loads(text) | {"run": None, "descriptors": 1.0}
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        with pytest.raises(ValueError, match=keys[0] if len(keys) < 3 else keys[-1]):
            check_config(config)
    check_config(json.loads(text) | {"of_the_owner": [1], "run": None})


@pytest.mark.parametrize("text", ["[" * 200_000, "NaN", '{"a": -Infinity}', "1e999", "1" * 5000, "{", "", "\x00"])
def test_json_that_is_none_is_a_value_error(tmp_path, text):
    with pytest.raises(ValueError):
        parse_json(text)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json: damaged"):
        read_json(tmp_path / "a.json")


# -- files of tensors --------------------------------------------------------------------------------------------------


def crafted(path, tensors, header, data):
    """A safetensors file with this header, whatever it says, and so many bytes of zeros."""
    text = json.dumps({"__metadata__": {"header": json.dumps(header)}, **tensors}, separators=(",", ":")).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    return path


def adapter_header(**changes):
    config = {"config": None, "sizes": {"network": NETWORK.spec()}}
    return {"kind": "adapter", "format_version": 2, "config": config, "shapes": {}, "metadata": {}, **changes}


@pytest.mark.parametrize("parts", [10_000, 60_000])
def test_a_file_of_many_parts_is_refused_at_once(tmp_path, parts):
    big = 5_000_000
    tensors = {"w#0": {"dtype": "U8", "shape": [big], "data_offsets": [0, big]}}
    for i in range(parts):
        tensors[f"w#{i + 10**5}"] = {"dtype": "U8", "shape": [1], "data_offsets": [big + i, big + i + 1]}
    path = crafted(tmp_path / "a.safetensors", tensors, adapter_header(shapes={"w": [big + parts]}), big + parts)
    begun = time.process_time()
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        load_adapter(path)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    "tensors, header",
    [
        ({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}, adapter_header(shapes={"w": [2**40]})),
        ({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}, adapter_header(shapes={"w": [-1]})),
        ({"w": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}}, adapter_header(shapes={"w": "2"})),
        ({"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, adapter_header(shapes={"w": [1]})),
        ({"w": [1]}, adapter_header()),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, adapter_header(shapes={"w": None})),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, adapter_header(shapes={"w": [2], "v": [1]})),
        (
            {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
            adapter_header(shapes={"w": [2]}, x="x" * 2**21),
        ),
    ],
)
def test_sizes_are_checked_before_anything_is_read(tmp_path, tensors, header):
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        load_adapter(crafted(tmp_path / "a.safetensors", tensors, header, 8))


@pytest.mark.parametrize("hidden", [10**9, -5, 0, 10**30])
def test_a_config_costs_no_memory_before_it_fits_the_tensors(tmp_path, hidden):
    save_module(tmp_path / "m.safetensors", HVAE(HVAEConfig(latent=3, hidden=(7, 4)), num_params=20))
    header = load_model(tmp_path / "m.safetensors")[0]
    config = header["config"] | {"config": header["config"]["config"] | {"hidden": [hidden, 4]}}
    fuzz.rewrite(tmp_path / "m.safetensors", lambda header, _: header.update(config=config))
    with pytest.raises(ValueError, match=r"m\.safetensors: "):
        load_module(tmp_path / "m.safetensors")


def test_an_adapter_with_one_bit_flipped_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_adapter(path, torch.randn(NETWORK.num_params), NETWORK, {"question": "q?", "scale": 20.0})
    good = path.read_bytes()
    for at in range(len(good) - 4 * NETWORK.num_params, len(good), 37):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(ValueError, match=r"a\.safetensors"):
            load_adapter(path)
    path.write_bytes(good.replace(rb"20.0", rb"29.0"))
    with pytest.raises(ValueError, match=r"a\.safetensors: damaged, it holds something else than was written"):
        load_adapter(path)


def test_an_adapter_of_before_is_taken_with_one_line(tmp_path, caplog):
    path = tmp_path / "a.safetensors"
    save_adapter(path, torch.zeros(NETWORK.num_params), NETWORK)
    fuzz.rewrite(path, lambda header, tensors: None)  # without its digest
    assert load_adapter(path)[0].abs().sum() == 0
    (record,) = caplog.records
    assert str(path) in record.getMessage() and "unchecked" in record.getMessage()


@pytest.mark.parametrize("field", ["question", "method", "generator", "steps", "seed", "scale", "seconds", "preset"])
def test_what_an_adapter_says_of_itself_is_of_the_right_type(tmp_path, field):
    for value in ([], {"a": 1}, -2 if field in ("steps", "seed", "scale", "seconds") else 7):
        save_adapter(tmp_path / "a.safetensors", torch.zeros(NETWORK.num_params), NETWORK, {field: value})
        with pytest.raises(ValueError, match=rf"a\.safetensors: metadata\.{field} is "):
            load_adapter(tmp_path / "a.safetensors")


def test_numbers_that_are_none_are_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"m\.safetensors: some values of 'x' are infinite or not numbers"):
        save_model(tmp_path / "m.safetensors", {"x": torch.tensor([1.0, float("nan")])}, kind="table", config={})
    assert not list(tmp_path.iterdir())


def test_tensors_of_a_work_file_come_back_or_are_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.arange(6.0).view(2, 3).mT})
    assert torch.equal(load_tensors(path, "x")["x"], torch.arange(6.0).view(2, 3).mT)
    shutil.copy(path, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: damaged .* under this name\); remove it"):
        load_tensors(tmp_path / "other.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"t\.safetensors: damaged"):
        load_tensors(path)
    save_file({"x": torch.tensor([float("inf")])}, path)  # of before, or somebody else's
    with pytest.raises(ValueError, match="infinite"):
        load_tensors(path)


# -- backbones ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tower, name, value",
    [
        ("text_cfg", "width", 10**7),
        ("text_cfg", "layers", 10**9),
        ("text_cfg", "vocab_size", 10**12),
        ("text_cfg", "context_length", 10**9),
        ("vision_cfg", "width", 10**8),
        ("vision_cfg", "image_size", 10**6),
        ("vision_cfg", "layers", -1),
        ("vision_cfg", "width", "8"),
        ("vision_cfg", "patch_size", None),
    ],
)
def test_a_backbone_description_costs_no_memory_before_it_fits(whole, tower, name, value):
    path = whole / "backbone" / "open_clip_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model_cfg"][tower][name] = value
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"open_clip_config\.json"):
        load_backbone(f"local-dir:{path.parent}")


def test_a_network_for_another_backbone_is_named(whole):
    config = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    config["network"]["dim"] = 16
    (whole / "config.json").write_text(json.dumps(config), encoding="utf-8")
    list_anew(whole)
    with pytest.raises(ValueError, match="its backbone makes embeddings of size 8, its network is for 16"):
        AdapterGenerator.from_pretrained(whole).generate("Where?", "clip")


@pytest.mark.parametrize(
    "change", [{"limit": None}, {"limit": -1}, {"mean": "x"}, {"mean": [1e300] * 7}, {"limit": [1]}]
)
def test_a_damaged_look_is_named(tmp_path, change):
    stored = json.loads((ROOT / "weights" / "photos" / "backbone" / "look.json").read_text(encoding="utf-8"))
    (tmp_path / "look.json").write_text(json.dumps(stored | change), encoding="utf-8")
    with pytest.raises(ValueError, match=r"look\.json"):
        Look.read(tmp_path / "look.json")
