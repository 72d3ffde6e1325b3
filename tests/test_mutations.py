"""The mutations of tests/mutations.py can still be planted, and their tests are still there. That each is caught is
shown by `python -m tests.mutations`."""

import pytest

from tests.mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_a_mutation_has_its_place_and_its_test(mutation):
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.before) == 1
    file, _, test = mutation.test.partition("::")
    assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")
    assert mutation.test in (ROOT / "tests" / "README.md").read_text(encoding="utf-8")


def test_there_are_ten_or_more():
    assert len({mutation.what for mutation in MUTATIONS}) >= 10
