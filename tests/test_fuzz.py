"""A few cases of hostile input; `python -m tests.fuzz` tries thousands. Texts are in test_app.py, where a demo runs,
releases in test_files.py."""

import os

import pytest

from tests.fuzz import run, tables
from tests.fuzz.run import WATCH, fuzz


@pytest.mark.parametrize("kind", ["pictures", "tables"])
def test_every_case_is_a_result_or_a_clean_message(kind):
    tables._photos.cache_clear()  # pictures that another test left in a folder of its own
    found = fuzz(kind, 40, seed=1)
    assert not found.wrong, found.wrong[0]
    assert found.outcomes["result"] > 0 and found.outcomes["refused"] > 0 and found.outcomes.total() == 40


def test_what_a_case_opens_elsewhere_and_what_it_raises_is_seen(tmp_path, monkeypatch):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret", encoding="utf-8")
    for look in (lambda: (outside / "secret").read_text(encoding="utf-8"), lambda: os.listdir(outside)):
        with pytest.raises(AssertionError, match="outside the temporary folder"), WATCH.case(inside):
            look()
    with WATCH.case(inside):
        (inside / "file").write_text("", encoding="utf-8")
        (run.ROOT / "README.md").read_text(encoding="utf-8")

    def check(case):
        if case == 1:
            raise KeyError(case)
        return "result" if case else "refused"

    class Module:
        cases = staticmethod(lambda seed, count: iter(range(count)))

    Module.check = staticmethod(check)
    monkeypatch.setattr(run.importlib, "import_module", lambda name: Module)
    found = fuzz("texts", 4, seed=0)
    assert found.outcomes == {"refused": 1, "wrong": 1, "result": 2} and "KeyError: 1" in found.wrong[0]
    assert found.memory[0] <= found.memory[1]
