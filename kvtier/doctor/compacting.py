"""A data file with the blocks it holds and no room to spare."""

from __future__ import annotations

from pathlib import Path

from kvtier.doctor.copying import Readers, wanted
from kvtier.doctor.reading import allocated, alone, read_sound
from kvtier.doctor.rebuilding import Known, Part, rebuild
from kvtier.doctor.reports import Compacted, Progress, quiet
from kvtier.tiers.directory import DATA


def compact(directory: Path, *, threads: int | None = None, progress: Progress = quiet) -> Compacted:
    """Write a new data file with the held records side by side, each proven on the way; it takes the old one's place.

    The file shrinks to whole slabs, so up to one slab (64 MiB) stays unused. Blocks keep their age.

    Args:
        directory: A store's that no process has open.
        threads: Records to copy at a time.
        progress: See ``kvtier.doctor.copying.Progress``.

    Raises:
        ConfigError: There is no store, it is in use, or of another format.
        TierUnavailableError: Its structure is damaged, or the disk refused; nothing has changed.
        TierFullError: The new file does not fit beside the old one; nothing has changed.
    """
    with alone(directory):
        held = read_sound(directory)
        before = allocated(directory / DATA)
        records = wanted(held, range(len(held.listing)))
        part = Part(held.data, records, lambda record, slot: held.entry(held.listing.find(record.key), slot))
        done = rebuild(directory, held.geometry, [part], Known.of(held), Readers.of(threads, progress))
        after = allocated(directory / DATA)
    return Compacted(
        directory=str(directory),
        bytes_before=before,
        bytes_after=after,
        blocks=done.blocks,
        damaged=len(done.wrong) + len(held.listing) - len(records) + len(held.damaged),
        orphans=done.orphans,
    )
