"""What a store holds: for whom, how much, how old, how deep, and under which beginnings.

Reads the index only, never a payload. A prefix is worth naming where prompts part: the blocks
before a fork all have the same blocks below them and would fill any list of the largest.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvtier.doctor.prefixes import Forest
from kvtier.doctor.reading import Held, alone, find, holder, read, read_sound
from kvtier.doctor.reports import Bar, Inspection, Prefix, Space
from kvtier.errors import ConfigError

Decode = Callable[[Sequence[int]], str]
"""Text of token ids."""

_SHOWN_TOKENS = 16
_AGES = ((60, "1 min"), (600, "10 min"), (3600, "1 h"), (6 * 3600, "6 h"), (86400, "1 day"), (7 * 86400, "1 week"))


def inspect(directory: Path, *, num_top: int = 10, decode: Decode | None = None) -> Inspection:
    """Describe a store. One that is in use is described as it is at this moment.

    Args:
        directory: The store's.
        num_top: Prefixes to name, and chains.
        decode: Makes text of token ids.

    Raises:
        ConfigError: There is no store, or it is of another format.
        TierUnavailableError: Its structure is damaged.
    """
    find(directory)
    owner = holder(directory)
    if owner is None:
        with alone(directory):
            held = read_sound(directory)
    else:  # its structure cannot be proven while it changes; the process that has it open relies on it as well
        held = read(directory, shared=True)
    listing, geometry = held.listing, held.geometry
    forest = Forest(listing)
    describe = _Describer(forest, decode)
    below, children = forest.below(), forest.children()
    whole = np.flatnonzero(forest.whole)
    leaves, forks = whole[children[whole] == 0], whole[children[whole] > 1]
    return Inspection(
        directory=str(directory),
        in_use_by=owner,
        blocks=len(listing),
        orphans=len(listing) - len(whole),
        block_bytes=geometry.block_bytes,
        block_tokens=len(listing.label(0).tokens) // 4 if len(listing) else 0,
        capacity_blocks=held.books.capacity_blocks if held.books is not None else None,
        payload_bytes=len(listing) * geometry.block_bytes,
        file_bytes=held.file_bytes,
        slots=held.num_slots,
        slots_used=len(np.unique(held.slots)),
        slots_quarantined=held.num_quarantined,
        slot_bytes=geometry.layout.slot_bytes,
        spaces=[
            Space(
                root=root.hex(),
                blocks=len(rows),
                bytes=len(rows) * geometry.block_bytes,
                prompts=int((children[rows] == 0).sum()),
                about=held.namespaces.get(root),
            )
            for root, rows in describe.spaces.items()
        ],
        ages=_ages(held),
        depths=_by_powers(listing.depths.astype(np.int64), "{} to {}", "{}"),
        longest=[describe(row, below) for row in _largest(leaves, listing.depths, num_top)],
        top=[describe(row, below) for row in _largest(forks, below, num_top)],
    )


def tokenizer_decoder(directory: Path) -> Decode:
    """Decode with the tokenizer that lies beside a model.

    Raises:
        ConfigError: The library is not installed, or there is no tokenizer.
    """
    file = directory / "tokenizer.json" if directory.is_dir() else directory
    try:
        from tokenizers import Tokenizer
    except ImportError as exc:
        raise ConfigError("--tokenizer needs the package tokenizers; pip install 'kvtier[transformers]'") from exc
    if not file.is_file():
        raise ConfigError(f"there is no tokenizer.json in {directory}")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as exc:  # the library raises the base class
        raise ConfigError(f"{file} is not a tokenizer: {exc}") from exc
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False))


class _Describer:
    """Puts prefixes into words."""

    def __init__(self, forest: Forest, decode: Decode | None) -> None:
        self.spaces = forest.roots()
        self._root_of = {int(row): root for root, rows in self.spaces.items() for row in rows}
        self._forest = forest
        self._decode = decode

    def __call__(self, row: int, below: NDArray[np.int64]) -> Prefix:
        tokens = self._forest.tokens(row).tolist()
        first, last = tokens[:_SHOWN_TOKENS], tokens[_SHOWN_TOKENS:][-_SHOWN_TOKENS:]
        text = None
        if self._decode is not None:
            text = self._decode(first) + (" ... " + self._decode(last) if last else "")
        return Prefix(
            block=self._forest.listing.name(row).hex(),
            root=self._root_of[int(row)].hex(),
            tokens=len(tokens),
            blocks=int(self._forest.listing.depths[row]) + 1,
            below=int(below[row]),
            first_ids=first,
            last_ids=last,
            text=text,
        )


def _largest(rows: NDArray[Any], sizes: NDArray[Any], count: int) -> list[int]:
    """Some of the rows, those of the largest sizes first."""
    order: list[int] = rows[np.argsort(-sizes[rows].astype(np.int64), kind="stable")][:count].tolist()
    return order


def _ages(held: Held) -> list[Bar]:
    """How long blocks have been there."""
    if not len(held.listing):
        return []
    ages = time.time() - held.heads["time"].astype(np.float64)
    limits = [0.0, *(limit for limit, _ in _AGES), np.inf]
    names = [name for _, name in _AGES]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(names)]
    labels = [f"under {names[0]}", *between, f"over {names[-1]}"]
    counts, _ = np.histogram(np.clip(ages, 0, None), limits)
    return [Bar(label=label, blocks=int(count)) for label, count in zip(labels, counts, strict=True)]


def _by_powers(values: NDArray[np.int64], many: str, one: str) -> list[Bar]:
    """Bars for 0, 1, 2 to 3, 4 to 7 and so on, up to the greatest value."""
    bars, low = [], 0
    while low <= values.max(initial=-1):
        high = max(low, 2 * low - 1)
        count = int(((values >= low) & (values <= high)).sum())
        bars.append(Bar(label=one.format(low) if low == high else many.format(low, high), blocks=count))
        low = high + 1
    return bars
