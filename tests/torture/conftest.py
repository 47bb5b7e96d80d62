"""The parts of the torture as tests run them."""

import json
import logging
import subprocess

import pytest
from tier_helpers import ROOT, python


@pytest.fixture
def torture():
    """Run one part as the command does, in a process that forks before it has threads; its rows by fault."""

    def run(part, *options):
        command = python("-m", "torture.run", "--ci", "--json", "-", "--only", part, *options, stderr=subprocess.PIPE)
        command["env"]["PYTHONPATH"] += f":{ROOT / 'benchmarks'}"
        done = subprocess.run(**command, cwd=ROOT, timeout=240, check=False)
        assert done.returncode in {0, 1}, done.stderr
        return {row["fault"]: row for row in json.loads(done.stdout)["rows"]}, done.stderr

    return run


@pytest.fixture
def silent():
    """What a store broken on purpose logs is of no interest."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
