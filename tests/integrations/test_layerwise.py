"""Computing on the first layers while the last are under way gives what computing afterwards gives, bit for bit."""

import pytest
import torch
from store_helpers import ids_of, raw_damage

from kvtier.errors import ConfigError
from kvtier.integrations.transformers import CachedLM

BLOCK_TOKENS = 16
PROMPT = ids_of(1, 3 * BLOCK_TOKENS + 5)


def fill(lm, count=3 * BLOCK_TOKENS):
    lm.prefill(PROMPT[:count])
    lm.store._mover.drain()


@pytest.mark.parametrize("chunk", [None, 2 * BLOCK_TOKENS])
@pytest.mark.parametrize("tier", ["device", "host", "disk"])
@pytest.mark.parametrize("extra", [0, 1, 5])
def test_logits_are_those_of_a_prompt_loaded_before(tiny, open_lm, tmp_path, tier, chunk, extra):
    sizes = {"device": 0, "host": 0, "disk": 0} | {tier: 8}
    lm = open_lm(tiny(), tmp_path, chunk_tokens=chunk, **sizes)
    fill(lm)
    prompt, done = PROMPT[: 3 * BLOCK_TOKENS + extra], {}

    for lm.layerwise in ("never", "always"):
        done[lm.layerwise] = lm.prefill(prompt)

    assert done["always"].num_reused == done["never"].num_reused > 0
    assert done["always"].hit == done["never"].hit
    assert torch.equal(done["always"].logits, done["never"].logits)
    for ours, theirs in zip(*(each.past_key_values.layers for each in done.values()), strict=True):
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)


@pytest.mark.parametrize("chunk", [None, 2 * BLOCK_TOKENS])
@pytest.mark.parametrize("damaged", [0, 1])
def test_what_was_computed_on_a_damaged_prefix_is_thrown_away(tiny, open_lm, tmp_path, damaged, chunk):
    model = tiny()
    whole = CachedLM(model, None, chunk_tokens=chunk).prefill(PROMPT)
    lm = open_lm(model, tmp_path, disk=8, chunk_tokens=chunk)
    lm.layerwise = "always"
    fill(lm, len(PROMPT))
    raw_damage(lm.store.tiers[0], lm.store.name(PROMPT).keys[damaged])

    done = lm.prefill(PROMPT)

    assert done.hit.num_blocks == (damaged if chunk is None else damaged // 2 * 2)
    assert torch.allclose(done.logits, whole.logits, atol=1e-4)
    if chunk is not None:
        assert torch.equal(done.logits, whole.logits)
    again = lm.prefill(PROMPT)
    assert again.num_reused > done.num_reused, "what was computed in its place is stored"


def test_what_breaks_a_forward_pass_is_raised_once_nothing_is_copied_any_more(tiny, open_lm, monkeypatch):
    lm = open_lm(tiny(), host=8)
    lm.layerwise = "always"
    fill(lm)
    ended = []
    genuine = type(lm.store.stream(PROMPT, [])).result
    monkeypatch.setattr("kvtier.streaming.Stream.result", lambda self: ended.append(1) or genuine(self))
    monkeypatch.setattr(lm, "_compute", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        lm.prefill(PROMPT)

    assert ended == [1]


@pytest.mark.parametrize("layerwise", ["never", "always"])
def test_a_batch_is_continued_the_same(tiny, open_lm, layerwise):
    model, prompts = tiny(), [PROMPT, PROMPT[:20], PROMPT[:40]]
    expected = CachedLM(model, None).generate(prompts, max_new_tokens=6)
    lm = open_lm(model, host=8)
    lm.layerwise = layerwise
    fill(lm)

    assert lm.generate(prompts, max_new_tokens=6) == expected


def test_a_wrong_setting_is_refused(tiny):
    with pytest.raises(ConfigError, match="layerwise"):
        CachedLM(tiny(), None, layerwise="sometimes")
