"""Names for KV blocks: a hash chain over tokens, rooted in the model that made them.

A KV block holds the keys and values of ``block_tokens`` consecutive tokens. Those values
depend on every token before them, so a block's name must too:

    root   = H(namespace)                   weights, revision, geometry, adapter, tenant salt
    name_0 = H(root       | tokens[0:B])
    name_i = H(name_{i-1} | tokens[iB:(i+1)B])

Equal names therefore mean equal prefixes under the same weights, and a cache needs no tree to
find a longest prefix: it walks the chain until the first name it does not hold. A trailing
partial block has no name and is never stored.

Names are the same in every process, on every machine and in every release of this format, so
they can be keys on disk. H is BLAKE2b with a 256-bit digest: a collision would serve one
user another user's cache, and the fast 64-bit hashes used elsewhere can be collided on
purpose.

Source: chained block hashing as in vLLM's automatic prefix caching; the salt is its answer to
cross-tenant timing probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple, NewType

import numpy as np
from numpy.typing import NDArray

from kvtier.errors import ConfigError, TokenError
from kvtier.spec import KVSpec

BlockHash = NewType("BlockHash", bytes)
"""The name of one block: 32 bytes."""

HASH_BYTES = 32

MAX_TOKEN_ID = 2**32 - 1
"""Token ids are hashed and stored as 32-bit unsigned little-endian integers."""

_ROOT_PERSON = b"kvtier-root-v2"
_BLOCK_PERSON = b"kvtier-block-v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """Everything besides tokens that changes the bytes of a KV block.

    Two stores share blocks exactly when their namespaces are equal.
    """

    spec: KVSpec
    """Geometry, dtype and block length."""

    weights: str
    """Fingerprint of the weights and of the config that shapes KV (rope, norms). For a
    transformers model take ``kvtier.integrations.transformers.fingerprint(model)``; any string
    that differs whenever the weights differ will do."""

    revision: str = ""
    """Commit or version the user knows the weights by. ``"main"`` is refused: it names
    different bytes over time."""

    adapter: str = ""
    """LoRA or other adapter in effect, with its own digest; empty for none."""

    rope: str = ""
    """What turns positions into angles (base, scaling), where it is known apart from the weights."""

    tokenizer: str = ""
    """Digest of the tokenizer whose ids these are, where it is known. Ids alone name a block, so this only
    keeps apart what a user wants apart."""

    layout: str = "kvtier-v1"
    """Order of the bytes inside a block. Engines with their own packing (vLLM on an AMX CPU,
    say) must name it, since packed bytes are not portable."""

    salt: bytes = field(default=b"", repr=False)
    """Secret of a tenant; blocks are shared only between callers that know it."""

    def __post_init__(self) -> None:
        if not self.weights:
            raise ConfigError(
                "Namespace.weights is empty: without a fingerprint two models of one shape would share blocks"
            )
        if self.revision == "main":
            raise ConfigError("Namespace.revision 'main' moves; pass the commit it points to today")
        if not isinstance(self.salt, bytes):
            raise ConfigError(f"Namespace.salt must be bytes, got {type(self.salt).__name__}")

    def record(self) -> dict[str, str | int | bool]:
        """All fields by name, to be stored beside the blocks; of the salt only whether there is one."""
        spec = self.spec
        own = {name: getattr(self, name) for name in ("weights", "revision", "adapter", "rope", "tokenizer", "layout")}
        sizes = {name: getattr(spec, name) for name in ("layers", "kv_heads", "head_dim", "block_tokens")}
        return {**own, "dtype": spec.dtype, **sizes, "salted": bool(self.salt)}

    @property
    def root(self) -> BlockHash:
        """The parent of every first block. Fields are length-prefixed, so none can run into the next."""
        return _root_of(self)


@lru_cache(maxsize=64)  # asked for with every prompt
def _root_of(namespace: Namespace) -> BlockHash:
    spec = namespace.spec
    fields: list[tuple[str, bytes]] = [
        ("weights", namespace.weights.encode()),
        ("revision", namespace.revision.encode()),
        ("adapter", namespace.adapter.encode()),
        ("rope", namespace.rope.encode()),
        ("tokenizer", namespace.tokenizer.encode()),
        ("layout", namespace.layout.encode()),
        ("dtype", spec.dtype.encode()),
        ("layers", str(spec.layers).encode()),
        ("kv_heads", str(spec.kv_heads).encode()),
        ("head_dim", str(spec.head_dim).encode()),
        ("block_tokens", str(spec.block_tokens).encode()),
        ("salt", namespace.salt),
    ]
    digest = blake2b(digest_size=HASH_BYTES, person=_ROOT_PERSON)
    for name, value in fields:
        digest.update(len(name).to_bytes(4, "little") + name.encode())
        digest.update(len(value).to_bytes(8, "little") + value)
    return BlockHash(digest.digest())


class Label(NamedTuple):
    """What a block's name was made from; stored beside the block and compared on a hit."""

    parent: BlockHash
    """Name of the block before it, or the namespace's root for a first block."""

    depth: int
    """Blocks before it in its prompt. Not hashed: the parent's name already implies it. Stored,
    so that a restart can tell a first block from one whose parent was lost."""

    tokens: bytes
    """The block's token ids, 4 bytes each, little-endian."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Whole blocks of one prompt, in prefix order."""

    keys: list[BlockHash]
    labels: list[Label]

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, start: int, stop: int) -> Chain:
        """Blocks ``start`` to ``stop``."""
        return Chain(self.keys[start:stop], self.labels[start:stop])

    def picked(self, positions: Sequence[int]) -> Chain:
        """Some blocks, in the order given; not a chain any more if that leaves gaps."""
        return Chain([self.keys[i] for i in positions], [self.labels[i] for i in positions])


