"""Releases to and from the Hub, end to end against the stub on loopback."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData, constants
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from core.adapter import AdapterConfig
from core.checkpoint import save_adapter
from core.generator import AdapterGenerator
from core.hub import HubError, contents, parse_repo, pull, push
from core.release import read_config
from tests.conftest import ROOT
from tests.hub_stub import OWNER_TOKEN, STRANGER_TOKEN, HubStub
from train import push as push_script
from train import run_all
from train.model_card import release_card

REPO = "user/adapters"
SHIPPED = ROOT / "weights" / "emoji"
CARD = "---\nlicense: apache-2.0\n---\n\n# A card\n"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of our own, its owner's token, an empty cache, and no waiting between attempts."""
    with HubStub(part_bytes=1 << 16) as stub:
        monkeypatch.setattr(constants, "ENDPOINT", stub.url)
        template = stub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", OWNER_TOKEN)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        disable_progress_bars()
        yield stub
        enable_progress_bars()


@pytest.fixture
def release(tmp_path):
    """A small release: two models, one of them too large for one part, a backbone, and what should stay here."""
    directory = tmp_path / "release"
    config = {"format_version": 1, "preset": "emoji", "seed": 0, "dataset": "emoji-vqa v1", "backbone": "backbone"}
    config |= {"adapter": {"dim": 256, "hidden": 128}, "questions": []}
    for name, hidden in (("mnet_maml", 8), ("uncond_multitask", 128)):
        own = AdapterConfig(dim=256, hidden=hidden)
        save_adapter(directory / f"{name}.safetensors", torch.arange(own.num_params) % 7.0, own)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "stages.json").write_text(json.dumps({"mnet_maml": {"metrics": {"val_accuracy": 0.5}}}))
    (directory / "README.md").write_text(CARD)
    (directory / "backbone").mkdir()
    (directory / "backbone" / "open_clip_config.json").write_text("{}")
    for stays in ("hvae.pt", "hvae.safetensors.tmp", "notes.txt", ".DS_Store", "backbone/x.bin"):
        (directory / stays).write_text("no")
    return directory


def send(release, **where):
    return push(contents(release, CARD), REPO, **where)


def same(directory, release):
    """Whether a downloaded release has the very bytes of the local one."""
    weights = [p.relative_to(release) for p in release.rglob("*.safetensors")]
    return weights and all((directory / p).read_bytes() == (release / p).read_bytes() for p in weights)


# -- there and back ------------------------------------------------------------------------------------------------


def test_create_upload_download(hub, release):
    assert send(release).startswith(f"{hub.url}/{REPO}/commit/")
    assert sorted(hub.files(REPO)) == [
        ".gitattributes",
        "README.md",
        "backbone/open_clip_config.json",
        "config.json",
        "mnet_maml.safetensors",
        "stages.json",
        "uncond_multitask.safetensors",
    ]
    assert hub.requests["PUT object"] == 1 and hub.requests["PUT part"] > 2  # a small file, a large one in parts
    directory = pull(REPO)
    assert same(directory, release) and (directory / "README.md").read_text() == CARD
    downloads = hub.requests["GET fetch"]
    assert pull(REPO) == directory and hub.requests["GET fetch"] == downloads  # cached
    generator = AdapterGenerator.from_pretrained(REPO)
    assert generator.has("mnet_maml") and not generator.has("hyperldm")
    assert torch.equal(generator.weights(torch.zeros(1, 256), "uncond_multitask")[0][:7], torch.arange(7.0))


def test_unchanged_release_makes_no_commit(hub, release):
    send(release)
    before, sent = hub.repos[REPO].branches["main"], hub.requests["PUT object"]
    send(release)
    assert hub.repos[REPO].branches["main"] == before and hub.requests["PUT object"] == sent


