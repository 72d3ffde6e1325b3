"""What ends a run early leaves one line that says what to do, nothing half written, and a run that can go on."""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import resource
import shutil
import signal
import time

import pytest
import torch

import train.pipeline.steps
from core import files
from core.ending import in_one_line
from core.release.checkpoint import save_model
from core.release.state import load_state, save_state
from core.tensors import load_tensors, save_tensors
from tests.test_kills import forget
from tests.test_resume import tiny_run
from train import adaptations, run_all
from train.pipeline import graph
from train.pipeline.adapted import draw_path
from train.presets import get_preset

NAN = float("nan")


def left(folder):
    return [path.name for path in folder.rglob("*.tmp")]


# -- files -------------------------------------------------------------------------------------------------------------

BIG = {"x": torch.rand(100, 100)}
WRITERS = {
    "a.json": lambda path: files.write_json(path, ["long"] * 4000),
    "a.txt": lambda path: files.write_text(path, "long" * 4000),
    "a.safetensors": lambda path: save_model(path, BIG, kind="some", config={}),
    "rows.safetensors": lambda path: save_tensors(path, BIG),
    "a.pt": lambda path: save_state(path, BIG),
}


@pytest.fixture
def small_files():
    """Files of at most 4 KiB: a write beyond that fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_names_the_file_and_leaves_the_old_one(small_files, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"old")
    with pytest.raises(OSError) as raised:
        WRITERS[name](path)
    assert raised.value.errno == errno.EFBIG and raised.value.filename == str(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == [name]


def test_a_line_of_the_log_is_written_whole_or_not_at_all(small_files, tmp_path):
    run = tiny_run(tmp_path)
    with pytest.raises(OSError, match="File too large") as raised:
        for value in range(1000):
            run.log("stage", "loss", value)
    log = run.scratch / "metrics.jsonl"
    assert raised.value.filename == str(log)
    assert [json.loads(line)["value"] for line in log.read_text(encoding="utf-8").splitlines()] == [*range(value)]
    with pytest.raises(ValueError, match="JSON"):
        run.log("stage", "loss", NAN)


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    path, here = tmp_path / "a.json", platform.node()
    (process := os.fork()) or os._exit(0)
    os.waitpid(process, 0)
    dead = tmp_path / f"a.json.{here}-{process}-0.tmp"
    others = [tmp_path / f"a.json.{here}-{os.getppid()}-0.tmp", tmp_path / f"a.json.another-{process}-0.tmp"]
    for partial in (dead, *others):
        partial.write_text("half", encoding="utf-8")
    files.write_json(path, [])
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_a_folder_is_not_read_where_that_is_not_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "remove_stale", lambda path: pytest.fail("the folder was read"))
    with files.replacing(tmp_path / "a", sweep=False) as partial:
        partial.write_text("new", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_json_stays_json(tmp_path):
    with pytest.raises(ValueError, match=r"a.json: not written"):
        files.write_json(tmp_path / "a.json", {"loss": NAN})
    with pytest.raises(ValueError, match=r"m.safetensors: not written"):
        save_model(
            tmp_path / "m.safetensors", {"x": torch.ones(2)}, kind="some", config={}, metadata={"loss": math.inf}
        )
    with pytest.raises(ValueError, match=r"m.safetensors: some values of 'x' are infinite or not numbers"):
        save_model(tmp_path / "m.safetensors", {"x": torch.tensor([1.0, NAN])}, kind="some", config={})
    assert not os.listdir(tmp_path)
    for text in ("", "{", "[]", '{"loss": NaN}', "[" * 100_000, '{"a": "\udcff"}'):
        (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(ValueError, match=r"a.json: damaged \(.*\); remove it"):
            files.read_json(tmp_path / "a.json", dict, "remove it")


def test_folders_that_cannot_be_written_to_are_named(tmp_path, monkeypatch):
    files.check_writable(tmp_path / "new" / "folder")
    assert not os.listdir(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        files.check_writable(tmp_path / "file" / "folder")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root
    with pytest.raises(PermissionError, match=str(tmp_path)):
        files.check_writable(tmp_path / "new" / "folder")


@pytest.mark.parametrize("change", ["flip", "cut", "empty", "text", "nan"])
@pytest.mark.parametrize("kind", ["rows.safetensors", "state.pt"])
def test_damaged_files_are_named(tmp_path, kind, change):
    path = tmp_path / kind
    save, load = (save_tensors, load_tensors) if "rows" in kind else (save_state, load_state)
    save(path, {"x": torch.arange(100.0)})
    assert torch.equal(load(path)["x"], torch.arange(100.0))
    data = bytearray(path.read_bytes())
    at = data.index(torch.arange(100.0).numpy().tobytes()) + 41
    data[at] ^= 1
    damaged = {"flip": data, "cut": data[: len(data) // 2], "empty": b"", "text": b"no tensors"}
    if change == "nan" and kind == "state.pt":
        torch.save({"x": torch.tensor([NAN])}, path)
    elif change == "nan":
        data[at : at + 3] = b"\xff\xff\x7f"
        path.write_bytes(data)
    else:
        path.write_bytes(damaged[change])
    with pytest.raises(ValueError, match=rf"{kind}: damaged .*; remove it") as raised:
        load(path)
    assert "\n" not in str(raised.value)


# -- how scripts end ---------------------------------------------------------------------------------------------------


def ends(error, capsys):
    """Exit status and line of a script that an error ends."""

    @in_one_line()
    def main():
        if isinstance(error, signal.Signals):
            os.kill(os.getpid(), error)
            time.sleep(30)
        raise error

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as raised:
        main()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    (line,) = capsys.readouterr().err.splitlines()
    return raised.value.code, line.split(": ", 1)[1]


@pytest.fixture
def heard():
    """Signals do what they do by default; what runs the tests in the background may have them ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_scripts_end_in_one_line(heard, capsys):
    assert ends(ValueError("a bad\n  value"), capsys) == (2, "error: a bad value")
    assert ends(OSError(errno.ENOSPC, "No space left on device", "/a/b"), capsys) == (
        2,
        "error: /a/b: No space left on device",
    )
    assert ends(signal.SIGINT, capsys) == (130, "stopped by SIGINT; the same command goes on from here")
    assert ends(signal.SIGTERM, capsys) == (143, "stopped by SIGTERM; the same command goes on from here")
    with pytest.raises(TypeError):  # a fault of ours shows itself
        ends(TypeError("fault"), capsys)


