"""The shape of the code: rooms that stay small, imports that point one way, no branch on a weight generator's name."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from core.networks.weight_generator import WEIGHT_GENERATORS
from tests.conftest import ROOT

ROOMS = ("core", "train", "eval")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MAX_LINES, MAX_MODULES = 300, 16


def name_of(path: Path) -> str:
    """The module's name: core.data.tasks."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, modules: set[str]) -> set[str]:
    """Modules of ours that a module imports when it is imported itself: not in functions, not for types alone."""
    package = name_of(path).split(".") if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    found: set[str] = set()
    for node in top_level(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found & modules


def top_level(body: list[ast.stmt]):
    """Statements that run at import."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            for part in ("body", "orelse", "finalbody"):
                yield from top_level(getattr(node, part, []))


def test_imports_have_no_cycle():
    modules = {name_of(path) for path in FILES}
    graph = {name_of(path): imported(path, modules) - {name_of(path)} for path in FILES}
    list(TopologicalSorter(graph).static_order())  # raises a CycleError that names one


def test_core_imports_no_other_room():
    for path in FILES:
        if path.relative_to(ROOT).parts[0] == "core":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                outside = [name for name in names if name.split(".")[0] in (*ROOMS, "app", "tests")]
                assert not outside, f"{path}: imports {outside[0]}; inside core, imports are relative"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_folders_are_small():
    for folder in {path.parent for path in FILES}:
        modules = list(folder.glob("*.py"))
        assert len(modules) <= MAX_MODULES, f"{folder} has {len(modules)} modules"


def test_no_branch_on_a_generators_name():
    """A weight generator is an object: nothing compares its name, or how a row's name begins or ends, but its own
    registration."""
    names = WEIGHT_GENERATORS.names()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Compare, ast.MatchValue)):
                constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                named = constants & set(names)
                assert not named, f"{path}:{node.lineno} compares with {named}"
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("startswith", "endswith"):
                parts = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
                named = {part for part in parts if set(part.split("_")) & set(names)}
                assert not named, f"{path}:{node.lineno} asks for {named}"


def test_random_state_is_never_called_a_generator():
    """A generator is a weight generator; random state is `rng`."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = []
            if isinstance(node, ast.arg) and node.annotation is not None and "torch.Generator" in ast.unparse(node):
                named = [node.arg]
            if isinstance(node, ast.Assign) and "torch.Generator(" in ast.unparse(node.value):
                named = [ast.unparse(target) for target in node.targets]
            assert "generator" not in named, f"{path}:{node.lineno} calls random state a generator"


def test_text_files_are_utf_8():
    """Ruff finds what it knows to be a file. Here: whatever is called like one, and text of other programs."""
    for path in [*FILES, *(ROOT / "tests").rglob("*.py"), ROOT / "app.py", ROOT / "setup.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                named = {keyword.arg for keyword in node.keywords}
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                text = (name == "read_text" and not node.args) or (name == "write_text" and len(node.args) == 1)
                text |= ast.unparse(node.func).startswith("subprocess.") and bool(
                    {"text", "universal_newlines"} & named
                )
                assert not text or "encoding" in named, f'{path}:{node.lineno}: no encoding="utf-8"'


def test_every_program_reads_its_flags_with_the_parser_that_minds_the_console():
    for path in [*FILES, ROOT / "app.py"]:
        made = [
            node.lineno
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ArgumentParser")
        ]
        assert not made, f"{path}:{made[0]}: core.console.Parser prints what the console lacks as an escape"