def test_repository_holds_exactly_the_release(hub, release):
    send(release)
    (release / "mnet_maml.safetensors").rename(release / "mnet_fomaml.safetensors")
    send(release)
    assert "mnet_maml.safetensors" not in hub.files(REPO) and "mnet_fomaml.safetensors" in hub.files(REPO)
    assert same(pull(REPO), release)


def test_revisions_are_branches(hub, release):
    send(release)
    config = json.loads((release / "config.json").read_text())
    (release / "config.json").write_text(json.dumps({**config, "seed": 1}))
    send(release, revision="seed-1")
    seed = lambda *where, **how: AdapterGenerator.from_pretrained(*where, **how).config["seed"]
    assert seed(REPO) == 0 and seed(REPO, revision="seed-1") == 1 and seed(f"{REPO}@seed-1") == 1
    assert seed(REPO, revision=hub.repos[REPO].branches["seed-1"]) == 1
    with pytest.raises(HubError, match=rf"'{REPO}' has no revision 'seed-2'"):
        pull(REPO, "seed-2")
    with pytest.raises(ValueError, match="two revisions"):
        pull(f"{REPO}@seed-1", "main")


def test_backbone_elsewhere_goes_along(hub, release):
    shutil.move(release / "backbone", release.parent / "elsewhere")
    config = json.loads((release / "config.json").read_text())
    (release / "config.json").write_text(json.dumps({**config, "backbone": f"local-dir:{release.parent}/elsewhere"}))
    send(release)
    assert "backbone/open_clip_config.json" in hub.files(REPO)
    assert json.loads(hub.files(REPO)["config.json"])["backbone"] == "backbone"
    shutil.rmtree(release.parent / "elsewhere")
    with pytest.raises(ValueError, match="backbone .* is not here"):
        contents(release, CARD)


# -- who may ---------------------------------------------------------------------------------------------------------


def test_private(hub, release, monkeypatch):
    send(release, private=True)
    assert hub.repos[REPO].private and same(pull(REPO), release)
    shutil.rmtree(constants.HF_HUB_CACHE)
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    with pytest.raises(HubError, match=f"'{REPO}' does not exist, or is private and not open to your token"):
        pull(REPO)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=f"'{REPO}' does not exist, or is private and needs a token.*HF_TOKEN"):
        pull(REPO)


def test_public_repository_is_not_taken_for_a_private_one(hub, release):
    send(release)
    with pytest.raises(HubError, match="is public"):
        send(release, private=True)


@pytest.mark.parametrize(
    "token, said", [("hf_wrong", "does not accept your token"), (None, "no token"), (STRANGER_TOKEN, "right to write")]
)
def test_upload_without_the_right_token(hub, release, monkeypatch, token, said):
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=said):
        send(release)
    assert not hub.repos and not hub.objects


def test_download_with_a_wrong_token(hub, release, monkeypatch):
    send(release)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match=f"does not accept your token.*{REPO}.*hf auth login"):
        AdapterGenerator.from_pretrained(REPO)


def test_missing_repository(hub):
    with pytest.raises(HubError, match="no directory 'user/none' here, and Hub repository 'user/none' does not exist"):
        AdapterGenerator.from_pretrained("user/none")


# -- what breaks -----------------------------------------------------------------------------------------------------


def test_upload_that_breaks_once_is_tried_again(hub, release):
    hub.faults["upload"] = 1
    send(release)
    assert hub.faults["upload"] < 1 and same(pull(REPO), release)


def test_upload_that_keeps_breaking_changes_nothing_and_is_resumed(hub, release):
    send(release)
    before, hub.part_bytes = hub.files(REPO), 1 << 30
    for hidden, name in enumerate(("cond_multitask", "mnet_fomaml", "hnet_maml"), 4):
        config = AdapterConfig(dim=256, hidden=hidden)
        save_adapter(release / f"{name}.safetensors", torch.ones(config.num_params), config)
    hub.spared["upload"], hub.faults["upload"] = 1, 1000
    with pytest.raises(HubError, match=f"'{REPO}': the connection to {hub.url} failed.*Try again"):
        send(release)
    assert hub.files(REPO) == before  # readers still have the old release, whole
    hub.faults["upload"], sent = 0, hub.requests["PUT object"]
    send(release)
    assert hub.requests["PUT object"] - sent == 2  # of the three new files one had arrived
    assert same(pull(REPO), release)


