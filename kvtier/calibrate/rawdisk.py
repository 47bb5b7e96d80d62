"""What the disk under a store does with no store in the way.

    scratch file on the store's disk <--O_DIRECT, threads x block--> touched memory

O_DIRECT passes the page cache by, so a read is a read. The memory is touched beforehand and
as large as the file: the first touch of a page costs more than filling it, and a small buffer
used again would stay in the processor's cache, which a store's blocks do not. The best of a
small grid of settings counts, because a ceiling found with a bad one flatters the store.

Rates are bytes per second, 1e9 to the GB. Source: open(2) on O_DIRECT and its alignment.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from kvtier.calibrate.threads import timed_threads

_ALIGN_BYTES = 4096  # the most that O_DIRECT asks of offsets, lengths and addresses
_FILL_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class DiskSetting:
    """How to ask a disk: this many requests in flight, each of this size."""

    threads: int
    block_bytes: int

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.block_bytes < 1 or self.block_bytes % _ALIGN_BYTES:
            raise ValueError(f"block_bytes must be a multiple of {_ALIGN_BYTES}, got {self.block_bytes}")


#: From one small request at a time to sixteen large ones.
GRID = tuple(DiskSetting(threads, block_kib << 10) for threads in (1, 2, 4, 8, 16) for block_kib in (256, 1024, 4096))


class RawDisk:
    """A scratch file on a store's disk, read and written as fast as the disk allows.

    The file is filled with random bytes (a drive may compress), synced, and unlinked while it
    is open, so that a benchmark that is killed leaves nothing behind. Use as a context manager:
    within, it takes ``num_bytes`` of disk and as much memory. Not for two threads at a time.

    Raises:
        ValueError: ``num_bytes`` is below 1.
        OSError: On entering: no room, no right to write. A refused O_DIRECT is no error.
    """

    num_bytes: int
    """Size of the file and of each transfer: as asked for, rounded up to 4096."""

    method: str
    """How the disk is reached, "O_DIRECT" or buffered; print it beside the rates.

    tmpfs takes O_DIRECT too since Linux 6.6: its rates are those of memory.
    """

    setting: DiskSetting
    """What ``read_once`` and ``write_once`` use; ``calibrate`` replaces the default."""

    def __init__(self, directory: Path, num_bytes: int) -> None:
        if num_bytes < 1:
            raise ValueError(f"num_bytes must be at least 1, got {num_bytes}")
        self.num_bytes = -(-num_bytes // _ALIGN_BYTES) * _ALIGN_BYTES
        self.setting = DiskSetting(threads=4, block_bytes=1 << 20)
        self.method = "O_DIRECT"
        self._directory = directory
        self._fd: int | None = None
        self._memory = memoryview(b"")

    def __enter__(self) -> Self:
        self._memory = _random_memory(self.num_bytes)
        self._fd = self._create()
        try:
            self._first_write()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the disk and the memory; closing twice does nothing."""
        self._memory = memoryview(b"")
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def calibrate(self, grid: Sequence[DiskSetting] = GRID, *, runs: int = 3) -> float:
        """Try every setting ``runs`` times, in rounds, and keep the one with the best median.

        Returns:
            That median in bytes/s; the setting is then in ``.setting``.
        """
        rates: dict[DiskSetting, list[float]] = {setting: [] for setting in grid}
        for _ in range(runs):
            for setting, measured in rates.items():
                measured.append(self.read_once(setting))
        medians = {setting: statistics.median(measured) for setting, measured in rates.items()}
        self.setting = max(medians, key=medians.__getitem__)
        return medians[self.setting]

    def read_once(self, setting: DiskSetting | None = None) -> float:
        """Read the whole file into touched memory once; returns bytes/s."""
        fd = self._open_fd()
        if self.method != "O_DIRECT":
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return self._transfer(os.preadv, setting or self.setting)

    def write_once(self, setting: DiskSetting | None = None) -> float:
        """Overwrite the whole file from front to back once, and fdatasync it; returns bytes/s.

        Its blocks are allocated already: a store whose file grows has more to do than this.
        """
        fd = self._open_fd()
        return self._transfer(os.pwritev, setting or self.setting, lambda: os.fdatasync(fd))

    def _transfer(
        self,
        call: Callable[[int, list[memoryview], int], int],
        setting: DiskSetting,
        finish: Callable[[], None] | None = None,
    ) -> float:
        """Move the file through ``setting.threads`` threads that share one list of offsets."""
        fd, memory, block_bytes = self._open_fd(), self._memory, setting.block_bytes
        offsets = deque(range(0, self.num_bytes, block_bytes))

        def work() -> None:
            while (offset := _take(offsets)) is not None:
                part = memory[offset : offset + block_bytes]
                moved = call(fd, [part], offset)
                if moved != len(part):
                    raise OSError(errno.EIO, f"moved {moved} of {len(part)} bytes at {offset}")

        return self.num_bytes / timed_threads([work] * setting.threads, finish)

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError("RawDisk is closed; use it inside its with block")
        return self._fd

    def _create(self) -> int:
        """Open a new file without a name, with O_DIRECT if the file system takes it."""
        fd, path = tempfile.mkstemp(prefix=".kvtier-raw-", dir=self._directory)
        try:
            direct = os.open(path, os.O_RDWR | os.O_DIRECT)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                self._fall_back()
                return fd
            os.close(fd)
            raise
        finally:
            Path(path).unlink()
        os.close(fd)
        return direct

    def _first_write(self) -> None:
        """Give the file its bytes; some file systems refuse O_DIRECT here and not in open."""
        try:
            self.write_once()
        except OSError as exc:
            if exc.errno != errno.EINVAL or self.method != "O_DIRECT":
                raise
            fd = self._open_fd()
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT)
            self._fall_back()
            self.write_once()

    def _fall_back(self) -> None:
        self.method = "buffered (O_DIRECT refused), page cache dropped before each read"


def odirect_read(directory: Path, num_bytes: int, *, block_bytes: int, threads: int, runs: int) -> list[float]:
    """Bytes/s of ``runs`` raw reads of ``num_bytes`` with one setting; see ``RawDisk``."""
    with RawDisk(directory, num_bytes) as raw:
        return [raw.read_once(DiskSetting(threads, block_bytes)) for _ in range(runs)]


def best_odirect_read(directory: Path, num_bytes: int, *, runs: int = 3) -> tuple[float, DiskSetting]:
    """The best median over ``GRID`` in bytes/s, and the setting that reached it."""
    with RawDisk(directory, num_bytes) as raw:
        return raw.calibrate(runs=runs), raw.setting


def _take(offsets: deque[int]) -> int | None:
    """The next offset, or None: asking whether one is left first would be a race."""
    try:
        return offsets.popleft()
    except IndexError:
        return None


def _random_memory(num_bytes: int) -> memoryview:
    """Page-aligned memory, every page touched, full of bytes that do not compress.

    Private, because shared memory has no huge pages, and a disk reads into those up to twice as fast.
    """
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages is slower, not wrong
        memory.madvise(mmap.MADV_HUGEPAGE)
    view, random = memoryview(memory), np.random.default_rng(0)
    for start in range(0, num_bytes, _FILL_BYTES):
        view[start : start + _FILL_BYTES] = random.bytes(min(_FILL_BYTES, num_bytes - start))
    return view
