"""What the store's verbs answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """The leading blocks of a prompt that the store holds, or has just delivered."""

    num_tokens: int
    """Tokens covered: whole blocks only."""

    tiers: tuple[str, ...]
    """For each block, the name of the tier it comes from, in prefix order."""

    stopped_by: str | None
    """Why the run ends before the prompt's last whole block: ``None`` (it does not),
    ``"not_held"``, ``"in_flight"``, ``"damaged"``, ``"unavailable"``, ``"no_buffer"``, or
    ``"other_namespace"``: not held, but another model, adapter or setting has this prompt's first block."""

    detail: str | None = None
    """More about that, for a person: which settings differ."""

    @property
    def num_blocks(self) -> int:
        """Blocks covered."""
        return len(self.tiers)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put did."""

    num_new: int
    """Blocks taken up."""

    num_refused: int
    """Blocks not held now because no room could be made in time."""


@dataclass(frozen=True, slots=True)
class Leased:
    """A lease that has not been released."""

    owner: str
    num_blocks: int
    """Blocks it keeps readable."""

    seconds_left: float | None
    """Until it lapses by itself; None for that of a read, which ends with the read."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """What flush or close brought to the last tier."""

    num_blocks: int
    num_bytes: int
    seconds: float
    num_left: int
    """Blocks that only memory holds, because the last tier has no room for them."""

    leaked: tuple[Leased, ...] = ()
    """Leases that nobody had released when the store was closed; after a flush, none."""
