"""No fault at all: stores are filled, closed and opened again.

The row says that the harness counts what is there: without a fault everything survives and
nothing is lost, or the other rows mean nothing.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from torture import blocks
from torture.children import Say, run_cases
from torture.report import Budget, Progress, Row, Tries, merge

TRIES = Tries(long=40, quick=8, ci=4)
FAULTS = ["control: close and open"]


def run(budget: Budget, progress: Progress) -> list[Row]:
    """One row."""
    rows = []
    seeds = budget.seeds(TRIES)
    for outcome in run_cases(partial(_restart, budget.directory), seeds, lanes=budget.lanes):
        row = Row(fault=FAULTS[0], unit="restarts", tried=1, seconds=outcome.seconds)
        if outcome.death is None:
            row.survived, row.wrong_bytes, row.lost_flushed, row.leaks = outcome.answer
        else:
            row.failures.append(f"seed {outcome.seed}: {outcome.death}")
        rows.append(row)
        progress.step(len(rows), len(seeds))
    return merge(rows)


def _restart(directory: Path, seed: int, say: Say) -> Any:
    """Survived, wrong bytes, lost blocks, descriptors left open."""
    prompts = [(seed + i) % blocks.NUM_PROMPTS for i in range(12)]
    descriptors = blocks.num_descriptors()
    wrong = lost = 0
    with tempfile.TemporaryDirectory(dir=directory) as name:
        say("writing")
        with blocks.open_small(Path(name) / "kv", host=8, disk=400) as store:
            for prompt in prompts:
                blocks.put(store, prompt)
        say("reading")
        with blocks.open_small(Path(name) / "kv", host=8, disk=400) as store:
            for prompt in prompts:
                served, bad = blocks.get(store, prompt)
                wrong += bad
                lost += len(blocks.CHAINS[prompt]) - served
    return 1, wrong, lost, blocks.num_descriptors() - descriptors
