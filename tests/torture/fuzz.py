"""Random calls of a real store against a model, and coverage-guided bytes for every reader of bytes.

store machine    Hypothesis: put get match prefetch pin stream flush reopen damage   torture.machine
fuzz <reader>    Atheris, or random mutations where it is not installed              torture.fuzz_targets
"""

from __future__ import annotations

import logging
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from tier_helpers import python

from torture.children import Say, run_cases
from torture.fuzz_targets import TARGETS
from torture.machine import StoreMachine
from torture.report import Budget, Progress, Row, Tries, merge

#: Inputs for each reader; a store's life for each thousand.
TRIES = Tries(long=200_000, quick=2_000, ci=1_000)
MACHINE = "fuzz: store machine"
FAULTS = [MACHINE, *(f"fuzz: {name}" for name in TARGETS)]

EXAMPLES = 5  # lives for each seed
STEPS = 30  # calls in a life, at most
SECONDS = {"long": 20.0, "quick": 2.0, "ci": 2.0}  # for one reader


def run(budget: Budget, progress: Progress) -> list[Row]:
    """A row for the machine, and one for each reader."""
    tries = budget.pick(TRIES)
    seeds = range(budget.seed, budget.seed + max(1, tries // 1000 // EXAMPLES))
    rows: list[Row] = []
    for outcome in run_cases(_machine, seeds, lanes=budget.lanes, limit_s=300.0):
        wrong = outcome.death or outcome.answer
        failures = [f"seed {outcome.seed}: {wrong}"] if wrong else []
        tried = EXAMPLES
        good = tried - len(failures)
        row = Row(fault=MACHINE, unit="lives", tried=tried, survived=good, seconds=outcome.seconds, failures=failures)
        rows.append(row)
        progress.step(len(rows), len(seeds), "lives of a store")
    rows += _readers(budget, tries, progress)
    return merge(rows)


def _machine(number: int, say: Say) -> str:
    """Some lives of stores; what went wrong in one."""
    logging.disable(logging.CRITICAL)
    say("living")
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    lives = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None, suppress_health_check=checks
    )
    try:
        run_state_machine_as_test(seed(number)(StoreMachine), settings=lives)
    except Exception as exc:  # noqa: BLE001  (whatever it is, it is reported)
        return f"{exc!r} {' '.join(getattr(exc, '__notes__', []))}"
    return ""


def _readers(budget: Budget, tries: int, progress: Progress) -> Iterator[Row]:
    """A row for each reader, in processes of their own."""
    fuzz = partial(_reader, tries=tries, budget=budget)
    with ThreadPoolExecutor(budget.lanes) as pool:  # last of all, so that no fork takes these threads along
        for count, row in enumerate(pool.map(fuzz, TARGETS), 1):
            progress.step(count, len(TARGETS), row.fault)
            yield row


def _reader(name: str, *, tries: int, budget: Budget) -> Row:
    began, seconds = time.monotonic(), SECONDS[budget.mode]
    bounds = ("--runs", tries, "--seconds", seconds, "--seed", budget.seed)
    command: dict[str, Any] = python("-m", "torture.fuzz_records", name, *bounds, stderr=subprocess.PIPE)
    command["env"]["TMPDIR"] = str(budget.directory)  # libFuzzer ends its process without tidying up
    done = subprocess.run(**command, timeout=seconds + 120, check=False)
    counted = re.search(r"Done (\d+) runs", done.stderr) or re.search(r"executed_units: (\d+)", done.stderr)
    runs = int(counted[1]) if counted else 1
    row = Row(fault=f"fuzz: {name}", unit="inputs", tried=runs, survived=runs, seconds=time.monotonic() - began)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    row.notes = f"guided, {covered[-1]} edges" if covered else "unguided"
    if not find_spec("atheris"):
        row.notes += ", no Atheris here"
    if done.returncode:
        row.survived -= 1
        row.failures.append(f"seed {budget.seed}: {why(done.stderr)}")
    return row


def why(said: str) -> str:
    """The exception and its input, out of what a fuzzer said."""
    lines = said.strip().splitlines()
    marks = ("Error", "input:", "Base64:")
    return " | ".join(line.strip()[:200] for line in lines if any(mark in line for mark in marks))[:600]