def name_block(label: Label) -> BlockHash:
    """The name that a label leads to."""
    return BlockHash(blake2b(label.parent + label.tokens, digest_size=HASH_BYTES, person=_BLOCK_PERSON).digest())


def token_array(tokens: Sequence[int] | NDArray[Any]) -> NDArray[np.uint32]:
    """Token ids as a checked one-dimensional array.

    Raises:
        TokenError: Not a flat sequence of whole numbers from 0 to ``MAX_TOKEN_ID``. The message
            names the first offending position.
    """
    try:
        array = np.asarray(tokens)
    except (ValueError, TypeError, OverflowError) as exc:
        raise TokenError(f"tokens must be a flat sequence of whole numbers: {exc}") from exc
    if array.ndim != 1:
        raise TokenError(
            f"tokens must be one prompt, a flat sequence of ids; got shape {array.shape}"
            + ("; pass ids[0] for a batch of one" if array.ndim == 2 else "")
        )
    if array.size == 0:
        return np.empty(0, np.uint32)
    if array.dtype.kind not in "iu":
        raise TokenError(f"token ids must be whole numbers, got {array.dtype}; tokenize the text first")
    bad = (array < 0) | (array > MAX_TOKEN_ID)
    if bad.any():
        where = int(np.argmax(bad))
        raise TokenError(
            f"token id {int(array[where])} at position {where} is outside 0..{MAX_TOKEN_ID}; "
            "padding and ignore markers must be removed before a prompt is stored"
        )
    return array.astype("<u4", copy=False)


def name_chain(namespace: Namespace, tokens: Sequence[int] | NDArray[Any]) -> Chain:
    """Names and labels of the whole blocks of a prompt.

    Args:
        namespace: What else the blocks depend on.
        tokens: Token ids, shape ``[num_tokens]``.

    Returns:
        ``num_tokens // block_tokens`` blocks in prefix order; a trailing partial block is left out.

    Raises:
        TokenError: See ``token_array``.
    """
    block_tokens = namespace.spec.block_tokens
    array = token_array(tokens)
    num_blocks = len(array) // block_tokens
    data = array.tobytes()
    step = 4 * block_tokens
    parent = namespace.root
    keys: list[BlockHash] = []
    labels: list[Label] = []
    for depth in range(num_blocks):
        label = Label(parent, depth, data[depth * step : (depth + 1) * step])
        parent = name_block(label)
        keys.append(parent)
        labels.append(label)
    return Chain(keys, labels)


def chain_hashes(namespace: Namespace, tokens: Sequence[int] | NDArray[Any]) -> list[BlockHash]:
    """Names of the whole blocks of a prompt, in prefix order. See ``name_chain``."""
    return name_chain(namespace, tokens).keys
