"""What the answer must be: the same computation with plain transformers, and no part of kvtier in it.

    with chunk_tokens      from nothing, in pieces that end at its multiples: one answer, whatever is held
    without                from the very keys and values that were computed when the blocks were saved,
                           kept here in memory: then the rest of the prompt in one piece

The memory is keyed by token ids, not by kvtier's names, so a block under a wrong name cannot pass for the right one.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache


@dataclass(frozen=True, slots=True)
class Answer:
    """A prompt's continuation, greedily."""

    tokens: list[int]
    logits: torch.Tensor
    """``[tokens, vocab]``"""


def continued(model: Any, cache: Any, logits: torch.Tensor, num_tokens: int) -> Answer:
    """Decode from a cache that holds a prompt, whose last logits are given."""
    tokens, all_logits = [], []
    with torch.no_grad():
        for step in range(num_tokens):
            all_logits.append(logits)
            tokens.append(int(logits.argmax()))
            if step + 1 < num_tokens:
                piece = torch.tensor([tokens[-1:]], device=model.device)
                logits = model(input_ids=piece, past_key_values=cache, use_cache=True).logits[0, -1]
    return Answer(tokens, torch.stack(all_logits).cpu())


class Ledger:
    """Blocks as they were computed, by the token ids up to their end.

    Args:
        block_tokens: Tokens of one block.
    """

    def __init__(self, block_tokens: int) -> None:
        self._size = block_tokens
        self._versions: dict[tuple[int, ...], list[torch.Tensor]] = {}

    def record(self, ids: Sequence[int], kv: torch.Tensor, start: int) -> None:
        """Note the whole blocks of a prompt from number ``start`` on.

        Args:
            ids: The prompt.
            kv: Its keys and values, ``[layers, 2, kv_heads, tokens, head_dim]``.
            start: The first block that was computed, not served.
        """
        for number in range(start, len(ids) // self._size):
            block = kv[..., number * self._size : (number + 1) * self._size, :].clone()
            versions = self._versions.setdefault(tuple(ids[: (number + 1) * self._size]), [])
            if not any(same_bits(block, version) for version in versions):
                versions.append(block)

    def truth(self, ids: Sequence[int], kv: torch.Tensor, num_tokens: int) -> tuple[torch.Tensor, list[int]]:
        """The first tokens of a prompt as they were computed, and the numbers of blocks that were served otherwise.

        Without chunks a block may have been computed more than once, in different pieces; then the version
        that was served is taken. One that equals none is wrong.
        """
        parts, wrong = [], []
        for number in range(-(-num_tokens // self._size)):
            stop = min((number + 1) * self._size, num_tokens)
            served = kv[..., number * self._size : stop, :]
            versions = self._versions.get(tuple(ids[: (number + 1) * self._size]), [])
            kept = [version[..., : served.shape[-2], :] for version in versions]
            equal = [version for version in kept if same_bits(version, served)]
            if not equal:
                wrong.append(number)
            parts.append((equal or kept or [torch.zeros_like(served)])[0])
        return torch.cat(parts, dim=-2), wrong


class Reference:
    """Answers of a model without kvtier.

    Args:
        model: A transformers causal LM.
        num_new: Tokens to add to a prompt.
        chunk_tokens: Compute in pieces that end at multiples of this; None in one piece.
    """

    def __init__(self, model: Any, num_new: int, chunk_tokens: int | None) -> None:
        self._model = model
        self._num_new = num_new
        self._chunk = chunk_tokens
        takes_keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if takes_keep else {}  # as the adapter: its shape picks the kernel
        self._known: dict[tuple[int, ...], Answer] = {}

    def cold(self, ids: Sequence[int]) -> Answer:
        """From nothing; computed once for each prompt."""
        if tuple(ids) not in self._known:
            self._known[tuple(ids)] = self._answer(ids, DynamicCache(config=self._model.config))
        return self._known[tuple(ids)]

    def after(self, ids: Sequence[int], kv: torch.Tensor) -> Answer:
        """From keys and values of a prompt's first tokens, ``[layers, 2, kv_heads, tokens, head_dim]``."""
        cache = DynamicCache(config=self._model.config)
        for layer, (keys, values) in enumerate(kv):
            cache.update(keys[None].clone(), values[None].clone(), layer)
        return self._answer(ids, cache)

    def _answer(self, ids: Sequence[int], cache: Any) -> Answer:
        start = cache.get_seq_length()
        step = self._chunk or len(ids)
        with torch.no_grad():
            while start < len(ids):
                stop = min(len(ids), (start // step + 1) * step)
                piece = torch.tensor([ids[start:stop]], device=self._model.device)
                output = self._model(input_ids=piece, past_key_values=cache, use_cache=True, **self._last_only)
                start = stop
            logits = output.logits[0, -1]
        return continued(self._model, cache, logits, self._num_new)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors of one shape and dtype are equal bit for bit: no two zeros, no two NaNs are alike."""
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference between two tensors: 0.0 only if all bits are equal, infinite if one is no number."""
    if same_bits(one, other):
        return 0.0
    largest = float((one.double() - other.double()).abs().max())
    return math.inf if math.isnan(largest) else max(largest, sys.float_info.min)
