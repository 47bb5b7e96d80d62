"""Prefill with a store: use the longest cached prefix, compute the rest, save what is new.

    lm = CachedLM.open(model, "kv-cache", host="1 GiB", disk="8 GiB")
    new_tokens = lm.generate(prompt_ids, max_new_tokens=64)

Blocks are copied from their tier straight into the model's cache, and from there into the
store, once each. At least the last token of a prompt is always computed, because its logits
are what a prefill is for.

Which comparison is bit-exact: a cache restored from the store holds the very bytes that were
saved, so a hit equals the same two-step prefill without a store, bit for bit. It need not
equal a prefill in one step, because matrix kernels are chosen by shape; the difference is
that of the engine's own prefix cache. ``chunk_tokens`` removes it: then prompts are always
computed in pieces that end at multiples of ``chunk_tokens``, and a hit is used up to such a
multiple, so output with any mix of hits equals output without a store, bit for bit. Both hold for
exact storage formats of the disk tier, not for ``fp8``, ``int8`` and ``int4``.
"""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from kvtier.answers import Flushed, Hit
from kvtier.errors import ConfigError, SpecMismatchError, StreamBrokenError, TokenError
from kvtier.formats.base import engine_layout
from kvtier.hashing import Namespace, token_array
from kvtier.integrations.arena import Arena
from kvtier.integrations.cache import BufferedLayer, block_views, buffered_cache
from kvtier.integrations.identity import fingerprint, kv_spec
from kvtier.opening import open_store
from kvtier.spec import DEFAULT_BLOCK_TOKENS
from kvtier.store import TieredStore
from kvtier.streaming import Stream

log = logging.getLogger("kvtier")

__all__ = ["CachedLM", "Prefill", "fingerprint", "kv_spec", "namespace_of"]

#: Options of ``model.generate`` that cannot work here, and why.
_REFUSED_OPTIONS = {
    "assistant_model": "transformers gives wrong tokens for assisted decoding over a filled cache",
    "prompt_lookup_num_tokens": "transformers gives wrong tokens for assisted decoding over a filled cache",
    "assistant_early_exit": "transformers gives wrong tokens for assisted decoding over a filled cache",
    "return_dict_in_generate": "the answer is token ids; call prefill and model.generate for more",
}


@dataclass(frozen=True, slots=True)
class Prefill:
    """A prompt ready to be continued."""

    past_key_values: Any
    """A transformers cache holding every token computed so far."""

    logits: torch.Tensor | None
    """Logits of the prompt's last token, ``[vocab]``; None if it was left to the caller."""

    hit: Hit
    """What came from the store."""

    num_reused: int
    """Prompt tokens not computed again."""

    seconds: dict[str, float]
    """Wall time by step: ``load`` (naming, match, and copy unless layers come while the model computes),
    ``compute``, ``save`` (naming, put)."""


