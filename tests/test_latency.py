"""The times of a question, on a small release."""

import json

from eval import bench, report
from eval.demo import latency
from eval.harness.parts import costs


def test_accuracy_beside_time(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latency, "start", lambda repeats: [{"row": "memory", "what": "a process", "gib": 1.0}])
    monkeypatch.setattr(latency, "shipped_releases", lambda: [tiny / "seed-0" / "weights"])
    file, plot = tmp_path / "latency.json", tmp_path / "latency.png"
    flags = ["--weights", str(tiny / "seed-0" / "weights"), "--limit-tasks", "4", "--repeats", "1"]
    bench.main(["--latency", *flags, "--json", str(file), "--plot", str(plot)])
    results = json.loads(file.read_text(encoding="utf-8"))["results"]
    sampling = [record for record in results if record["row"] == "sampling"]
    assert [(r["sampler"], r["steps"], r["samples"]) for r in sampling] == list(latency.SETTINGS)
    assert all(r["one"] > 0 and 0 <= r["accuracy"] <= 1 and r["questions"] == 4 for r in sampling)
    assert sampling[-1]["times_faster"] == 1.0
    assert {record["row"] for record in results} == {"sampling", "questions", "adapter", "answers", "memory"}
    assert plot.stat().st_size > 0 and "4 questions, text to weights" in capsys.readouterr().out

    monkeypatch.setattr(costs, "read_results", lambda name: json.loads(file.read_text(encoding="utf-8")))
    table = report.PARTS["latency"]()
    assert "ddpm, 350 steps, 1 averaged" in table and "tiny: question to answers for 8 pictures" in table
