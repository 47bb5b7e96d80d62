"""Ways to damage a directory, at rest or while it is open.

Each takes the ``Victim`` and a source of random numbers. What it returns is the blocks that may be lost by it,
descendants aside; None where anything may be lost, because LMDB's own pages are hit.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lmdb

from kvtier.format import PAGE_BYTES
from torture.images import Image


@dataclass(frozen=True, slots=True)
class Template:
    """A directory to be copied and damaged, and what its data file consists of."""

    path: Path
    host: int
    disk: int
    held: set[int]
    """Numbers of the blocks that it serves undamaged."""

    records: dict[int, int]
    """By page: the number of the block whose record, header or payload, lies there."""

    tree: Sequence[int]
    """The pages of LMDB's trees."""

    pages: Sequence[int]
    """Every page with something in it."""

    old: Image
    """The same file at an earlier time."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A copy of a template, to be damaged."""

    path: Path
    template: Template

    @property
    def data(self) -> Path:
        """Its data file."""
        return self.path / "data.mdb"


Touched = set[int] | None
Fault = Callable[[Victim, random.Random], Touched]


@contextmanager
def _file(victim: Victim):
    file = os.open(victim.data, os.O_RDWR)
    try:
        yield file
    finally:
        os.close(file)


def _flip(victim: Victim, rng: random.Random, pages: Sequence[int]) -> None:
    """Turn over one to eight bits of a page."""
    start = rng.choice(pages) * PAGE_BYTES
    with _file(victim) as file:
        for _ in range(rng.randint(1, 8)):
            at = start + rng.randrange(PAGE_BYTES)
            os.pwrite(file, bytes([os.pread(file, 1, at)[0] ^ 1 << rng.randrange(8)]), at)


def bits_of_a_record(victim: Victim, rng: random.Random) -> Touched:
    page = rng.choice(list(victim.template.records))
    _flip(victim, rng, [page])
    return {victim.template.records[page]}


def bytes_of_records(victim: Victim, rng: random.Random) -> Touched:
    """Random bytes or zeros over a stretch of each of one to five records."""
    touched = set()
    with _file(victim) as file:
        for page in rng.choices(list(victim.template.records), k=rng.randint(1, 5)):
            at = rng.randrange(PAGE_BYTES)
            length = rng.randint(1, PAGE_BYTES - at)
            os.pwrite(file, rng.choice([bytes(length), rng.randbytes(length)]), page * PAGE_BYTES + at)
            touched.add(victim.template.records[page])
    return touched


def bits_of_the_tree(victim: Victim, rng: random.Random) -> Touched:
    _flip(victim, rng, victim.template.tree)


def bits_of_meta_pages(victim: Victim, rng: random.Random) -> Touched:
    """Most of a meta page is unused; its first 160 bytes are not."""
    with _file(victim) as file:
        for _ in range(rng.randint(1, 8)):
            at = rng.choice([0, PAGE_BYTES]) + rng.randrange(160)
            os.pwrite(file, bytes([os.pread(file, 1, at)[0] ^ 1 << rng.randrange(8)]), at)


def bits_anywhere(victim: Victim, rng: random.Random) -> Touched:
    _flip(victim, rng, victim.template.pages)


def _overwrite(victim: Victim, rng: random.Random, data: bytes) -> None:
    with _file(victim) as file:
        os.pwrite(file, data, rng.choice(victim.template.pages) * PAGE_BYTES + rng.randrange(PAGE_BYTES))


def random_bytes(victim: Victim, rng: random.Random) -> Touched:
    _overwrite(victim, rng, rng.randbytes(int(2 ** rng.uniform(0, 15))))


def zeros(victim: Victim, rng: random.Random) -> Touched:
    """A stretch of zeros, or zeroed pages, as a drive gives for what it has lost."""
    if rng.random() < 0.5:
        _overwrite(victim, rng, bytes(int(2 ** rng.uniform(0, 15))))
        return
    with _file(victim) as file:
        for page in rng.choices(victim.template.pages, k=rng.randint(1, 5)):
            os.pwrite(file, bytes(PAGE_BYTES), page * PAGE_BYTES)


def pages_swapped(victim: Victim, rng: random.Random) -> Touched:
    """Two pages of the tree, or two of any kind, in one another's place."""
    pages = victim.template.pages
    first, second = rng.choice([(pages, pages), (victim.template.tree, victim.template.tree)])
    a, b = rng.choice(first) * PAGE_BYTES, rng.choice(second) * PAGE_BYTES
    with _file(victim) as file:
        one, other = os.pread(file, PAGE_BYTES, a), os.pread(file, PAGE_BYTES, b)
        os.pwrite(file, other, a)
        os.pwrite(file, one, b)


