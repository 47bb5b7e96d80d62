"""The README says what the results say, and its examples run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import readme

ROOT = Path(__file__).resolve().parent.parent


def test_the_readme_is_what_the_committed_results_and_examples_give(capsys):
    status = readme.main(["--check"])

    assert status == 0, capsys.readouterr().out


def test_a_changed_result_makes_the_readme_stale(monkeypatch):
    parts = readme.parts()
    changed = {**parts["README.md"], "computed": parts["README.md"]["computed"] + "\n| x | 1 | 2 |"}
    monkeypatch.setattr(readme, "parts", lambda: {**parts, "README.md": changed})

    assert readme.main(["--check"]) == 1


def test_every_test_that_the_threat_model_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    sources = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "kvtier" / "testing").glob("*.py")]
    there = {name for path in sources for name in re.findall(r"def (test_\w+)", path.read_text())}

    assert len(named) > 20
    assert named <= there


def test_the_raw_tensor_example_runs_as_printed(tmp_path):
    command = [sys.executable, ROOT / "examples" / "raw_tensors.py"]

    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, timeout=120)

    assert "computing 4 of 100 tokens is left" in done.stdout


@pytest.mark.model
def test_the_toy_loop_starts_warm_the_second_time(tmp_path):
    from lib.model import ensure_smollm2

    question = "What is a cache, and what is it good for in a computer? Please answer in a sentence."
    command = [sys.executable, ROOT / "examples" / "toy_loop.py", str(ensure_smollm2(progress=False)), question]

    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, timeout=300).stdout
        for _ in range(2)
    )

    assert "\n  0 of" in first
    assert "\n  32 of" in second
    assert first.splitlines()[0] == second.splitlines()[0]
