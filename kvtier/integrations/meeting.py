"""Bringing a prefix into a model's cache from both ends: a thread loads, the caller computes.

Both write into one buffer, never into the same blocks; ``kvtier.ground`` says who takes what.
The thread never outlives the call, whatever is raised: it ends after the window it is loading.
Even if a second interrupt cuts that wait short, the buffer stays, because the thread holds views of it.

Source: Jin et al., "Compute Or Load KV Cache? Why Not Both?", 2024 (Cake).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch

from kvtier.answers import Hit
from kvtier.econ.profile import Profile
from kvtier.errors import ConfigError
from kvtier.ground import Piece
from kvtier.hashing import Chain
from kvtier.rates import Cost, LoadCosts, Rate, prefill_terms, profiled_prefill
from kvtier.reuse import Choice, Decision, Prefix, Prospect, both_if_useful, decide
from kvtier.store import TieredStore

log = logging.getLogger("kvtier")

#: After so many prompts in a row for which only one side worked, both do, so that a side that was
#: slow once is not left out for ever.
_OBSERVE_AGAIN_AFTER = 16


def check_reuse(reuse: str) -> None:
    """Refuse what is not ``"auto"`` or a choice."""
    if reuse not in ("auto", *get_args(Choice)):
        raise ConfigError(f"reuse must be 'auto', 'load', 'compute' or 'both', got {reuse!r}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done about one prompt."""

    decision: Decision
    prefix: Prefix
    prospect: Prospect
    chain: Chain
    """The blocks of ``prefix``."""

    head: int
    """Units to load before both sides begin."""

    stopped_by: str | None
    """Why the store holds no more of the prompt; see ``Hit``."""

    def took(self, seconds: float) -> Decision:
        """The decision once it was carried out."""
        done = replace(self.decision, seconds=seconds)
        forecast = ", ".join(f"{choice} {s:.3f} s" for choice, s in done.predicted.items()) or "nothing"
        log.debug(
            "prefill of %d tokens, %d held: %s (%s), %.3f s; predicted: %s",
            *(self.prefix.num_tokens, self.prefix.num_reusable, done.chosen, done.reason, seconds, forecast),
        )
        return done