def stale_pages(victim: Victim, rng: random.Random) -> Touched:
    """Pages as they were earlier: writes that a drive acknowledged and lost."""
    old, now = victim.template.old, Image.of(victim.data)
    differ = old.changed(now)
    chosen = [page for page in differ if page not in victim.template.records] if rng.random() < 0.5 else differ
    with _file(victim) as file:
        for page in rng.sample(chosen, rng.randint(1, min(8, len(chosen)))):
            os.pwrite(file, old.page(page), page * PAGE_BYTES)


def cut_short(victim: Victim, rng: random.Random) -> Touched:
    """At any length, in the part that is used more often than behind it."""
    size, used = victim.data.stat().st_size, (max(victim.template.pages) + 1) * PAGE_BYTES
    os.truncate(
        victim.data,
        rng.choice([rng.randrange(used), rng.randrange(used // PAGE_BYTES) * PAGE_BYTES, rng.randrange(size)]),
    )


def garbage_file(victim: Victim, rng: random.Random) -> Touched:
    victim.data.write_bytes(rng.randbytes(int(2 ** rng.uniform(0, 18))))


def empty_file(victim: Victim, rng: random.Random) -> Touched:
    victim.data.write_bytes(b"")


def foreign_environment(victim: Victim, rng: random.Random) -> Touched:
    """Somebody else's LMDB environment."""
    shutil.rmtree(victim.path)
    victim.path.mkdir(mode=0o700)
    with lmdb.open(str(victim.path), max_dbs=2) as env, env.begin(write=True) as txn:
        own = env.open_db(b"theirs", txn=txn) if rng.random() < 0.5 else None
        for number in range(rng.randint(1, 200)):
            txn.put(f"key {number}".encode(), rng.randbytes(rng.randint(0, 500)), db=own)


def newer_format(victim: Victim, rng: random.Random) -> Touched:
    """What a later release may write; everything else in it may have another meaning."""
    with lmdb.open(str(victim.path), max_dbs=4, map_size=victim.data.stat().st_size) as env:
        meta = env.open_db(b"meta", create=False)
        with env.begin(write=True) as txn:
            txn.put(b"format", b'{"format": %d, "what": "nobody knows yet"}' % rng.randint(90, 99), db=meta)


def lock_files(victim: Victim, rng: random.Random) -> Touched:
    """One or both lost, empty or full of garbage. Nothing may be lost by that."""
    for name in rng.choice([["lock.mdb"], ["kvtier.lock"], ["lock.mdb", "kvtier.lock"]]):
        if rng.random() < 0.5:
            (victim.path / name).unlink()
        else:
            (victim.path / name).write_bytes(rng.randbytes(rng.choice([0, 5, 8192])))
    return set()


def lock_files_removed(victim: Victim, rng: random.Random) -> Touched:
    """Under an open store."""
    for name in rng.choice([["lock.mdb"], ["kvtier.lock"], ["lock.mdb", "kvtier.lock"]]):
        (victim.path / name).unlink()
    return set()


def directory_removed(victim: Victim, rng: random.Random) -> Touched:
    shutil.rmtree(victim.path)


def directory_renamed(victim: Victim, rng: random.Random) -> Touched:
    victim.path.rename(victim.path.with_name("renamed"))


#: By name of the row: the fault, and how often it is tried beside the others.
AT_REST: dict[str, tuple[Fault, int]] = {
    "bits of a record": (bits_of_a_record, 4),
    "bytes of records": (bytes_of_records, 4),
    "bits of LMDB's tree": (bits_of_the_tree, 8),
    "bits of LMDB's meta pages": (bits_of_meta_pages, 4),
    "bits anywhere": (bits_anywhere, 3),
    "random bytes": (random_bytes, 4),
    "zeros": (zeros, 4),
    "pages swapped": (pages_swapped, 3),
    "stale pages": (stale_pages, 4),
    "cut short": (cut_short, 3),
    "file of garbage": (garbage_file, 1),
    "empty file": (empty_file, 1),
    "foreign environment": (foreign_environment, 1),
    "newer format": (newer_format, 1),
    "lock files lost": (lock_files, 1),
}

WHILE_OPEN: dict[str, tuple[Fault, int]] = {
    "open: bits of a record": (bits_of_a_record, 1),
    "open: bytes of records": (bytes_of_records, 1),
    "open: lock files removed": (lock_files_removed, 1),
    "open: directory removed": (directory_removed, 1),
    "open: directory renamed": (directory_renamed, 1),
    "open: file cut short": (cut_short, 1),
}

#: Anything at opening is as good as that these are refused with, and left as they are.
REFUSED = {"foreign environment", "newer format"}

#: May be anything: opened afresh or refused, but kept.
EITHER = {"file of garbage"}
