"""Prompts through one way of serving them, held against the reference, and the row that comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kvtier.answers import Hit
from kvtier.errors import ConfigError
from kvtier.integrations.transformers import CachedLM
from kvtier.oracle.reference import Answer, Ledger, Reference, continued, distance


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is asked, and how it is computed."""

    prompts: int = 4
    tokens: int = 200
    """Tokens of a prompt, or a few less."""

    new_tokens: int = 8
    """Tokens decoded after each."""

    block_tokens: int = 16
    chunk_tokens: int | None = 32
    """See ``CachedLM``."""

    seed: int = 0
    new_process: bool = True
    """Let another process fill the directory for the restart."""

    def __post_init__(self) -> None:
        for name in ("prompts", "tokens", "new_tokens", "block_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        chunk = self.chunk_tokens
        if chunk is not None and (chunk < 1 or chunk % self.block_tokens):
            raise ConfigError(f"chunk_tokens must be a multiple of block_tokens ({self.block_tokens}), got {chunk}")
        least = 3 * (chunk or self.block_tokens) + self.block_tokens
        if self.tokens < least:
            raise ConfigError(
                f"tokens must be at least {least}, so that a prefix can lie in three tiers; got {self.tokens}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one mode gave."""

    mode: str
    prompts: int
    """Prefills compared, each with what was decoded after it."""

    blocks: dict[str, int]
    """Blocks served, by tier."""

    tokens_equal: int
    """Prefills after which the very same tokens were decoded."""

    max_logit_difference: float
    """0.0 if all logits were equal bit for bit, infinite if some are no numbers."""

    wrong_blocks: int
    """Blocks served with other bytes than were computed for their tokens."""

    untried: str | None
    """Why the mode shows nothing; None if it does."""

    @property
    def verdict(self) -> str:
        """``"exact"``, ``"DIFFERENT"``, or ``"NOT TRIED"``, which is no better."""
        if self.tokens_equal < self.prompts or self.max_logit_difference != 0.0 or self.wrong_blocks:
            return "DIFFERENT"
        return "exact" if self.untried is None else "NOT TRIED"


class Trial:
    """One mode's comparisons.

    Args:
        model: The model.
        reference: Its answers without kvtier.
        settings: What is asked.
    """

    def __init__(self, model: Any, reference: Reference, settings: Settings) -> None:
        self._model = model
        self._reference = reference
        self._settings = settings
        self._ledger = Ledger(settings.block_tokens)
        self._prefills = self._tokens_equal = self._wrong = 0
        self._max_difference = 0.0
        self.blocks: Counter[str] = Counter()

    def fill(self, lm: CachedLM, prompts: Sequence[Sequence[int]]) -> None:
        """Let a store learn prompts, and note what was computed; compares nothing."""
        for ids in prompts:
            done = lm.prefill(ids)
            self._ledger.record(ids, _kv_of(done.past_key_values, len(ids)), done.hit.num_blocks)

    def check(self, lm: CachedLM, ids: Sequence[int]) -> Hit:
        """Prefill a prompt, decode after it, and compare; returns what came from the store."""
        done = lm.prefill(ids, max_new_tokens=self._settings.new_tokens)
        kv = _kv_of(done.past_key_values, len(ids))
        truth, wrong = self._ledger.truth(ids, kv, done.num_reused) if done.num_reused else (kv, [])
        if self._settings.chunk_tokens is not None or not done.num_reused:
            expected = self._reference.cold(ids)
        else:
            expected = self._reference.after(ids, truth)
        self._ledger.record(ids, kv, done.hit.num_blocks)
        assert done.logits is not None
        self._compare(continued(self._model, done.past_key_values, done.logits, self._settings.new_tokens), expected)
        self._wrong += len(wrong)
        self.blocks.update(done.hit.tiers)
        return done.hit

    def row(self, mode: str, untried: str | None) -> Row:
        """The outcome."""
        return Row(
            mode=mode,
            prompts=self._prefills,
            blocks=dict(sorted(self.blocks.items())),
            tokens_equal=self._tokens_equal,
            max_logit_difference=self._max_difference,
            wrong_blocks=self._wrong,
            untried=untried,
        )

    def lacks(self, *tiers: str) -> str | None:
        """That no block came from some of these tiers, if so."""
        missing = [tier for tier in tiers if not self.blocks[tier]]
        return f"no block came from {', '.join(missing)}" if missing else None

    def _compare(self, given: Answer, expected: Answer) -> None:
        self._prefills += 1
        self._tokens_equal += given.tokens == expected.tokens
        self._max_difference = max(self._max_difference, distance(given.logits, expected.logits))


def _kv_of(cache: Any, num_tokens: int) -> torch.Tensor:
    """A copy of a cache's keys and values, ``[layers, 2, kv_heads, tokens, head_dim]``."""
    layers = [torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers]
    return torch.stack(layers)[..., :num_tokens, :]
