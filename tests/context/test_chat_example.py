"""``examples/chat_loop.py``: what it refuses, and that trimming with a memory computes less on the real model."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "chat_loop.py"


def loaded():
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("chat_loop", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["chat_loop"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not SCRIPT.exists(), reason="the examples are not here")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "slidng"], "did you mean sliding?"),
        (["--low", "2000"], "the low limit, 2,000 tokens, is above the high one, 1,024"),
    ],
)
def test_bad_settings_are_status_2(capsys, words, said):
    assert loaded().main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.model
def test_the_real_model_computes_less_under_hysteresis_than_under_a_sliding_window(tmp_path):
    command = [sys.executable, SCRIPT, "--turns", "8", "--high", "256", "--low", "128", "--json", tmp_path / "out.json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    subprocess.run([*command, "--plot", tmp_path / "out.png"], check=True, env=environment, timeout=900)
    computed = {
        row["policy"]: row["mean_computed_tokens"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]
    }

    assert computed["hysteresis"] < 0.8 * computed["sliding"]
    assert computed["longest"] == pytest.approx(computed["hysteresis"])
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
