"""The documents say what the result files say."""

import json
import re

import pytest

from eval import report
from eval.harness.comparison.records import BASELINES
from eval.harness.parts import methods, shapes, zero_shot
from eval.harness.results import RESULTS, made, read_results
from eval.harness.tables import (
    accuracy_table,
    grid,
    grid_markdown,
    interval,
    label_of,
    lead,
    markdown,
    short_percent,
)
from eval.report import DOCUMENTS, OPTIONAL, PARTS, ROOT, homeless, render

NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


@pytest.mark.parametrize("name", NAMES)
def test_documents_agree_with_the_result_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert render(text) == text, "run `python eval/report.py`"


def words_of(name):
    """A document as one line."""
    return re.sub(r"\s+", " ", (ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def table1():
    """Records of Table 1 with all questions known, by label and set of tasks."""
    return {(r["label"], r["tasks"]): r for r in read_results("table1.json")["results"] if r["descriptors"] == 1}


def reached(table1, label, sets):
    """Accuracy in % on some sets of tasks together."""
    records = [table1[label, name] for name in sets]
    return 100 * sum(r["mean"] * r["n_tasks"] for r in records) / sum(r["n_tasks"] for r in records)


def strongest(table1, name="all"):
    """The label of the best baseline of the preset's own settings, looked for anew."""
    own = {label: r for (label, tasks), r in table1.items() if tasks == name and "settings" not in r}
    held = {label: r["mean"] for label, r in own.items() if r["row"] in BASELINES}
    return max(held, key=held.get)


GAMMAS = ("HVAE + HyperLDM, gamma 1", "HVAE + HyperLDM, gamma of validation")


@pytest.mark.parametrize("ours", GAMMAS)
def test_the_numbers_under_the_first_picture(table1, ours):
    """They are those of the result files, of HyperLDM at either gamma that it has."""
    caption = re.search(r"On (\d+) test questions .* answers (\d+)% .*, plain CLIP (\d+)%\.", words_of("README.md"))
    expected = [reached(table1, label, ["all"]) for label in (ours, "CLIP, bare answers")]
    count = table1[ours, "all"]["n_tasks"]
    assert list(map(int, caption.groups())) == [count, *map(round, expected)]
    unasked = table1[ours, "unasked"]["n_tasks"] + table1[ours, "new"]["n_tasks"]
    asked = re.search(
        r"Training asks (\d+) of the (\d+) test questions in other words\. .*?larger on the other (\d+)",
        words_of("README.md"),
    )
    assert list(map(int, asked.groups())) == [table1[ours, "asked"]["n_tasks"], count, unasked]
    leads = [table1[ours, name]["vs_cond_multitask"][0] for name in ("unasked", "new", "asked")]
    assert min(leads[:2]) > leads[2]
    assert "over the best baseline none is certain" in words_of("README.md")
    for label in (ours, zero_shot.first_on_validation()):
        _, low, high = table1[label, "all"]["vs_strongest"]
        assert low < 0 < high


def test_the_numbers_about_questions_that_training_does_not_ask(table1):
    ours, sets = GAMMAS[1], ["unasked", "new"]
    found = re.search(
        r"On the (\d+) others, .*? is at (\d+)%, plain CLIP at (\d+)%, Cond. Multitask at (\d+)% "
        r"and the best baseline at (\d+)%",
        words_of("eval/README.md"),
    )
    labels = (ours, "CLIP, bare answers", "Cond. Multitask", table1[ours, "unasked"]["strongest"])
    assert table1[ours, "new"]["strongest"] == labels[-1]
    count = sum(table1[ours, name]["n_tasks"] for name in sets)
    assert list(map(int, found.groups())) == [count, *(round(reached(table1, label, sets)) for label in labels)]


def test_the_numbers_about_the_way_to_the_ceiling(table1):
    found = re.search(
        r"goes (\d+)% of the way .*? \(the paper: (\d+)% .*? is ([\d.]+) points (\[[\d., ]+\]) above "
        r"Cond\. Multitask; .*?, (\d+)% and ([\d.]+)\.",
        words_of("eval/README.md"),
    )
    known, all_tasks = ([table1[label, name] for label in GAMMAS] for name in ("known", "all"))
    floor, reached_there, ceiling = 0.4499, 0.5503, 0.6024  # the paper's Tables 1 and 4
    first, second = (interval(record["vs_cond_multitask"]) for record in all_tasks)
    assert list(found.groups()) == [
        f"{100 * known[0]['closed']:.0f}",
        f"{100 * (reached_there - floor) / (ceiling - floor):.0f}",
        *first.split(" ", 1),
        f"{100 * known[1]['closed']:.0f}",
        second.split()[0],
    ]


def test_the_numbers_about_the_best_baseline(table1):
    label = strongest(table1)
    ours, both = table1[GAMMAS[1], "all"], table1["Ensemble of HVAE and HNet + HyperLDM", "all"]
    assert ours["strongest"] == both["strongest"] == label
    found = re.search(
        r"It is at ([\d.]+)%; HVAE \+ HyperLDM, a single model, leads it by ([-\d.]+) points (\[[-\d., ]+\]), .*? by "
        r"([-\d.]+) (\[[-\d., ]+\])\.",
        words_of("eval/README.md"),
    )
    leads = [text for record in (ours, both) for text in interval(record["vs_strongest"]).split(" ", 1)]
    assert list(found.groups()) == [f"{100 * table1[label, 'all']['mean']:.1f}", *leads]
    both_leads = f"HVAE + HyperLDM {lead(ours)}, Ensemble of HVAE and HNet + HyperLDM {lead(both)}**"
    assert f"**Lead over the best baseline, in points: {both_leads}" in words_of("README.md")
    pairs = {(r["label"], r["tasks"]): r for r in read_results("photo_table1.json")["results"]}
    label = strongest(pairs)
    found = re.search(
        r"the three conditional baselines, at ([\d.]+)%\. .*? leads it by ([-\d.]+) points (\[[-\d., ]+\])\.",
        words_of("eval/README.md"),
    )
    ours = pairs[GAMMAS[1], "all"]
    assert ours["strongest"] == label == table1[GAMMAS[1], "all"]["strongest"]
    assert list(found.groups()) == [
        f"{100 * pairs[label, 'all']['mean']:.1f}",
        *interval(ours["vs_strongest"]).split(" ", 1),
    ]


def test_the_numbers_about_photographs():
    pairs = {(r["label"], r["tasks"]): 100 * r["mean"] for r in read_results("photo_table1.json")["results"]}
    found = re.search(r"HyperLDM is right about ([\d.]+)% .*? tower alone about ([\d.]+)%", words_of("README.md"))
    assert list(found.groups()) == [f"{pairs[label, 'all']:.1f}" for label in (GAMMAS[1], "CLIP, bare answers")]


def test_the_numbers_about_more_fine_tuned_weights(table1):
    more = "; 24 draws of fine-tuned weights a task"
    ensemble, regression = f"Ensemble of HVAE and HNet + HyperLDM{more}", f"Latent regression, without diffusion{more}"
    assert table1[ensemble, "all"]["strongest"] == regression
    reached = [f"{100 * table1[label, 'all']['mean']:.1f}" for label in (ensemble, regression)]
    found = re.search(r"fine-tuned weights\]\(.*?\): ([\d.]+), best baseline ([\d.]+)\.", words_of("README.md"))
    assert list(found.groups()) == reached
    found = re.search(r"latent regression at ([\d.]+)%, now .*? at \*\*([\d.]+)%\*\*", words_of("eval/README.md"))
    assert list(found.groups()) == reached[::-1]


def test_the_numbers_about_kernel_ridge_regression():
    reached = {r["row"]: 100 * r["mean"] for r in read_results("sanity.json")["results"] if r["tasks"] == "all"}
    found = re.search(
        r"Kernel ridge regression .*? reaches ([\d.]+)%, ([\d.]+) points less", words_of("eval/README.md")
    )
    less = reached["hvae_hyperldm"] - reached["kernel_ridge"]
    assert [float(text) for text in found.groups()] == pytest.approx([reached["kernel_ridge"], less], abs=0.051)


def test_commands_that_made_the_result_files_are_those_of_the_document():
    """All but those of files that grew in several calls."""
    named = lambda text: re.sub("--weights [^ ]+", "--weights DIR", text)
    text, several = (
        named((ROOT / "eval" / "README.md").read_text(encoding="utf-8")),
        {"ablations", "tuning", "tuning_tower", "bench"},
    )
    files = [path for path in RESULTS.glob("*.json") if path.stem not in several]
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    written = [document["command"] for document in documents if "command" in document]
    assert len(written) >= 10
    for command in written:
        assert re.search(rf"^{re.escape(named(command))}( |$)", text, re.MULTILINE)


def test_losses_with_fewer_questions_are_of_rows_that_read_them():
    lines = zero_shot.fewer_questions().splitlines()
    assert lines[0] == "| row | all questions | 50% Q. | loss [95%] | 10% Q. | loss [95%] |"
    cells = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in lines if line.startswith("| ")}
    assert "Uncond. Multitask" not in cells and not any(label.startswith("Few-shot") for label in cells)
    found = {r["descriptors"]: r["mean"] for r in read_results("table1.json")["results"] if _is_cond_multitask(r)}
    numbers = cells["Cond. Multitask"]
    for share, (reached, loss) in {0.5: numbers[2:4], 0.1: numbers[4:6]}.items():
        assert float(reached.split()[0]) == pytest.approx(100 * found[share], abs=0.05)
        assert float(loss.split()[0]) == pytest.approx(100 * (found[1.0] - found[share]), abs=0.065)  # rounded thrice


def _is_cond_multitask(record):
    return record["row"] == "cond_multitask" and record["tasks"] == "all" and "settings" not in record


@pytest.mark.parametrize("directory", report.CARDS)
def test_the_cards_of_shipped_releases_have_their_test_results(directory):
    text = (report.ROOT / directory / "README.md").read_text(encoding="utf-8")
    assert report.card_of(directory, report.CARDS[directory]) == text and "None in this card" not in text


def test_every_part_stands_in_some_document():
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    assert NAMES == ["README.md", "eval/README.md", "train/README.md"] and homeless(texts) == []
    assert homeless([text.replace("<!-- links -->", "") for text in texts]) == ["links"]
    marked = {name for text in texts for name in re.findall(r"<!-- /([\w-]+) -->", text)}
    assert marked == {*PARTS, "test-command"} and set(OPTIONAL) < set(PARTS)


def test_a_part_without_results_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setitem(report.PARTS, "lowrank", lambda: "new")
    empty = f"<!-- lowrank -->\n{report.NOT_YET}\n<!-- /lowrank -->"
    assert render("<!-- lowrank -->\nold\n<!-- /lowrank -->") == empty
    (tmp_path / "lowrank.json").touch()
    assert render(empty) == "<!-- lowrank -->\nnew\n<!-- /lowrank -->"


def test_the_headline_has_six_rows_and_the_papers_numbers(table1):
    lines = zero_shot.headline().splitlines()
    assert lines[0] == "|  | known (300) | new (73) | all (373) | the paper |"
    assert all(lines[2:8]) and lines[8] == ""
    rows = {cells[1]: cells[2:] for cells in ([cell.strip() for cell in line.split("|")] for line in lines[2:8])}
    best = strongest(table1)
    assert rows[f"{best}, the best baseline"][2] == f"{100 * table1[best, 'all']['mean']:.1f}"
    assert [cells[3] for cells in rows.values()] == ["45.0", "", "53.9", "55.1", "", "60.2"]


def test_the_row_that_validation_tasks_put_first(table1):
    """Chosen by the file of validation tasks, among rows of ours from the question alone, with the seeds of Table 1."""
    records = [r for r in read_results("validation.json")["results"] if r["tasks"] == "all" and "settings" not in r]
    ours = [r for r in records if r["row"] not in BASELINES and not r["row"].startswith("few_shot")]
    first = max(ours, key=lambda r: r["mean"])
    assert first["label"] == zero_shot.first_on_validation() and first["n_tasks"] == 87
    assert {tuple(r["seeds"]) for r in records} <= {(0, 1, 2), ()} and len(ours) >= 8
    assert f"they put the {first['label']} first" in words_of("eval/README.md")


def test_rows_of_another_base_network_stand_beside_the_adapters_of_the_same_seeds(monkeypatch):
    def record(label, tasks, mean, seeds, per_seed=(), **more):
        return {"label": label, "tasks": tasks, "mean": mean, "sd": None, "n_tasks": 3, "descriptors": 1.0} | {
            "seeds": list(seeds),
            "per_seed": list(per_seed),
            **more,
        }

    sets = ("known", "new", "all")
    files = {
        "lowrank.json": {"results": [record(f"row {r}", name, 0.5, [0]) for r in "ab" for name in sets], "commit": "c"},
        "table1_tower.json": {
            "results": [
                record("row a", "all", 0.7, [0, 1], [0.625, 0.75]),
                record("row b", "all", 0.7, [1, 2], [0.625, 0.75]),
                record("row a", "all", 0.1, [0], [0.1], descriptors=0.5),
            ]
        },
    }
    monkeypatch.setattr(zero_shot, "read_results", files.get)
    lines = zero_shot.lowrank().splitlines()
    assert lines[0] == "| row | known (3) | new (3) | all (3) | CLIP-Adapter, all |"
    assert lines[2:4] == ["| row a | 50.0 | 50.0 | 50.0 | 62.5 |", "| row b | 50.0 | 50.0 | 50.0 |  |"]
    assert lines[-1] == "Made at commit c."


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
        table = table.drop(columns=[name for name in table if name == "closed" or name.startswith("vs ")])
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
    assert short_percent(records[0]) == "50.0 ± 25.0" and short_percent(records[0] | {"sd": 0.0}) == "50.0"
    assert short_percent(records[1]) == "12.5" and short_percent(None) == ""
    assert made(*({"commit": c} for c in "aab")) == "Made at commits a, b." and made({"commit": "a"}).endswith(
        "commit a."
    )
    assert interval([0.07349, 0.0592, -0.02]) == "7.3 [5.9, -2.0]" and interval([0.5] * 3, "+.2f").startswith(
        "+50.00 ["
    )


def test_shapes_are_parted_by_form_and_by_what_training_asks():
    header = shapes.shapes_table1().splitlines()[0]
    assert "positive (16) | negated (16) | other form in training (16) | no form in training (16)" in header
    records = {r["label"]: r for r in read_results("shapes_table1.json")["results"] if r["tasks"] == "all"}
    ours = records["HVAE + HyperLDM, gamma of validation"]
    text = words_of("eval/README.md")
    assert f"HyperLDM is {100 * ours['mean'] - 50:.1f} points above the commonest answer" in text
    assert f"{100 * ours['vs_cond_multitask'][0]:.1f} points above Cond. Multitask: {100 * ours['closed']:.0f}%" in text
