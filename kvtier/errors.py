"""Every error kvtier raises on purpose.

    KVTierError
    ├── ConfigError            (ValueError)     a setting that cannot work
    │   ├── TraceError                          a trace that cannot be read, or contradicts itself
    │   └── ProfileError                        a profile of another machine, version or schema
    ├── TokenError             (ValueError)     a prompt that cannot be named
    ├── SpecMismatchError      (ValueError)     a payload of the wrong geometry
    ├── UnsupportedModelError  (TypeError)      a model whose cache cannot be restored exactly
    ├── MeasureError                            a measurement that cannot be made on this machine
    │   └── NotColdError                        a file that should be on disk only is still in memory
    ├── StreamBrokenError                       a layer that was promised will not come
    ├── CorruptBlockError                       a stored record is not what its name says; has .key
    └── TierError                               a tier could not do its job; has .tier
        ├── TierFullError                       no room left
        ├── BlockRefusedError                   blocks that a storage format cannot keep; has .keys
        ├── TierClosedError                     used after close(), or in a forked child
        └── TierUnavailableError (OSError)      disk gone or full, device lost, timed out

A miss is not an error. ``TieredStore.get`` turns every ``TierError`` and
``CorruptBlockError`` into a miss, counts it and forgets the block; whoever calls a tier
directly gets the exception.
"""

from __future__ import annotations

from typing import Self


class KVTierError(Exception):
    """Base of everything kvtier raises on purpose."""


class ConfigError(KVTierError, ValueError):
    """A setting that cannot work, found before anything was stored."""


class TraceError(ConfigError):
    """A trace that cannot be read, or contradicts itself: truncated, unordered, an id after two others."""


class ProfileError(ConfigError):
    """A machine's profile that cannot be used here: of another machine, version or schema, or incomplete."""


class TokenError(KVTierError, ValueError):
    """A prompt that cannot be named: wrong type, negative or too large ids."""


class SpecMismatchError(KVTierError, ValueError):
    """A payload whose size, dtype or device does not fit the store."""


class UnsupportedModelError(KVTierError, TypeError):
    """A model whose cache kvtier cannot restore exactly."""


class MeasureError(KVTierError):
    """A measurement that cannot be made here, or that would not be of what it says."""


class NotColdError(MeasureError):
    """The page cache still holds a file whose reading was about to be timed."""


class StreamBrokenError(KVTierError):
    """A layer of a streamed read will not come: a block turned out unreadable after it was promised."""


class CorruptBlockError(KVTierError):
    """A stored record failed verification: checksum, name or token ids."""

    def __init__(self, key: bytes, reason: str, kind: str = "content") -> None:
        super().__init__(f"block {key.hex()[:12]}: {reason}")
        self.key = key
        self.reason = reason
        self.kind = kind
        """What did not verify, in one word: it is counted as ``damaged_blocks.<kind>``."""

    def __reduce__(self) -> tuple[type[Self], tuple[bytes, str, str]]:
        return type(self), (self.key, self.reason, self.kind)


class TierError(KVTierError):
    """A tier could not do its job."""

    def __init__(self, tier: str, reason: str) -> None:
        super().__init__(f"{tier}: {reason}")
        self.tier = tier
        self.reason = reason

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.tier, self.reason)


class TierFullError(TierError):
    """The batch does not fit; nothing of it was stored."""


class BlockRefusedError(TierError):
    """Blocks of a batch that the tier's storage format cannot keep; the others are stored."""

    def __init__(self, tier: str, reason: str, keys: frozenset[bytes]) -> None:
        super().__init__(tier, reason)
        self.keys = keys

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, frozenset[bytes]]]:  # type: ignore[override]
        return type(self), (self.tier, self.reason, self.keys)


class TierClosedError(TierError):
    """The tier was used after ``close()``, or in a process forked after it was opened."""


class TierUnavailableError(TierError, OSError):
    """The medium did not answer: disk gone or full, device lost, timed out."""
