"""The README says what the result files say."""

from eval.report import README, render
from eval.table1 import label_of


def test_readme_agrees_with_the_result_files():
    text = README.read_text()
    assert render(text) == text, "run `python eval/report.py`"


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
