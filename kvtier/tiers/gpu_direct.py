"""Reading records of the disk tier straight into GPU memory, by GPUDirect Storage.

    data file ====> scratch on the GPU -----------------> the caller's buffers
                          |                                     ^
                          `----> host memory: XXH3, name, ids --' only what is proven good

The drive writes into GPU memory by itself, through cuFile, which the library kvikio wraps. The proof of a record
is made by the CPU, so its bytes come back over the link; one half of the scratch is checked while the next
records arrive in the other. What that gains, and what not, is in docs/adr/0008-gpudirect-storage.md.

This way never has the last word on damage. A record that it does not deliver whole is read once more through
host memory, and that read says whether the block is damaged. If it is not, this way is at fault, and is
not taken again.

Source: cuFile as kvikio 26.10 wraps it (``CuFile.pread``, ``kvikio.defaults``, ``kvikio.cufile_driver``).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kvtier.errors import CorruptBlockError, TierUnavailableError
from kvtier.format import PAGE_BYTES, whole_pages
from kvtier.hashing import BlockHash, Label
from kvtier.tiers.batches import copy_across, wait_for
from kvtier.tiers.copying import worthwhile
from kvtier.tiers.records import Records

log = logging.getLogger("kvtier")

#: Bytes asked for at a time. Twice as much is kept on the device, and as much again in host memory.
WINDOW_BYTES = 32 << 20

#: File systems on local drives that GPUDirect Storage knows.
FILE_SYSTEMS = ("ext4", "xfs")

#: Buffers on this type of device are reached; a test on the CPU puts its own here.
_DEVICE = "cuda"

#: Where the kernel says which drive a device number is.
_BLOCK_DEVICES = Path("/sys/dev/block")

_MODE_LOCK = threading.Lock()
"""Held while kvikio's mode is another one, for the whole process."""


