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

A prefix in a slow tier may take longer to load than to compute: ``reuse`` says what to do then.
Under ``"both"`` and ``"auto"`` a prompt may be computed in other pieces each time, so without
``chunk_tokens`` the output is that of some partial hit, equal up to the same rounding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from kvtier.answers import Flushed
from kvtier.econ.machine import machine_name, versions
from kvtier.econ.profile import Profile
from kvtier.errors import ConfigError, ProfileError, SpecMismatchError, TokenError
from kvtier.formats.base import engine_layout
from kvtier.hashing import Namespace, token_array
from kvtier.integrations.arena import Arena
from kvtier.integrations.cache import BufferedLayer, buffered_cache
from kvtier.integrations.filling import Filling, Layerwise, Prefill, check_filling
from kvtier.integrations.identity import fingerprint, kv_spec, rope_of
from kvtier.integrations.shadow import Shadow
from kvtier.opening import open_store
from kvtier.spec import DEFAULT_BLOCK_TOKENS, KVSpec
from kvtier.store import TieredStore

__all__ = ["CachedLM", "Prefill", "fingerprint", "kv_spec", "namespace_of"]

#: Options of ``model.generate`` that cannot work here, and why.
_REFUSED_OPTIONS = {
    "assistant_model": "transformers gives wrong tokens for assisted decoding over a filled cache",
    "prompt_lookup_num_tokens": "transformers gives wrong tokens for assisted decoding over a filled cache",
    "assistant_early_exit": "transformers gives wrong tokens for assisted decoding over a filled cache",
    "return_dict_in_generate": "the answer is token ids; call prefill and model.generate for more",
}


def namespace_of(
    model: PreTrainedModel,
    *,
    block_tokens: int = DEFAULT_BLOCK_TOKENS,
    chunk_tokens: int | None = None,
    adapter: str = "",
    tokenizer: str = "",
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
        spec=kv_spec(model, block_tokens),
        weights=fingerprint(model),
        adapter=adapter,
        rope=rope_of(model),
        tokenizer=tokenizer,
        layout=layout,
        salt=salt,
    )


class CachedLM(Filling):
    """A causal LM whose prefills go through a store.

    Args:
        model: A transformers causal LM in eval mode, plain attention in every layer.
        store: Whose namespace is ``namespace_of(model, ...)``; None computes everything, which is
            the control of every measurement. The caller closes it.
        chunk_tokens: Compute in pieces that end at multiples of this many tokens, and use hits up
            to such a multiple: bit-exact with and without hits. None reuses all it can.
        layerwise: Compute on the first layers of a prefix while the last are under way: ``"always"``,
            ``"never"``, or ``"auto"``: where it was measured to win, which is nowhere yet. May be set at any time.
        reuse: What to do about a prefix that the store holds: ``"load"`` it; ``"compute"`` it all the
            same; ``"both"``: load it from its end while computing from its beginning, unless that is
            predicted to gain nothing; ``"auto"``: what is predicted to be fastest. May be set at any time.
        shadow: Share of the hits, 0 to 1, that are computed once more without the store and compared bit
            for bit. A hit found wrong is logged as an error, counted (``shadow_mismatches`` of
            ``store.stats()``) and forgotten, and the caller gets what was computed. Takes ``chunk_tokens``
            and an exact storage format. A ``kvtier.integrations.shadow.Shadow`` draws by a seed of its own.
        profile: What ``reuse`` believes of this machine with this model before it has seen enough itself, as
            ``kvtier calibrate`` measured it: ``Profile.load(path)`` of ``kvtier.econ.profile``.

    Raises:
        UnsupportedModelError: The model's cache cannot be restored exactly.
        SpecMismatchError: The store is for another geometry, other weights or another ``chunk_tokens``.
        ConfigError: ``chunk_tokens`` is not a multiple of the block length, a setting is none of these, or
            ``shadow`` is given where equal bits cannot be expected.
        ProfileError: ``profile`` is another machine's, version's or model's.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        store: TieredStore | None,
        *,
        chunk_tokens: int | None = None,
        layerwise: Layerwise = "auto",
        reuse: str = "load",
        shadow: float | Shadow = 0.0,
        profile: Profile | None = None,
        _names: Namespace | None = None,
    ) -> None:
        if store is None:
            _check_chunk(chunk_tokens, 1)
            spec = kv_spec(model)
        else:
            spec = store.spec
            if store.namespace is not _names:  # ``open`` has just derived it from this very model
                _check_namespace(model, store, chunk_tokens)
        if profile is not None:
            _check_profile(profile, spec)
        super().__init__(
            model,
            store,
            spec,
            chunk_tokens=chunk_tokens,
            layerwise=layerwise,
            reuse=reuse,
            shadow=shadow if isinstance(shadow, Shadow) else Shadow(shadow),
            profile=profile,
        )
        self._arena = Arena()
        self._dtype = getattr(torch, spec.dtype)
        self._vocab: int = model.config.get_text_config(decoder=True).vocab_size

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
        layerwise: Layerwise = "auto",
        reuse: str = "load",
        shadow: float | Shadow = 0.0,
        profile: Profile | None = None,
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
            layerwise: As for the constructor.
            reuse: As for the constructor.
            shadow: As for the constructor.
            profile: As for the constructor.
            sizes: ``device``, ``host``, ``disk``, ``disk_format`` and other arguments of ``kvtier.open_store``;
                ``on`` is the model's device unless told.
        """
        check_filling(layerwise, reuse)
        names = namespace_of(model, block_tokens=block_tokens, chunk_tokens=chunk_tokens, adapter=adapter, salt=salt)
        store = open_store(directory, names, **{"on": model.device, **sizes})
        settings: dict[str, Any] = {"layerwise": layerwise, "reuse": reuse, "shadow": shadow, "profile": profile}
        try:
            return cls(model, store, chunk_tokens=chunk_tokens, _names=store.namespace, **settings)
        except BaseException:
            store.close()
            raise

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
        return self._fill(buffers, ids, len(ids))

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
            self._fill(buffers[row : row + 1, :, :, :, pad:], ids, len(ids) - 1)
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


def _check_profile(profile: Profile, spec: KVSpec) -> None:
    """Refuse a profile of another machine, version or model."""
    profile.check_here(machine_name(), versions())
    own = spec.block_bytes // spec.block_tokens
    if profile.bytes_per_token != own:
        raise ProfileError(
            f"profile {profile.name!r} is of {profile.model} with {profile.bytes_per_token:,} bytes of KV per token, "
            f"this model has {own:,}; measure with this one"
        )


def _check_namespace(model: PreTrainedModel, store: TieredStore, chunk_tokens: int | None) -> None:
    """Refuse a store whose blocks this model did not make; adapter, salt and storage format are the caller's word."""
    own = replace(store.namespace, layout=engine_layout(store.namespace.layout))
    needed = namespace_of(
        model, block_tokens=own.spec.block_tokens, chunk_tokens=chunk_tokens, adapter=own.adapter, salt=own.salt
    )
    for name in ("spec", "weights", "rope", "layout"):
        got, expected = getattr(own, name), getattr(needed, name)
        if got != expected:
            raise SpecMismatchError(
                f"the store's namespace has {name} {got!r}, the model needs {expected!r}; "
                "open it with namespace_of(model, ...)"
            )
