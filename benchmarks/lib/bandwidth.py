"""Bytes per second of every tier and of other stores, for one size and number of blocks at a time.

    get  device, host        from a pool into ready buffers             beside memcpy, or a copy to the GPU
    get  disk_warm           from LMDB's map, verified                  beside memcpy
    get  disk_cold           around the page cache, verified            beside an O_DIRECT read
    put  device, host        into a pool that is full                   beside memcpy
    put  disk_cold           around the page cache, durable             beside an O_DIRECT write
    put  disk_warm           through the page cache, durable            beside an O_DIRECT write
    promote, demote          between neighbours through a ready buffer  beside the slower limit

Copies within memory are timed the second time, like memcpy itself, which touches its buffers first.
A put replaces: the batch is deleted and stored again, so that every store works at its capacity, in
place or by whatever it does instead, and the time counts for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from kvtier.calibrate.limits import device_copy_once, memcpy_once, pinned_copy_once
from kvtier.calibrate.rawdisk import DiskSetting, RawDisk
from kvtier.calibrate.residency import drop, make_resident, resident_bytes
from kvtier.calibrate.stats import interleave, summary
from kvtier.errors import NotColdError
from kvtier.testing.blocks import chain
from kvtier.tiers.base import Tier
from kvtier.tiers.disk import LMDBTier
from kvtier.tiers.memory import MemoryTier
from kvtier.tiers.pages import page_aligned

from .rivals import Rival

GRID = tuple(DiskSetting(threads, kib << 10) for threads in (1, 4, 16) for kib in (256, 1024))
COLD_BYTES, COLD_SHARE = 256 << 10, 0.01
"""Bytes of a store's files that may be in memory before a cold read, or their share of the batch: what opening it
looks at, which grows with what the kernel reads ahead."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing timed. ``prepare`` is not."""

    store: str
    op: str
    path: str
    limit: str
    run: Callable[[], None]
    prepare: Callable[[], None] = lambda: None
    durable: bool | None = None


class KvtierDisk(Rival):
    """kvtier's disk tier, behind the same few calls."""

    name = "kvtier"
    page_cache = "bypass"

    def open(self) -> None:
        """See ``Rival``."""
        self.tier = LMDBTier(
            "disk",
            self.directory,
            capacity_bytes=self.capacity_blocks * self.block_bytes,
            block_bytes=self.block_bytes,
            page_cache=self.page_cache,  # type: ignore[arg-type]
        )

    def close(self) -> None:
        """See ``Rival``."""
        self.tier.close()

    def chill(self) -> None:
        """See ``Rival``. Once more when it is open: the kernel reads ahead of what opening looks at."""
        super().chill()
        for path in self.files():
            drop(path)

    def put(self, names: Sequence[str], blocks: Sequence[torch.Tensor]) -> None:
        """See ``Rival``."""
        part = named(tuple(names))
        self.tier.write(part.keys, blocks, part.labels)

    def get(self, names: Sequence[str], out: Sequence[torch.Tensor]) -> None:
        """See ``Rival``."""
        part = named(tuple(names))
        if self.tier.read(part.keys, out, part.labels) < len(out):
            raise AssertionError("kvtier: a block that was put is not held")

    def delete(self, names: Sequence[str]) -> None:
        """See ``Rival``."""
        self.tier.delete(named(tuple(names)).keys)


class KvtierDiskCached(KvtierDisk):
    """The same, through the page cache."""

    page_cache = "keep"


@lru_cache(maxsize=64)
def named(names: tuple[str, ...]) -> Any:
    """Names and labels of blocks, made before they are needed."""
    return chain(*map(int, names))


