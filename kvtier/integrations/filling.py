"""Bringing a prompt into a model's cache: what the store holds is loaded, the rest is computed and saved.

load        get, then compute behind it
layer-wise  compute on the first layers while the last are under way (``kvtier.streaming``)
both        compute from the beginning while loading from the end (``kvtier.integrations.meeting``)
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from kvtier.answers import Hit
from kvtier.econ.profile import Profile
from kvtier.errors import ConfigError, StreamBrokenError
from kvtier.integrations.cache import block_views, buffered_cache
from kvtier.integrations.meeting import Judge, Meeting, Met, Plan, check_reuse
from kvtier.integrations.shadow import Outcome, Shadow
from kvtier.reuse import Decision
from kvtier.spec import KVSpec
from kvtier.store import TieredStore
from kvtier.streaming import Stream

log = logging.getLogger("kvtier")

Layerwise = Literal["auto", "always", "never"]


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
    """Wall time by step: ``load`` (naming, match, copy), ``compute``, ``save`` (naming, put, and before it the
    check of a hit that ``shadow`` drew). What is loaded while the model computes counts as ``compute``."""

    decision: Decision | None = None
    """Whether to load, compute or do both, with what each was predicted to take; None if there was
    nothing to decide (nothing held, or ``reuse="load"``)."""


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


class Filling:
    """The part of ``CachedLM`` that fills buffers; see there for the arguments."""

    def __init__(
        self,
        model: PreTrainedModel,
        store: TieredStore | None,
        spec: KVSpec,
        *,
        chunk_tokens: int | None,
        layerwise: Layerwise,
        reuse: str,
        shadow: Shadow,
        profile: Profile | None,
    ) -> None:
        check_filling(layerwise, reuse)
        shadow.check_fits(store, chunk_tokens)
        self.model = model
        self.store = store
        self.spec = spec
        self.chunk_tokens = chunk_tokens
        self.layerwise = layerwise
        self.reuse = reuse
        self.shadow = shadow
        self._judge = Judge(profile)
        takes_keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if takes_keep else {}

    def _fill(self, buffers: torch.Tensor, ids: Any, upto: int) -> Prefill:
        """Bring the first ``upto`` tokens of a prompt into a buffer ``[1, ...]``: load, compute, save."""
        began = time.perf_counter()
        wanted = self._wanted(ids, upto)
        plan = self._judge.plan(self.store, self.reuse, ids, wanted=wanted, num_tokens=upto, step=self.chunk_tokens)
        work = _Work(buffers, ids, upto)
        if plan is not None and plan.decision.chosen != "load":
            return self._fill_by(plan, work, began)
        blocks = block_views(buffers[0], 0, wanted, self.spec.block_tokens)
        if self.store is not None and self._overlaps():
            stream = self.store.stream(ids, blocks)
            loaded = time.perf_counter()
            hit, done = self._continue_meanwhile(work, stream)
            computed = self._now()
        else:
            hit = Hit(0, (), "not_held") if self.store is None else self._usable(self.store.get(ids, blocks))
            loaded = time.perf_counter()
            done = self._continue(work, hit)
            computed = self._judge.computed(self.model.device, done.reused, upto, self.chunk_tokens, loaded)
        hit, done = self._checked_by_shadow(work, hit, done)
        self._save(buffers[0], ids[:upto], hit.num_blocks)
        seconds = {"load": loaded - began, "compute": computed - loaded, "save": time.perf_counter() - computed}
        last = done.logits if upto == len(ids) else None
        return Prefill(done.cache, last, hit, done.reused, seconds, plan.took(computed - began) if plan else None)

    def _fill_by(self, plan: Plan, work: _Work, began: float) -> Prefill:
        """``_fill`` where the prefix is not simply loaded."""
        assert self.store is not None
        device, buffers, ids, upto = self.model.device, work.buffers, work.ids, work.upto
        met = Met(Hit(0, (), "computed"), 0, 0, 0.0)
        if plan.decision.chosen == "both":
            views = partial(block_views, buffers[0], block_tokens=self.spec.block_tokens)
            compute = partial(self._compute_part, buffers, ids)
            met = Meeting(plan, self.store, views, compute, judge=self._judge, device=device).run()
        cache = buffered_cache(self.model.config, buffers, met.num_in_place)
        loaded = time.perf_counter()
        done = _Done(cache, self._compute(cache, ids[:upto], met.num_in_place), met.num_reused)
        computed = self._judge.computed(device, met.num_in_place, upto, self.chunk_tokens, loaded)
        hit, done = self._checked_by_shadow(work, met.hit, done)
        self._save(buffers[0], ids[:upto], 0)  # all: what could not be loaded is to be stored again
        computing = met.compute_s + computed - loaded
        seconds = {"load": computed - began - computing, "compute": computing, "save": time.perf_counter() - computed}
        last = done.logits if upto == len(ids) else None
        return Prefill(done.cache, last, hit, done.reused, seconds, plan.took(computed - began))

    def _overlaps(self) -> bool:
        """Whether to compute while layers are under way."""
        return self.layerwise == "always"  # "auto" waits for a machine on which it was measured to win

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

    def _checked_by_shadow(self, work: _Work, hit: Hit, done: _Done) -> tuple[Hit, _Done]:
        """What to go on with: the hit, or if it was drawn and is found wrong, what computing gives instead."""
        if self.store is None or not done.reused or not self.shadow.drawn():
            return hit, done
        alone = _Work(torch.empty_like(work.buffers), work.ids, work.upto)
        again = self._continue(alone, Hit(0, (), None))
        given, computed = work.buffers[..., : work.upto, :], alone.buffers[..., : work.upto, :]
        chain = self.store.name(work.ids)
        if self.shadow.same(hit, Outcome(given, done.logits), Outcome(computed, again.logits), self.store, chain):
            return hit, done
        given.copy_(computed)
        cache = buffered_cache(self.model.config, work.buffers, work.upto)
        return Hit(0, (), "damaged"), _Done(cache, again.logits, 0)

    def _compute_part(self, buffers: torch.Tensor, ids: Any, start: int, stop: int) -> None:
        """Compute tokens of a prompt in place, those before them being there."""
        self._compute(buffered_cache(self.model.config, buffers, start), ids[:stop], start)

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

    def _now(self) -> float:
        """The time at which everything queued on the model's device is done."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter()


def check_filling(layerwise: str, reuse: str) -> None:
    """Refuse settings that are none.

    Raises:
        ConfigError: Which, and what it may be.
    """
    if layerwise not in {"auto", "always", "never"}:
        raise ConfigError(f"layerwise must be 'auto', 'always' or 'never', got {layerwise!r}")
    check_reuse(reuse)
