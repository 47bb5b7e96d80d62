"""Prompts of many users, as sequences of block numbers.

    synthetic   conversations on a few system prompts: each turn repeats what came before and adds to it;
                who speaks next, and on which system prompt a conversation is built, follows Zipf's law
    recorded    a trace of requests, each a list of prefix-block ids

A block number is used as the block's one token id, so equal beginnings are equal prefixes.

Source: the conversation trace published with Mooncake (Qin et al., FAST 2025): one JSON object a
line, in which ``hash_ids[i]`` stands for 512 tokens together with everything before them.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator
from itertools import accumulate, count
from pathlib import Path

from tier_helpers import ROOT

TRACE = "mooncake_conversation_trace.jsonl.gz"
TRACE_BLOCK_TOKENS = 512

_SYSTEMS, _SYSTEM_BLOCKS = 24, 8
_CONVERSATIONS, _TURNS = 300, 12


def synthetic(seed: int) -> Iterator[list[int]]:
    """Prompts without end."""
    rng = random.Random(seed)
    fresh = count(1)
    systems = [[next(fresh) for _ in range(_SYSTEM_BLOCKS)] for _ in range(_SYSTEMS)]
    popularity = list(accumulate(1 / rank for rank in range(1, _CONVERSATIONS + 1)))

    def begin() -> tuple[list[int], int]:
        system = rng.choices(systems, cum_weights=popularity[:_SYSTEMS])[0]
        return list(system), rng.randint(1, _TURNS)

    speaking = [begin() for _ in range(_CONVERSATIONS)]
    while True:
        who = rng.choices(range(_CONVERSATIONS), cum_weights=popularity)[0]
        prompt, turns = speaking[who]
        prompt += [next(fresh) for _ in range(rng.randint(1, 4))]
        speaking[who] = (prompt, turns - 1) if turns else begin()
        yield list(prompt)


def trace_file() -> Path | None:
    """The recorded trace, if it is here: in ``KVTIER_TRACES``, or in ``shared/traces`` beside the repository."""
    places = [os.environ.get("KVTIER_TRACES"), ROOT.parent / "shared" / "traces"]
    found = (Path(place) / TRACE for place in places if place)
    return next(filter(Path.is_file, found), None)


def recorded(path: Path) -> Iterator[list[int]]:
    """The whole blocks of each request of a trace, in order of arrival, over and over."""
    while True:
        with gzip.open(path, "rt") as lines:
            for line in lines:
                request = json.loads(line)
                whole = request["input_length"] // TRACE_BLOCK_TOKENS
                yield request["hash_ids"][:whole]
