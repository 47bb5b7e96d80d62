"""The directory of a disk tier: whose it is, who has it open, and what is moved out of the way.

    directory       flock EX     while somebody opens it: openers take turns
    data.mdb        flock SH     as long as a process has it open; EX can be had only by one who is alone
    kvtier.lock     a marker     this directory is kvtier's, and which lock.mdb belongs to data.mdb

The locks lie on what is to be protected, so they cannot be lost without it: who removes
``kvtier.lock`` or ``lock.mdb`` under a running process keeps others from joining, and breaks nothing.
The kernel gives a lock back when its holder dies, however it dies.

A directory is its owner's alone. Symbolic links and other users' files are refused, because
whoever can write a file here can forge a block; and so are file systems that keep memory maps and
locks apart from host to host, because LMDB and these locks hold on one host only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kvtier.errors import ConfigError, KVTierError, TierUnavailableError

log = logging.getLogger("kvtier")

DATA, LOCK, MARKER, DAMAGED = "data.mdb", "lock.mdb", "kvtier.lock", "data.mdb.damaged"
_OURS = {DATA, LOCK, MARKER, DAMAGED}

#: File systems whose maps and locks are not shared between hosts as those of one host are.
NETWORK_FILE_SYSTEMS = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs"),
    *("gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs"),
}

#: What is not the directory's fault, and may be over by the next time.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EIO}

#: Longest to wait for another process that is opening the same directory; it may be verifying a large file.
_PATIENCE_S = 120.0


class Directory:
    """A directory that may hold an environment; made if absent.

    Args:
        name: The tier's name, for errors.
        path: The directory.

    Raises:
        ConfigError: Not a directory, not this user's, not writable, not kvtier's, or on a network file system.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path.expanduser()
        self._held: int | None = None
        self._make()
        self._refuse_network()
        found = self._refuse_strangers()
        if found - _OURS and DATA not in found:
            stranger = min(found - _OURS)
            raise ConfigError(f"{name}: {self.path} is not kvtier's: it holds {stranger!r}; choose an empty directory")

    @property
    def data(self) -> Path:
        """The data file."""
        return self.path / DATA

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Take turns with others that open this directory."""
        turn = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            deadline = time.monotonic() + _PATIENCE_S
            while not _locked(turn, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"{self.name}: {self.path} has been opened by another process for {_PATIENCE_S} s"
                    )
                time.sleep(0.01)
            yield
            fcntl.flock(turn, fcntl.LOCK_UN)  # explicitly, because a forked child has the same lock
        finally:
            os.close(turn)

    def enter(self) -> bool:
        """Have the data file open from now on, together with others; True if there are none. Only while ``opening``.

        Raises:
            ConfigError: The data file cannot be opened, or somebody has it for himself.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            held = os.open(self.data, flags, 0o600)
        except OSError as exc:
            if exc.errno in _PASSING:
                raise
            raise ConfigError(f"{self.name}: {self.data} cannot be opened: {exc.strerror}; who made it?") from exc
        alone = _locked(held, fcntl.LOCK_EX)
        if not _locked(held, fcntl.LOCK_SH):
            os.close(held)
            raise ConfigError(f"{self.name}: {self.path} is being repaired or compacted; try again when that is done")
        self._held = held
        return alone

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else has the data file open, nor is about to; and nobody will before this ends."""
        try:
            turn = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # removed or moved away: nobody finds it any more, and nobody can tell
            yield False
            return
        try:
            is_alone = _locked(turn, fcntl.LOCK_EX) and self.exclusive()
            yield is_alone
            if is_alone and self._held is not None:
                _locked(self._held, fcntl.LOCK_SH)
            fcntl.flock(turn, fcntl.LOCK_UN)  # explicitly, because a forked child has the same lock
        finally:
            os.close(turn)

    def exclusive(self) -> bool:
        """Keep others from joining from now on; False if some have. Only while ``opening``, after ``enter``."""
        assert self._held is not None
        if _locked(self._held, fcntl.LOCK_EX):
            return True
        _locked(self._held, fcntl.LOCK_SH)  # an attempt may lose the lock that was held
        return False

    def leave(self) -> None:
        """Have the data file closed; a second call does nothing."""
        if self._held is not None:
            with suppress(OSError):
                fcntl.flock(self._held, fcntl.LOCK_UN)
            os.close(self._held)
            self._held = None

    def state(self) -> os.stat_result:
        """What the file system says of the open data file."""
        assert self._held is not None
        return os.fstat(self._held)

    def is_at_its_place(self) -> bool:
        """Whether the path still leads to the open data file."""
        try:
            return os.path.samestat(self.data.stat(), self.state())
        except OSError:
            return False

    def set_aside(self, reason: str) -> None:
        """Move a damaged data file out of the way and begin a new one; alone, while ``opening``.

        One such file is kept, the newest, for ``kvtier check --repair`` to look at.
        """
        log.error(
            "%s: %s is damaged and set aside as %s; the store starts afresh: %s", self.name, self.data, DAMAGED, reason
        )
        self.leave()
        try:
            self.data.replace(self.path / DAMAGED)
        except OSError as exc:
            raise TierUnavailableError(self.name, f"{self.data} is damaged and cannot be set aside: {exc}") from exc
        self.enter()

    def marker(self) -> dict[str, Any]:
        """What the marker says; empty if there is none that can be read."""
        try:
            found = json.loads((self.path / MARKER).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def claim(self, about: dict[str, int]) -> None:
        """Mark a new directory, on the medium, so that what a cut leaves of its first commit is known to be ours."""
        self.mark(about)
        for place in (self.path / MARKER, self.path):
            file = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(file)
            finally:
                os.close(file)

    def mark(self, about: dict[str, int]) -> None:
        """Write the marker anew: what the directory holds, and the inode of its lock file."""
        lock = self.path / LOCK
        text = json.dumps({**about, "lock": lock.stat().st_ino if lock.exists() else None}).encode()
        try:
            marker = os.open(self.path / MARKER, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(marker, "wb") as file:  # in its old place: no cut finds it empty, no full disk refuses it
                file.write(text)
                file.truncate()
        except OSError as exc:
            if exc.errno in _PASSING:
                raise
            raise ConfigError(
                f"{self.name}: {self.path / MARKER} cannot be written: {exc.strerror}; who made it?"
            ) from exc

    def check_joinable(self) -> None:
        """Refuse to join others whose lock file is gone: two lock files would let two writers in at once."""
        try:
            lock = (self.path / LOCK).stat().st_ino
        except OSError:
            lock = None
        if lock is None or self.marker().get("lock") != lock:
            raise ConfigError(
                f"{self.name}: {self.path} is in use, and its lock file or marker was removed meanwhile; "
                "close the stores that have it open first"
            )

    def renew_lock_file(self, num_bytes: int) -> None:
        """Begin the reader table anew: the old one says nothing to one who is alone.

        With all its space: LMDB writes to it through a map, and a page of it for which the disk has no
        room would end the process.

        Raises:
            OSError: There is no room, or this cannot be written.
        """
        with suppress(FileNotFoundError):
            (self.path / LOCK).unlink()
        lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(lock, 0, num_bytes)
        finally:
            os.close(lock)

    def _make(self) -> None:
        try:
            if self.path.is_symlink():
                raise ConfigError(f"{self.name}: {self.path} is a symbolic link; name the directory itself")
            if self.path.exists() and not self.path.is_dir():
                raise ConfigError(f"{self.name}: {self.path} is a file; the disk tier needs a directory")
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = self.path.stat()
        except OSError as exc:
            raise self._unusable(exc) from exc
        if state.st_uid != os.geteuid():
            raise ConfigError(
                f"{self.name}: {self.path} belongs to user {state.st_uid}, not to this one ({os.geteuid()}); "
                "choose a directory of your own"
            )
        if stat.S_IMODE(state.st_mode) & 0o022 and any(self.path.glob("*.mdb")):
            raise ConfigError(
                f"{self.name}: {self.path} can be written by other users, who can forge blocks; "
                f"empty it, or check it and run chmod 700 on it"
            )
        if stat.S_IMODE(state.st_mode) & 0o077:
            self.path.chmod(0o700)

    def _refuse_network(self) -> None:
        kind = file_system_of(self.path)
        if kind in NETWORK_FILE_SYSTEMS:
            raise ConfigError(
                f"{self.name}: {self.path} is on {kind}, a file system of several hosts, on which memory maps and "
                "locks do not hold together; choose a local disk"
            )

    def _refuse_strangers(self) -> set[str]:
        """Names in the directory; refuses links and other users' files in the places of ours."""
        try:
            found = {entry.name: entry for entry in os.scandir(self.path)}
            for name in _OURS & found.keys():
                state = found[name].stat(follow_symlinks=False)
                if stat.S_ISLNK(state.st_mode):
                    raise ConfigError(f"{self.name}: {self.path / name} is a symbolic link; who made it?")
                if not stat.S_ISREG(state.st_mode):
                    raise ConfigError(f"{self.name}: {self.path / name} cannot be opened: not a file; who made it?")
                if state.st_uid != os.geteuid():
                    raise ConfigError(f"{self.name}: {self.path / name} belongs to user {state.st_uid}; who made it?")
                if stat.S_IMODE(state.st_mode) != 0o600:
                    (self.path / name).chmod(0o600)
        except OSError as exc:
            raise self._unusable(exc) from exc
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise ConfigError(f"{self.name}: {self.path} is not writable; choose a directory this user can write to")
        return set(found)

    def _unusable(self, exc: OSError) -> KVTierError:
        if exc.errno in _PASSING:
            return TierUnavailableError(self.name, f"{self.path} cannot be used: {exc.strerror}")
        return ConfigError(
            f"{self.name}: {self.path} cannot be used: {exc.strerror}; choose a directory this user can write to"
        )


def file_system_of(path: Path) -> str:
    """Kind of the file system that a path lies on, as Linux names it; empty if that cannot be told."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        real = str(path.resolve())
    except OSError:
        return ""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].encode().decode("unicode_escape")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # the last mount on a point hides those before it
            best, kind = point, rest.split(" ")[0]
    return kind


def _locked(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
