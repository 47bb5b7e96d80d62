"""Whether the structure of an LMDB file is sound, found without LMDB.

LMDB trusts the pages it maps: a node that points outside its page, or a page that is free and in use
at once, ends the process or destroys what was good. So before a file is mapped, its trees are walked
here with plain reads, level by level, and the nodes of a whole level are checked at once as
columns:

    meta pages -> main tree -> named trees      every page: number, kind, nodes inside it, keys in order
               -> tree of free pages            no page twice, none both free and in use

A large value is one range of pages, however long: its content is not looked at. A slab is such a value,
so the time depends on the number of blocks and not on their size.

Checked is what keeps a reader and a writer safe, for the files that kvtier makes: plain keys and values,
4 KiB pages, the format of LMDB 0.9. ``python -m lmdb verify`` is the thorough audit by LMDB's own binding,
which counts every page of every value; ``kvtier check`` runs it, and the tests hold this one to it.

Source: the structures in LMDB's mdb.c.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvtier.format import PAGE_BYTES

_META = struct.Struct("<QHHHHIIQQ48s48sQQ")
_DB = struct.Struct("<IHHQQQQQ")
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_IS_BRANCH, _IS_LEAF, _IS_OVERFLOW, _IS_META = 0x01, 0x02, 0x04, 0x08
_BIG, _TREE = 0x01, 0x02  # kinds of leaf nodes besides plain ones
_INTEGER_KEYS = 0x08
_NO_PAGE = (1 << 64) - 1
_PAGE_HEAD, _NODE_HEAD, _MAX_KEY = 16, 8, 511
_MAX_DEPTH = 32
_PAGE = np.dtype(
    [("number", "<u8"), ("pad", "<u2"), ("flags", "<u2"), ("lower", "<u2"), ("upper", "<u2"), ("rest", "V4080")]
)

Numbers = NDArray[np.uint64]
Whole = NDArray[np.int64]


class _UnsoundError(Exception):
    """What is wrong."""


class _Tree(NamedTuple):
    """The root record of a tree."""

    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


@dataclass(slots=True)
class _Nodes:
    """All nodes of one level of a tree, from left to right."""

    pages: NDArray[np.uint8]
    """``[pages, 4096]``"""

    page: Whole
    """For each node the number of its page in ``pages``."""

    at: Whole
    """Where in its page it begins."""

    words: NDArray[np.uint16]
    """Its first four words: ``[nodes, 4]``."""

    first: NDArray[np.bool_]
    """Whether it is the first of its page."""

    def after_key(self, num_bytes: int, which: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """The bytes behind the keys of some nodes, ``[nodes, num_bytes]``."""
        pick = slice(None) if which is None else which
        start = self.at[pick] + _NODE_HEAD + self.words[pick, 3].astype(np.int64)
        found: NDArray[np.uint8] = self.pages[self.page[pick][:, None], start[:, None] + np.arange(num_bytes)]
        return found

    def keys(self) -> NDArray[Any]:
        """Keys padded with zeros to the longest, followed by their lengths: so they sort as LMDB sorts them."""
        sizes = self.words[:, 3].astype(np.int64)
        width = int(sizes.max(initial=0))
        spots = (self.page * PAGE_BYTES + self.at + _NODE_HEAD)[:, None] + np.arange(width)
        padded = np.empty((len(sizes), width + 2), np.uint8)
        np.take(self.pages.reshape(-1), spots, mode="clip", out=padded[:, :width])
        if (sizes != width).any():
            padded[:, :width][np.arange(width) >= sizes[:, None]] = 0
        padded[:, width:] = sizes.astype(">u2").view(np.uint8).reshape(-1, 2)
        return padded


def structural_problem(data: Path) -> str | None:
    """What is wrong with an LMDB file's structure; None if it is sound.

    Args:
        data: The data file, which nobody writes meanwhile.

    Raises:
        OSError: It cannot be read.
    """
    with data.open("rb", buffering=0) as file:
        try:
            _Audit(file.fileno()).run()
        except _UnsoundError as exc:
            return str(exc)
    return None


class _Audit:
    def __init__(self, file: int) -> None:
        self._file = file
        self._size = os.fstat(file).st_size
        self._end = 0
        """Pages in use or free: numbers below this one."""
        self._live: list[tuple[Whole, Whole]] = []
        """First page and number of pages of everything that is reachable."""

    def run(self) -> None:
        free, main, commit = self._roots()
        named = list(self._walk("main", main, trees=True))
        for name, tree in named:
            if tree.pad or tree.flags:
                raise _UnsoundError(f"tree {name!r} has flags {tree.flags:#x}, expected none")
            for _ in self._walk(name, tree):
                pass
        self._check_free(free, commit)

    def _roots(self) -> tuple[_Tree, _Tree, int]:
        """The roots of the last commit, as LMDB chooses it."""
        metas = []
        for number in (0, 1):
            head = os.pread(self._file, _META.size, number * PAGE_BYTES)
            if len(head) < _META.size:
                raise _UnsoundError(f"the file ends inside meta page {number}")
            page, _, flags, _, _, magic, version, address, _, free, main, last, commit = _META.unpack(head)
            if (page, flags, magic, version, address) != (number, _IS_META, _MAGIC, _VERSION, 0):
                raise _UnsoundError(f"page {number} is not the meta page of an LMDB 0.9 file")
            metas.append((commit, last, _Tree(*_DB.unpack(free)), _Tree(*_DB.unpack(main))))
        commit, last, free, main = max(metas, key=lambda meta: meta[0])  # the first of two alike
        if (free.pad, free.flags, main.pad, main.flags) != (PAGE_BYTES, _INTEGER_KEYS, 0, 0):
            raise _UnsoundError("the meta page names another page size, or trees of another kind")
        self._end = last + 1
        if last < 1 or self._end * PAGE_BYTES > self._size:
            raise _UnsoundError(f"cut short: {self._size} bytes, its {self._end} pages need {self._end * PAGE_BYTES}")
        return free, main, commit

    def _walk(self, name: str, tree: _Tree, *, trees: bool = False) -> Iterator[tuple[str, _Tree]]:
        """Check a tree; yields the named trees that a tree of trees holds."""
        nodes = self._leaves(name, tree)
        if nodes is None:
            return
        kinds = nodes.words[:, 2]
        big = kinds == _BIG
        self._note_overflow(name, tree, nodes, big)
        allowed = {0, _BIG, _TREE} if trees else {0, _BIG}
        if not set(np.unique(kinds).tolist()) <= allowed:
            raise _UnsoundError(f"tree {name!r} has nodes of a kind that kvtier does not write")
        if trees:
            which = kinds == _TREE
            keys = nodes.keys()[which][:, :-2]
            for key, record in zip(keys, nodes.after_key(_DB.size, which), strict=True):
                yield key.tobytes().rstrip(b"\0").decode("latin-1"), _Tree(*_DB.unpack(record.tobytes()))

    def _leaves(self, name: str, tree: _Tree) -> _Nodes | None:
        """Walk the branch pages down; the nodes of the leaf pages, checked."""
        if tree.root == _NO_PAGE:
            if tree[2:7] != (0, 0, 0, 0, 0):
                raise _UnsoundError(f"tree {name!r} has no root and yet {tree.entries} entries")
            return None
        if not 1 <= tree.depth <= _MAX_DEPTH:
            raise _UnsoundError(f"tree {name!r} says it is {tree.depth} levels deep")
        numbers, num_branch = np.array([tree.root], np.uint64), 0
        bounds: NDArray[Any] | None = None
        for level in range(tree.depth):
            is_leaf = level == tree.depth - 1
            if num_branch + len(numbers) > tree.branch_pages + tree.leaf_pages:
                raise _UnsoundError(f"tree {name!r} has more pages than its record says")
            nodes = self._level(name, numbers, leaf=is_leaf)
            self._check_order(name, tree, nodes, bounds, leaf=is_leaf)
            if is_leaf:
                break
            num_branch += len(numbers)
            bounds = nodes.keys()
            low, high, top = (nodes.words[:, i].astype(np.uint64) for i in range(3))
            numbers = low | high << np.uint64(16) | top << np.uint64(32)
        found = (num_branch, len(numbers), len(nodes.at))
        if found != (tree.branch_pages, tree.leaf_pages, tree.entries):
            raise _UnsoundError(
                f"tree {name!r} has {found} branch pages, leaf pages, entries; its record says otherwise"
            )
        return nodes

    def _level(self, name: str, numbers: Numbers, *, leaf: bool) -> _Nodes:
        """Read the pages of a level and check that every node lies inside its page."""
        if not len(numbers) or int(numbers.max()) >= self._end or int(numbers.min()) < 2:
            raise _UnsoundError(f"tree {name!r} refers to a page outside the file")
        self._note(numbers.astype(np.int64), np.ones(len(numbers), np.int64))
        pages = np.empty((len(numbers), PAGE_BYTES), np.uint8)
        for row, number in zip(pages, numbers.tolist(), strict=True):
            if os.preadv(self._file, [row.data], number * PAGE_BYTES) < PAGE_BYTES:
                raise _UnsoundError(f"page {number} is beyond the end of the file")
        heads = pages.view(_PAGE)[:, 0]
        wrong = (heads["number"] != numbers) | (heads["flags"] != (_IS_LEAF if leaf else _IS_BRANCH))
        lower, upper = heads["lower"].astype(np.int64), heads["upper"].astype(np.int64)
        counts = (lower - _PAGE_HEAD) // 2
        wrong |= (lower % 2 != 0) | (lower > upper) | (upper > PAGE_BYTES) | (counts < (1 if leaf else 2))
        if wrong.any():
            raise _UnsoundError(f"tree {name!r}: page {numbers[int(np.argmax(wrong))]} is not the page it should be")
        return self._nodes(name, pages, counts, upper, leaf=leaf)

    def _nodes(self, name: str, pages: NDArray[np.uint8], counts: Whole, upper: Whole, *, leaf: bool) -> _Nodes:
        page = np.repeat(np.arange(len(pages)), counts)
        turn = np.arange(len(page)) - np.repeat(np.cumsum(counts) - counts, counts)
        at = pages.view("<u2")[page, _PAGE_HEAD // 2 + turn].astype(np.int64)
        if (at % 2 != 0).any() or (at < upper[page]).any() or (at + _NODE_HEAD > PAGE_BYTES).any():
            raise _UnsoundError(f"tree {name!r}: a node lies outside its page")
        words = pages.view("<u2")[page[:, None], at[:, None] // 2 + np.arange(4)]
        key_bytes = words[:, 3].astype(np.int64)
        value_bytes = np.zeros(len(at), np.int64)
        if leaf:
            value_bytes = words[:, 0] + (words[:, 1].astype(np.int64) << 16)
            value_bytes = np.where(words[:, 2] & _BIG, 8, value_bytes)
            value_bytes = np.where(words[:, 2] & _TREE, np.maximum(value_bytes, _DB.size), value_bytes)
        too_long = (at + _NODE_HEAD + key_bytes + value_bytes > PAGE_BYTES) | (key_bytes > _MAX_KEY)
        if too_long.any() or (leaf and not key_bytes.all()):
            raise _UnsoundError(f"tree {name!r}: a node runs out of its page, or has no key")
        nodes = _Nodes(pages, page, at, words, turn == 0)
        self._check_apart(name, nodes, key_bytes + value_bytes)
        return nodes

    def _check_apart(self, name: str, nodes: _Nodes, sizes: Whole) -> None:
        """No two nodes of a page may overlap, or a change of one would be one of the other."""
        ends = nodes.page * PAGE_BYTES + nodes.at + _NODE_HEAD + sizes
        starts = nodes.page * PAGE_BYTES + nodes.at
        turns = np.argsort(starts)
        if (ends[turns][:-1] > starts[turns][1:]).any():
            raise _UnsoundError(f"tree {name!r}: two nodes overlap")

    def _check_order(self, name: str, tree: _Tree, nodes: _Nodes, bounds: NDArray[Any] | None, *, leaf: bool) -> None:
        """Keys ascend over a whole level, and lie where the level above says."""
        keys = nodes.keys()
        if tree.flags & _INTEGER_KEYS:
            if (nodes.words[:, 3][leaf | ~nodes.first] != 8).any():
                raise _UnsoundError(f"tree {name!r}: a key is not a number")
            keys = keys[:, 7::-1]
        keys = _sortable(keys)
        ruled = keys if leaf else keys[~nodes.first]  # the first key of a branch page says nothing
        if (ruled[1:] <= ruled[:-1]).any():
            raise _UnsoundError(f"tree {name!r}: keys are out of order")
        if bounds is not None and leaf:
            self._check_bounds(name, tree, nodes, keys, bounds)

    def _check_bounds(self, name: str, tree: _Tree, nodes: _Nodes, keys: NDArray[Any], bounds: NDArray[Any]) -> None:
        firsts = np.flatnonzero(nodes.first)
        above = _sortable(bounds[:, 7::-1] if tree.flags & _INTEGER_KEYS else bounds)
        width = max(keys.dtype.itemsize, above.dtype.itemsize)
        if width > keys.dtype.itemsize or width > above.dtype.itemsize:
            return  # keys of several lengths: a search in the wrong leaf finds nothing, and no more
        ruled = np.array([len(bytes(bound).rstrip(b"\0")) > 0 for bound in above], np.bool_)
        late = ruled & (keys[firsts] < above)
        late[1:] |= ruled[1:] & (keys[firsts[1:] - 1] >= above[1:])
        if late.any():
            raise _UnsoundError(f"tree {name!r}: a leaf page lies in the wrong place")

    def _note_overflow(self, name: str, tree: _Tree, nodes: _Nodes, big: NDArray[np.bool_]) -> None:
        first = nodes.after_key(8, big).copy().view("<u8")[:, 0] if big.any() else np.empty(0, np.uint64)
        size = (nodes.words[big, 0] + (nodes.words[big, 1].astype(np.int64) << 16)).astype(np.int64)
        count = (_PAGE_HEAD - 1 + size) // PAGE_BYTES + 1
        if int(count.sum()) != tree.overflow_pages:
            raise _UnsoundError(
                f"tree {name!r} has {count.sum()} pages of large values, expected {tree.overflow_pages}"
            )
        if len(first) and (int(first.min()) < 2 or (first >= np.uint64(self._end)).any()):
            raise _UnsoundError(f"tree {name!r}: a large value lies outside the file")
        start = first.astype(np.int64)
        if (start + count > self._end).any():
            raise _UnsoundError(f"tree {name!r}: a large value runs out of the file")
        for number, num_pages in zip(start.tolist(), count.tolist(), strict=True):
            head = os.pread(self._file, _PAGE_HEAD, number * PAGE_BYTES)
            if len(head) < _PAGE_HEAD or struct.unpack("<QHHI", head) != (number, 0, _IS_OVERFLOW, num_pages):
                raise _UnsoundError(f"tree {name!r}: page {number} does not begin a large value")
        self._note(start, count)

    def _check_free(self, free: _Tree, commit: int) -> None:
        """Free pages are listed once, and none of them is in use."""
        nodes = self._leaves("free pages", free)
        if nodes is None:
            listed = np.empty(0, np.int64)
        else:
            big = nodes.words[:, 2] == _BIG
            if (nodes.words[:, 2] & ~np.uint16(_BIG)).any():
                raise _UnsoundError("the list of free pages has nodes of another kind")
            self._note_overflow("free pages", free, nodes, big)
            listed = np.concatenate([self._free_list(nodes, i, big=bool(big[i])) for i in range(len(nodes.at))])
            keys = nodes.keys()[:, :8].copy().view("<u8")[:, 0]
            if (keys >= np.uint64(commit + 1)).any():
                raise _UnsoundError("pages were freed by a commit that has not been")
        if len(listed) and (int(listed.min()) < 2 or int(listed.max()) >= self._end):
            raise _UnsoundError("a free page lies outside the file")
        self._note(listed, np.ones(len(listed), np.int64))
        starts = np.concatenate([start for start, _ in self._live])
        counts = np.concatenate([count for _, count in self._live])
        turns = np.argsort(starts)
        if ((starts + counts)[turns][:-1] > starts[turns][1:]).any():
            raise _UnsoundError("a page is in use twice, or both free and in use")

    def _free_list(self, nodes: _Nodes, i: int, *, big: bool) -> Whole:
        """The pages that one node lists, which must descend."""
        size = int(nodes.words[i, 0]) + (int(nodes.words[i, 1]) << 16)
        start = int(nodes.at[i]) + _NODE_HEAD + int(nodes.words[i, 3])
        if big:
            page = int.from_bytes(nodes.pages[nodes.page[i], start : start + 8].tobytes(), "little")
            stored = os.pread(self._file, size, page * PAGE_BYTES + _PAGE_HEAD)
        else:
            stored = nodes.pages[nodes.page[i], start : start + size].tobytes()
        if size < 8 or size % 8 or len(stored) < size:
            raise _UnsoundError("a list of free pages is cut short")
        numbers = np.frombuffer(stored, "<u8")
        pages = numbers[1:].astype(np.int64)
        if int(numbers[0]) != len(pages) or (np.diff(pages) >= 0).any():
            raise _UnsoundError("a list of free pages is out of order")
        return pages

    def _note(self, starts: Whole, counts: Whole) -> None:
        self._live.append((starts, counts))


def _sortable(keys: NDArray[np.uint8]) -> NDArray[Any]:
    """Rows of bytes as values that compare as the bytes do."""
    flat = np.ascontiguousarray(keys)
    return flat.view(f"S{flat.shape[1]}")[:, 0]
