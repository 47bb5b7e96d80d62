"""Every page, entry and record of a store compared with what it should be, and put right if asked.

    structure -> slabs -> books -> entries -> records -> prefixes
        |                  '---- amended: what is wrong leaves the index, with what hangs on it
        '-- damaged: a new file is made of the records that prove themselves (``kvtier.doctor.salvage``)

What a repair leaves is prefix-closed, and everything in it has just been proven.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from kvtier.doctor.copying import Readers, prove, wanted
from kvtier.doctor.prefixes import Forest
from kvtier.doctor.reading import REBUILT, Held, allocated, alone, amend, holds_data, read, structure
from kvtier.doctor.rebuilding import clear
from kvtier.doctor.reports import Finding, Progress, Report, quiet
from kvtier.doctor.salvage import salvage
from kvtier.errors import TierUnavailableError
from kvtier.tiers.directory import DAMAGED, DATA


def check(directory: Path, *, repair: bool = False, threads: int | None = None, progress: Progress = quiet) -> Report:
    """Look at everything in a store that no process has open.

    Args:
        directory: The store's.
        repair: Also take out what is wrong, or make a new file of what is right.
        threads: Records to read at a time.
        progress: See ``kvtier.doctor.copying.Progress``.

    Raises:
        ConfigError: There is no store, it is in use, or of another format.
        TierUnavailableError: The file cannot be read, or its sizes make no sense.
        TierFullError: A new file does not fit beside the old one.
    """
    report = Report(directory=str(directory))
    readers = Readers.of(threads, progress)
    began = time.perf_counter()
    with alone(directory):
        _look_around(directory, report)
        problems = structure(directory / DATA) if holds_data(directory) else [f"there is no {DATA}"]
        report.findings += [Finding("structure", problem) for problem in problems]
        held = None if problems else _read(directory, report)
        removable = [] if held is None else _examine(held, report, readers)
        if repair and report.findings:
            _repair(directory, held, removable, report, readers)
        elif held is not None:
            report.kept_blocks = len(held.listing)
        report.file_bytes = allocated(directory / DATA)
    report.seconds = time.perf_counter() - began
    return report


def _read(directory: Path, report: Report) -> Held | None:
    """The store, if what its pages hold can be understood as well."""
    try:
        return read(directory)
    except TierUnavailableError as exc:
        report.findings.append(Finding("structure", exc.reason))
        return None


def _look_around(directory: Path, report: Report) -> None:
    if (directory / DAMAGED).exists():
        size = allocated(directory / DAMAGED)
        report.findings.append(Finding("set aside", f"{DAMAGED}, {size} bytes; a repair brings back what is whole"))
    if (directory / REBUILT).exists():
        report.findings.append(Finding("left over", f"{REBUILT}; a repair removes it"))


def _examine(held: Held, report: Report, readers: Readers) -> list[bytes]:
    """Compare books, entries and records; returns keys of what must leave the index."""
    listing, geometry = held.listing, held.geometry
    report.blocks, report.slots = len(listing), held.num_slots
    report.accounted_bytes = (held.books.blocks if held.books else 0) * geometry.block_bytes
    found = report.findings
    found += [
        Finding("slab", f"slab {n} is not where it should be, nor elsewhere in the file")
        for n, start in enumerate(held.starts)
        if start is None
    ]
    entries = len(listing) + len(held.damaged)
    blocks = None if held.books is None else held.books.blocks
    if blocks != entries:
        books = "cannot be read" if blocks is None else f"have {blocks} blocks"
        found.append(Finding("books", f"the books {books}, the index has {entries} entries"))
    found += [Finding("entry", "too short, or under a key that is no name", key.hex()) for key in held.damaged]

    bad = _slots(held, report)
    rows = np.arange(len(listing))
    records = wanted(held, rows)
    report.records_read, report.bytes_read = len(records), len(records) * geometry.record_bytes
    wrong = prove(held.data, geometry, records, readers)
    found += [Finding("record", reason, listing.name(row).hex()) for row, reason in sorted(wrong.items())]
    bad[list(wrong)] = True

    forest = Forest(listing, ~bad)
    orphans = forest.by_depth[(~forest.whole & ~bad)[forest.by_depth]]  # nearest to the damage first
    found += [Finding("orphan", _why(forest, bad, row), listing.name(row).hex()) for row in orphans.tolist()]
    return [*held.damaged, *map(listing.name, rows[~forest.whole].tolist())]


def _slots(held: Held, report: Report) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Note entries that name no slot, or one that others name; returns the rows of the former."""
    listing = held.listing
    placeless = np.array([held.place(row) is None for row in range(len(listing))], np.bool_)
    report.findings += [
        Finding("no slot", f"slot {held.slots[row]} of {held.num_slots} cannot be found", listing.name(row).hex())
        for row in np.flatnonzero(placeless).tolist()
    ]
    counts = Counter(held.slots.tolist())
    report.findings += [
        Finding("slot twice", f"slot {slot} is named by {counts[slot]} entries", listing.name(row).hex())
        for row, slot in enumerate(held.slots.tolist())
        if counts[slot] > 1
    ]
    return placeless


def _why(forest: Forest, bad: np.ndarray[Any, np.dtype[np.bool_]], row: int) -> str:
    parent = int(forest.parents[row])
    name = forest.listing.label(row).parent.hex()[:12]
    if parent < 0:
        return f"the block before it, {name}, is not held"
    if bad[parent]:
        return f"the block before it, {name}, is damaged"
    if not forest.whole[parent]:
        return f"the block before it, {name}, cannot be reached itself"
    return f"its depth is {forest.listing.depths[row]}, that of the block before it {forest.listing.depths[parent]}"


def _repair(directory: Path, held: Held | None, removable: list[bytes], report: Report, readers: Readers) -> None:
    clear(directory)
    sound = held is not None and held.books is not None and None not in held.starts
    if held is not None and sound and not (directory / DAMAGED).exists():
        report.kept_blocks = len(held.listing) + len(held.damaged) - len(removable)
        amend(directory, removable, report.kept_blocks)
        report.repaired = True
    else:
        done = salvage(directory, held, readers)
        report.repaired = done is not None
        report.kept_blocks = done.blocks if done is not None else report.blocks
    report.removed_blocks = max(0, report.blocks - report.kept_blocks)
