"""The geometry of one KV block.

    block = [layers, 2 (K then V), kv_heads, block_tokens, head_dim]    row-major, one dtype

Everything a tier needs to know about a model is the byte length of this array; everything an
adapter needs to fill it is its shape. Keys are stored after rotary embedding, so a block is
valid only at the position it was computed at, which is what its name says.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvtier.errors import ConfigError

#: Bytes per element of the dtypes a block may hold, by torch's own names.
DTYPE_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}

#: Tokens in a block unless the caller says otherwise: 1.4 MB for SmolLM2 in float32, 4 MiB for
#: an 8B model in bfloat16. Larger blocks move faster; smaller ones waste less of a prompt's tail.
DEFAULT_BLOCK_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class KVSpec:
    """Geometry of a model's KV cache and how it is cut into blocks."""

    layers: int
    """Decoder layers that keep keys and values."""

    kv_heads: int
    """Key/value heads of a layer (fewer than query heads under GQA)."""

    head_dim: int
    """Elements of one head's key, and of its value."""

    dtype: str
    """Element type by its torch name: one of ``DTYPE_BYTES``."""

    block_tokens: int = DEFAULT_BLOCK_TOKENS
    """Tokens in one block."""

    def __post_init__(self) -> None:
        for name in ("layers", "kv_heads", "head_dim", "block_tokens"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"KVSpec.{name} must be a whole number of at least 1, got {value!r}")
        if self.dtype not in DTYPE_BYTES:
            known = ", ".join(DTYPE_BYTES)
            raise ConfigError(f"KVSpec.dtype {self.dtype!r} is not known; use one of: {known}")

    @property
    def bytes_per_token(self) -> int:
        """Bytes of K and V of one token, all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * DTYPE_BYTES[self.dtype]

    @property
    def block_bytes(self) -> int:
        """Bytes of one block's payload."""
        return self.bytes_per_token * self.block_tokens

    @property
    def block_shape(self) -> tuple[int, int, int, int, int]:
        """``(layers, 2, kv_heads, block_tokens, head_dim)``, in elements of ``dtype``."""
        return (self.layers, 2, self.kv_heads, self.block_tokens, self.head_dim)
