"""From which prompt length on it is faster to load a prefix than to compute it.

    computed   prefill_s(0, n)
    a hit      load_s(tier, n - 1)  +  prefill_s(n - 1, n)

A hit computes its last token, whose logits the first new one comes from; that pass reads every weight
once and is in either time, so that a short prompt is no faster from a cache.

The two curves may cross more than once, for a drive has a latency and a device launches a pass: the
answer is the last crossing, from which on loading wins throughout. Beyond the longest prompt that a
profile knows nothing is claimed.
"""

from __future__ import annotations

from kvtier.econ.profile import Band, Profile

_STEPS_PER_OCTAVE = 2


def hit_band_s(profile: Profile, tier: str, tokens: int) -> Band:
    """Seconds to the first token of a prompt whose prefix is held in a tier, nothing overlapped.

    Args:
        profile: The machine and the model.
        tier: Its name.
        tokens: Of the prompt, at least 1.

    Raises:
        ProfileError: The profile has no such tier.
    """
    load, last = profile.load_band_s(tier, tokens - 1), profile.prefill_band_s(tokens - 1, tokens)
    return Band(*(one + other for one, other in zip(load, last, strict=True)))


def lengths_known(profile: Profile) -> list[int]:
    """Prompt lengths from 1 token to the longest that the profile knows, evenly apart in their logarithm."""
    longest = profile.prefill[-1].tokens
    steps = range(longest.bit_length() * _STEPS_PER_OCTAVE)
    powers = {round(2 ** (step / _STEPS_PER_OCTAVE)) for step in steps}
    return sorted({1, longest, *(tokens for tokens in powers if tokens < longest)})


def break_even_tokens(profile: Profile, tier: str) -> int | None:
    """The shortest prompt from which on a hit in a tier is faster than computing.

    Args:
        profile: The machine and the model.
        tier: Its name.

    Returns:
        Tokens; None where computing wins at the longest prompt that the profile knows.

    Raises:
        ProfileError: The profile has no such tier.

    Example:
        >>> break_even_tokens(Profile.named("h100", "llama-3.1-70b"), "disk") < 1024
        True
    """

    def wins(tokens: int) -> bool:
        return hit_band_s(profile, tier, tokens).mid < profile.prefill_s(0, tokens)

    known = lengths_known(profile)
    if not wins(known[-1]):
        return None
    lost = max((place for place, tokens in enumerate(known) if not wins(tokens)), default=0)
    low, high = known[lost], known[lost + 1]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wins(middle) else (middle, high)
    return high
