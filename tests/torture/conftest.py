"""The parts of the torture as tests run them."""

import json
import logging
import subprocess
import sys

import pytest
from tier_helpers import ROOT, python


@pytest.fixture(scope="session")
def torture():
    """Run a part as the command does, in a process that has no threads when it forks: its rows by fault, and its words.

    ``sabotage`` is Python that breaks kvtier there first.
    """

    def run(part, *options, sabotage=""):
        code = f"import sys; {sabotage}\nfrom torture.run import main\nsys.exit(main(sys.argv[1:]))"
        command = python("-c", code, "--ci", "--json", "-", "--only", part, *options, stderr=subprocess.PIPE)
        command["env"]["PYTHONPATH"] += f":{ROOT / 'benchmarks'}"
        done = subprocess.run(**command, cwd=ROOT, timeout=240, check=False)
        sys.stderr.write(done.stderr)  # pytest shows it if the test fails: what happened, and the seeds
        assert done.returncode in {0, 1}, done.stderr
        rows = json.loads(done.stdout)["rows"]
        assert done.returncode == any(
            row["survived"] != row["tried"] or row["wrong_bytes"] or row["lost_flushed"] for row in rows
        )
        return {row["fault"].partition(": ")[2]: row for row in rows}

    return run


@pytest.fixture
def silent():
    """What a store broken on purpose logs is of no interest."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def total():
    """The sum of a number over rows."""
    return lambda rows, name: sum(row[name] for row in rows.values())
