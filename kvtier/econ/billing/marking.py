"""Breakpoints for calls that carry none, as a client could set them who knows only what it sent before.

    last       | - - - - - - - - - - - - - - x |    the provider's automatic mode
    shared     | - - - - - x - - - - - - - - x |    also where the call parts from all earlier ones
    growing    | - - - - - - - - x - - - - - - |    one entry, made anew when the prefix has doubled

A cache that stores at marks alone misses a prompt that branches off before its mark; the second mark of ``shared``
is what a client sets who knows which head its prompts share. Entries that are made by a call of their own pay for
all their tokens each time, so ``growing`` makes one per doubling: at most two tokens paid for one that is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from kvtier.econ.billing.calls import Call, Mark, grown, highest_id

_GROWTH = 2


def mark_last(calls: Iterable[Call]) -> Iterator[Call]:
    """Leave calls as they are: without marks a provider marks the last segment."""
    yield from calls


def mark_shared(calls: Iterable[Call]) -> Iterator[Call]:
    """Mark the last segment, and the last one that an earlier call had too; calls with marks keep theirs."""
    seen = np.zeros(0, dtype=bool)
    for call in calls:
        seen = grown(seen, highest_id(call), fill=False)
        shared = int(seen[call.ids].cumprod().sum())
        seen[call.ids] = True
        last = len(call.ids) - 1
        positions = sorted({position for position in (shared - 1, last) if position >= 0})
        yield call if call.marks is not None else call._replace(marks=tuple(map(Mark, positions)))


def mark_growing(calls: Iterable[Call], *, minimum_tokens: int = 1) -> Iterator[Call]:
    """Mark what was marked before, or what earlier calls had too once that is twice as long.

    Args:
        calls: In order of time; those with marks keep theirs.
        minimum_tokens: A shorter prefix is not marked.
    """
    seen, marked = np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
    for call in calls:
        seen, marked = grown(seen, highest_id(call), fill=False), grown(marked, highest_id(call), fill=False)
        shared = int(seen[call.ids].cumprod().sum())
        seen[call.ids] = True
        if call.marks is not None:
            yield call
            continue
        before = np.flatnonzero(marked[call.ids])
        deepest = int(before[-1]) if len(before) else -1
        have = int(call.ends[deepest]) if deepest >= 0 else 0
        if shared and call.ends[shared - 1] >= max(_GROWTH * have, minimum_tokens):
            deepest = shared - 1
            marked[call.ids[deepest]] = True
        yield call._replace(marks=(Mark(deepest),) if deepest >= 0 else ())


#: What ``kvtier bill --marks`` offers.
MARKINGS: dict[str, Callable[[Iterable[Call]], Iterator[Call]]] = {"last": mark_last, "shared": mark_shared}
