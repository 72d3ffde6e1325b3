"""The documents say what the result files say."""

import re

import pytest

from eval import report
from eval.harness.parts import methods
from eval.harness.results import RESULTS, read_results
from eval.harness.rows import ROWS
from eval.harness.tables import accuracy_table, grid, grid_markdown, interval, label_of, markdown
from eval.report import DOCUMENTS, OPTIONAL, PARTS, ROOT, homeless, render

NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


@pytest.mark.parametrize("name", NAMES)
def test_documents_agree_with_the_result_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert render(text) == text, "run `python eval/report.py`"


def test_headline():
    """The numbers under README's first picture are those of the result files, of HyperLDM at either gamma it has."""
    found = {
        (r["row"], r["label"], r["tasks"]): r for r in read_results("table1.json")["results"] if r["descriptors"] == 1
    }
    ridge = {r["row"]: r["mean"] for r in read_results("sanity.json")["results"] if r["tasks"] == "all"}["kernel_ridge"]
    baselines = {(r.id, r.label) for r in ROWS if r.baseline and not r.id.startswith("few_shot")}
    clip = ("clip", "CLIP, bare answers")

    def reached(row, sets):
        records = [found[(*row, name)] for name in sets]
        return sum(r["mean"] * r["n_tasks"] for r in records) / sum(r["n_tasks"] for r in records)

    head = re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
    whole = re.search(
        r"answers (\d+)% of query.* CLIP (\d+)%, the best baseline .*? (\d+)%, and kernel .*? (\d+)%\.", head
    )
    unasked = re.search(r"On the (\d+) of them .*? are at (\d+)%, (\d+)% and (\d+)%", head)
    given = [int(text) for text in (*whole.groups(), *unasked.groups())]
    for gamma in ("1", "of validation"):
        ours = next(key[:2] for key in found if key[1] == f"HVAE + HyperLDM, gamma {gamma}")
        expected = []
        for sets in (("all",), ("unasked", "new")):
            best = max(reached(row, sets) for row in baselines if (*row, "all") in found)
            expected.append([reached(ours, sets), reached(clip, sets), best])
        count = sum(found[(*clip, name)]["n_tasks"] for name in ("unasked", "new"))
        percent = [[round(100 * value) for value in values] for values in expected]
        assert given == [*percent[0], round(100 * ridge), count, *percent[1]], gamma


def test_every_part_stands_in_some_document():
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    assert NAMES == ["README.md", "eval/README.md", "train/README.md"] and homeless(texts) == []
    assert homeless([text.replace("<!-- links -->", "") for text in texts]) == ["links"]
    marked = {name for text in texts for name in re.findall(r"<!-- /([\w-]+) -->", text)}
    shown = {name for name in PARTS if name not in OPTIONAL or (RESULTS / f"{name}.json").is_file()}
    assert marked == shown | {"test-command"}


def test_a_part_is_filled_wherever_it_stands(monkeypatch):
    monkeypatch.setitem(report.PARTS, "links", lambda: "new")
    text = "a\n<!-- links -->\nold\n<!-- /links -->\nb"
    assert render(text) == "a\n<!-- links -->\nnew\n<!-- /links -->\nb" and render("a\nb") == "a\nb"


def test_rows_with_more_settings_than_others(monkeypatch):
    record = lambda row, n: {"row": row, "setting": [f"maml.{row}.steps={n}"], "val_accuracy": 0.5 + 0.01 * n}
    results = [record("a", 1), record("a", 2), record("b", 1)]
    monkeypatch.setattr(methods, "read_results", lambda name: {"results": results, "command": "c", "commit": "d"})
    lines = methods.tuning().splitlines()
    assert lines[0] == "| row | setting 1 (start) | 2 |" and lines[2] == "| a | steps=1: 51.0 | steps=2: **52.0** |"
    assert lines[3] == "| b | steps=1: **51.0** |  |"


def test_a_label_says_what_validation_chose_for_every_seed():
    def record(label, share=1.0, **choices):
        return {"label": label, "descriptors": share, "gamma": None, **choices}

    ours, best = "HVAE + HyperLDM, gamma of validation", "Few-shot ceiling"
    assert label_of([record("Cond. Multitask")]) == "Cond. Multitask"
    assert label_of([record(ours, gammas=[1.0, 1.25, 1.0])]) == f"{ours} (1, 1.25, 1)"
    assert label_of([record(ours, gammas=[1.0, 1.0])]) == f"{ours} (1)"
    shares = [record(ours, gammas=[1.0, 1.25]), record(ours, 0.5, gammas=[1.25, 1.25])]
    assert label_of(shares) == f"{ours} (1, 1.25; 50% Q.: 1.25)"
    assert label_of([shares[0], shares[0] | {"descriptors": 0.5}]) == f"{ours} (1, 1.25)"
    rows = [record(best, ceilings=["cond_multitask"] * 2), record(best, 0.5, ceilings=["hnet_maml", "mnet_maml"])]
    assert label_of(rows) == f"{best} (Cond. Multitask; 50% Q.: Uncond. HNet-MAML, Uncond. MNet-MAML)"
    assert label_of([record(ours) | {"gamma": 1.5}]) == f"{ours} (1.5)"  # a file that keeps the first seed's alone


@pytest.mark.parametrize("name", ["table1", "table4"])
def test_a_csv_is_its_result_file_as_a_table(name):
    table = accuracy_table(read_results(f"{name}.json")["results"])
    if name == "table4":
        table = table.drop(columns=["closed", "vs Cond. Multitask [95%]"], errors="ignore")
    assert table.to_csv() == (RESULTS / f"{name}.csv").read_text(encoding="utf-8")


def test_grid_of_records():
    record = lambda row, tasks, mean, sd=None: {"row": row, "tasks": tasks, "n_tasks": 3, "mean": mean, "sd": sd}
    records = [record("b", "new", 0.5, 0.25), record("a", "new", 0.125), record("b", "all", 1.0)]
    table = grid(records, lambda r: r["row"])
    assert table.index.tolist() == ["b", "a"] and table.columns.tolist() == ["new (3)", "all (3)"]
    assert table.values.tolist() == [["50.00 (25.00)", "100.00"], ["12.50", ""]]
    assert grid_markdown(table).splitlines() == [
        "| row | new (3) | all (3) |",
        "|---|---:|---:|",
        "| b | 50.00 (25.00) | 100.00 |",
        "| a | 12.50 |  |",
    ]
    nested = grid(records, lambda r: (r["row"], "x"), lambda r: r["tasks"], lambda r: str(r["sd"]))
    assert nested.index.tolist() == [("b", "x"), ("a", "x")] and nested.loc[("b", "x"), "all"] == "None"
    assert grid([], lambda r: r["row"]).empty
    assert markdown(["a", "b"], [["1", "2"]], align="r-").splitlines()[1] == "|---:|---|"
    assert interval([0.07349, 0.0592, -0.02]) == "7.3 [5.9, -2.0]" and interval([0.5] * 3, "+.2f").startswith(
        "+50.00 ["
    )
