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
multiple, so output with any mix of hits equals output without a store, bit for bit.

A prefix in a slow tier may take longer to load than to compute: ``reuse`` says what to do then.
Under ``"both"`` and ``"auto"`` a prompt may be computed in other pieces each time, so without
``chunk_tokens`` the output is that of some partial hit, equal up to the same rounding.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from kvtier.errors import ConfigError, SpecMismatchError, TokenError
from kvtier.hashing import Namespace, token_array
from kvtier.integrations.arena import Arena
from kvtier.integrations.cache import BufferedLayer, block_views, buffered_cache
from kvtier.integrations.identity import fingerprint, kv_spec
from kvtier.integrations.meeting import Judge, Meeting, Met, Plan, check_reuse
from kvtier.opening import open_store
from kvtier.reuse import Decision
from kvtier.spec import DEFAULT_BLOCK_TOKENS
from kvtier.store import Flushed, Hit, TieredStore

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
    """What came from the store: the leading blocks, or under ``reuse`` other than ``"load"`` any of
    them; then ``stopped_by`` is ``"computed"`` if blocks that the store holds were computed instead."""

    num_reused: int
    """Prompt tokens not computed again."""

    seconds: dict[str, float]
    """Wall time by step: ``load`` (naming, match, copy), ``compute``, ``save`` (naming, put). What is
    loaded while the model computes counts as ``compute``."""

    decision: Decision | None = None
    """Whether to load, compute or do both, with what each was predicted to take; None if there was
    nothing to decide (nothing held, or ``reuse="load"``)."""


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


class CachedLM:
    """A causal LM whose prefills go through a store.

    Args:
        model: A transformers causal LM in eval mode, plain attention in every layer.
        store: Whose namespace is ``namespace_of(model, ...)``; None computes everything, which is
            the control of every measurement. The caller closes it.
        chunk_tokens: Compute in pieces that end at multiples of this many tokens, and use hits up
            to such a multiple: bit-exact with and without hits. None reuses all it can.
        reuse: What to do about a prefix that the store holds: ``"load"`` it; ``"compute"`` it all the
            same; ``"both"``: load it from its end while computing from its beginning, unless that is
            predicted to gain nothing; ``"auto"``: what is predicted to be fastest. May be set at any time.

    Raises:
        UnsupportedModelError: The model's cache cannot be restored exactly.
        SpecMismatchError: The store is for another geometry, other weights or another ``chunk_tokens``.
        ConfigError: ``chunk_tokens`` is not a multiple of the block length, or ``reuse`` is none of these.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        store: TieredStore | None,
        *,
        chunk_tokens: int | None = None,
        reuse: str = "load",
        _names: Namespace | None = None,
    ) -> None:
        check_reuse(reuse)
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
        self.reuse = reuse
        self._judge = Judge()
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
        reuse: str = "load",
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
            reuse: As for the constructor.
            sizes: ``device``, ``host``, ``disk`` and other arguments of ``kvtier.open_store``.
        """
        check_reuse(reuse)
        names = namespace_of(model, block_tokens=block_tokens, chunk_tokens=chunk_tokens, adapter=adapter, salt=salt)
        return cls(model, open_store(directory, names, **sizes), chunk_tokens=chunk_tokens, reuse=reuse, _names=names)

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
        wanted = self._wanted(ids, upto)
        plan = self._judge.plan(self.store, self.reuse, ids, wanted=wanted, num_tokens=upto, step=self.chunk_tokens)
        if plan is not None and plan.decision.chosen != "load":
            return self._fill_by(plan, buffers[row : row + 1], ids, upto, began)
        buffer = buffers[row]
        hit = self._load(buffer, ids, upto)
        reused = min(hit.num_tokens, upto if upto < len(ids) else len(ids) - 1)
        loaded = time.perf_counter()
        cache = buffered_cache(self.model.config, buffers[row : row + 1], reused)
        logits = self._compute(cache, ids[:upto], reused)
        computed = self._judge.computed(self.model.device, reused, upto, self.chunk_tokens, loaded)
        self._save(buffer, ids[:upto], hit.num_blocks)
        saved = time.perf_counter()
        seconds = {"load": loaded - began, "compute": computed - loaded, "save": saved - computed}
        last = logits if upto == len(ids) else None
        return Prefill(cache, last, hit, reused, seconds, plan.took(computed - began) if plan else None)

    def _fill_by(self, plan: Plan, buffers: torch.Tensor, ids: Any, upto: int, began: float) -> Prefill:
        """``_fill`` where the prefix is not simply loaded."""
        assert self.store is not None
        config, device, buffer = self.model.config, self.model.device, buffers[0]
        met = Met(Hit(0, (), "computed"), 0, 0, 0.0)
        if plan.decision.chosen == "both":
            views = partial(block_views, buffer, block_tokens=self.spec.block_tokens)
            compute = partial(self._compute_part, buffers, ids)
            met = Meeting(plan, self.store, views, compute, judge=self._judge, device=device).run()
        cache = buffered_cache(config, buffers, met.num_in_place)
        loaded = time.perf_counter()
        logits = self._compute(cache, ids[:upto], met.num_in_place)
        computed = self._judge.computed(device, met.num_in_place, upto, self.chunk_tokens, loaded)
        self._save(buffer, ids[:upto], 0)  # all: what could not be loaded is to be stored again
        computing = met.compute_s + computed - loaded
        seconds = {"load": computed - began - computing, "compute": computing, "save": time.perf_counter() - computed}
        last = logits if upto == len(ids) else None
        return Prefill(cache, last, met.hit, met.num_reused, seconds, plan.took(computed - began))

    def _compute_part(self, buffers: torch.Tensor, ids: Any, start: int, stop: int) -> None:
        """Compute tokens of a prompt in place, those before them being there."""
        self._compute(buffered_cache(self.model.config, buffers, start), ids[:stop], start)

    def _wanted(self, ids: Any, upto: int) -> int:
        """Leading blocks of a prompt that may be reused."""
        usable = min(upto, len(ids) - 1)
        if self.chunk_tokens is None:
            return min(-(-usable // self.spec.block_tokens), len(ids) // self.spec.block_tokens)
        return usable // self.chunk_tokens * self.chunk_tokens // self.spec.block_tokens

    def _load(self, buffer: torch.Tensor, ids: Any, upto: int) -> Hit:
        if self.store is None:
            return Hit(0, (), "not_held")
        wanted = self._wanted(ids, upto)
        hit = self.store.get(ids, block_views(buffer, 0, wanted, self.spec.block_tokens))
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
    """Refuse a store whose blocks this model did not make; adapter and salt are the caller's word."""
    own = store.namespace
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
