"""How long a calibration may take, what it measures in that time, and the room that it needs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from kvtier.errors import ConfigError

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
LEAST_RUNS = 5
LEAST_BUDGET_S = 1.0

#: Of the budget. What tiers take follows from their batch, whose size follows from the budget.
_PREFILL_SHARE = 0.6
_BATCH_BYTES_PER_S = 2 << 20
_MOST_BYTES = 256 << 20
_MOST_BLOCKS = 2048
#: The disk tier does not grow while its file system has less than half of it left.
_SPARE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to calibrate.

    Raises:
        ConfigError: Too few runs for a band, or too little time for anything.
    """

    budget_s: float = 90.0
    lengths: tuple[int, ...] = LENGTHS
    runs: int = LEAST_RUNS

    def __post_init__(self) -> None:
        if self.runs < LEAST_RUNS:
            raise ConfigError(f"--runs: a band takes at least {LEAST_RUNS} runs, got {self.runs}")
        if not LEAST_BUDGET_S <= self.budget_s < float("inf"):
            raise ConfigError(f"--budget: expected at least {LEAST_BUDGET_S:g} s, got {self.budget_s:g} s")

    def within(self, max_tokens: int | None, *, asked: bool) -> Settings:
        """Without the lengths that are too long for a model.

        Raises:
            ConfigError: They were asked for, or none is left.
        """
        if max_tokens is None or max(self.lengths) <= max_tokens:
            return self
        fitting = tuple(n for n in self.lengths if n <= max_tokens)
        if asked or not fitting:
            raise ConfigError(f"--lengths: the model was made for {max_tokens} tokens, got {max(self.lengths)}")
        return replace(self, lengths=fitting)

    @property
    def prefill_budget_s(self) -> float:
        """What prefill gets of the budget."""
        return self.budget_s * _PREFILL_SHARE

    def batch(self, block_bytes: int) -> int:
        """Blocks of the batches that tiers are timed with."""
        size = min(_MOST_BYTES, self.budget_s * _BATCH_BYTES_PER_S)
        return max(2, min(_MOST_BLOCKS, round(size / block_bytes)))

    def needed_bytes(self, block_bytes: int) -> int:
        """Room for a tier and a raw file beside it, and what stays free."""
        return 3 * self.batch(block_bytes) * block_bytes + _SPARE_BYTES


def check_room(directory: Path, needed_bytes: int) -> None:
    """Refuse a directory whose file system has not enough room.

    Raises:
        ConfigError: It has not.
    """
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise ConfigError(
            f"--directory: {needed_bytes / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; "
            "give another directory, or a smaller --budget"
        )
