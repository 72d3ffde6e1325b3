"""What rows answered right, kept in text files, and the records that are made of it."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch

from core.generator import AdapterGenerator
from core.release.manifest import list_anew
from eval import table1, table4
from eval.comparison import intervals
from eval.harness.comparison import records as comparison
from eval.harness.comparison.answers import JudgedTasks, Line, paths, read_answers, write_answers
from eval.harness.comparison.records import BASELINES, compared, difference, records_of, without_scores
from eval.harness.comparison.variants import Variant
from eval.harness.results import RESULTS
from eval.harness.rows import ROWS
from eval.harness.tables import accuracy_table
from train.presets import PAPERS_WAY
from train.tune import setting_run

OTHER = ("a=1", "b=[2,3]")
SETS = {"known": [True, True, False], "new": [False, False, True], "all": [True] * 3}
TASKS = JudgedTasks(
    ("What, exactly?", 'Which "one"?', "Où?"),
    torch.tensor([4, 2, 5]),
    {name: torch.tensor(mask) for name, mask in SETS.items()},
)


def line(row, counts, seed=0, **more):
    return Line(row, f"label of {row}", more.pop("gamma", None), seed, torch.tensor(counts), preset="tiny", **more)


LINES = [
    line("clip", [1, 0, 1]),
    line("cond_multitask", [2, 1, 2]),
    line("cond_multitask", [3, 1, 2], seed=1),
    line("cond_hnet_maml", [3, 1, 1]),
    line("cond_hnet_maml", [3, 2, 2], seed=1),
    line("hvae_hyperldm", [4, 2, 3], chosen="1.25"),
    line("hvae_hyperldm", [4, 1, 4], seed=1, chosen="1"),
    line("hvae_hyperldm", [3, 1, 4], gamma=1.5),
    line("few_shot_ceiling", [4, 2, 5], chosen="mnet_maml"),
    line("few_shot_ceiling", [4, 2, 5], seed=1, chosen="clip"),
    line("cond_multitask", [1, 1, 1], descriptors=0.5),
    line("cond_multitask", [2, 1, 1], seed=1, descriptors=0.5),
]


def by_key(records):
    return {(r["row"], r["gamma"], r["descriptors"], r["tasks"]): r for r in records}


# -- files -------------------------------------------------------------------------------------------------------------


def same(a, b):
    return replace(a, right=torch.zeros(1)) == replace(b, right=torch.zeros(1)) and a.right.equal(b.right)


def test_answers_survive_their_files(tmp_path):
    lines = [*LINES, line("clip", [0, 0, 0], settings=OTHER)]
    write_answers(tmp_path / "t", TASKS, lines)
    tasks, found = read_answers(tmp_path / "t")
    assert tasks.questions == TASKS.questions and tasks.examples.equal(TASKS.examples) and tasks.own is None
    assert list(tasks.sets) == list(SETS) and all(tasks.sets[name].tolist() == mask for name, mask in SETS.items())
    assert len(found) == len(lines) and all(map(same, found, lines))
    table = pd.read_csv(paths(tmp_path / "t")[1])  # for others, in one call
    assert len(table) == len(lines) and table["seed"].max() == 1 and table["right"][1] == "2 1 2"
    assert pd.read_csv(paths(tmp_path / "t")[0])["sets"].tolist() == ["known all", "known all", "new all"]


def test_answers_to_pairs_survive_their_files(tmp_path):
    own = torch.tensor([1, 0, 1, 1, 0, 0]).bool()
    tasks = JudgedTasks(("a", "b", "c"), torch.tensor([4, 0, 2]), {"all": torch.ones(3).bool()}, own)
    lines = [replace(line("clip", [0]), right=~own), replace(line("clip", [0], seed=1), right=own)]
    write_answers(tmp_path / "t", tasks, lines)
    found, again = read_answers(tmp_path / "t")
    assert found.own.equal(own) and all(map(same, again, lines))
    assert pd.read_csv(paths(tmp_path / "t")[1], dtype={"right": str})["right"].tolist() == ["0100 - 11", "1011 - 00"]
    assert found.by_task(own).tolist() == [0.75, 0, 0]
    scores = found.scores(torch.stack([line.right for line in again]))
    assert scores["all"].per_seed() == [0.5, 0.5] and scores["image_disjoint"].per_seed() == [0, 1]


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        (0, "sets", "set", "no column 'sets'; found: task, question"),
        (0, ",4,", ",four,", "column examples: invalid literal"),
        (1, "preset", "present", "no column 'preset'"),
        (1, "1 0 1", "1 0", "line 2: 2 tasks; allowed: 3"),
        (1, "1 0 1", "1 0 6", "line 2: 6 right in task 2; allowed: 0 to 5"),
        (1, "1 0 1", "1 0 -6", "line 2: -6 right in task 2"),
        (1, "1 0 1", "1 0 x", "line 2: invalid literal"),
        (1, ",1.5,", ",much,", "line 9: could not convert"),
        (
            1,
            "cond_multitask,label of cond_multitask,,,,1,1",
            "cond_multitask,label of cond_multitask,,,,1,0",
            "already",
        ),
    ],
)
def test_files_that_are_not_whole_are_refused(tmp_path, file, old, new, message, capsys):
    write_answers(tmp_path / "t", TASKS, LINES)
    path = paths(tmp_path / "t")[file]
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SystemExit):
        intervals.main(["--stem", str(tmp_path / "t")])
    assert message in capsys.readouterr().err


def test_pairs_that_do_not_fit_are_refused(tmp_path):
    tasks = JudgedTasks(("a", "b"), torch.tensor([1, 2]), {"all": torch.ones(2).bool()}, torch.zeros(3).bool())
    write_answers(tmp_path / "t", tasks, [replace(line("clip", [0]), right=torch.ones(3).bool())])
    path = paths(tmp_path / "t")[1]
    text = path.read_text(encoding="utf-8")
    for wrong in ("1 1", "1 111", "11 1", "1 12"):
        path.write_text(text.replace("1 11", wrong), encoding="utf-8")
        with pytest.raises(ValueError, match="allowed: 2 words of 0 and 1"):
            read_answers(tmp_path / "t")
    path.unlink()
    with pytest.raises(ValueError, match="is missing; `python eval/table1.py --per-task STEM` writes it"):
        read_answers(tmp_path / "t")


# -- records -----------------------------------------------------------------------------------------------------------


def test_means_are_over_tasks_then_seeds():
    found = by_key(records_of(TASKS, LINES))
    record = found["cond_multitask", None, 1.0, "all"]
    per_seed = [(2 / 4 + 1 / 2 + 2 / 5) / 3, (3 / 4 + 1 / 2 + 2 / 5) / 3]
    assert record["per_seed"] == [round(value, 5) for value in per_seed] and record["seeds"] == [0, 1]
    assert record["mean"] == round(sum(per_seed) / 2, 4) and record["n_tasks"] == 3
    assert record["interval"][0] <= record["mean"] <= record["interval"][1] and record["paper"] == 0.5412
    assert found["clip", None, 1.0, "new"]["interval"] == [0.2, 0.2] and found["clip", None, 1.0, "new"]["n_tasks"] == 1
    assert found["hvae_hyperldm", None, 1.0, "all"]["gammas"] == [1.25, 1.0]
    assert found["few_shot_ceiling", None, 1.0, "all"]["ceilings"] == ["mnet_maml", "clip"]


def test_the_reference_is_the_best_baseline():
    """On every set another, neither ours nor a few-shot row; the share of seeds that both have decides nothing."""
    assert {"latent_regression", "kernel_ridge", "cond_multitask_ensemble", "clip"} <= BASELINES
    assert not {"hvae_hyperldm", "hvae_hnet_hyperldm", "hvae_hyperldm_paper", "few_shot_ceiling"} & BASELINES
    found = by_key(compared(records_of(TASKS, LINES)))
    best = {name: found["hvae_hyperldm", None, 1.0, name]["strongest"] for name in SETS}
    assert best == {
        "known": "label of cond_hnet_maml",
        "new": "label of cond_multitask",
        "all": "label of cond_hnet_maml",
    }
    ours, theirs = found["hvae_hyperldm", None, 1.0, "all"], found["cond_hnet_maml", None, 1.0, "all"]
    assert ours["vs_strongest"][0] == pytest.approx(ours["mean"] - theirs["mean"], abs=1e-4)
    assert "vs_strongest" not in theirs and found["hvae_hyperldm", 1.5, 1.0, "all"]["vs_strongest"][0] > 0
    table = accuracy_table(list(found.values()))
    assert table.loc["label of cond_hnet_maml", "vs strongest [95%]"] == "strongest"


def test_rows_are_compared_on_the_seeds_that_both_have():
    found = by_key(records_of(TASKS, LINES))
    ours, theirs = found["hvae_hyperldm", 1.5, 1.0, "all"], found["cond_multitask", None, 1.0, "all"]
    assert ours["seeds"] == [0] and theirs["seeds"] == [0, 1]
    expected = ((3 - 2) / 4 + 0 + (4 - 2) / 5) / 3
    assert difference(ours, theirs)[0] == round(expected, 4)
    assert difference(ours, theirs | {"seeds": [3, 4]}) is None


def test_what_fewer_questions_cost():
    found = by_key(compared(records_of(TASKS, LINES)))
    half, full = (found["cond_multitask", None, share, "all"] for share in (0.5, 1.0))
    assert half["loss"][0] == pytest.approx(full["mean"] - half["mean"], abs=1e-4) and "loss" not in full
    alone = by_key(compared(records_of(TASKS, LINES[:-1])))
    assert "loss" not in alone["cond_multitask", None, 0.5, "all"]  # of other seeds


def test_releases_of_other_settings_are_compared_with_their_own_baselines_and_the_same_row(monkeypatch):
    variant = Variant("cond_multitask_other", "other", next(r for r in ROWS if r.id == "cond_multitask"), OTHER)
    monkeypatch.setattr(comparison, "_BASE", {variant.id: variant.row.id, "hvae_hyperldm_other": "hvae_hyperldm"})
    monkeypatch.setattr(comparison, "BASELINES", BASELINES | {variant.id})
    ours = line("hvae_hyperldm_other", [4, 2, 5], settings=OTHER, chosen="2")
    found = by_key(compared(records_of(TASKS, [*LINES, ours])))
    record = found["hvae_hyperldm_other", 2.0, 1.0, "all"]
    assert record["strongest"] == "label of cond_hnet_maml"  # none of its own
    assert record["settings"] == list(OTHER)
    assert record["vs_same_row"][0] == round((0 + 0 + 2 / 5) / 3, 4)  # gamma of validation, seed 0
    theirs = line(variant.id, [0, 1, 0], settings=OTHER)
    found = by_key(compared(records_of(TASKS, [*LINES, ours, theirs])))
    record = found["hvae_hyperldm_other", 2.0, 1.0, "all"]
    assert record["strongest"] == "label of cond_multitask_other"
    assert record["vs_strongest"][0] == round((1 + 1 / 2 + 1) / 3, 4)
    assert found["hvae_hyperldm", None, 1.0, "all"]["strongest"] == "label of cond_hnet_maml"
    assert found[variant.id, None, 1.0, "all"]["vs_same_row"][0] < 0
    assert "vs same row, preset's settings [95%]" in accuracy_table(list(found.values()))


# -- releases ----------------------------------------------------------------------------------------------------------


def flags(tiny, *more):
    return ["--work", str(tiny), "--device", "cpu", *map(str, more)]


def copied(tiny, directory, seed=0, **changes):
    """The tiny release as that of another seed, or of other settings."""
    shutil.copytree(tiny / "seed-0" / "weights", directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config |= {"seed": seed} | changes
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    list_anew(directory)
    return directory


@pytest.fixture(scope="module")
def variant_release(tiny, tmp_path_factory):
    """The paper's way, as far as this test can tell: it reads questions by other layers than the tiny release."""
    directory = tmp_path_factory.mktemp("variant") / "release"
    config = json.loads((tiny / "seed-0" / "weights" / "config.json").read_text(encoding="utf-8"))
    encoder = config["question_encoder"] | {"layers": [0, 6]}
    assert config["question_encoder"] != encoder
    run = {"preset": "tiny", "data": None, "steps_share": 1.0, "set": list(PAPERS_WAY), "start": None}
    return copied(tiny, directory, question_encoder=encoder, run=run)


