"""The raw limits of this machine: what disk, memory and bus do with no store in the way.

A store's GB/s say little without the ceiling beside them, measured on the same disk, in the
same minute, with the same number of bytes:

    disk   -> memory          RawDisk, from rawdisk
    memory -> memory          numpy copies in slices, one per thread
    pinned memory <-> device  one CUDA copy
    device -> device          one CUDA copy

Buffers are touched beforehand: the first touch of a page costs more than copying it. A copy
counts its bytes once, not once read and once written. Rates are bytes/s, 1e9 to the GB.
"""

import os
import statistics
import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kvtier.calibrate.rawdisk import GRID, DiskSetting, RawDisk, best_odirect_read, odirect_read
from kvtier.calibrate.threads import timed_threads
from kvtier.errors import MeasureError

if TYPE_CHECKING:
    import torch

__all__ = [
    "GRID",
    "DiskSetting",
    "RawDisk",
    "best_memcpy",
    "best_odirect_read",
    "device_copy_once",
    "memcpy_once",
    "odirect_read",
    "pinned_copy_once",
]

_Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


def memcpy_once(num_bytes: int, threads: int) -> float:
    """Copy between two touched buffers of ``num_bytes``, a slice per thread; returns bytes/s.

    Making and touching the buffers takes several times as long as the copy, and is not timed.

    Raises:
        ValueError: Fewer bytes than threads, or no thread.
    """
    return _memcpy(*_touched_pair(num_bytes), threads)


def best_memcpy(num_bytes: int, *, runs: int = 5) -> tuple[float, int]:
    """The best median copy rate in bytes/s, and its number of threads.

    Tries 1, 2, 4, ... and all cores this process may use, in rounds.
    """
    source, target = _touched_pair(num_bytes)
    cores = len(os.sched_getaffinity(0))
    candidates = sorted({cores, *(1 << n for n in range(cores.bit_length()))})
    rates: dict[int, list[float]] = {threads: [] for threads in candidates}
    for _ in range(runs):
        for threads, measured in rates.items():
            measured.append(_memcpy(source, target, threads))
    medians = {threads: statistics.median(measured) for threads, measured in rates.items()}
    best = max(medians, key=medians.__getitem__)
    return medians[best], best


def pinned_copy_once(num_bytes: int, direction: Literal["h2d", "d2h"]) -> float:
    """Copy between page-locked memory and the current CUDA device; returns bytes/s.

    Raises:
        MeasureError: No CUDA device.
    """
    torch = _cuda()
    host = torch.zeros(num_bytes, dtype=torch.uint8).pin_memory()
    device = torch.zeros(num_bytes, dtype=torch.uint8, device="cuda")
    return _cuda_copy(host, device) if direction == "h2d" else _cuda_copy(device, host)


def device_copy_once(num_bytes: int) -> float:
    """Copy within the memory of the current CUDA device; returns bytes/s, counted once.

    Raises:
        MeasureError: No CUDA device.
    """
    torch = _cuda()
    source = torch.zeros(num_bytes, dtype=torch.uint8, device="cuda")
    return _cuda_copy(source, torch.zeros_like(source))


def _memcpy(source: _Bytes, target: _Bytes, threads: int) -> float:
    if not 1 <= threads <= source.size:
        raise ValueError(f"threads must be between 1 and {source.size}, got {threads}")
    edges = [source.size * i // threads for i in range(threads + 1)]
    jobs = [partial(np.copyto, target[start:end], source[start:end]) for start, end in pairwise(edges)]
    return source.size / timed_threads(jobs)


def _touched_pair(num_bytes: int) -> tuple[_Bytes, _Bytes]:
    """Two buffers with every page written: numpy's zeros would be one page, mapped often."""
    return np.full(num_bytes, 1, dtype=np.uint8), np.full(num_bytes, 2, dtype=np.uint8)


def _cuda() -> Any:
    """The torch module, once it has a CUDA device."""
    import torch  # the disk's limit must not cost an import of torch

    if not torch.cuda.is_available():
        raise MeasureError("torch finds no CUDA device on this machine")
    return torch


def _cuda_copy(source: "torch.Tensor", target: "torch.Tensor") -> float:
    """Time the second of two equal copies; the first wakes the device and its copy engine."""
    synchronize = _cuda().cuda.synchronize
    elapsed_s = 0.0
    for _ in range(2):
        synchronize()
        started = time.perf_counter()
        target.copy_(source, non_blocking=True)
        synchronize()
        elapsed_s = time.perf_counter() - started
    return source.numel() / elapsed_s
