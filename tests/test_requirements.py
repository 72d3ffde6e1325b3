"""requirements.txt can be installed as it stands: with the newest versions that it allows, and with the oldest."""

import itertools
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT

FILE = ROOT / "requirements.txt"
PYTHONS = ("3.11", "3.13")  # the oldest and the newest that the README names


def lines():
    return [line for line in FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def bounds(line):
    """Name, lower and upper bound of a requirement."""
    requirement = Requirement(line.partition("#")[0])
    versions = {part.operator: Version(part.version) for part in requirement.specifier}
    assert versions.keys() == {">=", "<"}, line
    return canonicalize_name(requirement.name), versions[">="], versions["<"]


@pytest.mark.parametrize("line", lines(), ids=lambda line: re.match(r"[\w-]+", line)[0])
def test_bounds_end_at_a_major_version_and_are_explained(line):
    _, lower, upper = bounds(line)
    assert upper.release == (upper.major,) and lower < upper
    assert line.partition("#")[2].strip()


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    """What an installer would choose, by Python and by which versions are wanted, from wheels alone.

    All at once: it waits for the package index. Skipped where there is none within reach.
    """
    uv = [pytest.importorskip("uv").find_uv_bin(), "pip", "compile", "--quiet", "--python", sys.executable]
    small = tmp_path_factory.mktemp("uv") / "requirements.txt"
    small.write_text("tqdm\n", encoding="utf-8")
    if subprocess.run([*uv, "--refresh", small], capture_output=True).returncode:
        pytest.skip("no package index within reach")
    command = [*uv, "--no-python-downloads", "--only-binary", ":all:", "--no-header", "--no-annotate", FILE]

    def resolve(wanted):
        flags = ["--python-version", wanted[0], "--resolution", wanted[1]]
        return subprocess.run([*command, *flags], capture_output=True, text=True, encoding="utf-8")

    wanted = list(itertools.product(PYTHONS, ("lowest-direct", "highest")))
    with ThreadPoolExecutor(len(wanted)) as pool:
        return dict(zip(wanted, pool.map(resolve, wanted), strict=True))


def versions(done):
    """The chosen version of every package, by name."""
    assert done.returncode == 0, done.stderr
    pins = re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in pins}


@pytest.mark.parametrize("python", PYTHONS)
def test_lower_bounds_can_exist_together(resolved, python):
    chosen = versions(resolved[python, "lowest-direct"])
    for name, lower, _ in map(bounds, lines()):
        assert chosen[name] == lower, f"{name}>={lower} cannot be had, {chosen[name]} can"


@pytest.mark.parametrize("python", PYTHONS)
def test_newest_versions_can_exist_together(resolved, python):
    assert versions(resolved[python, "highest"]).keys() >= {name for name, _, _ in map(bounds, lines())}
