"""Releases to and from the Hub, end to end against the stub on loopback."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub import HfApi, constants

from core.generator import AdapterGenerator
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.release.checkpoint import save_adapter
from core.release.hub import HubError, contents, parse_repo, pull, push
from core.release.manifest import list_anew, read_config
from tests.conftest import CARD, REPO, ROOT
from tests.hub_stub import STRANGER_TOKEN

SHIPPED = ROOT / "weights" / "emoji"


def send(release, **where):
    return push(contents(release, CARD), REPO, **where)


def same(directory, release):
    """Whether a downloaded release has the very bytes of the local one."""
    weights = [p.relative_to(release) for p in release.rglob("*.safetensors")]
    return weights and all((directory / p).read_bytes() == (release / p).read_bytes() for p in weights)


def test_the_projects_own_folder_is_no_repository(hub, tmp_path, monkeypatch):
    """From another folder "weights/emoji" is no directory: the Hub must not be asked for a user called "weights"."""
    monkeypatch.chdir(tmp_path)
    for name in ("weights/emoji", "weights/tiny", "weights/emoji@main"):
        with pytest.raises(ValueError, match="is not sought on the Hub; the shipped release is the default"):
            AdapterGenerator.from_pretrained(name)
        with pytest.raises(ValueError, match="is not sought on the Hub"):
            parse_repo(name)
    assert not hub.requests


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
    assert same(directory, release) and (directory / "README.md").read_text(encoding="utf-8") == CARD
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


@pytest.mark.parametrize("config", [None, b'{"model_type": "bert"}', b"not JSON"])
def test_a_repository_of_something_else_is_left_alone(hub, release, config):
    hub.repos.clear()
    hub_api = HfApi()
    hub_api.create_repo(REPO)
    hub_api.upload_file(path_or_fileobj=b"theirs", path_in_repo="thesis.txt", repo_id=REPO)
    if config is not None:
        hub_api.upload_file(path_or_fileobj=config, path_in_repo="config.json", repo_id=REPO)
    with pytest.raises(HubError, match=r"thesis.txt.*--replace"):
        send(release)
    assert "thesis.txt" in hub.files(REPO) and "mnet_maml.safetensors" not in hub.files(REPO)
    send(release, replace=True)
    assert "thesis.txt" not in hub.files(REPO) and same(pull(REPO), release)


def test_a_repository_whose_files_have_the_names_of_ours_is_left_alone(hub, release):
    hub.repos.clear()
    hub_api = HfApi()
    hub_api.create_repo(REPO)
    theirs = b'{"model_type": "bert"}'
    hub_api.upload_file(path_or_fileobj=theirs, path_in_repo="config.json", repo_id=REPO)
    with pytest.raises(HubError, match=r"config.json.*--replace"):
        send(release)
    assert hub.files(REPO)["config.json"] == theirs


def test_revisions_are_branches(hub, release):
    send(release)
    config = json.loads((release / "config.json").read_text(encoding="utf-8"))
    (release / "config.json").write_text(json.dumps({**config, "seed": 1}), encoding="utf-8")
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
    config = json.loads((release / "config.json").read_text(encoding="utf-8"))
    (release / "config.json").write_text(
        json.dumps({**config, "backbone": f"local-dir:{release.parent}/elsewhere"}), encoding="utf-8"
    )
    send(release)
    assert "backbone/open_clip_config.json" in hub.files(REPO)
    assert json.loads(hub.files(REPO)["config.json"])["backbone"] == "backbone"
    shutil.rmtree(release.parent / "elsewhere")
    with pytest.raises(ValueError, match="backbone .* is not here"):
        contents(release, CARD)


def test_paths_of_this_machine_stay_here(hub, release):
    config = json.loads((release / "config.json").read_text(encoding="utf-8"))
    run = {"preset": "tiny", "data": str(release.parent / "mine"), "steps_share": 1.0, "set": []}
    run["start"] = str(release.parent / "photos")
    (release / "config.json").write_text(json.dumps({**config, "run": run}), encoding="utf-8")
    send(release)
    assert json.loads(hub.files(REPO)["config.json"])["run"] == {**run, "data": "mine", "start": "photos"}
    assert str(release.parent).encode() not in b"".join(hub.files(REPO).values())


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
    with pytest.raises(
        HubError, match="'user/none' is neither a directory nor to be had: Hub repository 'user/none' does not"
    ):
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
        network = CLIPAdapter(AdapterConfig(hidden=hidden), dim=256)
        save_adapter(release / f"{name}.safetensors", torch.ones(network.num_params), network)
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
        (lambda d: (d / "config.json").write_text("{", encoding="utf-8"), "config.json: damaged"),
        (lambda d: (d / "config.json").write_text("[]", encoding="utf-8"), "lacks format_version"),
        (lambda d: (d / "config.json").unlink(), "has no config.json"),
        (
            lambda d: (d / "config.json").write_text(
                '{"format_version": 3, "network": {}, "backbone": ""}', encoding="utf-8"
            ),
            "has format 3, this code reads 2; a newer one needs",
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
    list_anew(release)
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