class Judge:
    """Decides for one model, from what its forward passes and its stores' reads took. Safe to use from many threads.

    Args:
        profile: What is believed of both until more is known; None waits for what is seen.
    """

    def __init__(self, profile: Profile | None = None) -> None:
        self._lock = threading.Lock()
        self._profile = profile
        self._rate = Rate(None if profile is None else profiled_prefill(profile))
        self._one_sided = 0
        """Prompts since both sides were observed."""

    def plan(
        self, store: TieredStore | None, reuse: str, ids: Any, *, wanted: int, num_tokens: int, step: int | None
    ) -> Plan | None:
        """What to do about a prompt; None if there is nothing to decide.

        Args:
            store: Which may hold a prefix.
            reuse: ``"auto"``, or the choice to be carried out.
            ids: The prompt.
            wanted: Leading blocks that may be reused.
            num_tokens: Tokens to be in place in the end.
            step: ``chunk_tokens``.
        """
        if store is None or reuse == "load" or not wanted:
            return None
        chain = store.name(ids).part(0, wanted)
        hit = store.match_chain(chain.keys)
        unit = step or store.spec.block_tokens
        held = hit.num_tokens // unit * unit
        if not held:
            return None
        prefix = Prefix(
            tiers=hit.tiers[: held // store.spec.block_tokens],
            block_tokens=store.spec.block_tokens,
            block_bytes=store.spec.block_bytes,
            num_tokens=num_tokens,
            num_reusable=min(held, num_tokens if num_tokens < len(ids) else len(ids) - 1),
            step=step,
        )
        prospect = Prospect(prefix, self.cost(), self.loads(store))
        both, head = prospect.best_both()
        forecast: dict[Choice, float | None] = {
            "load": prospect.load_all_s(),
            "compute": prospect.compute_all_s(),
            "both": both,
        }
        known = {choice: seconds for choice, seconds in forecast.items() if seconds is not None}
        part = chain.part(0, len(prefix.tiers))
        return Plan(self._decide(reuse, known), prefix, prospect, part, head, hit.stopped_by)

    def cost(self) -> Cost | None:
        """Cost of computing, by ``prefill_terms``."""
        with self._lock:
            return self._rate.cost()

    def loads(self, store: TieredStore) -> LoadCosts:
        """Costs of loading."""
        return store.load_costs(self._profile)

    def computed(
        self, device: torch.device, start: int, stop: int, step: int | None, began: float, *, beside: bool = False
    ) -> float:
        """Learn from a computation that has just ended; returns when that was, on the clock of ``began``."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if stop > start:
            with self._lock:
                self._rate.observe(prefill_terms(start, stop, step), now - began, beside=beside)
        return now

    def _decide(self, reuse: str, known: Mapping[Choice, float]) -> Decision:
        if reuse == "compute":
            return Decision(chosen="compute", reason="asked for", predicted=known)
        if reuse == "both":
            return both_if_useful(known)
        with self._lock:
            decision = decide(known, again=self._one_sided >= _OBSERVE_AGAIN_AFTER)
            decided = decision.chosen != "both" and {"load", "compute"} <= set(known)
            self._one_sided = self._one_sided + 1 if decided else 0
        return decision


@dataclass(frozen=True, slots=True)
class Met:
    """What a meeting left in the buffer."""

    hit: Hit
    """What was loaded, wherever it lies."""

    num_in_place: int
    """Tokens in place from the beginning of the prompt."""

    num_reused: int
    """Tokens of them that were loaded."""

    compute_s: float
    """Seconds spent computing them."""


class Meeting:
    """Loads and computes one prefix at once.

    Args:
        plan: What to do; its choice is ``"both"``.
        store: Loaded from.
        views: Gives the buffers of blocks ``start`` to ``stop``.
        compute: Computes tokens ``start`` to ``stop`` of the prompt in place.
        judge: Learns from what it takes.
        device: Where the buffer is.
    """

    def __init__(
        self,
        plan: Plan,
        store: TieredStore,
        views: Callable[[int, int], list[torch.Tensor]],
        compute: Callable[[int, int], object],
        *,
        judge: Judge,
        device: torch.device,
    ) -> None:
        self._plan, self._prefix = plan, plan.prefix
        self._store, self._views, self._compute = store, views, compute
        self._judge, self._device = judge, device
        self._turn = threading.Condition()
        """Held to claim and to report, never while bytes move or the model runs."""
        self._computing = False
        self._compute_s = 0.0
        self._tiers: dict[int, str] = {}
        """Where each block that was loaded came from."""
        self._failed_by: str | None = None
        self._error: BaseException | None = None
        self._inference = torch.is_inference_mode_enabled()
        self._ready = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def run(self) -> Met:
        """Bring the prefix into place; returns when the thread has ended.

        Raises:
            BaseException: What computing raised, or what loading raised beyond a miss.
        """
        head = self._bring(0, self._plan.head, computing=False)
        self._ground = self._plan.prospect.ground(head)
        loader = threading.Thread(target=self._load_windows, name="kvtier-loader")
        try:
            piece = self._next_piece(wait=False)  # before the first window: it may be left to the loader alone
            loader.start()
            while (piece := piece or self._next_piece()) is not None and self._error is None:
                self._compute_piece(piece)
                piece = None
        finally:
            with self._turn:
                self._ground.stop()
            if loader.ident is not None:
                loader.join()
        if self._error is not None:
            raise self._error
        return self._met(head)

    def _met(self, head: int) -> Met:
        blocks, end_of = self._prefix.unit_blocks, self._prefix.end_of
        used = [*range(head), *sorted(self._ground.loaded)]
        tiers = tuple(self._tiers[unit * blocks + i] for unit in used for i in range(blocks))
        computed = len(used) < self._prefix.num_units
        stopped_by = self._failed_by or ("computed" if computed else self._plan.stopped_by)
        hit = Hit(len(tiers) * self._prefix.block_tokens, tiers, stopped_by)
        reused = sum(end_of(unit + 1) - end_of(unit) for unit in used)
        self._store.promote_chain([self._plan.chain.keys[block] for block in sorted(self._tiers)])
        return Met(hit, end_of(self._ground.front), reused, self._compute_s)

    # The caller's side

    def _next_piece(self, *, wait: bool = True) -> Piece | None:
        """The next piece to compute, once there is one or no more will come; at once if not told to wait."""
        with self._turn:
            while True:
                self._renew()
                step = self._ground.next_piece()
                self._computing = isinstance(step, Piece)
                if step != "wait":
                    return step if isinstance(step, Piece) else None
                if not wait:
                    return None
                self._turn.wait()

    def _compute_piece(self, piece: Piece) -> None:
        start, stop = self._prefix.end_of(piece.start), self._prefix.end_of(piece.stop)
        beside, began = self._ground.loading, time.perf_counter()
        self._compute(start, stop)
        ended = self._judge.computed(self._device, start, stop, self._prefix.step, began, beside=beside)
        self._compute_s += ended - began

    def _renew(self) -> None:
        self._plan.prospect.renew(self._judge.cost(), self._judge.loads(self._store))

    # The thread's side

    def _load_windows(self) -> None:
        try:
            with self._stream():
                while (window := self._next_window()) is not None:
                    start, stop, computing = window
                    count = self._bring(start, stop, computing=computing)
                    with self._turn:
                        self._ground.arrived(count)
                        self._turn.notify_all()
        except BaseException as exc:  # noqa: BLE001  (raised again by the caller's thread)
            self._error = exc
        finally:
            with self._turn:
                self._ground.give_up()
                self._turn.notify_all()

    def _next_window(self) -> tuple[int, int, bool] | None:
        with self._turn:
            self._renew()
            window = self._ground.next_window()
            return None if window is None else (*window, self._computing)

    def _bring(self, start: int, stop: int, *, computing: bool) -> int:
        """Load units ``start`` to ``stop``; how many leading ones of them are whole."""
        if start == stop:
            return 0
        size = self._prefix.unit_blocks
        part = self._plan.chain.part(start * size, stop * size)
        hit = self._store.get_chain(part, self._views(start * size, stop * size), computing=computing)
        count = hit.num_blocks // size
        self._tiers.update(enumerate(hit.tiers[: count * size], start * size))
        if count < stop - start:
            self._failed_by = hit.stopped_by
        return count

    def _stream(self) -> AbstractContextManager[object]:
        """Copies to a device go through a stream of their own, behind what the buffer's memory was used for before."""
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(self._inference))
        if self._ready is not None:
            stream: torch.cuda.Stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            stream.wait_event(self._ready)
            stack.enter_context(torch.cuda.stream(stream))
        return stack
