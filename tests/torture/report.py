"""What a part of the torture is given, and what it answers.

    part.run(budget, progress) -> [Row, Row, ...]        one row for each kind of fault

A part numbers its cases with seeds, one after the other from ``budget.seed`` on, and lets the seed
alone decide what a case does. So whatever fails is named by one number, and
``--only PART --seed NUMBER --tries 1`` does it again.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

#: Failures printed for each row; the others are counted.
_SHOWN = 5


class Tries(NamedTuple):
    """How often a part tries, by mode."""

    long: int
    quick: int
    ci: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a part may do, and where."""

    directory: Path
    """Empty, on the disk to be tortured; the part makes what it needs below it."""

    mode: str = "quick"
    """A field of ``Tries``."""

    seed: int = 0
    """Of the first case."""

    tries: int | None = None
    """Overrides what the mode says."""

    lanes: int = 2
    """Cases at a time."""

    keep: bool = False
    """Leave the directories of failed cases where they are."""

    def pick(self, tries: Tries) -> int:
        """How often to try."""
        return getattr(tries, self.mode) if self.tries is None else self.tries

    def seeds(self, tries: Tries) -> range:
        """The seed of each case."""
        return range(self.seed, self.seed + self.pick(tries))

    def place(self, seed: int) -> Path:
        """A case's own directory, which it makes; it is not there yet."""
        return self.directory / f"case-{seed}"

    def leave(self, seed: int, *, good: bool) -> None:
        """A case has ended: its directory goes, unless it is to be looked at."""
        if good or not self.keep:
            shutil.rmtree(self.place(seed), ignore_errors=True)


@dataclass(slots=True, kw_only=True)
class Row:
    """What became of one kind of fault."""

    fault: str
    """``part: what was done``."""

    unit: str
    """What is counted: kills, images, damages, threads, blocks."""

    tried: int = 0
    survived: int = 0
    """Of those tried: nothing died, hung, raised what it should not, or failed to open."""

    wrong_bytes: int = 0
    """Bytes delivered that are not those saved."""

    lost_flushed: int = 0
    """Blocks that were promised to be durable, were not touched by the fault, and are gone."""

    leaks: int = 0
    """Descriptors, threads, files or leases left behind."""

    seconds: float = 0.0
    """Of work, summed over lanes."""

    notes: str = ""
    failures: list[str] = field(default_factory=list)
    """For each failure what happened and the seed that does it again."""

    figures: dict[str, Any] = field(default_factory=dict)
    """Measurements behind the counts, for the JSON."""

    @property
    def is_good(self) -> bool:
        """Nothing wrong, nothing lost, everything survived."""
        return self.survived == self.tried and not self.wrong_bytes and not self.lost_flushed


class Progress:
    """Counts on standard error: often where somebody watches, else every ten seconds."""

    def __init__(self, part: str, stream: TextIO = sys.stderr) -> None:
        self._part = part
        self._stream = stream
        self._period_s = 0.2 if stream.isatty() else 10.0
        self._next = time.monotonic() + self._period_s

    def step(self, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` cases have ended."""
        now = time.monotonic()
        if now < self._next and done < total:
            return
        self._next = now + self._period_s
        begin, end = ("\r\x1b[K", "") if self._stream.isatty() and done < total else ("", "\n")
        self._stream.write(f"{begin}{self._part:10} {done:6,} of {total:,}  {note}{end}")
        self._stream.flush()


def table(rows: Sequence[Row]) -> str:
    """The rows for people, with a line of sums."""
    heads = ("fault", "unit", "tried", "survived", "wrong bytes", "lost flushed", "leaks", "seconds", "notes")
    lines = [_cells(row) for row in [*rows, _sum(rows)]]
    widths = [max(len(line[i]) for line in [heads, *lines]) for i in range(len(heads))]
    left = {0, 1, 8}
    shown = [
        "  ".join(cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in columns).rstrip()
        for line in [heads, *lines]
        for columns in [list(enumerate(zip(line, widths, strict=True)))]
    ]
    return "\n".join([*shown[:1], "-" * min(160, sum(widths) + 16), *shown[1:]])


def failures(rows: Iterable[Row]) -> str:
    """What went wrong and how to do it again, some for each row."""
    lines = []
    for row in rows:
        lines += [f"{row.fault}: {failure}" for failure in row.failures[:_SHOWN]]
        if len(row.failures) > _SHOWN:
            lines.append(f"{row.fault}: and {len(row.failures) - _SHOWN} more")
    return "\n".join(lines)


def merge(rows: Iterable[Row]) -> list[Row]:
    """One row for each fault, in the order of their first appearance; notes that are alike are said once."""
    merged: dict[str, Row] = {}
    said: dict[str, Counter[str]] = {}
    for row in rows:
        known = merged.setdefault(row.fault, Row(fault=row.fault, unit=row.unit))
        for name in ("tried", "survived", "wrong_bytes", "lost_flushed", "leaks", "seconds"):
            setattr(known, name, getattr(known, name) + getattr(row, name))
        known.failures += row.failures
        known.figures |= row.figures
        said.setdefault(row.fault, Counter()).update([row.notes] if row.notes else [])
    for fault, row in merged.items():
        row.notes = ", ".join(note if count == 1 else f"{count} {note}" for note, count in said[fault].most_common())
    return list(merged.values())


def _cells(row: Row) -> tuple[str, ...]:
    counts = (row.tried, row.survived, row.wrong_bytes, row.lost_flushed, row.leaks)
    return (row.fault, row.unit, *(f"{count:,}" for count in counts), f"{row.seconds:.1f}", row.notes)


def _sum(rows: Sequence[Row]) -> Row:
    total = Row(fault="all", unit="")
    for row in rows:
        for name in ("tried", "survived", "wrong_bytes", "lost_flushed", "leaks", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(row, name))
    return total
