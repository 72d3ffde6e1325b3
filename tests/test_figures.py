"""The scripts of Figures 3, 5 and 6 on the tiny preset, by their own `main`, and what they compute on known cases."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch

from core.generator import AdapterGenerator
from core.release.manifest import list_anew
from eval import figure5, figure6, table1, task_inference
from eval.harness.comparison.answers import read_answers
from eval.harness.rows import INFERENCE_ROWS
from eval.harness.tables import summaries
from tests.test_pipeline import release

KEYS = {"row", "gamma", "descriptors", "tasks", "mean", "sd", "seeds", "per_seed", "n_tasks"}
PNG = b"\x89PNG"


def flags(work, *more):
    return ["--preset", "tiny", "--work", str(work), "--device", "cpu", *map(str, more)]


def read(file):
    """A result file's records, checked for what all of them have."""
    document = json.loads(file.read_text(encoding="utf-8"))
    assert {"command", "commit", "versions", "preset", "results"} == set(document) - {"map"}
    assert document["preset"] == "tiny"
    assert all(set(r) >= KEYS and 0 <= r["mean"] <= 1 for r in document["results"])
    assert all(len(r["per_seed"]) == len(r["seeds"]) for r in document["results"])
    return document["results"]


@pytest.fixture
def half(tiny, tmp_path):
    """The tiny release, said to have been trained with half of the questions."""
    directory = tmp_path / "half"
    shutil.copytree(release(tiny), directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps(config | {"descriptors": 0.5}), encoding="utf-8")
    list_anew(directory)
    return directory


@pytest.mark.parametrize(
    "script, arguments, word",
    [
        (figure5, ["--parts", "C"], "invalid choice: 'C'"),
        (figure5, ["--limit-tasks", "0"], "--limit-tasks 0; allowed: 1 to 24"),
        (figure6, ["--plot", "map.pdf"], "'map.pdf'; allowed: a name that ends in .png"),
        (task_inference, ["--limit-tasks", "25"], "--limit-tasks 25; allowed: 1 to 24"),
        (task_inference, ["--weights", "no/such/release"], "neither a directory"),
    ],
)
def test_bad_flags_are_named(tiny, script, arguments, word, capsys):
    with pytest.raises(SystemExit):
        script.main(flags(tiny, *arguments))
    assert word in capsys.readouterr().err


def test_figure5(tiny, half, tmp_path, capsys):
    json_file, plot = tmp_path / "results" / "5.json", tmp_path / "plots" / "5.png"
    figure5.main(flags(tiny, "--weights", release(tiny), half, "--json", json_file, "--plot", plot))
    records = {(r["row"], r["gamma"], r["descriptors"], r["tasks"]): r for r in read(json_file)}
    assert len(records) == len(read(json_file))  # none twice, though both parts show some of the same
    for row in ("hvae_hyperldm", "hnet_hyperldm"):
        swept = [gamma for r, gamma, share, tasks in records if (r, share, tasks) == (row, 1.0, "new")]
        assert sorted(swept) == [i / 4 for i in range(13)]
    at_half = {(row, gamma) for row, gamma, share, _ in records if share == 0.5}
    ours = {(row, gamma) for row in ("hvae_hyperldm", "hnet_hyperldm") for gamma in (1.0, 1.5)}
    rivals = ("uncond_multitask", "cond_multitask", "latent_regression")
    assert at_half == ours | {(row, None) for row in rivals}
    for row, gamma in at_half:  # the same weights
        assert records[row, gamma, 0.5, "all"]["mean"] == records[row, gamma, 1.0, "all"]["mean"]
    assert records["clip", None, 1.0, "known"]["n_tasks"] == 16 and records["clip", None, 1.0, "new"]["seeds"] == [0]
    out = capsys.readouterr().out
    assert "HNet + HyperLDM, gamma 2.75" in out and "all (24), 50% Q." in out
    assert "missing: 10% of the questions, seed 0; python train/run_all.py --preset tiny --seed 0" in out
    assert "--descriptors 0.5 makes" not in out and plot.read_bytes().startswith(PNG)