class GpuDirect:
    """Reads records of one data file into buffers on a GPU; made by ``open_gpu_direct``.

    Args:
        name: The tier's name, for errors and the log.
        file: The data file as a ``kvikio.CuFile``; closed with this object.
        records: The same file's records, for reads through host memory and for the proof.
    """

    def __init__(self, name: str, file: Any, records: Records) -> None:
        self._name = name
        self._file = file
        self._records = records
        self._record_bytes = records.header + records.block_bytes
        self._row_bytes = whole_pages(self._record_bytes)
        self._window = max(1, WINDOW_BYTES // self._row_bytes)
        self._rows: dict[torch.device, _Rows] = {}
        self._lock = threading.Lock()
        """Held while the rows are in use: one batch at a time."""
        self._broken = False
        self._pid = os.getpid()

    def reaches(self, out: Sequence[torch.Tensor]) -> bool:
        """Whether ``read`` takes these buffers, and this way has not failed yet."""
        return not self._broken and self.takes(out)

    def takes(self, out: Sequence[torch.Tensor]) -> bool:
        """Whether buffers are all on one GPU."""
        devices = {buffer.device for buffer in out}
        return len(devices) == 1 and devices.pop().type == _DEVICE

    def read(
        self,
        places: Sequence[int],
        keys: Sequence[BlockHash],
        out: Sequence[torch.Tensor],
        labels: Sequence[Label] | None,
    ) -> dict[int, CorruptBlockError]:
        """See ``Records.read``; for buffers that it ``takes``. Queued on the device's current stream and waited for.

        Where this way has failed before, it goes through host memory.

        Raises:
            TierUnavailableError: The device failed.
        """
        batch = _Batch(places, keys, out, labels)
        with self._lock:
            try:
                return self._read(batch, self._rows_on(out[0].device))
            except RuntimeError as exc:
                raise TierUnavailableError(self._name, f"copy failed: {exc}") from exc

    def close(self) -> None:
        """Close the file. In a forked child it does nothing: cuFile does not work there."""
        if os.getpid() == self._pid:
            with self._lock:
                self._file.close()
                self._rows.clear()

    def _read(self, batch: _Batch, rows: _Rows) -> dict[int, CorruptBlockError]:
        """Window after window; while one is looked at, the next one is on its way into the other half."""
        starts = range(0, len(batch.places), self._window)
        coming = [self._ask(batch, rows, starts[0])] if starts else []
        try:
            for number in range(len(starts)):
                if number + 1 < len(starts):
                    coming.append(self._ask(batch, rows, starts[number + 1]))
                damage = self._take(batch, rows, coming[0])
                if damage:
                    return damage
                del coming[0]
        finally:
            for window in coming:  # nobody may be writing to the rows any more
                window.wait()
        return {}

    def _ask(self, batch: _Batch, rows: _Rows, start: int) -> _Window:
        """Begin to read a window's records into the half of the scratch that is its turn."""
        stop = min(start + self._window, len(batch.places))
        row = start // self._window % 2 * self._window
        window = _Window(range(start, stop), row, self._row_bytes)
        if rows.scratch is not None and not self._broken:
            for i in window.members:
                window.ask(self._file, rows.scratch[window.row_of(i)], batch.places[i])
        return window

    def _take(self, batch: _Batch, rows: _Rows, window: _Window) -> dict[int, CorruptBlockError]:
        """Deliver what has arrived and is proven, and the rest through host memory, up to the first damage."""
        proven = self._proven(batch, rows, window)
        left = sorted(set(window.members) - set(proven))
        payloads = slice(self._records.header, self._record_bytes)
        try:
            if rows.scratch is not None:
                self._deliver(rows.scratch[:, payloads], batch, window, proven)
            where = [rows.host[window.row_of(i), payloads] for i in left]
            damage = self._records.read(*batch.picked(left, where))
            end = min(damage, default=len(left))
            self._deliver(rows.host[:, payloads], batch, window, left[:end])
            if end:
                self._give_up(f"it did not bring block {batch.keys[left[0]].hex()[:12]} whole, host memory did")
        finally:  # also after an error: rows and buffers are about to be used again
            wait_for(*(batch.out[i] for i in window.members))
        return {left[end]: damage[end]} if damage else {}

    def _deliver(self, payloads: torch.Tensor, batch: _Batch, window: _Window, numbers: Sequence[int]) -> None:
        copy_across(payloads, [window.row_of(i) for i in numbers], [batch.out[i] for i in numbers], out=True)

    def _proven(self, batch: _Batch, rows: _Rows, window: _Window) -> list[int]:
        """Numbers of the records that have arrived and are what they should be; they come back for that."""
        arrived = window.wait()
        if rows.scratch is None or not arrived:
            return []
        there = slice(window.row, window.row + len(window.members))
        rows.host[there].copy_(rows.scratch[there], non_blocking=True)
        wait_for(rows.scratch)
        good: list[int] = []

        def work(turns: Iterator[int]) -> None:
            for turn in turns:
                i = arrived[turn]
                record = rows.host[window.row_of(i), : self._record_bytes].numpy()
                try:
                    self._records.check(record, batch.keys[i], batch.label(i))
                except CorruptBlockError:
                    continue  # read again through host memory, which tells a bad record from a bad way
                good.append(i)

        striper = self._records.striper
        striper.run(len(arrived), work, worthwhile(len(arrived) * self._row_bytes, striper.threads))
        return sorted(good)

    def _rows_on(self, device: torch.device) -> _Rows:
        if device not in self._rows:
            count = 2 * self._window
            host = torch.zeros((count, self._row_bytes), dtype=torch.uint8, pin_memory=device.type == "cuda")
            try:
                memory = torch.empty(count * self._row_bytes + PAGE_BYTES, dtype=torch.uint8, device=device)
            except RuntimeError as exc:
                self._give_up(f"{device} has no room for {count} records of {self._row_bytes} bytes: {exc}")
                return _Rows(None, host)
            wait_for(memory)  # what used it before may still be queued, and a drive knows no streams
            start = -memory.data_ptr() % PAGE_BYTES
            scratch = memory[start : start + count * self._row_bytes].view(count, self._row_bytes)
            self._rows[device] = _Rows(scratch, host)
        return self._rows[device]

    def _give_up(self, why: str) -> None:
        if not self._broken:
            self._broken = True
            log.warning("%s: GPUDirect Storage is not used any more: %s", self._name, why)


class _Rows(NamedTuple):
    """Room for the records of two windows, a row each."""

    scratch: torch.Tensor | None
    """On the device, page-aligned; None if it has no room."""

    host: torch.Tensor
    """Where they are checked: page-locked, or the copy would be slow."""


class _Batch(NamedTuple):
    """What one call asks for; ``places`` may be fewer than the others."""

    places: Sequence[int]
    keys: Sequence[BlockHash]
    out: Sequence[torch.Tensor]
    labels: Sequence[Label] | None

    def label(self, number: int) -> Label | None:
        return None if self.labels is None else self.labels[number]

    def picked(self, numbers: Sequence[int], out: Sequence[torch.Tensor]) -> _Batch:
        """Some of the records, for other buffers."""
        labels = None if self.labels is None else [self.labels[i] for i in numbers]
        return _Batch([self.places[i] for i in numbers], [self.keys[i] for i in numbers], out, labels)


class _Window:
    """Records on their way into neighbouring rows of the scratch."""

    def __init__(self, members: range, row: int, row_bytes: int) -> None:
        self.members = members
        self.row = row
        self._row_bytes = row_bytes
        self._futures: dict[int, Any] = {}

    def row_of(self, number: int) -> int:
        return self.row + number - self.members.start

    def ask(self, file: Any, row: torch.Tensor, place: int) -> None:
        """Queue the read of the next record; one that cannot be queued has not arrived."""
        try:
            self._futures[self.members.start + len(self._futures)] = file.pread(
                row, size=self._row_bytes, file_offset=place
            )
        except Exception as exc:  # noqa: BLE001  (whatever the library raises, host memory is asked next)
            self._futures[self.members.start + len(self._futures)] = None
            log.debug("a read at %d was refused: %s", place, exc)

    def wait(self) -> list[int]:
        """Numbers of the records whose every byte has arrived, once no read is under way; then forgets them."""
        arrived = []
        while self._futures:
            number = next(iter(self._futures))
            future = self._futures.pop(number)  # first: a future can be asked once
            try:
                if future is not None and future.get() == self._row_bytes:
                    arrived.append(number)
            except Exception as exc:  # noqa: BLE001  (as above)
                log.debug("a read failed: %s", exc)
        return arrived


def open_gpu_direct(name: str, data: Path, records: Records, hindrance: str | None) -> GpuDirect | None:
    """The direct way into GPU memory, if this machine offers it; says in the log which way reads will go, and why.

    Args:
        name: The tier's name.
        data: Its data file.
        records: The records in it.
        hindrance: Why not to try; None tries.
    """
    file, why = (None, hindrance) if hindrance is not None else open_file(data)
    if file is None:
        log.info("%s: reads into GPU memory go by way of host memory: %s", name, why)
        return None
    log.info("%s: reads into GPU memory go straight from the file, by GPUDirect Storage: %s", name, why)
    return GpuDirect(name, file, records)


def open_file(data: Path) -> tuple[Any, str]:
    """Open a file for GPUDirect Storage. Never raises.

    Returns:
        A ``kvikio.CuFile`` and what reads it, or None and what is missing.
    """
    try:
        missing = _missing(data)
        return (None, missing) if missing is not None else _open(data)
    except Exception as exc:  # noqa: BLE001  (a driver or library that fails is one that is not there)
        return None, f"kvikio failed: {type(exc).__name__}: {exc}"


def _missing(data: Path) -> str | None:
    """The first thing GPUDirect Storage lacks here; the library is loaded only if all else is there."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    kind = file_system(data)
    if kind not in FILE_SYSTEMS:
        return f"{data} is on {kind}, GPUDirect Storage needs one of {', '.join(FILE_SYSTEMS)}"
    if not on_nvme(data):
        return f"{data} is not on an NVMe drive of its own"
    return _missing_in_kvikio()


def _missing_in_kvikio() -> str | None:
    try:
        import_module("kvikio")
    except ImportError as exc:
        return f"kvikio cannot be imported ({exc}); pip install 'kvtier[gds]'"
    if import_module("kvikio.defaults").is_compat_mode_preferred():
        return "kvikio is in compatibility mode: KVIKIO_COMPAT_MODE is set, or cuFile or /run/udev is missing"
    if not import_module("kvikio.cufile_driver").get("is_gds_available"):
        return "the driver nvidia-fs is not loaded"
    return None


def _open(data: Path) -> tuple[Any, str]:
    kvikio, defaults, driver = map(import_module, ("kvikio", "kvikio.defaults", "kvikio.cufile_driver"))
    with _MODE_LOCK, defaults.set("compat_mode", kvikio.CompatMode.OFF):  # else it opens what it cannot read directly
        file = kvikio.CuFile(data, "r")
    how = f"kvikio {kvikio.__version__}, {defaults.get('num_threads')} reads at a time (KVIKIO_NTHREADS)"
    if driver.get("allow_compat_mode"):
        how += "; cuFile may go through host memory itself, because its allow_compat_mode is set"
    return file, how


def file_system(path: Path) -> str:
    """The type of the file system a file is on, as the kernel calls it."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-", 6) + 1]
    return "an unknown file system"


def on_nvme(path: Path) -> bool:
    """Whether a file lies on an NVMe drive or a partition of one, with nothing in between."""
    device = path.stat().st_dev
    block = (_BLOCK_DEVICES / f"{os.major(device)}:{os.minor(device)}").resolve()
    return block.name.startswith("nvme")