def test_download_that_breaks_is_resumed_where_it_broke(hub, release, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 10)  # what the client keeps of a broken connection
    send(release)
    hub.faults["download"] = 4
    directory = pull(REPO)
    assert len(hub.ranges) >= 3 and min(hub.ranges) >= 1 << 10
    assert same(directory, release)


def test_download_that_keeps_breaking_says_so_and_is_finished_later(hub, release):
    send(release)
    hub.faults["download"] = 1000
    with pytest.raises(HubError, match=f"'{REPO}'.*failed.*Try again"):
        pull(REPO)
    hub.faults["download"] = 0
    assert same(pull(REPO), release)


def test_server_error_is_told(hub, release, monkeypatch):
    send(release)
    monkeypatch.setattr("tests.hub_stub._Handler._info", lambda handler, *_: handler._json({}, 500))
    with pytest.raises(HubError, match=f"'{REPO}'.*answered 500"):
        pull(REPO)


# -- without a network -----------------------------------------------------------------------------------------------


def test_offline_from_the_cache(hub, release, monkeypatch):
    send(release)
    online = pull(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull(REPO) == online
    with pytest.raises(HubError, match="'user/other' is not, or not whole, in the cache .*, and HF_HUB_OFFLINE is set"):
        pull("user/other")
    with pytest.raises(HubError, match="or not whole, in the cache"):
        pull(REPO, "seed-1")


def test_no_network(hub, release, monkeypatch):
    send(release)
    online = pull(REPO)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens on the discard port
    assert pull(REPO) == online
    with pytest.raises(HubError, match="'user/other' is not, or not whole, .* cannot be reached: connect once"):
        pull("user/other")


# -- strictness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda d: (d / "mnet_maml.safetensors").unlink(), "is incomplete: 'mnet_maml.safetensors' is missing"),
        (lambda d: shutil.copy(d / "mnet_maml.safetensors", d / "hvae.safetensors"), "unexpected 'hvae.safetensors'"),
        (lambda d: (d / "mnet_maml.safetensors").write_bytes(b"x"), "has 1 bytes, its config.json says"),
        (lambda d: (d / "backbone" / "open_clip_config.json").unlink(), "'backbone/open_clip_config.json' is missing"),
        (lambda d: (d / "config.json").write_text("{"), "config.json is damaged"),
        (lambda d: (d / "config.json").write_text("[]"), "lacks format_version"),
        (lambda d: (d / "config.json").unlink(), "has no config.json"),
        (
            lambda d: (d / "config.json").write_text('{"format_version": 2, "adapter": {}, "backbone": ""}'),
            "has format 2, this code reads 1; a newer one needs",
        ),
    ],
)
def test_release_that_is_not_whole_is_refused(release, tmp_path, change, said):
    whole = tmp_path / "whole"
    for path, file in contents(release, CARD).items():
        (whole / path).parent.mkdir(parents=True, exist_ok=True)
        (whole / path).write_bytes(file if isinstance(file, bytes) else file.read_bytes())
    read_config(whole)
    change(whole)
    with pytest.raises(ValueError, match=said) as caught:
        AdapterGenerator.from_pretrained(whole)
    assert str(whole) in str(caught.value)


def test_broken_repository_is_named(hub, release):
    send(release)
    del hub.repos[REPO].commits[hub.repos[REPO].branches["main"]]["mnet_maml.safetensors"]
    with pytest.raises(ValueError, match=f"Hub repository '{REPO}' is incomplete: 'mnet_maml.safetensors'"):
        AdapterGenerator.from_pretrained(REPO)


