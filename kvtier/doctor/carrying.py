"""Chosen prefixes out of one store and into another, by way of a bundle.

export   choose rows -> closed under "the block before it" -> proven -> written, heads first
import   proven whole -> compared with the store -> written heads first, as far as there is room
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kvtier.doctor.bundle import BundleReader, BundleWriter, Manifest
from kvtier.doctor.copying import Readers, Source, prove, wanted
from kvtier.doctor.prefixes import Flags, Forest
from kvtier.doctor.reading import Held, alone, holds_data, note_namespaces, read_sound
from kvtier.doctor.reports import Choice, Exported, Imported, Progress, quiet
from kvtier.errors import ConfigError, KVTierError, SpecMismatchError
from kvtier.format import Bytes, header_bytes
from kvtier.hashing import BlockHash, Label, name_block, token_array
from kvtier.listing import Rows

_BATCH_BYTES = 32 << 20


def export(
    directory: Path, bundle: Path, choice: Choice, *, threads: int | None = None, progress: Progress = quiet
) -> Exported:
    """Write some prefixes of a store to a bundle.

    Args:
        directory: A store's that no process has open.
        bundle: The file to make.
        choice: Which.
        threads: Records to read at a time.
        progress: See ``kvtier.doctor.copying.Progress``.

    Raises:
        ConfigError: No store, in use, of another format; nothing or too much goes by the name given; the file exists.
        KVTierError: Nothing that was chosen is held and whole.
        TierUnavailableError: The store's structure is damaged.
    """
    with alone(directory):
        held = read_sound(directory)
        if bundle.exists():
            raise ConfigError(f"{bundle} exists already; name another file")
        forest = Forest(held.listing)
        rows, matched = _chosen(held, forest, choice)
        records = wanted(held, rows)
        wrong = prove(held.data, held.geometry, records, Readers.of(threads, progress))
        good = np.zeros(len(held.listing), np.bool_)
        good[[record.row for record in records]] = True
        good[list(wrong)] = False
        forest = Forest(held.listing, good)
        rows = forest.by_depth[forest.whole[forest.by_depth]]
        if not len(rows):
            raise KVTierError(f"nothing that was chosen is held in {directory}; kvtier inspect shows what is")
        roots = list(forest.roots())
        size = _write(held, rows, bundle, roots)
    return Exported(
        bundle=str(bundle),
        blocks=len(rows),
        bytes=size,
        namespaces=[root.hex() for root in roots],
        damaged=len(records) - len(rows),
        prompt_tokens=matched,
    )


def _write(held: Held, rows: Rows, bundle: Path, roots: Iterable[BlockHash]) -> int:
    listing, geometry = held.listing, held.geometry
    block_tokens = max(len(listing.label(row).tokens) for row in rows) // 4
    if header_bytes(block_tokens) != geometry.header:
        raise SpecMismatchError(
            f"blocks of {block_tokens} tokens do not need records with {geometry.header} bytes of header"
        )
    about = {root: held.namespaces.get(root) for root in roots}
    manifest = Manifest(block_bytes=geometry.block_bytes, block_tokens=block_tokens, count=len(rows), namespaces=about)
    with BundleWriter(bundle, manifest) as writer, Source(held.data, geometry) as source:
        buffer = source.buffer()
        for row in rows.tolist():
            place = held.place(row)
            assert place is not None
            source.record(place, listing.name(row), listing.label(row), buffer)
            writer.add(buffer[: geometry.record_bytes])
        return writer.finish()


def _chosen(held: Held, forest: Forest, choice: Choice) -> tuple[Rows, list[int]]:
    """Rows that a choice means, parents first, and how many tokens of each prompt are held."""
    roots = forest.roots()
    if choice.namespace:
        roots = {root: roots[root] for root in roots if root.hex().startswith(choice.namespace.lower())}
        if len(roots) != 1:
            raise ConfigError(f"{len(roots)} namespaces begin with {choice.namespace}; kvtier inspect names them")
    inside = np.zeros(len(held.listing), np.bool_)
    inside[[row for rows in roots.values() for row in rows]] = True
    taken: Flags = np.zeros(len(held.listing), np.bool_)
    if choice.everything:
        taken |= inside
    matched = []
    for prompt in choice.prompts:
        walks = [_walk(forest, root, prompt) for root in roots]
        taken[[row for walk in walks for row in walk]] = True
        matched.append(max((_num_tokens(held, walk) for walk in walks), default=0))
    for prefix in choice.prefixes:
        taken[forest.path(_named(held, inside & forest.whole, prefix))] = True
    if choice.below:
        taken[forest.under(np.flatnonzero(taken))] = True
    if choice.limit_blocks is not None and taken.sum() > choice.limit_blocks:
        taken = _newest(held, forest, taken & inside, choice.limit_blocks)
    return forest.by_depth[taken[forest.by_depth]], matched


def _walk(forest: Forest, root: BlockHash, prompt: Sequence[int]) -> list[int]:
    """Rows of a prompt's leading blocks, as far as they are held."""
    listing = forest.listing
    data = token_array(prompt).tobytes()
    step = len(listing.label(0).tokens)
    rows: list[int] = []
    parent = root
    for depth in range(len(data) // step):
        parent = name_block(Label(parent, depth, data[depth * step : (depth + 1) * step]))
        row = listing.find(parent)
        if row < 0:
            break
        rows.append(row)
    return rows


def _num_tokens(held: Held, rows: Sequence[int]) -> int:
    return sum(len(held.listing.label(row).tokens) // 4 for row in rows)


def _named(held: Held, usable: Flags, prefix: str) -> int:
    """The row whose name begins with some hexadecimal digits."""
    found = [row for row in np.flatnonzero(usable).tolist() if held.listing.name(row).hex().startswith(prefix.lower())]
    if len(found) != 1:
        raise ConfigError(f"{len(found)} blocks have names that begin with {prefix!r}; kvtier inspect shows names")
    return found[0]


def _newest(held: Held, forest: Forest, inside: Flags, limit: int) -> Flags:
    """The newest rows of some, each with all before it, as many as fit."""
    taken: Flags = np.zeros(len(held.listing), np.bool_)
    for row in held.listing.order[::-1].tolist():
        if inside[row] and not taken[row]:
            missing = [each for each in forest.path(row) if not taken[each]]
            if len(missing) <= limit:
                taken[missing] = True
                limit -= len(missing)
    return taken


def import_bundle(
    directory: Path,
    bundle: Path,
    *,
    capacity_bytes: int | None = None,
    new_namespaces: bool = False,
    progress: Progress = quiet,
) -> Imported:
    """Put a bundle's blocks into a store.

    Args:
        directory: The store's; made if absent. No other process has it open.
        bundle: Proven whole before anything is written.
        capacity_bytes: Payload bytes the store may hold. None: as many as it
            was last opened for, or, if it is new, as many as the bundle has.
        new_namespaces: Also take blocks of namespaces that the store has no block of.
        progress: See ``kvtier.doctor.copying.Progress``; told of the proof, then of the writing.

    Raises:
        ConfigError: The bundle is refused, or the directory is; nothing was written.
        SpecMismatchError: The store holds blocks of another size; nothing was written.
        TierError: The disk refused on the way; what was written is whole.
    """
    from kvtier.tiers.disk import LMDBTier

    with BundleReader(bundle) as reader:
        manifest = reader.manifest
        labels = reader.prove(progress)
        held = _store_for(directory, manifest)
        num_held = 0 if held is None else len(held.listing)
        if capacity_bytes is None:
            books = None if held is None else held.books
            capacity_bytes = (manifest.count if books is None else books.capacity_blocks) * manifest.block_bytes
        room = capacity_bytes // manifest.block_bytes - num_held
        take, fate = _sorted_out(labels, held, room, new_namespaces=new_namespaces)
        result = Imported(
            bundle=str(bundle),
            directory=str(directory),
            imported=len(take),
            skipped=fate.pop(_HELD, 0),
            refused=dict(fate),
        )
        if not take:
            return result
        tier = LMDBTier(
            "disk",
            directory,
            capacity_bytes=capacity_bytes,
            block_bytes=manifest.block_bytes,
            block_tokens=manifest.block_tokens,
        )
        try:
            _fill(tier, (each for each in reader.blocks() if each[0] in take), len(take), manifest, progress)
            tier.flush()
        finally:
            tier.close()
        with alone(directory):
            note_namespaces(directory, manifest.namespaces)
    return result


_HELD = "already held"


def _store_for(directory: Path, manifest: Manifest) -> Held | None:
    """The store that a bundle is to go into, if there is one already.

    Raises:
        SpecMismatchError: Its blocks have another size.
    """
    if not holds_data(directory):
        return None
    with alone(directory):
        held = read_sound(directory)
    got, expected = (manifest.block_bytes, manifest.header), (held.geometry.block_bytes, held.geometry.header)
    if got != expected:
        raise SpecMismatchError(
            f"the bundle has blocks of {got[0]} bytes behind headers of {got[1]}, {directory} has blocks of "
            f"{expected[0]} behind {expected[1]}; nothing was imported"
        )
    return held


def _sorted_out(
    labels: dict[BlockHash, Label], held: Held | None, room: int, *, new_namespaces: bool
) -> tuple[set[BlockHash], Counter[str]]:
    """Names to write, and how many others there are by what becomes of them."""
    known = None if held is None or new_namespaces or not len(held.listing) else set(Forest(held.listing).roots())
    take: set[BlockHash] = set()
    fate = Counter[str]()
    root: dict[BlockHash, BlockHash] = {}
    for key, label in labels.items():
        root[key] = root.get(label.parent, label.parent)
        if held is not None and held.listing.find(key) >= 0:
            fate[_HELD] += 1
        elif known is not None and root[key] not in known:
            fate[f"namespace {root[key].hex()[:12]} has no block in this store"] += 1
        elif len(take) >= room:
            fate["no room"] += 1
        else:
            take.add(key)
    return take, fate


def _fill(
    tier: Any, blocks: Iterator[tuple[BlockHash, Label, Bytes]], count: int, manifest: Manifest, progress: Progress
) -> None:
    import torch

    a_batch = max(1, _BATCH_BYTES // manifest.block_bytes)
    done = 0
    while batch := [(key, label, torch.from_numpy(payload.copy())) for key, label, payload in islice(blocks, a_batch)]:
        tier.write([key for key, _, _ in batch], [data for _, _, data in batch], [label for _, label, _ in batch])
        done += len(batch)
        progress(done * manifest.block_bytes, count * manifest.block_bytes)
