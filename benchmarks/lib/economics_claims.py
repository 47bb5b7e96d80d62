"""The numbers behind the verdicts of docs/economics.md that no ledger gives: equal prompts, and windows that slide.

prefix     a prompt that differs in one token, or in one of a hundred, against the names of its blocks
window     a chat under kvtier.context's policies, as docs/context.md has it
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvtier.context import ContextPolicy, Prices, make_policy
from kvtier.context.formulas import hysteresis_cost, sliding_cost
from kvtier.hashing import Namespace, name_chain
from kvtier.sim.chat import ChatSettings, play, summary
from kvtier.spec import KVSpec

PROMPT_TOKENS = 32_768
DRAWS = 200
HIGH, LOW = 32_000, 16_000
TTL_S = 300.0
PRICES = Prices(write=1.25, read=0.1)

Json = dict[str, Any]
Tokens = NDArray[np.int64]


def prefix(prompt_tokens: int = PROMPT_TOKENS, draws: int = DRAWS, seed: int = 0) -> Json:
    """How much of a prompt is cached whose tokens are nearly all those of a cached one.

    Args:
        prompt_tokens: Length of both.
        draws: Prompts for the means over random places.
        seed: Of the tokens and places.
    """
    spec = KVSpec(layers=32, kv_heads=8, head_dim=128, dtype="bfloat16")
    namespace = Namespace(spec=spec, weights="the same for both")
    rng = np.random.default_rng(seed)
    cached = rng.integers(0, 100_000, prompt_tokens)
    held = set(name_chain(namespace, cached).keys)

    def hit(places: Tokens | list[int]) -> float:
        """Share of the prompt's tokens in leading blocks that are held, once these places have another token."""
        asked = cached.copy()
        asked[places] += 1
        names = name_chain(namespace, asked).keys
        run = next((n for n, name in enumerate(names) if name not in held), len(names))
        return run * spec.block_tokens / prompt_tokens

    hundredth = prompt_tokens // 100
    return {
        "prompt_tokens": prompt_tokens,
        "block_tokens": spec.block_tokens,
        "draws": draws,
        "one_token": {name: hit([at]) for name, at in _places(prompt_tokens, 1).items()},
        "one_token_anywhere": _mean(lambda: hit([int(rng.integers(prompt_tokens))]), draws),
        "hundredth_in_a_row": {
            name: hit(list(range(at, at + hundredth))) for name, at in _places(prompt_tokens, hundredth).items()
        },
        "hundredth_scattered": _mean(lambda: hit(rng.choice(prompt_tokens, hundredth, replace=False)), draws),
    }


def _places(tokens: int, width: int) -> dict[str, int]:
    return {"front": 0, "middle": tokens // 2, "end": tokens - width}


def _mean(draw: Callable[[], float], draws: int) -> float:
    return sum(draw() for _ in range(draws)) / draws


def window() -> Json:
    """A chat of 400 turns under three policies, and what the formulas say of its long run."""
    chat = ChatSettings()
    found = {name: _played(name, chat) for name in ("append", "sliding", "hysteresis")}
    limits = {"head_tokens": chat.head_tokens, "high_tokens": HIGH}
    turn = chat.user_tokens + chat.reply_tokens
    return {
        "high_tokens": HIGH,
        "low_tokens": LOW,
        "turns": chat.turns,
        "write": PRICES.write,
        "read": PRICES.read,
        "policies": found,
        "formula": {
            "sliding": sliding_cost(**limits, prices=PRICES),
            "hysteresis": hysteresis_cost(
                **limits, low_tokens=LOW, turn_tokens=turn, new_tokens=chat.user_tokens, prices=PRICES
            ),
        },
    }


def _played(name: str, chat: ChatSettings) -> Json:
    def make() -> ContextPolicy:
        return make_policy(name, HIGH, LOW, PRICES)

    done = summary(play(make, chat, ttl_s=TTL_S, prices=PRICES))
    return {key: done[key] for key in ("cost_per_turn", "hit_rate", "mean_context_tokens")}