@dataclass
class Cell:
    """One block size and batch length: its stores, filled, and their cases. Use as a context manager."""

    directory: Path
    block_bytes: int
    batch: int
    device: torch.device
    rivals: Sequence[type[Rival]]
    threads: int
    """Of the memcpy that is the limit."""

    stores: list[Rival] = field(default_factory=list)
    tiers: list[Tier] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.names = [str(number) for number in range(self.batch)]
        self.blocks, self.out = self._buffers(seed=0), self._buffers(seed=None)
        on_gpu = self.device.type == "cuda"
        # One buffer each: blocks that lie at equal distances are copied by one call.
        self.on_device = list(torch.stack(self.blocks).to(self.device)) if on_gpu else self.blocks
        self.device_out = list(torch.stack(self.out).to(self.device)) if on_gpu else self.out
        size = self.batch * self.block_bytes
        part = named(tuple(self.names))
        for name, where, pinned in (("device", self.device, False), ("host", torch.device("cpu"), on_gpu)):
            tier = MemoryTier(name, capacity_bytes=size, block_bytes=self.block_bytes, device=where, pinned=pinned)
            tier.write(part.keys, self.blocks, part.labels)
            self.tiers.append(tier)
        kinds: list[type[Rival]] = [KvtierDisk, KvtierDiskCached, *self.rivals]
        for kind in kinds:
            store = kind(self.directory / kind.__name__, self.block_bytes, self.batch)
            self.stores.append(store)
            store.put(self.names, self.blocks)
        self.raw = RawDisk(self.directory, size).__enter__()
        self.raw.calibrate(GRID, runs=2)
        self.read_setting, self.write_setting = self.raw.setting, self._best_write()
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()
        for store in self.stores:
            store.__exit__()
        for tier in self.tiers:
            tier.close()

    def measure(self, runs: int) -> list[dict[str, Any]]:
        """Every case and every limit, in rounds; a row for each case."""
        cases = self._cases()
        size = self.batch * self.block_bytes
        cpu: dict[int, list[float]] = {i: [] for i in range(len(cases))}
        timed = [(str(i), partial(self._time, case, cpu[i])) for i, case in enumerate(cases)]
        limits = sorted({case.limit for case in cases})
        times = interleave([*timed, *((limit, partial(self._limit, limit)) for limit in limits)], runs)
        rows = []
        for i, case in enumerate(cases):
            seconds, limit = times[str(i)], times[case.limit]
            rows.append(
                {
                    "store": case.store,
                    "op": case.op,
                    "path": case.path,
                    "block_bytes": self.block_bytes,
                    "batch": self.batch,
                    "gib_per_s": size / float(np.median(seconds)) / 2**30,
                    "limit": case.limit,
                    "limit_gib_per_s": float(np.median(limit)) / 2**30,
                    "ratio_to_limit": float(
                        np.median([size / s / most for s, most in zip(seconds, limit, strict=True)])
                    ),
                    "p50_ms": summary(seconds)["p50_ms"],
                    "p99_ms": summary(seconds)["p99_ms"],
                    "cpu_s_per_gib": float(np.median(cpu[i])) / (size / 2**30),
                    "durable": case.durable,
                    "runs": runs,
                }
            )
        return rows

    def _cases(self) -> list[Case]:
        part = named(tuple(self.names))
        cases = []
        fast, host = self.tiers
        for tier in (fast, host):
            get, put = partial(self._read, tier, self.device_out), partial(_replace, tier, part, self.on_device)
            cases += [
                Case("kvtier", "get", tier.name, self._copy_limit(tier.name, "h2d"), get, get),
                Case("kvtier", "put", tier.name, self._copy_limit(tier.name, "d2h"), put, put),
            ]
        up, down = partial(self._move, host, fast), partial(self._move, fast, host)
        disk = self.stores[0]
        assert isinstance(disk, KvtierDisk)
        cases += [
            Case(
                "kvtier", "promote", "disk_cold>host", "disk read", partial(self._move, disk, host), self._chill(disk)
            ),
            Case("kvtier", "promote", "host>device", self._copy_limit("host", "h2d"), up, up),
            Case("kvtier", "demote", "device>host", self._copy_limit("host", "d2h"), down, down),
            Case("kvtier", "demote", "host>disk_cold", "disk write", partial(self._move, host, disk), durable=True),
        ]
        for store in self.stores:
            name, cached = store.name, isinstance(store, KvtierDiskCached)
            put = partial(_renew, store, self.names, self.blocks)
            direct = store.name in {"kvtier", "file_direct"} and not cached
            cases.append(
                Case(name, "put", "disk_cold" if direct else "disk_warm", "disk write", put, durable=store.durable)
            )
            if not cached:
                get = partial(store.get, self.names, self.out)
                cases += [
                    Case(name, "get", "disk_warm", "memcpy", get, self._warm(store)),
                    Case(name, "get", "disk_cold", "disk read", get, self._chill(store)),
                ]
        return cases

    def _time(self, case: Case, cpu: list[float]) -> float:
        case.prepare()
        self._settle()
        cpu_began, began = time.process_time(), time.perf_counter()
        case.run()
        self._settle()
        seconds = time.perf_counter() - began
        cpu.append(time.process_time() - cpu_began)
        return seconds

    def _limit(self, limit: str) -> float:
        size = self.batch * self.block_bytes
        if limit == "disk read":
            return self.raw.read_once(self.read_setting)
        if limit == "disk write":
            return self.raw.write_once(self.write_setting)
        if limit == "device copy":
            return device_copy_once(size)
        if limit in {"pinned h2d", "pinned d2h"}:
            return pinned_copy_once(size, "h2d" if limit.endswith("h2d") else "d2h")
        return memcpy_once(size, self.threads)

    def _copy_limit(self, path: str, direction: str) -> str:
        if self.device.type != "cuda":
            return "memcpy"
        return "device copy" if path == "device" else f"pinned {direction}"

    def _best_write(self) -> DiskSetting:
        rates = {setting: [self.raw.write_once(setting) for _ in range(2)] for setting in GRID}
        return max(rates, key=lambda setting: float(np.median(rates[setting])))

    def _read(self, tier: Tier, out: Sequence[torch.Tensor]) -> None:
        part = named(tuple(self.names))
        if tier.read(part.keys, out, part.labels) < len(out):
            raise AssertionError(f"{tier.name}: a block that was put is not held")

    def _move(self, source: Tier | KvtierDisk, target: Tier | KvtierDisk) -> None:
        """What the store's mover does: read into its buffer, write from there."""
        tiers = [side.tier if isinstance(side, KvtierDisk) else side for side in (source, target)]
        self._read(tiers[0], self.out)
        _replace(tiers[1], named(tuple(self.names)), self.out)

    def _chill(self, store: Rival) -> Callable[[], None]:
        def prepare() -> None:
            store.chill()
            most = max(COLD_BYTES, COLD_SHARE * self.batch * self.block_bytes)
            if (resident := sum(map(resident_bytes, store.files()))) > most:
                raise NotColdError(f"{store.name}: {resident:.0f} bytes of its files are still in memory")

        return prepare

    def _warm(self, store: Rival) -> Callable[[], None]:
        def prepare() -> None:
            for path in store.files():
                make_resident(path)
            store.get(self.names, self.out)  # the first touch in this process maps the pages

        return prepare

    def _buffers(self, seed: int | None) -> list[torch.Tensor]:
        """Blocks in host memory, page-locked beside a GPU as the store's own buffers are."""
        size = self.batch * self.block_bytes
        if self.device.type == "cuda":
            memory = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        else:
            memory = torch.from_numpy(page_aligned(size))
        memory.numpy()[:] = 1 if seed is None else np.random.default_rng(seed).integers(0, 256, size, np.uint8)
        return list(memory.view(self.batch, self.block_bytes))

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _replace(tier: Tier, part: Any, blocks: Sequence[torch.Tensor]) -> None:
    tier.delete(part.keys)
    tier.write(part.keys, blocks, part.labels)


def _renew(store: Rival, names: Sequence[str], blocks: Sequence[torch.Tensor]) -> None:
    store.delete(names)
    store.put(names, blocks)