def test_all_numbers_come_from_the_answers(tiny, variant_release, tmp_path, capsys):
    """Two seeds, and a row of a release of its own; from the files alone the same records, to the last digit."""
    other = copied(tiny, tmp_path / "other", seed=1)
    weights = [tiny / "seed-0" / "weights", other, "--variants", variant_release]
    stem, file = tmp_path / "t", tmp_path / "t.json"
    table1.main(flags(tiny, "--weights", *weights, "--limit-tasks", 20, "--json", file, "--per-task", stem))
    out = capsys.readouterr().out
    assert "missing: hvae_hyperldm_paper, seed 1; python train/run_all.py --preset tiny --set question_enc" in out
    assert "--seed 1 --rows hvae_hyperldm makes it" in out and "tasks and seeds resampled" in out
    published = json.loads(file.read_text(encoding="utf-8"))["results"]
    tasks, lines = read_answers(stem)
    assert compared(records_of(tasks, lines)) == published
    assert {(line.row, line.seed) for line in lines} >= {("clip", 1), ("cond_multitask", 0), ("few_shot_hvae", 1)}

    again = tmp_path / "again.json"
    intervals.main(["--stem", str(stem), "--json", str(again), "--check", str(file)])
    assert f"{file}: all {len(published)} records agree" in capsys.readouterr().out
    document = json.loads(again.read_text(encoding="utf-8"))
    assert document["results"] == published and document["preset"] == "tiny"
    published[3]["mean"] += 0.0001
    published[4]["label"] = "another"
    file.write_text(json.dumps({"results": published}), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        intervals.main(["--stem", str(stem), "--check", str(file)])
    assert stopped.value.code == 1
    *_, first, second = capsys.readouterr().out.splitlines()
    assert ": mean " in first and second.endswith("not among the answers")


def test_a_variant_reads_questions_as_its_own_release_does(tiny, variant_release, tmp_path):
    stem, plain = tmp_path / "t", tiny / "seed-0" / "weights"
    table1.main(flags(tiny, "--weights", plain, "--variants", variant_release, "--limit-tasks", 8, "--per-task", stem))
    _, lines = read_answers(stem)
    (found,) = [line for line in lines if line.row == "hvae_hyperldm_paper"]
    assert found.settings == PAPERS_WAY and (found.gamma, found.preset) == (None, "tiny")
    run = setting_run(
        type("Args", (), dict(preset="tiny", seed=0, device="cpu", descriptors=1.0, data=None, work=tiny)), []
    )
    test = run.task_set("test").select(range(8))
    counts = {}
    for name, directory in (("own", variant_release), ("plain", plain)):
        release = AdapterGenerator.from_pretrained(variant_release)
        reader = AdapterGenerator.from_pretrained(directory)
        query = test.batch(part="query")
        e = reader.embed_questions([task.question for task in test.tasks])
        w = release.weights(e, "hyperldm", gamma=None)
        right = (release.network.logits(w, query).argmax(-1) == query.labels) & query.example_mask
        counts[name] = right.sum(1).tolist()
    assert found.right.tolist() == counts["own"]
    assert float(found.chosen) == AdapterGenerator.from_pretrained(variant_release).choice("hvae_hyperldm")["gamma"]


def test_a_variant_is_found_where_training_puts_it(tiny, variant_release, tmp_path, capsys):
    """And lines of a file beside are compared with those of the preset's own releases."""
    args = type("Args", (), dict(preset="tiny", seed=0, device="cpu", descriptors=1.0, data=None, work=tiny))
    where = setting_run(args, PAPERS_WAY).output
    assert where.parent == tiny / "seed-0" and where.name.startswith("weights-")
    shutil.copytree(variant_release, where)
    try:
        table1.main(flags(tiny, "--preset", "tiny", "--limit-tasks", 6, "--per-task", tmp_path / "t"))
    finally:
        shutil.rmtree(where)
    assert "missing: hvae_hyperldm_paper" not in (out := capsys.readouterr().out) and "missing: cond_multitask_a" in out
    tasks, lines = read_answers(tmp_path / "t")
    own = [line for line in lines if line.settings]
    assert [line.row for line in own] == ["hvae_hyperldm_paper"]

    write_answers(tmp_path / "plain", tasks, [line for line in lines if not line.settings])
    write_answers(tmp_path / "more", tasks, own)
    beside = paths(tmp_path / "more")[1]
    _, together = read_answers(tmp_path / "plain", beside)
    assert compared(records_of(tasks, together)) == compared(records_of(tasks, lines))
    intervals.main(["--stem", str(tmp_path / "plain"), "--also", str(beside)])
    assert "vs same row, preset's settings" in capsys.readouterr().out


def test_a_release_that_is_no_variant_is_refused(tiny, capsys):
    plain = tiny / "seed-0" / "weights"
    with pytest.raises(SystemExit):
        table1.main(flags(tiny, "--weights", plain, "--variants", plain))
    assert "trained with settings those of the preset; allowed: those of hvae_hyperldm_paper" in capsys.readouterr().err


def test_table4_keeps_its_answers(tiny, tmp_path, capsys):
    stem, file = tmp_path / "t4", tmp_path / "t4.json"
    table4.main(flags(tiny, "--preset", "tiny", "--limit-tasks", 6, "--json", file, "--per-task", stem))
    published = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert without_scores(records_of(*read_answers(stem))) == published
    intervals.main(["--stem", str(stem), "--check", str(file)])
    assert f"all {len(published)} records agree" in capsys.readouterr().out


# -- the committed files -----------------------------------------------------------------------------------------------

PUBLISHED = ("table1", "table4", "photo_table1")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers_are_those_of_the_committed_answers(name, capsys):
    intervals.main(["--stem", str(RESULTS / name), "--check", str(RESULTS / f"{name}.json")])
    assert "agree, to the last digit" in capsys.readouterr().out
    document = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    tasks, lines = read_answers(RESULTS / name)
    assert len(document["results"]) == len(records_of(tasks, lines))  # nothing is left out
    assert {line.preset for line in lines} == {document["preset"]}


def test_the_committed_answers_are_small():
    assert sum(path.stat().st_size for name in PUBLISHED for path in paths(RESULTS / name)) < 2_000_000
