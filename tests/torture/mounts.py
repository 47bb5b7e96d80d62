"""Small file systems in memory, which nobody but the process that mounted them can see.

    unshare(mount namespace) -> mount tmpfs, so many bytes -> the process ends, and so does the mount

However a case ends, nothing stays mounted. It takes root, or a kernel that lets users make namespaces.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_MOUNTS, _NEW_USER = 0x0002_0000, 0x1000_0000
_READ_ONLY, _REMOUNT, _RECURSIVE, _PRIVATE = 1, 32, 16384, 1 << 18


def enter() -> None:
    """Have mounts of one's own from now on; in a process with one thread.

    Raises:
        OSError: The kernel does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    if _LIBC.unshare(_NEW_MOUNTS) != 0:
        _check(_LIBC.unshare(_NEW_MOUNTS | _NEW_USER), "unshare")
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _mount(b"none", "/", None, _RECURSIVE | _PRIVATE)


def mount(path: Path, size_bytes: int) -> None:
    """A tmpfs of a size, empty; the directory is made."""
    path.mkdir(parents=True, mode=0o700)
    _mount(b"tmpfs", path, b"tmpfs", 0, f"size={size_bytes},mode=700".encode())


def remount(path: Path, size_bytes: int, *, read_only: bool) -> None:
    """Let a tmpfs be written to, or not. Raises OSError, busy, if a file is open for writing."""
    how = _REMOUNT | (_READ_ONLY if read_only else 0)
    _mount(b"tmpfs", path, b"tmpfs", how, f"size={size_bytes},mode=700".encode())


def unmount(path: Path) -> None:
    """Take a file system away. Raises OSError, busy, if something of it is open."""
    _check(_LIBC.umount2(os.fsencode(path), 0), f"umount {path}")


def hindrance() -> str | None:
    """Why this process's children cannot mount anything; None if they can."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b""
        try:
            enter()
        except OSError as exc:
            said = str(exc).encode()
        os.write(theirs, said)
        os._exit(0)
    os.close(theirs)
    said = os.read(ours, 1 << 12)
    os.close(ours)
    os.waitpid(pid, 0)
    return said.decode() or None


def _mount(source: bytes, path: Path | str, kind: bytes | None, how: int, options: bytes | None = None) -> None:
    _check(_LIBC.mount(source, os.fsencode(path), kind, ctypes.c_ulong(how), options), f"mount {path}")


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