def test_one_part_of_figure5(tiny, half, tmp_path, capsys):
    with pytest.raises(SystemExit):
        figure5.main(flags(tiny, "--weights", half))
    assert "--weights with descriptors 0.5; allowed for part A: 1" in capsys.readouterr().err
    file = tmp_path / "b.json"
    figure5.main(flags(tiny, "--weights", half, "--parts", "B", "--limit-tasks", 5, "--json", file))
    assert {(r["descriptors"], r["n_tasks"]) for r in read(file) if r["tasks"] == "all"} == {(0.5, 5)}
    out = capsys.readouterr().out
    assert "Part A" not in out and "--seed 0 --descriptors 1 makes" in out


def test_figure6(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # as where umap-learn is not installed
    json_file, plot = tmp_path / "6.json", tmp_path / "6.png"
    figure6.main(flags(tiny, "--json", json_file, "--plot", plot))
    records = {(r["row"], r["tasks"]): r for r in read(json_file)}
    assert set(records) == {(row, t) for row in ("nearest_question", "chance") for t in ("known", "new", "all")}
    assert records["nearest_question", "new"]["mean"] == 0 and 0 < records["chance", "known"]["mean"] < 0.1
    assert "nearest_question" in capsys.readouterr().out and plot.read_bytes().startswith(PNG)
    points = [
        p
        for f in json.loads(json_file.read_text(encoding="utf-8"))["map"]["families"].values()
        for p in (*f["train"], *f["test"])
    ]
    assert len(points) == 72 - 12 + 24 and all(len(point) == 2 for point in points)


def test_nearest_question_is_found_after_centring():
    train = torch.tensor([[10.0, 1.0], [10.0, -1.0]])
    assert figure6.nearest(train, torch.tensor([[10.0, -0.1], [10.1, 5.0]])).tolist() == [1, 0]


def test_projections(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(30, 2, generator=generator) @ torch.randn(2, 16, generator=generator)
    monkeypatch.setitem(sys.modules, "umap", None)
    method, points = figure6.project(plane + 5)
    assert method == "PCA"
    torch.testing.assert_close(torch.cdist(points, points), torch.cdist(plane, plane), atol=1e-2, rtol=1e-3)
    fake = SimpleNamespace(UMAP=lambda **_: SimpleNamespace(fit_transform=lambda e: e[:, :2]))
    monkeypatch.setitem(sys.modules, "umap", fake)
    method, points = figure6.project(plane)
    assert method == "UMAP" and points.shape == (30, 2)


def test_task_inference(tiny, tmp_path, capsys):
    json_file, plot = tmp_path / "3.json", tmp_path / "3.png"
    task_inference.main(flags(tiny, "--json", json_file, "--plot", plot))
    records = {(r["row"], r["candidates"], r["metric"], r["tasks"]): r for r in read(json_file)}
    assert len(records) == 5 * 2 * 4 * 3
    assert {(r["candidates"], r["n_candidates"]) for r in records.values()} == {("test", 24), ("all", 96)}
    for row in (row.id for row in INFERENCE_ROWS):
        mean = lambda metric, which="all", row=row: records[row, which, metric, "all"]["mean"]
        assert mean("top-1") <= mean("reciprocal rank") and mean("top-1") <= mean("top-5")
        assert mean("reciprocal rank") <= mean("reciprocal rank", "test")  # more candidates, worse ranks
    assert records["chance", "test", "top-1", "known"]["mean"] == pytest.approx(1 / 24, abs=1e-4)
    assert "HNet, generated weights" in capsys.readouterr().out and plot.read_bytes().startswith(PNG)


def test_task_inference_looks_for_the_task_itself(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(task_inference, "adapted_weights", lambda generator, support, name: support.question)
    monkeypatch.setattr(AdapterGenerator, "weights", lambda self, e, method, generator: e)
    monkeypatch.setattr(
        AdapterGenerator, "task_probabilities", lambda self, w, questions, generator: -torch.cdist(w, questions)
    )
    file = tmp_path / "3.json"
    task_inference.main(flags(tiny, "--limit-tasks", 5, "--json", file))
    records = [r for r in read(file) if r["row"] != "chance"]
    assert {r["row"] for r in records} == {row.id for row in INFERENCE_ROWS}
    assert all(r["mean"] == 1 and r["n_tasks"] <= 5 and r["n_candidates"] in (24, 96) for r in records)


def test_task_inference_names_missing_rows(tiny, tmp_path, capsys):
    shutil.copy(release(tiny) / "config.json", tmp_path)
    shutil.copytree(release(tiny) / "backbone", tmp_path / "backbone")
    list_anew(tmp_path)
    task_inference.main(flags(tiny, "--weights", tmp_path))
    assert "missing: HVAE, fine-tuned weights; python train/run_all.py" in capsys.readouterr().out


def test_chance_is_the_mean_of_random_rankings():
    family = torch.tensor([0, 0, 1, 2, 2, 2, 1, 0])
    generator = torch.Generator().manual_seed(0)
    drawn = [task_inference.judge(torch.rand(3, 8, generator=generator), family) for _ in range(4000)]
    torch.testing.assert_close(torch.stack(drawn).mean(0), task_inference.chance(3, family), atol=0.03, rtol=0)


def test_what_seeds_reached():
    test = SimpleNamespace(tasks=[SimpleNamespace(new_family=new) for new in (False, True, True)])
    scores = torch.tensor([[0.0, 0.5, 1.0], [1.0, 1.0, 0.0]])
    known, new, everything = summaries(scores, test, [4, 2])
    assert known == {"tasks": "known", "mean": 0.5, "sd": 0.7071, "seeds": [4, 2], "per_seed": [0, 1], "n_tasks": 1}
    assert new["per_seed"] == [0.75, 0.5] and everything["per_seed"] == [0.5, 0.66667]
    assert next(summaries(scores[:1], test, []))["per_seed"] == []
    (other,) = summaries(scores, test, [4, 2], {"last": torch.tensor([False, False, True])})
    assert (other["tasks"], other["per_seed"], other["n_tasks"]) == ("last", [1, 0], 1)


def test_table1_keeps_what_every_seed_chose_and_reached(tiny, tmp_path):
    """Two seeds whose choices differ; the second is the first with other choices."""
    other = tmp_path / "other"
    shutil.copytree(release(tiny), other)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    choices = config["choices"]
    first = {"gamma": choices["hvae_hyperldm"]["gamma"], "ceiling": choices["few_shot_ceiling"]["row"]}
    second = {
        "gamma": 0.0 if first["gamma"] else 1.5,
        "ceiling": "uncond_multitask" if first["ceiling"] != "uncond_multitask" else "mnet_maml",
    }
    choices["hvae_hyperldm"]["gamma"], choices["few_shot_ceiling"]["row"] = second["gamma"], second["ceiling"]
    (other / "config.json").write_text(json.dumps(config | {"seed": 1}), encoding="utf-8")
    list_anew(other)
    file, stem, csv = tmp_path / "t.json", tmp_path / "t", tmp_path / "t.csv"
    arguments = flags(tiny, "--weights", other, release(tiny), "--limit-tasks", 20, "--json", file)
    table1.main([*arguments, "--per-task", str(stem), "--csv", str(csv)])
    records = {(r["label"].split(":")[0], r["tasks"]): r for r in read(file)}
    ours = records["HVAE + HyperLDM, gamma of validation", "all"]
    assert ours["gammas"] == [second["gamma"], first["gamma"]] and ours["gamma"] is None
    assert ours["seeds"] == [1, 0] and sum(ours["per_seed"]) / 2 == pytest.approx(ours["mean"], abs=1e-4)
    assert records["Few-shot ceiling", "all"]["ceilings"] == [second["ceiling"], first["ceiling"]]
    parts = [records["HVAE + HyperLDM, gamma 1", kind] for kind in ("asked", "unasked")]
    known = records["HVAE + HyperLDM, gamma 1", "known"]
    assert sum(part["n_tasks"] for part in parts) == known["n_tasks"]
    total = sum(part["n_tasks"] * part["mean"] for part in parts)
    assert total / known["n_tasks"] == pytest.approx(known["mean"], abs=1e-4)
    alike = records["Cond. Multitask", "new"]
    assert alike["per_seed"][0] == alike["per_seed"][1] and "gammas" not in alike
    assert f"gamma of validation ({second['gamma']:g}, {first['gamma']:g})" in csv.read_text(encoding="utf-8")

    tasks, lines = read_answers(stem)
    assert len(tasks.questions) == 20 and len(set(tasks.questions)) == 20
    for (label, kind), record in records.items():  # of seed 0, which came second
        if kind == "all":
            (line,) = [line for line in lines if line.label.split(":")[0] == label and line.seed == 0]
            assert tasks.by_task(line.right).mean() == pytest.approx(record["per_seed"][1], abs=1e-4), label
