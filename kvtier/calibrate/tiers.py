"""Reads and writes of tiers beside the raw limit of what they are made of, in the same rounds.

    read     a batch into ready buffers                    beside  memcpy, a copy to the GPU, an O_DIRECT read
    write    the batch deleted and stored again, durable   beside  the same, or an O_DIRECT write with a sync
    latency  a read of one block, less its bytes at the speed of a batch

Write means replace, because a tier of a store that has run for a while is full. Memory is read once before it
is timed, as the memcpy beside it touches its buffers first. A disk is cold at every read: closed, its files dropped
from the page cache, what is still in memory counted, and the measurement refused if that is more than opening needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import torch

from kvtier.calibrate.bands import measured, median_band
from kvtier.calibrate.prefill import Clock
from kvtier.calibrate.residency import drop, resident_bytes
from kvtier.calibrate.stats import interleave
from kvtier.econ.figures import Figure
from kvtier.econ.profile import Band
from kvtier.errors import MeasureError, NotColdError
from kvtier.hashing import Chain
from kvtier.tiers.base import Tier
from kvtier.tiers.disk import LMDBTier

COLD_BYTES = 256 << 10
"""Bytes of a tier's files that may be in memory before a cold read: what opening it looks at, ..."""

COLD_SHARE = 0.05
"""... which grows with the number of blocks; so that, or this share of what the tier holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One tier, and the raw limit of what it is made of in bytes/s."""

    name: str
    tier: Callable[[], Tier]
    """The tier as it is now: a disk is opened anew before every read."""

    prepare: Callable[[], None]
    """Brings it into the state in which a read is to be timed."""

    blocks: Sequence[torch.Tensor]
    out: Sequence[torch.Tensor]
    raw_read: Callable[[], float]
    raw_write: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSamples:
    """What was measured of one tier: seconds of a batch and of one block, raw limits in bytes/s, an entry a round."""

    batch_bytes: int
    block_bytes: int
    read_s: list[float]
    write_s: list[float]
    small_s: list[float]
    raw_read: list[float]
    raw_write: list[float]

    def speeds(self, seconds: Sequence[float]) -> Band:
        """Bytes/s of batches."""
        return median_band([self.batch_bytes / s for s in seconds])

    @property
    def read_share(self) -> Band:
        """Of the raw limit of the same round."""
        return self._share(self.read_s, self.raw_read)

    @property
    def write_share(self) -> Band:
        """Of the raw limit of the same round."""
        return self._share(self.write_s, self.raw_write)

    def _share(self, seconds: Sequence[float], limits: Sequence[float]) -> Band:
        return median_band([self.batch_bytes / s / limit for s, limit in zip(seconds, limits, strict=True)])

    @property
    def latency_s(self) -> Band:
        """Of a read before its first byte, so that latency and speed together give the time of one block."""
        moving_s = self.block_bytes / self.speeds(self.read_s).mid
        return Band(*(max(0.0, s - moving_s) for s in median_band(self.small_s)))

    def figures(self, source: str) -> dict[str, Figure]:
        """The measured fields of a ``TierProfile``."""
        small = f"{source}; one block of {self.block_bytes:,} bytes less its bytes at that speed"
        return {
            "read_bytes_per_s": measured(self.speeds(self.read_s), "bytes/s", source),
            "write_bytes_per_s": measured(self.speeds(self.write_s), "bytes/s", source),
            "latency_s": measured(self.latency_s, "s", small),
            "raw_read_bytes_per_s": measured(median_band(self.raw_read), "bytes/s", f"{source}; no store in front"),
            "raw_write_bytes_per_s": measured(median_band(self.raw_write), "bytes/s", f"{source}; no store in front"),
        }


def measure_tiers(
    benches: Sequence[Bench],
    part: Chain,
    *,
    runs: int,
    settle: Callable[[], None] = lambda: None,
    clock: Clock = time.perf_counter,
    progress: bool = True,
) -> Mapping[str, TierSamples]:
    """Every case of every tier, in rounds.

    Args:
        benches: The tiers; each holds all blocks of ``part``.
        part: Names of the blocks.
        runs: Rounds.
        settle: Returns when the device has nothing left to do.
        clock: In seconds.
        progress: See ``stats.interleave``.

    Raises:
        MeasureError: A tier lost a block, or a file that should be cold is in memory.
    """
    cases: list[tuple[str, Callable[[], float]]] = []
    for bench in benches:
        for what, count in (("read", len(part)), ("small", 1)):
            cases.append((f"{bench.name} {what}", partial(_read, bench, part.part(0, count), settle, clock)))
        cases.append((f"{bench.name} write", partial(_write, bench, part, settle, clock)))
        cases += [(f"{bench.name} raw read", bench.raw_read), (f"{bench.name} raw write", bench.raw_write)]
    times = interleave(cases, runs, progress=progress)
    block_bytes = benches[0].blocks[0].numel()
    return {
        bench.name: TierSamples(
            batch_bytes=len(part) * block_bytes,
            block_bytes=block_bytes,
            read_s=times[f"{bench.name} read"],
            write_s=times[f"{bench.name} write"],
            small_s=times[f"{bench.name} small"],
            raw_read=times[f"{bench.name} raw read"],
            raw_write=times[f"{bench.name} raw write"],
        )
        for bench in benches
    }


def _read(bench: Bench, part: Chain, settle: Callable[[], None], clock: Clock) -> float:
    bench.prepare()
    settle()
    began = clock()
    count = bench.tier().read(part.keys, bench.out[: len(part)], part.labels)
    settle()
    seconds = clock() - began
    if count < len(part):
        raise MeasureError(f"{bench.name}: {count} of {len(part)} blocks that were written can be read")
    return seconds


def _write(bench: Bench, part: Chain, settle: Callable[[], None], clock: Clock) -> float:
    tier = bench.tier()
    settle()
    began = clock()
    tier.delete(part.keys)
    tier.write(part.keys, bench.blocks, part.labels)
    settle()
    return clock() - began


@dataclass(slots=True)
class ColdDisk:
    """A disk tier that can be made cold. Use as a context manager."""

    directory: Path
    capacity_bytes: int
    block_bytes: int
    block_tokens: int
    tier: LMDBTier = field(init=False)

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self.tier.close()

    def chill(self) -> None:
        """Close it, drop its files from the page cache, open it, and see that they are not in memory.

        Raises:
            NotColdError: They are.
        """
        self.tier.close()
        self._drop()
        self._open()
        self._drop()  # the kernel reads ahead of what opening looks at
        most = max(COLD_BYTES, COLD_SHARE * self.tier.used_bytes)
        if (resident := sum(map(resident_bytes, self._files()))) > most:
            raise NotColdError(
                f"{resident:.0f} bytes of the tier's files are still in memory, at most {most:.0f} may be; is the "
                "directory on tmpfs? Give one on a disk"
            )

    def _open(self) -> None:
        self.tier = LMDBTier(
            "disk",
            self.directory,
            capacity_bytes=self.capacity_bytes,
            block_bytes=self.block_bytes,
            block_tokens=self.block_tokens,
        )

    def _drop(self) -> None:
        for path in self._files():
            drop(path)

    def _files(self) -> list[Path]:
        return [path for path in self.directory.rglob("*") if path.is_file()]
