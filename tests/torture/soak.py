"""Hundreds of thousands of block references through a real store of small tiers, with every gauge flat.

    prompt -> get, verified -> put of the rest        device 64, host 128, disk 1,024 blocks of 1 KiB
    every so often: resident memory, descriptors, threads, bytes of the file, pages of LMDB

A gauge is flat if a line fitted to the second half of its samples rises over that half by no more
than its tolerance; the first half may fill tiers, start threads and grow arenas. The tolerance for
memory is what allocators wander by; spread over the half of a long run, 125,000 references, it is
17 bytes a reference, less than any object that could be kept for one.
"""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import threading
from collections.abc import Iterable
from functools import partial
from hashlib import shake_128
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kvtier.hashing import Namespace, name_chain
from kvtier.opening import open_store
from kvtier.spec import KVSpec
from kvtier.store import TieredStore
from torture.blocks import num_descriptors
from torture.children import Say, run_cases
from torture.report import Budget, Progress, Row, Tries
from torture.workloads import recorded, synthetic, trace_file

#: Block references; a cycle of opening and closing for each thousand.
TRIES = Tries(long=250_000, quick=6_000, ci=4_000)
FAULTS = ["soak: synthetic turns", "soak: recorded trace", "soak: open and close"]

SPEC = KVSpec(layers=1, kv_heads=1, head_dim=128, dtype="float32", block_tokens=1)
NAMESPACE = Namespace(spec=SPEC, weights="w")
BLOCK = SPEC.block_bytes  # 1 KiB
SIZES = {"device": 64 * BLOCK, "host": 128 * BLOCK, "disk": 1024 * BLOCK}
LONGEST = 256  # blocks of a prompt; what follows is cut off

NUM_SAMPLES = 60
#: Of opening and closing. The allocator's arenas take some three hundred to settle, with one arena as with many.
MIN_CYCLES = 20
#: By how much the line through a gauge's second half may rise over that half. Pools start their threads when needed.
TOLERANCES = {"resident_bytes": 2 << 20, "descriptors": 0.5, "threads": 3, "file_bytes": 256 << 10, "pages": 32}
#: In a run too short for tiers to fill and the allocator to settle only descriptors are held to the same.
SHORT_RUN = 50_000
SHORT_TOLERANCES = {**TOLERANCES, "resident_bytes": 32 << 20, "threads": 24, "file_bytes": 4 << 20, "pages": 1024}


def run(budget: Budget, progress: Progress) -> list[Row]:
    """A row for each workload, and one for opening and closing. ``figures`` has the gauges."""
    references = budget.pick(TRIES)
    terminal = os.fdopen(os.dup(2), "w")  # a child's standard error goes elsewhere
    case = partial(_case, budget, references, Progress("soak", terminal))
    rows = {fault: Row(fault=fault, unit="references") for fault in FAULTS}
    rows[FAULTS[2]].unit = "cycles"
    for count, outcome in enumerate(run_cases(case, range(len(FAULTS)), lanes=budget.lanes, limit_s=900.0), 1):
        row = rows[FAULTS[outcome.seed]]
        row.seconds = outcome.seconds
        if outcome.death is None:
            for name, value in outcome.answer.items():
                setattr(row, name, value)
        else:
            row.tried, row.failures = 1, [f"seed {budget.seed}: {outcome.death}"]
        progress.step(count, len(FAULTS))
    terminal.close()
    return list(rows.values())