def namespace_of(
    model: PreTrainedModel,
    *,
    block_tokens: int = DEFAULT_BLOCK_TOKENS,
    chunk_tokens: int | None = None,
    adapter: str = "",
    salt: bytes = b"",
) -> Namespace:
    """The namespace of a model's blocks; see ``kvtier.hashing.Namespace``.

    Blocks computed in fixed chunks are kept apart from others, which may differ in the last bit.

    Raises:
        UnsupportedModelError: See ``kv_spec``.
        ConfigError: ``chunk_tokens`` is not a multiple of ``block_tokens``.
    """
    _check_chunk(chunk_tokens, block_tokens)
    layout = "kvtier-v1" if chunk_tokens is None else f"kvtier-v1/chunk{chunk_tokens}"
    return Namespace(
        spec=kv_spec(model, block_tokens), weights=fingerprint(model), adapter=adapter, layout=layout, salt=salt
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """One prompt to be computed."""

    buffers: torch.Tensor
    """``[1, layers, 2, kv_heads, capacity, head_dim]``"""

    ids: Any
    upto: int


@dataclass(frozen=True, slots=True)
class _Done:
    """What was computed."""

    cache: Any
    logits: torch.Tensor | None
    reused: int


class CachedLM:
    """A causal LM whose prefills go through a store.

    Args:
        model: A transformers causal LM in eval mode, plain attention in every layer.
        store: Whose namespace is ``namespace_of(model, ...)``; None computes everything, which is
            the control of every measurement. The caller closes it.
        chunk_tokens: Compute in pieces that end at multiples of this many tokens, and use hits up
            to such a multiple: bit-exact with and without hits. None reuses all it can.

    Raises:
        UnsupportedModelError: The model's cache cannot be restored exactly.
        SpecMismatchError: The store is for another geometry, other weights or another ``chunk_tokens``.
        ConfigError: ``chunk_tokens`` is not a multiple of the block length.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        store: TieredStore | None,
        *,
        chunk_tokens: int | None = None,
        layerwise: Literal["auto", "always", "never"] = "auto",
        _names: Namespace | None = None,
    ) -> None:
        if layerwise not in {"auto", "always", "never"}:
            raise ConfigError(f"layerwise must be 'auto', 'always' or 'never', got {layerwise!r}")
        if store is None:
            _check_chunk(chunk_tokens, 1)
            self.spec = kv_spec(model)
        else:
            self.spec = store.spec
            if store.namespace is not _names:  # ``open`` has just derived it from this very model
                _check_namespace(model, store, chunk_tokens)
        self.model = model
        self.store = store
        self.chunk_tokens = chunk_tokens
        self.layerwise = layerwise
        self._arena = Arena()
        self._dtype = getattr(torch, self.spec.dtype)
        self._vocab: int = model.config.get_text_config(decoder=True).vocab_size
        takes_keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if takes_keep else {}

    @classmethod
    def open(
        cls,
        model: PreTrainedModel,
        directory: str | os.PathLike[str] | None,
        *,
        block_tokens: int = DEFAULT_BLOCK_TOKENS,
        chunk_tokens: int | None = None,
        adapter: str = "",
        salt: bytes = b"",
        **sizes: Any,
    ) -> CachedLM:
        """A model with a store of its own, opened for its namespace.

        Args:
            model: As for the constructor.
            directory: Of the disk tier; see ``kvtier.open_store``.
            block_tokens: Tokens of one block.
            chunk_tokens: As for the constructor.
            adapter: Name and digest of a LoRA in effect that is not part of the weights.
            salt: A tenant's secret.
            sizes: ``device``, ``host``, ``disk``, ``disk_format`` and other arguments of ``kvtier.open_store``.
        """
        names = namespace_of(model, block_tokens=block_tokens, chunk_tokens=chunk_tokens, adapter=adapter, salt=salt)
        store = open_store(directory, names, **sizes)
        return cls(model, store, chunk_tokens=chunk_tokens, _names=store.namespace)

    def prefill(self, prompt: Sequence[int], *, max_new_tokens: int = 0) -> Prefill:
        """Compute what the store does not have of a prompt, and save it.

        Args:
            prompt: Token ids, shape ``[num_tokens]``, at least one.
            max_new_tokens: Room to keep in the cache for tokens to come; more still works.

        Raises:
            TokenError: An empty prompt, or an id outside the model's vocabulary.
        """
        ids = self._checked(prompt)
        buffers = self._buffers(1, len(ids) + max_new_tokens)
        return self._fill(buffers, 0, ids, len(ids))

    def generate(
        self, prompts: Sequence[int] | Sequence[Sequence[int]], *, max_new_tokens: int = 32, **options: Any
    ) -> list[int] | list[list[int]]:
        """Continue one prompt or several, greedily unless ``options`` say otherwise.

        Prompts of a batch are prefilled one after another, so that they share what they have in
        common, and decoded together. What was decoded is saved as well, except under
        ``chunk_tokens``.

        Args:
            prompts: One prompt, or a list of prompts of any lengths.
            max_new_tokens: Tokens to add at most.
            options: Passed to ``model.generate``.

        Returns:
            The new tokens of each prompt, up to and with an end-of-sequence token; without the
            outer list for a single prompt. With ``num_return_sequences=n``, n lists for each prompt.

        Raises:
            TokenError: An empty prompt, or an id outside the model's vocabulary.
            ConfigError: An option that cannot work here: assisted decoding, or another kind of answer.
        """
        for name, reason in _REFUSED_OPTIONS.items():
            if self._option(options, name):
                raise ConfigError(f"generate does not take {name}: {reason}")
        single = not len(prompts) or isinstance(prompts[0], (int, float)) or getattr(prompts[0], "ndim", 1) == 0
        rows = [self._checked(prompt) for prompt in ([prompts] if single else prompts)]  # type: ignore[arg-type]
        longest = max(len(ids) for ids in rows)
        buffers = self._buffers(len(rows), longest + max_new_tokens)
        tokens = torch.zeros((len(rows), longest), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, ids in enumerate(rows):
            pad = longest - len(ids)
            buffers[row, :, :, :, :pad] = 0
            self._fill(buffers[row : row + 1, :, :, :, pad:], 0, ids, len(ids) - 1)
            tokens[row, pad:] = torch.from_numpy(ids.astype(np.int64))
            mask[row, pad:] = 1
        cache = buffered_cache(self.model.config, buffers, longest - 1)
        output = self._decode(tokens, mask, cache, max_new_tokens, options)
        new = [self._until_end(row[longest:].tolist(), options) for row in output]
        if self.chunk_tokens is None and all(
            isinstance(layer, BufferedLayer) and layer.in_place for layer in cache.layers
        ):
            for row, ids in enumerate(rows):
                done = np.concatenate([ids, np.asarray(new[row], np.uint32)])[:-1]
                self._save(buffers[row, :, :, :, longest - len(ids) :], done, (len(ids) - 1) // self.spec.block_tokens)
        return new[0] if single and len(new) == 1 else new

    def close(self) -> Flushed | None:
        """Close the store, if there is one; returns what it brought down to disk."""
        return None if self.store is None else self.store.close()

    def _decode(
        self, tokens: torch.Tensor, mask: torch.Tensor, cache: Any, max_new_tokens: int, options: dict[str, Any]
    ) -> torch.Tensor:
        device = self.model.device
        arguments = {"do_sample": False, "pad_token_id": 0, **options}
        copies = max(self._option(options, "num_beams") or 1, self._option(options, "num_return_sequences") or 1)
        if copies > 1:  # generate repeats the prompts, and expects a cache that matches
            cache.batch_repeat_interleave(copies)
        with torch.no_grad():
            generate: Any = self.model.generate
            output: torch.Tensor = generate(
                input_ids=tokens.to(device),
                attention_mask=mask.to(device),
                past_key_values=cache,
                max_new_tokens=max_new_tokens,
                **arguments,
            )
        return output

    def _fill(self, buffers: torch.Tensor, row: int, ids: Any, upto: int) -> Prefill:
        """Bring the first ``upto`` tokens of a prompt into a buffer: load, compute, save."""
        began = time.perf_counter()
        blocks = block_views(buffers[row], 0, self._wanted(ids, upto), self.spec.block_tokens)
        work = _Work(buffers[row : row + 1], ids, upto)
        if self.store is None:
            hit, loaded = Hit(0, (), "not_held"), began
            done = self._continue(work, hit)
        elif self._overlaps():
            stream = self.store.stream(ids, blocks)
            loaded = time.perf_counter()
            hit, done = self._continue_meanwhile(work, stream)
        else:
            hit = self._usable(self.store.get(ids, blocks))
            loaded = time.perf_counter()
            done = self._continue(work, hit)
        computed = time.perf_counter()
        self._save(buffers[row], ids[:upto], hit.num_blocks)
        saved = time.perf_counter()
        seconds = {"load": loaded - began, "compute": computed - loaded, "save": saved - computed}
        last = done.logits if upto == len(ids) else None
        return Prefill(done.cache, last, hit, done.reused, seconds)

    def _overlaps(self) -> bool:
        """Whether to compute while layers are under way."""
        return self.layerwise == "always" or (self.layerwise == "auto" and self.model.device.type == "cuda")

    def _continue_meanwhile(self, work: _Work, stream: Stream[Hit]) -> tuple[Hit, _Done]:
        """Compute on what a stream delivers; again, if it turns out to deliver less than it promised."""
        promised = Hit(stream.num_promised * self.spec.block_tokens, ("",) * stream.num_promised, None)
        done = None
        try:
            done = self._continue(work, self._usable(promised), stream.wait)
        except StreamBrokenError:
            log.warning("a streamed prefix broke off; what was computed on it is thrown away")
        finally:  # whatever happened: nobody may write to the buffer any more
            arrived = stream.result()
        hit = self._usable(arrived)
        if done is None or arrived.num_blocks < stream.num_promised:
            done = self._continue(work, hit)
        return hit, done

    def _continue(self, work: _Work, hit: Hit, wait: Callable[[int], None] | None = None) -> _Done:
        """Compute what a hit leaves to be computed."""
        reused = min(hit.num_tokens, work.upto if work.upto < len(work.ids) else len(work.ids) - 1)
        cache = buffered_cache(self.model.config, work.buffers, reused, wait)
        return _Done(cache, self._compute(cache, work.ids[: work.upto], reused), reused)

    def _wanted(self, ids: Any, upto: int) -> int:
        """Blocks of a prompt worth loading."""
        usable = min(upto, len(ids) - 1)
        if self.chunk_tokens is not None:
            return int(usable // self.chunk_tokens * self.chunk_tokens // self.spec.block_tokens)
        return int(min(-(-usable // self.spec.block_tokens), len(ids) // self.spec.block_tokens))

    def _usable(self, hit: Hit) -> Hit:
        """A hit less what must be computed again."""
        if self.chunk_tokens is None:
            return hit
        whole = hit.num_tokens // self.chunk_tokens * self.chunk_tokens
        return Hit(whole, hit.tiers[: whole // self.spec.block_tokens], hit.stopped_by)

    def _compute(self, cache: Any, ids: Any, reused: int) -> torch.Tensor | None:
        """Run the model over the tokens that are not in the cache yet; logits of the last one."""
        logits = None
        step = self.chunk_tokens or len(ids)
        while reused < len(ids):
            stop = min(len(ids), (reused // step + 1) * step)
            piece = torch.from_numpy(ids[reused:stop].astype(np.int64))[None].to(self.model.device)
            with torch.no_grad():
                output = self.model(input_ids=piece, past_key_values=cache, use_cache=True, **self._last_only)
            logits = output.logits[0, -1]
            reused = stop
        return logits

    def _save(self, buffer: torch.Tensor, ids: Any, start: int) -> None:
        if self.store is None:
            return
        step = self.chunk_tokens or self.spec.block_tokens
        stop = len(ids) // step * step // self.spec.block_tokens
        if stop > start:
            self.store.put(ids, block_views(buffer, start, stop, self.spec.block_tokens), start=start)

    def _buffers(self, num_rows: int, num_tokens: int) -> torch.Tensor:
        """Room for whole blocks of ``num_tokens`` tokens in each row."""
        block = self.spec.block_tokens
        capacity = -(-num_tokens // block) * block
        shape = (num_rows, self.spec.layers, 2, self.spec.kv_heads, capacity, self.spec.head_dim)
        return self._arena.take(shape, self._dtype, self.model.device)

    def _checked(self, prompt: Sequence[int]) -> Any:
        ids = token_array(prompt)
        if not len(ids):
            raise TokenError("the prompt is empty; a model needs at least one token to continue")
        if int(ids.max()) >= self._vocab:
            where = int(np.argmax(ids >= self._vocab))
            raise TokenError(
                f"token id {int(ids[where])} at position {where} is outside the vocabulary of {self._vocab}"
            )
        return ids

    def _until_end(self, new: list[int], options: dict[str, Any]) -> list[int]:
        """Cut after the first end-of-sequence token; what follows it in a batch is padding."""
        ends = self._option(options, "eos_token_id")
        stops = set(ends if isinstance(ends, list) else [ends])
        return next((new[: i + 1] for i, token in enumerate(new) if token in stops), new)

    def _option(self, options: dict[str, Any], name: str) -> Any:
        """A generation setting as ``model.generate`` finds it: an argument, or an entry of the config."""
        config = options.get("generation_config") or self.model.generation_config
        return options.get(name, getattr(config, name, None))


def _check_chunk(chunk_tokens: int | None, block_tokens: int) -> None:
    if chunk_tokens is not None and (chunk_tokens < 1 or chunk_tokens % block_tokens):
        raise ConfigError(f"chunk_tokens must be a multiple of block_tokens ({block_tokens}), got {chunk_tokens}")


def _check_namespace(model: PreTrainedModel, store: TieredStore, chunk_tokens: int | None) -> None:
    """Refuse a store whose blocks this model did not make; adapter, salt and storage format are the caller's word."""
    own = replace(store.namespace, layout=engine_layout(store.namespace.layout))
    needed = namespace_of(
        model, block_tokens=own.spec.block_tokens, chunk_tokens=chunk_tokens, adapter=own.adapter, salt=own.salt
    )
    for name in ("spec", "weights", "layout"):
        got, expected = getattr(own, name), getattr(needed, name)
        if got != expected:
            raise SpecMismatchError(
                f"the store's namespace has {name} {got!r}, the model needs {expected!r}; "
                "open it with namespace_of(model, ...)"
            )
