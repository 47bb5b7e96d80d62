"""A tiered, persistent KV cache for prompts: GPU, RAM, NVMe.

Start with ``open_store``; the verbs are ``match``, ``get`` and ``put`` of ``TieredStore``.
Names load on first use, so that the parts without torch stay importable without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvtier.answers import Flushed, Hit, Leased, Stored
    from kvtier.config import parse_size
    from kvtier.errors import (
        BlockRefusedError,
        ConfigError,
        CorruptBlockError,
        KVTierError,
        ProfileError,
        SpecMismatchError,
        StreamBrokenError,
        TierClosedError,
        TierError,
        TierFullError,
        TierUnavailableError,
        TokenError,
        TraceError,
        UnsupportedModelError,
    )
    from kvtier.hashing import BlockHash, Namespace, chain_hashes
    from kvtier.opening import open_store
    from kvtier.spec import KVSpec
    from kvtier.store import TieredStore
    from kvtier.streaming import Stream
    from kvtier.tiers.disk import LMDBTier
    from kvtier.tiers.encoded import EncodedTier
    from kvtier.tiers.memory import MemoryTier
    from kvtier.transfer import Transfer

__version__ = "0.1.0"

__all__ = [
    "BlockHash",
    "BlockRefusedError",
    "ConfigError",
    "CorruptBlockError",
    "EncodedTier",
    "Flushed",
    "Hit",
    "KVSpec",
    "KVTierError",
    "LMDBTier",
    "Leased",
    "MemoryTier",
    "Namespace",
    "ProfileError",
    "SpecMismatchError",
    "Stored",
    "Stream",
    "StreamBrokenError",
    "TierClosedError",
    "TierError",
    "TierFullError",
    "TierUnavailableError",
    "TieredStore",
    "TokenError",
    "TraceError",
    "Transfer",
    "UnsupportedModelError",
    "chain_hashes",
    "open_store",
    "parse_size",
]

_MODULES = (
    "errors",
    "config",
    "spec",
    "hashing",
    "answers",
    "streaming",
    "transfer",
    "store",
    "opening",
    "tiers.memory",
    "tiers.disk",
    "tiers.encoded",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = vars(import_module(f"kvtier.{module}")).get(name)
            if found is not None:
                return found
    raise AttributeError(f"module 'kvtier' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