def _case(budget: Budget, references: int, progress: Progress, number: int, say: Say) -> dict[str, Any]:
    """The fields of one row."""
    logging.disable(logging.WARNING)
    say(FAULTS[number])
    gc.freeze()  # what the libraries have made stays, and need not be looked at for each sample
    with tempfile.TemporaryDirectory(dir=budget.directory) as name:
        path = Path(name) / "kv"
        if number == 2:
            return cycles(path, budget.seed, max(MIN_CYCLES, references // 400))
        if number == 0:
            return replay(path, synthetic(budget.seed), references, progress)
        trace = trace_file()
        if trace is None:
            return {"notes": "skipped: no trace here"}
        return replay(path, recorded(trace), references, progress)


class Replay:
    """Prompts through one store, verified.

    Args:
        store: Over ``NAMESPACE``.
    """

    def __init__(self, store: TieredStore) -> None:
        self.store = store
        self.references = self.hits = self.wrong_bytes = 0
        self._out = torch.zeros((LONGEST, BLOCK), dtype=torch.uint8)
        self._buffers = list(self._out)

    def prompt(self, ids: list[int]) -> None:
        """Get what is held of a prompt, and put the rest."""
        ids = ids[:LONGEST]
        names = name_chain(NAMESPACE, ids).keys
        hit = self.store.get(ids, self._buffers[: len(ids)])
        saved = np.frombuffer(b"".join(shake_128(name).digest(BLOCK) for name in names), np.uint8).copy()
        payloads = torch.from_numpy(saved).view(-1, BLOCK)
        self.wrong_bytes += int((self._out[: hit.num_blocks] != payloads[: hit.num_blocks]).sum())
        self.hits += hit.num_blocks
        self.references += len(ids)
        self.store.put(ids, list(payloads[hit.num_blocks :]), start=hit.num_blocks)


def replay(path: Path, prompts: Iterable[list[int]], references: int, progress: Progress) -> dict[str, Any]:
    """So many references through a new store: the fields of a row."""
    samples: list[dict[str, float]] = []
    with open_store(path, NAMESPACE, **SIZES) as store:
        work = Replay(store)
        for ids in prompts:
            if work.references * NUM_SAMPLES >= len(samples) * references:
                samples.append(gauges(store))
                progress.step(work.references, references)
            if work.references >= references:
                break
            work.prompt(ids)
        store.flush()
        samples.append(gauges(store))
        leases = len(store.stats()["leases"])
    figures = summaries(samples, tolerances(references))
    rising = [name for name, figure in figures.items() if not figure["flat"]]
    return {
        "tried": work.references,
        "survived": work.references if not rising else 0,
        "wrong_bytes": work.wrong_bytes,
        "leaks": len(rising) + leases,
        "notes": f"{work.hits / max(1, work.references):.0%} hits, {_said(figures)}",
        "failures": [f"{name} rises: {figures[name]}" for name in rising],
        "figures": {**figures, "samples": samples},
    }


def cycles(path: Path, seed: int, count: int) -> dict[str, Any]:
    """A store opened, used and closed so often: the fields of a row."""
    samples: list[dict[str, float]] = []
    wrong_bytes = 0
    prompts = synthetic(seed)
    before = gauges(None)
    for _ in range(count):
        with open_store(path, NAMESPACE, **SIZES) as store:
            work = Replay(store)
            for _, ids in zip(range(5), prompts, strict=False):
                work.prompt(ids)
            wrong_bytes += work.wrong_bytes
        samples.append(gauges(None))
    figures = summaries(samples, tolerances(400 * count))
    rising = [name for name, figure in figures.items() if not figure["flat"]]
    left = {name: samples[-1][name] - before[name] for name in ("descriptors", "threads")}
    return {
        "tried": count,
        "survived": 0 if rising or any(left.values()) else count,
        "wrong_bytes": wrong_bytes,
        "leaks": len(rising) + int(sum(left.values())),
        "notes": _said(figures),
        "failures": [f"{name} rises: {figures[name]}" for name in rising] + [f"left: {left}"] * any(left.values()),
        "figures": {**figures, "samples": samples},
    }


def gauges(store: TieredStore | None) -> dict[str, float]:
    """What must not grow, now; of the disk's file only while there is a store."""
    gc.collect()
    found: dict[str, float] = {
        "resident_bytes": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": num_descriptors(),
        "threads": threading.active_count(),
    }
    if store is not None:
        disk: Any = store.tiers[-1]
        found |= {"file_bytes": disk.file_bytes, "pages": disk._volume.env.last_page}
    return found


def tolerances(references: int) -> dict[str, float]:
    """By how much each gauge may rise in the second half of a run of that length."""
    return TOLERANCES if references >= SHORT_RUN else SHORT_TOLERANCES


def summaries(samples: list[dict[str, float]], allowed: dict[str, float]) -> dict[str, dict[str, Any]]:
    """First, last and most of each gauge, and by how much the line through its second half rises."""
    found = {}
    for name in samples[0]:
        series = [sample[name] for sample in samples]
        rise = rise_of(series[len(series) // 2 :])
        found[name] = {
            "first": series[0],
            "last": series[-1],
            "max": max(series),
            "rise_in_second_half": round(rise, 3),
            "tolerance": allowed[name],
            "flat": rise <= allowed[name],
        }
    return found


def rise_of(series: list[float]) -> float:
    """How much a line fitted to evenly spaced samples gains from the first to the last.

    Example:
        >>> round(rise_of([1.0, 2.0, 3.0, 4.0]), 6)
        3.0
    """
    slope, _ = np.polyfit(np.arange(len(series)), series, 1)
    return float(slope) * (len(series) - 1)


def _said(figures: dict[str, dict[str, Any]]) -> str:
    memory = figures["resident_bytes"]
    last, rise = memory["last"] / 2**20, memory["rise_in_second_half"] / 2**10
    return f"memory {last:.0f} MiB, {rise:+.0f} KiB in the second half"