def test_directories_have_no_revisions(release):
    with pytest.raises(ValueError, match="is a directory, only Hub repositories have revisions"):
        AdapterGenerator.from_pretrained(release, revision="seed-1")


@pytest.mark.parametrize(
    "text", ["", "user", "a/b/c", "/a/b", "./b", "user/repo@", "user/repo@a b", "us er/repo", "a--b/c"]
)
def test_bad_names(text):
    with pytest.raises(ValueError, match="USER/REPO@REVISION"):
        parse_repo(text)


def test_good_names():
    assert parse_repo("user/repo") == ("user/repo", None)
    assert parse_repo("user/repo@seed/0-a.b") == ("user/repo", "seed/0-a.b")


# -- the card --------------------------------------------------------------------------------------------------------


def results(release, tmp_path, **changes):
    """A file of test results as `eval/table1.py` writes them, over seeds 0 and 1."""
    record = {"row": "hvae_hyperldm", "label": "HVAE + HyperLDM", "gamma": 1.25, "descriptors": 1.0, "tasks": "all"}
    record |= {"mean": 0.7, "sd": 0.0123, "seeds": [0, 1], "n_tasks": 373}
    records = [record, {**record, "tasks": "new", "mean": 0.6, "sd": None}, {**record, "descriptors": 0.5, "mean": 0.1}]
    document = {"command": "python eval/table1.py", "commit": "abc", "preset": "emoji", "results": records, **changes}
    path = tmp_path / "table1.json"
    path.write_text(json.dumps(document))
    return path


def test_card_carries_results_with_mean_and_spread(release, tmp_path):
    (release / "README.md").write_text(
        "---\nlicense: mit\nthumbnail: a.png\n---\n\n# Mine\nfrom_pretrained('USER/REPO')\n"
    )
    card = release_card(release, REPO, results(release, tmp_path))
    again = ModelCard(str(card))  # parsed from its text, strictly
    assert isinstance(again.data, ModelCardData) and again.data.thumbnail == "a.png"
    assert again.data.license == "apache-2.0" and again.data.pipeline_tag == "zero-shot-image-classification"
    assert "emoji-vqa" in again.data.datasets and again.data.metrics == ["accuracy"] and again.data.base_model is None
    by_split = {(r.dataset_split, r.dataset_config): r for r in again.data.eval_results}
    test = by_split["test", "all"]
    assert test.metric_value == 0.7 and test.metric_args["sd"] == 0.0123 and test.metric_args["seeds"] == [0, 1]
    assert "s.d. 0.0123" in test.metric_name and "one training seed" in by_split["test", "new"].metric_name
    assert by_split["validation", None].metric_value == 0.5 and len(by_split) == 3
    index = eval_results_to_model_index(again.data.model_name, again.data.eval_results)
    assert model_index_to_eval_results(index) == (again.data.model_name, again.data.eval_results)
    assert "| HVAE + HyperLDM | 70.0 ± 1.2 | 60.0 |" in again.text and f"from_pretrained('{REPO}')" in again.text
    twice = release_card(release, REPO, results(release, tmp_path))
    assert str(twice) == str(card)


