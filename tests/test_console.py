"""Programs do their work whatever the console can show, and on systems whose encoding is another."""

import contextlib
import io
import json
import os
import subprocess
import sys

import pytest

from core import cli
from core.console import Parser
from tests.conftest import ROOT
from tests.test_folder import good_rows, photos, write_csv  # noqa: F401 (photos is a fixture)
from train import make_data


def printed(program) -> str:
    """What a program prints on a Western console, which has no Japanese."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="strict")
    with contextlib.redirect_stdout(stream):
        program()
    stream.flush()
    return stream.buffer.getvalue().decode("cp1252")


def test_a_dataset_whose_words_the_console_lacks_is_built(photos):  # noqa: F811
    rows = good_rows()
    rows[0][2] = "紫"  # it occurs once: a note says that it is left out
    built = photos.parent / "構築"
    table = str(write_csv(photos / "t.csv", rows))
    flags = ["--images", str(photos), "--table", table, "--output", str(built), "--preview"]
    said = printed(lambda: make_data.main(flags))
    assert "\\u7d2b" in said and "\\u69cb\\u7bc9 from table" in said and said.splitlines()[-1].startswith("wrote ")
    assert (built / "preview.png").is_file()


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_answers_that_the_console_lacks_are_printed(photos, form):  # noqa: F811
    picture = photos / "犬.png"
    (photos / "0.png").rename(picture)
    flags = ["犬はどこ?", "--method", "clip", "--answers", "左,右", "--images", str(picture), *form]
    said = printed(lambda: cli.main(flags))
    assert "\\u5de6" in said and "\\u72ac" in said
    assert not form or json.loads(said)["answers"] == ["左", "右"]


def test_help_is_printed():
    def program():
        with pytest.raises(SystemExit):
            Parser(prog="犬", epilog="犬はどこ?").parse_args(["--help"])

    assert "\\u72ac\\u306f" in printed(program)


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_a_program_may_have_no_console(stream):
    with contextlib.redirect_stdout(stream):
        assert vars(Parser().parse_args([])) == {}


def test_the_page_and_the_command_line_read_their_files_where_the_system_encoding_is_another():
    """Imported in the C locale without Python's way out; a file of ours opened in the system's encoding is an error."""
    code = """
import sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"(app|core|eval|train)(\\.|$)")
import app
from core import cli
from core.demo.views import tabs
tabs.header()
cli.main(["Where is the cat?", "--method", "clip", "--json"])
"""
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    command = [sys.executable, "-X", "warn_default_encoding", "-c", code]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONIOENCODING"} | plain
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="ascii")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answers"]