@pytest.fixture
def work(tiny, tmp_path):
    """A copy of the finished tiny run, to be spoilt."""
    return shutil.copytree(tiny, tmp_path / "work")


def ended(work, capsys, *flags):
    """Exit status and the last line of a run."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as raised:
        run_all.main(["--preset", "tiny", "--work", str(work), "--device", "cpu", *flags])
    return raised.value.code, capsys.readouterr().err.splitlines()[-1]


def test_a_signal_in_the_middle_of_a_stage(heard, work, tiny, capsys, monkeypatch):
    records = work / "seed-0" / "weights" / "stages.json"
    forget(records, "hvae")
    monkeypatch.setattr(train.pipeline.steps, "_STATE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # a state is half in its place
        assert ended(work, capsys)[0] == 143
    assert not left(work) and "hvae" not in json.loads(records.read_text(encoding="utf-8"))
    run_all.main(["--preset", "tiny", "--work", str(work), "--device", "cpu"])
    metrics = lambda path: json.loads(path.read_text(encoding="utf-8"))["hvae"]["metrics"]
    assert metrics(records) == metrics(tiny / "seed-0" / "weights" / "stages.json")


@pytest.mark.parametrize(
    "name, content",
    [
        ("seed-0/weights/stages.json", b"{"),
        ("seed-0/weights/stages.json", b'{"hvae": 3}'),
        ("seed-0/stages.json", b"\xff\xfe"),
        ("features/index.json", b'{"dim": "256"}'),
        ("features/images-00000.safetensors", b"x" * 100),
        ("seed-0/state/uncond_multitask.pt", b"PK\x03\x04"),
    ],
)
def test_damaged_files_of_a_run_end_it_in_one_line(work, capsys, name, content):
    forget(work / "seed-0" / "weights" / "stages.json", "uncond_multitask")
    (work / name).parent.mkdir(exist_ok=True)
    (work / name).write_bytes(content)
    status, line = ended(work, capsys, "--stages", "uncond_multitask")
    assert status == 2 and f"{work / name}: damaged" in line
    assert (work / name).read_bytes() == content and not left(work)


# -- numbers -----------------------------------------------------------------------------------------------------------

RATES = {
    "uncond_multitask": "multitask.uncond_multitask.lr",
    "cond_multitask": "multitask.cond_multitask.lr",
    "mnet_maml": "maml.mnet_maml.inner_lr",
    "mnet_fomaml": "maml.mnet_fomaml.lr",
    "hnet_maml": "maml.hnet_maml.lr",
    "hvae": "hvae_training.lr",
    "hvae_hyperclip": "hyperclip_training.hvae.lr",
    "hnet_hyperldm": "diffusion.lr",
    "latent_regression": "regression.lr",
}


@pytest.mark.parametrize("stage", RATES)
def test_a_stage_stops_where_its_numbers_do(tiny, tmp_path, stage):
    release = shutil.copytree(tiny / "seed-0" / "weights", tmp_path / "weights")
    before = {path: path.read_bytes() for path in release.iterdir() if path.is_file()}
    run = tiny_run(tiny, "--output", str(release), "--set", f"{RATES[stage]}=1e38")
    with pytest.raises(ValueError, match=rf"{stage}: .* step \d+ of \d+.* --set {RATES[stage]}=1e\+37") as raised:
        graph.build(run.preset)[stage].run(run)
    assert "\n" not in str(raised.value) and "?" in str(raised.value)  # a question
    assert before == {path: path.read_bytes() for path in release.iterdir() if path.is_file()}
    assert not run.state_path(stage).exists()


def test_nothing_is_recorded_of_a_stage_that_stopped(work, capsys):
    status, line = ended(work, capsys, "--set", "diffusion.lr=1e38", "--stages", "hnet_hyperldm")
    assert status == 2 and "nothing is recorded as done" in line and "--set diffusion.lr=1e+37" in line
    (records,) = (path for path in work.glob("seed-0/weights-*/stages.json"))
    assert "hnet_hyperldm" not in json.loads(records.read_text(encoding="utf-8"))


def test_numbers_of_a_gpu_are_looked_at_together(tiny):
    """The first step that went wrong is named, however late that is seen."""
    run = tiny_run(tiny)
    assert len(run.train)  # read on the CPU
    object.__setattr__(run, "device", torch.device("meta"))
    watch = train.pipeline.steps.Watch(run, "a_stage", 60, {}, ["diffusion.lr"])
    for watch.step in range(49):
        watch(torch.tensor([watch.step]), loss=torch.tensor(NAN if watch.step > 30 else 1.0))
    with pytest.raises(ValueError, match=r"a_stage: loss nan at step 32 of 60 \(tasks: .*--set diffusion.lr=0.0001"):
        watch(torch.tensor([49]), loss=torch.tensor(1.0))


def test_a_loss_of_accuracy_is_told_from_chance():
    chance = adaptations.probability_of_less
    assert chance(torch.tensor([-0.1] * 20)) < 0.001 and chance(torch.tensor([0.1] * 20)) > 0.999
    assert chance(torch.zeros(20)) == 1.0 and chance(torch.tensor([-0.1] * 4)) == pytest.approx(1 / 16, abs=0.02)
    assert chance(torch.tensor([-0.2] + [0.1, -0.1] * 10)) > 0.1


@pytest.mark.parametrize("steps, after", [(50, 1.0), (50, 0.9), (49, 0.9)])
def test_easy_data_goes_on_and_spoilt_weights_do_not(work, capsys, steps, after):
    plain, run = tiny_run(work), tiny_run(work, "--set", f"adaptations.hvae.steps={steps}")
    run = run.changed(output=plain.output)
    for draw in range(2):
        saved = {name: tensor.clone() for name, tensor in load_tensors(draw_path(plain, "hvae", draw)).items()}
        saved |= {"before": torch.ones_like(saved["before"]), "after": torch.full_like(saved["after"], after)}
        save_tensors(draw_path(run, "hvae", draw), saved)
    if steps == 50 and after < 1:
        with pytest.raises(ValueError, match=r"from 1.000 to 0.900.*--set adaptations.hvae.lr=0.4"):
            adaptations.run(run, "hvae")
        return
    assert adaptations.run(run, "hvae") == pytest.approx({"query_before": 1.0, "query_after": after})
    said = capsys.readouterr().out
    assert f"from 1.000 to {after:.3f}: " in said and "it goes on" in said and "--set adaptations.hvae.lr=0.4" in said


# -- what was asked for ------------------------------------------------------------------------------------------------


def test_a_named_stage_runs_though_nothing_needs_it():
    stages = graph.build(get_preset("tiny"))
    nothing = lambda name: False
    assert graph.plan(stages, nothing, ["features"]) == []
    assert graph.plan(stages, nothing, ["features"], ["features"]) == ["features"]
    assert graph.plan(stages, lambda name: True, ["features"], ["features"]) == []


def test_features_alone(tmp_path, capsys, colours):
    flags = ["--preset", "tiny", "--data", str(colours), "--work", str(tmp_path / "work"), "--device", "cpu"]
    run_all.main([*flags, "--stages", "features", "--set", "dataset.val_tasks=3"])
    assert "1 stages run" in capsys.readouterr().out
    assert (tmp_path / "work" / "features" / "images-00000.safetensors").is_file()
    assert not list((tmp_path / "work" / "seed-0").glob("weights*"))