@pytest.mark.parametrize(
    "changes, said",
    [({"preset": "tiny"}, "preset 'tiny'"), ({"results": []}, r"seeds \[\]"), ({"results": [{}]}, "table1.py --json")],
)
def test_results_of_something_else_are_refused(release, tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        release_card(release, REPO, results(release, tmp_path, **changes))


def test_card_of_a_run(tiny):
    text = (tiny / "seed-0" / "weights" / "README.md").read_text()
    card = ModelCard(text)
    assert "python train/run_all.py --preset tiny --seed 0" in text and re.search(r"at commit \w+", text)
    assert {r.metric_name for r in card.data.eval_results} >= {"cond_multitask", "hvae_hyperldm"}
    assert "| choose |" in text and "cores" in text


# -- scripts ---------------------------------------------------------------------------------------------------------


def test_dry_run_sends_nothing(hub, release, capsys):
    push_script.main(["--weights", str(release), "--repo", REPO, "--revision", "seed-0", "--private", "--dry-run"])
    printed = capsys.readouterr().out
    size = (release / "uncond_multitask.safetensors").stat().st_size
    assert f"{size:,}  uncond_multitask.safetensors" in printed and "bytes in 6 files would go to" in printed
    assert f"{REPO}@seed-0, private; nothing was sent" in printed and "# A card" in printed
    for stays in ("hvae.pt", "hvae.safetensors.tmp", "notes.txt", "backbone/x.bin"):
        assert f"left here  {stays}" in printed
    assert not hub.requests


def test_push_script(hub, release, tmp_path, capsys):
    arguments = ["--weights", str(release), "--repo", REPO, "--revision", "seed-0", "--private"]
    push_script.main([*arguments, "--results", str(results(release, tmp_path))])
    assert f"pushed 6 files to {hub.url}/{REPO}/commit/" in capsys.readouterr().out
    assert hub.repos[REPO].private and list(hub.files(REPO)) == [".gitattributes"]
    assert b"model-index" in hub.files(REPO, "seed-0")["README.md"] and same(pull(f"{REPO}@seed-0"), release)


@pytest.mark.parametrize(
    "changes, said",
    [
        (["--repo", "no-slash"], "USER/REPO"),
        (["--weights", "/nowhere"], "no config.json"),
        (["--repo", f"{REPO}@a", "--revision", "b"], "names a revision"),
        (["--results", "/nowhere.json"], "table1.py --json"),
    ],
)
def test_push_script_names_bad_flags(hub, release, capsys, changes, said):
    with pytest.raises(SystemExit) as caught:
        push_script.main(["--weights", str(release), "--repo", REPO, *changes])
    assert caught.value.code == 2 and said in capsys.readouterr().err and not hub.requests


def test_run_all_pushes(hub, tiny, monkeypatch, capsys):
    arguments = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--push-to-hub", f"{REPO}@seed-0"]
    run_all.main(arguments)
    assert f"pushed to {hub.url}/{REPO}/commit/" in capsys.readouterr().out
    assert "backbone/open_clip_model.safetensors" in hub.files(REPO, "seed-0")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SystemExit):
        run_all.main(arguments)
    assert "does not accept your token" in capsys.readouterr().err


# -- the whole way ---------------------------------------------------------------------------------------------------

_LOAD = """
import json, sys, torch
from core.generator import AdapterGenerator
generator = AdapterGenerator.from_pretrained(sys.argv[1])
torch.save(generator.generate(sys.argv[2], **json.loads(sys.argv[3])).w, sys.argv[4])
"""


def test_shipped_weights_there_and_back(hub, tmp_path, monkeypatch):
    """What HyperLDM needs of the shipped weights, to a fresh process with an empty cache: the same question and seed
    give identical weights, there and then offline."""
    release = tmp_path / "shipped"
    shutil.copytree(SHIPPED / "backbone", release / "backbone")
    for file in [*SHIPPED.glob("hvae*.safetensors"), SHIPPED / "config.json"]:
        shutil.copy(file, release)
    send(release, revision="seed-0")
    local = AdapterGenerator.from_pretrained(SHIPPED)
    question, settings = "Where is the cat?", {"gamma": 1.5, "steps": 10, "samples": 2, "seed": 3}
    expected = local.generate(question, **settings).w
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    subprocess.run(
        [sys.executable, "-c", _LOAD, f"{REPO}@seed-0", question, json.dumps(settings), str(tmp_path / "w.pt")],
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        check=True,
    )
    assert torch.equal(torch.load(tmp_path / "w.pt"), expected)
    requests = hub.requests.total()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = AdapterGenerator.from_pretrained(REPO, revision="seed-0")
    assert torch.equal(offline.generate(question, **settings).w, expected) and hub.requests.total() == requests
