"""Pages of a mapped file that are gone are zeros to who reads them, and not the end of the process.

    somebody cuts the file, or the drive cannot read a page of it
      -> the next look at the map -> SIGBUS -> a page of zeros is mapped in its place, the guard is ``hit``
      -> the look goes on, and finds zeros: no B-tree page to LMDB, no record to us

To ask before each look whether the file is whole leaves an instant in which it is cut, and LMDB's own looks
cannot be asked about at all. So the signal is caught: it comes from the very instruction that reads the page, in
code that copies memory or walks LMDB's tree, which holds no lock that the handler needs but Python's, and
that one it may take again. What was read meanwhile is worth nothing; whoever reads asks for ``hit`` afterwards.

The handler is put in place once for the process, when the first map is watched. Any other SIGBUS goes to the one
that was there before. Who installs another later takes its place. Linux on x86-64 and AArch64; elsewhere a page
that is gone still ends the process.

Source: what the Java virtual machine does for its mapped buffers.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import signal
import sys
import threading
from pathlib import Path

SUPPORTED = sys.platform == "linux" and sys.maxsize > 2**32 and platform.machine() in {"x86_64", "aarch64"}
"""Whether the layout of what a handler is given is known."""

_MAPS = Path("/proc/self/maps")
_MAP_FIXED = 0x10
_SA_SIGINFO = 4
_BUS_ADRERR = 2
_CODE_OFFSET, _ADDRESS_OFFSET = 8, 16
"""In ``siginfo_t``."""

_LIBC = ctypes.CDLL(None)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)

_lock = threading.Lock()


class _Action(ctypes.Structure):
    """``struct sigaction`` of the GNU C library and of musl."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class MapGuard:
    """The maps of one file. Safe to use from many threads."""

    def __init__(self) -> None:
        self.hit = False
        """A page was gone: what was read from the maps since is worth nothing."""

    def watch(self, start: int, num_bytes: int) -> None:
        """Watch a map until ``release``, which comes before it is unmapped."""
        if not SUPPORTED:
            return
        with _lock:
            _installed()
            _state.watched = (*_state.watched, (start, start + num_bytes, self))

    def watch_maps_of(self, path: Path) -> None:
        """Watch every map that this process has of a file now; none where there is no ``/proc`` to find them in."""
        if not SUPPORTED or not _MAPS.exists():
            return
        name = os.fsencode(path.resolve())
        for line in _MAPS.read_bytes().splitlines():
            addresses, _, _, _, _, *names = line.split(maxsplit=5)
            if names == [name]:
                start, stop = (int(text, 16) for text in addresses.split(b"-"))
                self.watch(start, stop - start)

    def release(self, start: int | None = None) -> None:
        """Stop watching the map that begins at ``start``, or all of them."""
        with _lock:
            _state.watched = tuple(
                each for each in _state.watched if each[2] is not self or start not in {None, each[0]}
            )


class _State:
    """Of the process."""

    watched: tuple[tuple[int, int, MapGuard], ...] = ()
    """First and last address, and whose: replaced as a whole, for the handler takes no lock."""

    action: _Action | None = None
    before = _Action()


_state = _State()


def _installed() -> None:
    """See to it that the handler is in place; the caller holds the lock."""
    if _state.action is not None:
        return
    action = _Action(handler=ctypes.cast(_HANDLER, ctypes.c_void_p), flags=_SA_SIGINFO)
    if _LIBC.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(_state.before)) == 0:
        _state.action = action


def _on_bus_error(signum: int, info: int, _context: int) -> None:
    code = ctypes.c_int.from_address(info + _CODE_OFFSET).value
    address = ctypes.c_size_t.from_address(info + _ADDRESS_OFFSET).value
    if code == _BUS_ADRERR and _mended(address):
        return
    _LIBC.sigaction(signum, ctypes.byref(_state.before), None)  # the look is taken again, and ends there
    if code <= 0:  # sent by a process: nothing would send it again
        signal.raise_signal(signum)


def _mended(address: int) -> bool:
    """Put a page of zeros where one is gone; False if the address is in no map that is watched."""
    for start, stop, guard in _state.watched:
        if start <= address < stop:
            guard.hit = True
            page = address // mmap.PAGESIZE * mmap.PAGESIZE
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
            return bool(_LIBC.mmap(page, mmap.PAGESIZE, mmap.PROT_READ, flags, -1, 0) == page)
    return False


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(_on_bus_error)
