"""Thirty-two threads on one store, left alone, disturbed at every lock, and with the store closed under them.

    32 callers -> get put match prefetch pin stream flush -> device 4, host 3, disk 8 blocks

Every block delivered is compared with what was put under its name. Afterwards the books balance,
no counter shows a fault, no lease, thread or descriptor is left, and what was flushed is there
when the store is opened again. How schedules are disturbed: ``torture.schedule``.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from store_helpers import blank, make, payload

from kvtier.store import TieredStore
from torture.blocks import num_descriptors
from torture.children import Say, run_cases
from torture.report import Budget, Progress, Row, Tries, merge
from torture.schedule import Schedule
from torture.storm import durable_after_flush, found_wrong, storm

TRIES = Tries(long=18, quick=3, ci=2)
FAULTS = ["threads: 32 callers", "threads: 32 callers, disturbed", "threads: closed under its callers"]

#: Stores, in blocks.
SIZES: list[dict[str, Any]] = [
    {"device": 4, "host": 3, "disk": 8},
    {"host": 8, "disk": 8, "put_patience_s": 0.01},
    {"host": 8, "disk": 12, "write": "on_insertion"},
    {"device": 4, "host": 3, "disk": 8, "put_patience_s": 0.0, "group_age_s": 0.0},
    {"disk": 8},
    {"device": 8},
]
#: Calls of each of the 32 threads.
STEPS = {"long": 100, "quick": 40, "ci": 20}


def run(budget: Budget, progress: Progress) -> list[Row]:
    """A row for each fault; what is counted are calls."""
    rows: list[Row] = [Row(fault=fault, unit="calls") for fault in FAULTS]
    seeds = budget.seeds(TRIES)
    case = partial(_case, budget.directory, STEPS[budget.mode])
    for count, outcome in enumerate(run_cases(case, seeds, lanes=budget.lanes, limit_s=180.0), 1):
        if outcome.death is None:
            rows += [Row(**answer) for answer in outcome.answer]
        else:
            rows.append(Row(fault=FAULTS[0], unit="calls", tried=1, failures=[f"seed {outcome.seed}: {outcome.death}"]))
        progress.step(count, len(seeds))
    return merge(rows)


def _case(directory: Path, steps: int, seed: int, say: Say) -> list[dict[str, Any]]:
    """The fields of one row for each fault."""
    logging.disable(logging.WARNING)  # lapsed leases are many, and meant
    rows = []
    for fault in FAULTS:
        say(fault)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=directory) as name:
            row = one_storm(fault, Path(name) / "kv", seed, steps)
        rows.append({"fault": fault, "unit": "calls", "seconds": time.monotonic() - began, **row})
    return rows


def one_storm(fault: str, path: Path, seed: int, steps: int, **storm_options: Any) -> dict[str, Any]:
    """One store's life: opened, stormed, settled, closed, opened again; what a row says of it."""
    sizes = SIZES[seed % len(SIZES)]
    schedule = Schedule(seed) if fault == FAULTS[1] else None
    descriptors, others = num_descriptors(), set(threading.enumerate())
    with nullcontext() if schedule is None else schedule.disturbing():
        patience = {"put_patience_s": 0.2} if fault == FAULTS[2] else {}
        store = make(path if "disk" in sizes else None, **sizes | patience)
        if schedule is not None:
            schedule.watch(store)
        if fault == FAULTS[2]:
            tally = storm(store, seed, steps=steps, close_after_s=0.01 * (1 + seed % 10), **storm_options)
            wrong, kept = list(tally.errors), None
        else:
            tally = storm(store, seed, steps=steps, **storm_options)
            wrong = found_wrong(store, tally)
            kept = durable_after_flush(store) if "disk" in sizes else None
            store.close()
    left = [thread.name for thread in set(threading.enumerate()) - others]
    leaks = len(left) + num_descriptors() - descriptors
    if leaks:
        wrong.append(f"left behind: threads {left}, {num_descriptors() - descriptors} descriptors")
    lost = bad = 0
    if "disk" in sizes:
        with make(path, **sizes) as again:
            lost, bad = _held_again(again, kept)
    calls = max(tally.calls, 1)
    return {
        "tried": calls,
        "survived": calls - min(calls, len(wrong)),
        "wrong_bytes": tally.wrong_bytes + bad,
        "lost_flushed": lost,
        "leaks": leaks,
        "failures": [f"seed {seed}: {each}" for each in wrong],
    }


def _held_again(store: TieredStore, kept: set[bytes] | None) -> tuple[int, int]:
    """Of a store opened again: flushed blocks that are gone, and bytes that differ from those saved."""
    disk = store.tiers[-1]
    held = dict(disk.scan())
    wrong_bytes = 0
    for key, label in held.items():
        out = blank(1)
        if disk.read([key], out, [label]) == 1:
            wrong_bytes += int((out[0] != payload(key)).sum())
    return (0 if kept is None else len(kept - set(held))), wrong_bytes
