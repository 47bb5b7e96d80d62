"""What the doctor is asked and what it answers; no library is loaded to read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Progress = Callable[[int, int], None]
"""Told now and then how many bytes are done, of how many."""


def quiet(_done: int, _total: int) -> None:
    """Tell nobody."""


KINDS = {
    "structure": "the file's own pages are not as LMDB left them",
    "set aside": "a damaged data file that is no longer used is still there",
    "left over": "an interrupted repair or compact left a directory",
    "slab": "places for records cannot be found in the file",
    "books": "the books do not agree with the index",
    "entry": "index entries cannot be read",
    "no slot": "entries name a slot that is not there",
    "slot twice": "entries share a slot with another",
    "record": "records are not what their name says",
    "orphan": "blocks cannot be reached, because one before them is not there",
}
"""What can be wrong, in the order it is looked for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    """One of ``KINDS``."""

    detail: str
    block: str = ""
    """The block's name in hexadecimal, if it is one."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a check found, and what a repair did."""

    directory: str
    findings: list[Finding] = field(default_factory=list)
    blocks: int = 0
    """Blocks in the index before anything was repaired."""

    records_read: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    accounted_bytes: int = 0
    """Payload bytes of the blocks by the books."""

    file_bytes: int = 0
    """Bytes the file system has allocated for the data file."""

    slots: int = 0
    """Places for records in the file."""

    repaired: bool = False
    """Whether what was found has been put right."""

    removed_blocks: int = 0
    """Blocks a repair took out."""

    kept_blocks: int = 0
    """Blocks held at the end."""

    @property
    def counts(self) -> dict[str, int]:
        """Findings by kind, kinds in their order."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    @property
    def clean(self) -> bool:
        """Whether the store is as it should be now."""
        return self.repaired or not self.findings

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "counts": self.counts, "clean": self.clean}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which blocks to take along."""

    prompts: Sequence[Sequence[int]] = ()
    """Token ids: as much of each as is held."""

    prefixes: Sequence[str] = ()
    """Beginnings of blocks' names in hexadecimal: the prefix that ends with that block."""

    below: bool = False
    """Also what hangs on the prefixes chosen: prompts that go on from there."""

    everything: bool = False

    namespace: str = ""
    """Beginning of a root's name in hexadecimal: only what belongs to it."""

    limit_blocks: int | None = None
    """At most so many; the newest, each with all blocks before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What went into a bundle."""

    bundle: str
    blocks: int
    bytes: int
    namespaces: list[str]
    damaged: int
    """Blocks chosen and left out because their records, or one before them, did not prove themselves."""

    prompt_tokens: list[int] = field(default_factory=list)
    """Of each prompt, the tokens that are in the bundle's reach: held when it was chosen."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a bundle's blocks."""

    bundle: str
    directory: str
    imported: int
    skipped: int
    """Already held; left as they are."""

    refused: dict[str, int]
    """By reason."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What became of a file."""

    directory: str
    bytes_before: int
    """Allocated by the file system."""

    bytes_after: int
    blocks: int
    damaged: int
    """Blocks left out because their records did not prove themselves."""

    orphans: int
    """Blocks left out because the prefix before them is not held."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A namespace."""

    root: str
    """Its root's name in hexadecimal."""

    blocks: int
    bytes: int
    """Payload."""

    about: dict[str, Any] | None
    """What the store knows of it: model, adapter, geometry."""

    prompts: int
    """Chains that end in it: blocks with nothing below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """A beginning that prompts share, or a whole chain."""

    block: str
    """Name of its last block in hexadecimal."""

    root: str
    tokens: int
    blocks: int
    below: int
    """Blocks that hang on it."""

    first_ids: list[int]
    last_ids: list[int]
    text: str | None
    """Its first and last tokens decoded; None without a tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of a histogram."""

    label: str
    blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a store holds."""

    directory: str
    in_use_by: str | None
    """The process that has it open."""

    blocks: int
    orphans: int
    """Blocks whose prefix is not held; no prompt can reach them."""

    block_bytes: int
    block_tokens: int
    capacity_blocks: int | None
    """Blocks it may hold; None if the books cannot be read."""

    payload_bytes: int
    """Accounted: blocks times their payload."""

    file_bytes: int
    """Real: allocated by the file system."""

    slots: int
    slots_used: int
    slots_quarantined: int
    """Not written any more, because bytes there did not verify."""

    slot_bytes: int
    spaces: list[Space]
    ages: list[Bar]
    depths: list[Bar]
    longest: list[Prefix]
    top: list[Prefix]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
