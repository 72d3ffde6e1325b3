"""Pushing a release: its card, and the scripts that push, against the stub of the Hub."""

import json
import re

import pytest
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from tests.conftest import REPO
from train import push as push_script
from train import run_all
from train.pipeline.model_card import release_card


def results(release, tmp_path, **changes):
    """A file of test results as `eval/table1.py` writes them, over seeds 0 and 1."""
    record = {"row": "hvae_hyperldm", "label": "HVAE + HyperLDM", "gamma": 1.25, "descriptors": 1.0, "tasks": "all"}
    record |= {"mean": 0.7, "sd": 0.0123, "seeds": [0, 1], "n_tasks": 373}
    records = [record, {**record, "tasks": "new", "mean": 0.6, "sd": None}, {**record, "descriptors": 0.5, "mean": 0.1}]
    document = {"command": "python eval/table1.py", "commit": "abc", "preset": "emoji", "results": records, **changes}
    path = tmp_path / "table1.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_card_carries_results_with_mean_and_spread(release, tmp_path):
    (release / "README.md").write_text(
        "---\nlicense: mit\nthumbnail: a.png\n---\n\n# Mine\nfrom_pretrained('USER/REPO')\n", encoding="utf-8"
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
    "backbone, base",
    [
        ("backbone", None),
        ("simulated", None),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("ViT-L-14-336-quickgelu/openai", "timm/vit_large_patch14_clip_336.openai"),
        ("fp16:ViT-L-14-336-quickgelu/openai", "timm/vit_large_patch14_clip_336.openai"),
    ],
)
def test_card_names_the_base_model(release, backbone, base):
    config = json.loads((release / "config.json").read_text(encoding="utf-8"))
    (release / "config.json").write_text(
        json.dumps({**config, "backbone": backbone, "dataset": "meta-vqa"}), encoding="utf-8"
    )
    data = release_card(release, REPO).data
    assert data.base_model == base and data.datasets == ["HuggingFaceM4/VQAv2", "meta-vqa"]


@pytest.mark.parametrize(
    "changes, said",
    [({"preset": "tiny"}, "preset 'tiny'"), ({"results": []}, r"seeds \[\]"), ({"results": [{}]}, "table1.py --json")],
)
def test_results_of_something_else_are_refused(release, tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        release_card(release, REPO, results(release, tmp_path, **changes))


def test_results_of_other_settings_are_not_the_releases(release, tmp_path):
    record = {"row": "hvae_hyperldm", "label": "HVAE + HyperLDM", "gamma": 1.0, "descriptors": 1.0, "tasks": "all"}
    record |= {"mean": 0.3, "sd": None, "seeds": [0], "n_tasks": 373}
    other = {**record, "mean": 0.9, "settings": ["question_answers=true"]}
    card = release_card(release, REPO, results(release, tmp_path, results=[record, other]))
    assert "| 30.0 |" in card.text and "90.0" not in card.text
    with pytest.raises(ValueError, match=r"seeds \[\]"):
        release_card(release, REPO, results(release, tmp_path, results=[other]))


def test_card_of_a_run(tiny):
    text = (tiny / "seed-0" / "weights" / "README.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    assert "python train/run_all.py --preset tiny --seed 0" in text and re.search(r"at commit \w+", text)
    assert {r.metric_name for r in card.data.eval_results} >= {"cond_multitask", "hvae_hyperldm"}
    assert "| choose |" in text and "cores" in text
    assert "weights of a small network (`clip_adapter`, P = " in text


def test_the_card_shows_a_question_that_the_release_knows(tiny):
    directory = tiny / "seed-0" / "weights"
    text, config = ((directory / name).read_text(encoding="utf-8") for name in ("README.md", "config.json"))
    question = json.loads(re.search(r"\.generate\((.*)\)\n", text)[1])
    assert question in {known["question"] for known in json.loads(config)["questions"]}


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
    assert b"model-index" in hub.files(REPO, "seed-0")["README.md"]


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
