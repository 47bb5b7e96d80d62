"""A transformers cache over one preallocated buffer per sequence.

    buffer = [layers, 2 (K then V), kv_heads, capacity, head_dim]

A block is a slice of the token axis, so a tier copies it straight to where attention reads it,
and new tokens are written in place instead of concatenating everything at every step.

Source: the cache classes of transformers 5 (``DynamicCache``, ``DynamicLayer``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer


class BufferedLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    """A plain attention layer whose keys and values live in a larger buffer.

    Args:
        keys: ``[batch, kv_heads, capacity, head_dim]``, a view of the buffer.
        values: As ``keys``.
        length: Tokens already in place.
        wait: Called before the layer's tokens are first used; returns when they are in place.
    """

    def __init__(
        self, keys: torch.Tensor, values: torch.Tensor, length: int, wait: Callable[[], None] | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._all_keys, self._all_values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._wait = wait
        self._set_length(length)

    @property
    def in_place(self) -> bool:
        """False once somebody replaced the tensors (beam search, say): then they are ordinary ones."""
        return self.keys is self._own_keys and self.values is self._own_values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values of new tokens; in place while the buffer has room."""
        if self._wait is not None:
            self._wait()
            self._wait = None
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if not self.in_place or new > self._all_keys.shape[-2]:
            grown: Any = super().update(key_states, value_states, *args, **kwargs)
            return grown  # type: ignore[no-any-return]
        self._all_keys[:, :, old:new] = key_states
        self._all_values[:, :, old:new] = value_states
        self._set_length(new)
        return self._own_keys, self._own_values

    def _set_length(self, length: int) -> None:
        self.keys = self._own_keys = self._all_keys[:, :, :length]
        self.values = self._own_values = self._all_values[:, :, :length]


def buffered_cache(config: Any, buffers: torch.Tensor, length: int, wait: Callable[[int], None] | None = None) -> Any:
    """A ``DynamicCache`` over buffers that already hold ``length`` tokens of each sequence.

    Args:
        config: The model's config.
        buffers: ``[batch, layers, 2, kv_heads, capacity, head_dim]``.
        length: Tokens in place, the same for every sequence.
        wait: Called with a layer's number before its tokens are used; None if they are in place now.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        BufferedLayer(
            buffers[:, layer, 0], buffers[:, layer, 1], length, None if wait is None else partial(wait, layer)
        )
        for layer in range(buffers.shape[1])
    ]
    return cache


def block_views(buffer: torch.Tensor, start: int, stop: int, block_tokens: int) -> list[torch.Tensor]:
    """Blocks ``start`` to ``stop`` of one sequence's buffer, as the bytes a store moves.

    Args:
        buffer: ``[layers, 2, kv_heads, capacity, head_dim]``, ``head_dim`` contiguous.
        start: First block.
        stop: One past the last block.
        block_tokens: Tokens in a block.

    Returns:
        Strided ``uint8`` views of shape ``[layers, 2, kv_heads, block_tokens, head_dim * itemsize]``.
    """
    raw = buffer.view(torch.uint8)
    return [raw[:, :, :, i * block_tokens : (i + 1) * block_tokens] for i in range(start, stop)]
