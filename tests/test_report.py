"""The README says what the result files say."""

from eval.report import README, render


def test_readme_agrees_with_the_result_files():
    text = README.read_text()
    assert render(text) == text, "run `python eval/report.py`"
