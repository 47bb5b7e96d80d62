"""Write amplification of the disk tier: bytes that reach the medium for each byte stored, counted.

    ratio of a turn = bytes counted while a batch is deleted, stored and synced / bytes of the batch

Two counters are read, because each misses what the other sees:

    process   write_bytes of /proc/self/io       what this process sent to storage; not the file system's journal
    device    sectors of /sys/dev/block/*/stat   what the block device was asked to write, by anybody

The process gives the figure and its band, and the device raises the band's upper end, so that a busy machine
makes the band wide instead of the figure wrong. Neither sees what the drive does inside: its own
amplification is in its endurance already, since DWPD counts bytes of the host.

Source: proc(5) on io; Documentation/block/stat.rst of the kernel, whose sectors have 512 bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvtier.calibrate.bands import measured, median_band, today
from kvtier.econ.figures import Figure
from kvtier.econ.profile import Band

_SECTOR_BYTES = 512
_SECTORS_WRITTEN = 6


@dataclass(frozen=True, slots=True)
class Counter:
    """Something that counts bytes written. ``read`` gives None where it cannot be read."""

    name: str
    read: Callable[[], int | None]


def process_counter(path: Path = Path("/proc/self/io")) -> Counter:
    """What this process, all its threads together, has sent to storage."""

    def read() -> int | None:
        lines = dict(line.split(": ") for line in (_text(path) or "").splitlines() if ": " in line)
        return int(lines["write_bytes"]) if "write_bytes" in lines else None

    return Counter("this process's write_bytes", read)


def device_counter(directory: Path, devices: Path = Path("/sys/dev/block")) -> Counter:
    """What the block device under a directory was asked to write, by anybody."""
    number = directory.stat().st_dev
    path = devices / f"{os.major(number)}:{os.minor(number)}" / "stat"

    def read() -> int | None:
        fields = (_text(path) or "").split()
        return int(fields[_SECTORS_WRITTEN]) * _SECTOR_BYTES if len(fields) > _SECTORS_WRITTEN else None

    return Counter("sectors written to the block device", read)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def measure_amplification(
    turn: Callable[[], int], turns: int, process: Counter, device: Counter, source: str
) -> Figure:
    """Bytes that reach the medium for each byte stored.

    Args:
        turn: Stores a batch in the place of an older one, durable on return, and gives its bytes.
        turns: How often; the first ones fill the store.
        process: The counter that gives the figure, if it can be read.
        device: The one that gives the upper end, or the figure if the other cannot be read.
        source: How it was measured.

    Returns:
        A measured figure, or 1 as an assumed one with the reason why nothing could be counted.
    """
    found: dict[Counter, list[float]] = {process: [], device: []}
    for _ in range(turns):
        before = {counter: counter.read() for counter in found}
        stored = turn()
        for counter, ratios in found.items():
            first, last = before[counter], counter.read()
            if first is not None and last is not None:
                ratios.append((last - first) / stored)
    bands = {counter: median_band(ratios) for counter, ratios in found.items() if ratios and max(ratios) > 0}
    if not bands:
        reason = "not measured: neither /proc/self/io nor the block device's counter saw a byte of what was written"
        return Figure(value=1.0, unit="ratio", source=reason, date=today(), kind="assumed")
    counter = next(iter(bands))
    return measured(_with_upper_end(bands[counter], bands.get(device)), "ratio", _words(source, counter, bands))


def _with_upper_end(band: Band, device: Band | None) -> Band:
    return band if device is None else band._replace(hi=max(band.hi, device.mid))


def _words(source: str, counter: Counter, counters: Sequence[Counter] | dict[Counter, Band]) -> str:
    upper = [other.name for other in counters if other is not counter]
    besides = f"; upper end by {upper[0]}, which is everybody's" if upper else ""
    return f"{source}, by {counter.name}{besides}; the drive's own amplification cannot be seen"
