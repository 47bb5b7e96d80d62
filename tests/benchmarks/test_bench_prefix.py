"""The benchmarks of a held prefix: every setting is measured, gives the same answer, and can be shown."""

import json

import compute_or_load
import layerwise
import pytest
from lib.result_tables import layerwise_table, meeting_table

SMALL = ["--shape", "smollm2-135m", "--layers", "2", "--dtype", "float32", "--runs", "2"]


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a script with a plot and a JSON; its report."""

    def run(script, *arguments):
        target, plot = tmp_path / "report.json", tmp_path / "plot.png"
        status = script.main([*SMALL, *arguments, "--store", str(tmp_path), "--json", str(target), "--plot", str(plot)])
        assert status == 0, capsys.readouterr().err
        assert plot.stat().st_size > 1000
        assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == [], "the store's directory is left behind"
        return json.loads(target.read_text())

    return run


def test_a_prefix_is_loaded_whole_and_layer_by_layer(run):
    report = run(layerwise, "--prefix", "256", "--new", "1", "40")

    assert [(row["path"], row["new_tokens"]) for row in report["rows"]] == [
        ("host", 1),
        ("disk_cold", 1),
        ("host", 40),
        ("disk_cold", 40),
    ]
    for row in report["rows"]:
        assert row["ratio_to_larger"] == pytest.approx(row["layerwise_ms"] / max(row["load_ms"], row["compute_ms"]))
        assert all(len(samples) == 2 for samples in row["samples_s"].values())
    assert report["exact"]
    assert layerwise_table(report).count("\n| 256 |") == 4


def test_a_prefix_is_loaded_computed_and_both(run):
    report = run(compute_or_load, "--quick", "--layers", "6", "--tokens", "1024")  # LMDB's own pages are few beside it

    assert [row["throttle_bytes_per_s"] is None for row in report["rows"]] == [True, False, False]
    for row in report["rows"]:
        better = min(row["seconds"]["load"], row["seconds"]["compute"])
        assert row["auto_ratio"] == pytest.approx(row["seconds"]["auto"] / better)
    assert report["exact"]
    assert "Worst: auto" in meeting_table(report)
