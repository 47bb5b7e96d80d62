"""One commit and its line in the journal, by which processes that share a directory follow each other.

    meta     "books"     blocks held, number of the last commit, blocks the directory may hold
    journal  commit  ->  who made it, and which blocks it brought or took away, with their slots

Index, books and journal change in one transaction, so whoever sees a commit sees all of it. Each process
reads the lines behind the last one it has seen and leaves out its own. Only the last
``JOURNAL_COMMITS`` are kept; who has fallen further behind reads the index again.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kvtier.format import WRITER_BYTES, Change, Entry, pack_changes, pack_entry, unpack_changes, unpack_entry
from kvtier.hashing import HASH_BYTES, BlockHash, Label

if TYPE_CHECKING:
    from kvtier.tiers.environment import Environment

BOOKS = struct.Struct("<QQQ")
JOURNAL_COMMITS = 1024
NO_SLOT = 0xFFFFFFFF
"""In the journal, of a drop: the slot stays as it is, or there was none."""

_NUMBER = struct.Struct(">Q")  # big-endian, so that LMDB keeps them in order
_SLOT = struct.Struct(">I")


class Books(NamedTuple):
    """The accounting that is written in the same transaction as the blocks."""

    blocks: int
    """Blocks held."""

    commit: int
    """Number of the last commit that changed them."""

    capacity_blocks: int
    """Blocks the directory may hold, as the first of those who have it open said."""


class Commit:
    """A write transaction under way.

    Args:
        env: Of which environment.
        txn: LMDB's transaction.
    """

    def __init__(self, env: Environment, txn: Any) -> None:
        self.txn = txn
        self.before = env.books_in(txn)
        self.number = self.before.commit + 1
        self._env = env
        self._changes: list[Change] = []
        self._capacity_blocks = self.before.capacity_blocks
        self._announced = False
        self._others_gone = 0
        """Entries removed whose keys are no names."""

    @property
    def changed(self) -> bool:
        """Whether blocks come or go with it."""
        return bool(self._changes) or self._others_gone > 0

    @property
    def id(self) -> int:
        """LMDB's number of this transaction."""
        return int(self.txn.id())

    def get(self, key: BlockHash) -> bytes | None:
        """An index entry."""
        found: bytes | None = self.txn.get(key, db=self._env.index)
        return found

    def add(self, key: BlockHash, slot: int, label: Label) -> None:
        """A block is held, by a record in a slot."""
        entry = Entry(self.number, slot, int(time.time()) & 0xFFFFFFFF, label)
        self.txn.put(key, pack_entry(entry), db=self._env.index)
        self._changes.append(Change(True, slot, key))

    def drop(self, key: BlockHash, slot: int) -> None:
        """A block is not held any more."""
        self.txn.delete(key, db=self._env.index)
        if len(key) == HASH_BYTES:  # else it was no name, and nobody has it
            self._changes.append(Change(False, slot, key))
        else:
            self._others_gone += 1

    def put(self, key: bytes, value: Any, db: Any) -> None:
        """Write along whatever else belongs to this change."""
        self.txn.put(key, value, db=db)

    def announce(self, capacity_blocks: int) -> None:
        """The directory may hold another number of blocks from now on; a commit even without a change."""
        self._capacity_blocks = capacity_blocks
        self._announced = True

    def quarantine(self, slot: int, reason: str) -> None:
        """A slot whose bytes did not verify is not written again."""
        about = {"reason": reason, "time_s": int(time.time())}
        self.txn.put(_SLOT.pack(slot), json.dumps(about).encode(), db=self._env.quarantine)

    def finish(self) -> None:
        """Write books and journal, if there is anything to say."""
        if not self.changed and not self._announced:
            return
        blocks = self.before.blocks - self._others_gone + sum(1 if each.added else -1 for each in self._changes)
        self.txn.put(b"books", BOOKS.pack(blocks, self.number, self._capacity_blocks), db=self._env.meta)
        line = pack_changes(self._env.writer, self._changes)
        self.txn.put(_NUMBER.pack(self.number), line, db=self._env.journal)
        if self.number > JOURNAL_COMMITS:
            self.txn.delete(_NUMBER.pack(self.number - JOURNAL_COMMITS), db=self._env.journal)


def lines_since(env: Environment, txn: Any, commit: int) -> Sequence[Sequence[Change]] | None:
    """What others have committed behind a commit, oldest first; None if the journal does not say any more.

    Args:
        env: The environment; its own commits are left out.
        txn: A transaction of it.
        commit: The last commit seen.
    """
    found: list[list[Change]] = []
    for number in range(commit + 1, env.books_in(txn).commit + 1):
        line = txn.get(_NUMBER.pack(number), db=env.journal)
        if line is None:
            return None
        if bytes(line[:WRITER_BYTES]) == env.writer:
            continue
        try:
            found.append(unpack_changes(bytes(line)))
        except ValueError:
            return None
    return found


class Followed(NamedTuple):
    """What other processes have done since it was last asked."""

    added: list[tuple[BlockHash, Label]]
    dropped: list[BlockHash]


def followed(env: Environment, since: int) -> tuple[int, Followed | None]:
    """What others committed behind a commit, and the last one; None if that is not known any more."""
    with env.reading(buffers=False) as txn:
        last = env.books_in(txn).commit
        lines = lines_since(env, txn, since)
        if lines is None:
            return last, None
        added: list[tuple[BlockHash, Label]] = []
        dropped: list[BlockHash] = []
        for key in dict.fromkeys(change.key for line in lines for change in line):
            try:  # as it is now: this process may have changed it since, too
                added.append((key, unpack_entry(txn.get(key, db=env.index, default=b"")).label))
            except struct.error:  # gone, or cut short
                dropped.append(key)
        return last, Followed(added, dropped)


def quarantined(env: Environment, txn: Any) -> Iterator[tuple[int, str]]:
    """Slots that are not written any more, and why."""
    for key, value in txn.cursor(env.quarantine):
        try:
            yield _SLOT.unpack(bytes(key))[0], str(json.loads(bytes(value))["reason"])
        except (struct.error, ValueError, KeyError, TypeError):
            continue
