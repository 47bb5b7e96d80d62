"""What a hit gives is what the same computation gives without a store, bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.text import prompt_ids
from store_helpers import ids_of
from transformers import DynamicCache

from kvtier.integrations.transformers import CachedLM, namespace_of
from kvtier.store import TieredStore
from kvtier.tiers.memory import MemoryTier

BLOCK_TOKENS = 16

KINDS = ["llama", "qwen2", "qwen3"]
DTYPES = ["float32", "bfloat16"]


def in_steps(model, ids, *ends):
    """Logits of the last token after a prefill in steps that end where told, without a store."""
    cache = DynamicCache(config=model.config)
    start = 0
    with torch.no_grad():
        for end in (*ends, len(ids)):
            piece = torch.tensor([ids[start:end]])
            logits = model(input_ids=piece, past_key_values=cache, logits_to_keep=1).logits[0, -1]
            start = end
    return logits


# The same two steps, with and without a store

LAYOUTS = {
    "device": ({"device": 8}, 0, ("device",) * 3),
    "host": ({"host": 8}, 0, ("host",) * 3),
    "disk": ({"disk": 8}, 0, ("disk",) * 3),
    "mixed": ({"device": 4, "host": 1, "disk": 8}, 2, ("device", "host", "disk")),
    "sunk": ({"host": 4, "disk": 8}, 3, ("disk",) * 3),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("blocks", "num_others", "tiers"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_hit_equals_two_steps_without_a_store(tiny, open_lm, tmp_path, kind, dtype, blocks, num_others, tiers):
    model = tiny(kind, dtype=dtype)
    ids = ids_of(1, 3 * BLOCK_TOKENS + 5)
    lm = open_lm(model, tmp_path, **blocks)
    lm.prefill(ids[: 3 * BLOCK_TOKENS])
    for other in range(num_others):  # one block each: the prompt's tail sinks
        lm.prefill(ids_of(100 + other, BLOCK_TOKENS))
        lm.store._mover.drain()

    done = lm.prefill(ids)

    assert (done.hit.tiers, done.num_reused) == (tiers, 3 * BLOCK_TOKENS)
    assert torch.equal(done.logits, in_steps(model, ids, 3 * BLOCK_TOKENS))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hit_after_a_restart_equals_two_steps_without_a_store(tiny, open_lm, tmp_path, kind, dtype):
    model = tiny(kind, dtype=dtype)
    ids = ids_of(1, 3 * BLOCK_TOKENS + 5)
    lm = open_lm(model, tmp_path, host=8, disk=8)
    lm.prefill(ids[: 3 * BLOCK_TOKENS])
    lm.close()

    lm = open_lm(model, tmp_path, host=8, disk=8)
    done = lm.prefill(ids)

    assert done.hit.tiers == ("disk",) * 3
    assert torch.equal(done.logits, in_steps(model, ids, 3 * BLOCK_TOKENS))


def test_a_partial_hit_equals_two_steps_without_a_store(tiny, open_lm):
    model = tiny()
    lm = open_lm(model, host=8)
    ids = ids_of(1, 40)
    lm.prefill(ids[:32])
    other = ids[:20] + ids_of(2, 20)

    done = lm.prefill(other)

    assert (done.num_reused, done.hit.stopped_by) == (16, "not_held")
    assert torch.allclose(done.logits, in_steps(model, other, 16), atol=1e-5)


def test_a_miss_equals_one_step_without_a_store(tiny, open_lm):
    model = tiny()
    lm = open_lm(model, host=8)
    ids = ids_of(1, 40)

    done = lm.prefill(ids)

    assert torch.equal(done.logits, in_steps(model, ids))


def test_decoding_after_a_hit_equals_decoding_without_a_store(tiny, open_lm, tmp_path):
    model = tiny()
    lm = open_lm(model, tmp_path, disk=8)
    ids = ids_of(1, 50)
    lm.prefill(ids[:48])
    done = lm.prefill(ids, max_new_tokens=8)
    cache = DynamicCache(config=model.config)

    with torch.no_grad():
        model(input_ids=torch.tensor([ids[:48]]), past_key_values=cache)
        expected = model(input_ids=torch.tensor([ids[48:]]), past_key_values=cache, logits_to_keep=1).logits
        got = done.logits[None, None]
        for _ in range(8):
            assert torch.equal(got, expected)
            token = expected.argmax(-1)
            expected = model(input_ids=token, past_key_values=cache).logits
            got = model(input_ids=token, past_key_values=done.past_key_values).logits


# Never the whole prompt


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_the_last_token_of_a_prompt_of_whole_blocks_is_computed(tiny, open_lm, num_blocks):
    model = tiny()
    lm = open_lm(model, host=8)
    ids = ids_of(1, num_blocks * BLOCK_TOKENS)
    lm.prefill(ids)
    cache = DynamicCache(config=model.config)

    done = lm.prefill(ids)
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), past_key_values=cache)
        cache.crop(-1)
        expected = model(input_ids=torch.tensor([ids[-1:]]), past_key_values=cache).logits[0, -1]

    assert (done.hit.num_blocks, done.num_reused) == (num_blocks, len(ids) - 1)
    assert torch.equal(done.logits, expected)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 32, 33, 48])
def test_an_identical_prompt_gives_identical_tokens(tiny, open_lm, count):
    model = tiny()
    lm = open_lm(model, host=16)
    control = CachedLM(model, None)
    ids = ids_of(count, count)

    first = lm.generate(ids, max_new_tokens=6)
    second = lm.generate(ids, max_new_tokens=6)

    assert first == second == control.generate(ids, max_new_tokens=6)


# In fixed chunks: equal to the control with any mix of hits

LENGTHS = [1, 3, 4, 7, 8, 9, 12, 15, 16, 17, 23, 24, 25, 33]


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("held", [4, 7, 8, 16, 20, 33])
def test_in_chunks_a_prefill_equals_the_control(tiny, open_lm, held, count):
    model = tiny()
    lm = open_lm(model, block_tokens=4, chunk_tokens=8, host=32)
    control = CachedLM(model, None, chunk_tokens=8)
    ids = ids_of(1, 40)
    lm.prefill(ids[:held])

    done = lm.prefill(ids[:count])

    assert done.num_reused % 8 == 0
    assert torch.equal(done.logits, control.prefill(ids[:count]).logits)


@settings(max_examples=12, deadline=None)
@given(prompts=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40), st.integers(0, 24)), min_size=2, max_size=6))
def test_in_chunks_any_history_equals_the_control(tiny, prompts):
    """Prompts with shared heads, over a store so small that hits end anywhere."""
    model = tiny("qwen3")
    names = namespace_of(model, block_tokens=4, chunk_tokens=8)
    tier = MemoryTier("host", capacity_bytes=7 * names.spec.block_bytes, block_bytes=names.spec.block_bytes)
    control = CachedLM(model, None, chunk_tokens=8)
    with TieredStore([tier], names) as store:
        lm = CachedLM(model, store, chunk_tokens=8)
        for seed, count, shared in prompts:
            ids = (ids_of(99, shared) + ids_of(seed, 40))[:count]

            assert torch.equal(lm.prefill(ids).logits, control.prefill(ids).logits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_chunks_generation_equals_the_control(tiny, open_lm, dtype):
    model = tiny(dtype=dtype)
    lm = open_lm(model, block_tokens=4, chunk_tokens=8, host=32)
    control = CachedLM(model, None, chunk_tokens=8)
    ids = ids_of(1, 29)

    cold, hit = lm.generate(ids, max_new_tokens=8), lm.generate(ids, max_new_tokens=8)

    assert cold == hit == control.generate(ids, max_new_tokens=8)


def test_blocks_of_chunks_are_kept_apart_from_others(tiny):
    model = tiny()

    roots = {namespace_of(model, block_tokens=4, chunk_tokens=chunk).root for chunk in (None, 4, 8)}

    assert len(roots) == 3


# The real model


@pytest.mark.model
@pytest.mark.parametrize("count", [300, pytest.param(450, marks=pytest.mark.slow)])
def test_real_a_hit_equals_two_steps_without_a_store(smollm2, tmp_path, count):
    model, tokenizer = smollm2
    ids = prompt_ids(tokenizer, count, seed=1)
    lm = CachedLM.open(model, tmp_path, host="16 MiB", disk="256 MiB")  # host memory holds some blocks only
    lm.prefill(ids[:288])
    lm.close()
    lm = CachedLM.open(model, tmp_path, host="16 MiB", disk="256 MiB")

    done = lm.prefill(ids)
    lm.close()

    assert done.num_reused == 288
    assert torch.equal(done.logits, in_steps(model, ids, 288))


@pytest.mark.model
@pytest.mark.parametrize(("count", "seed"), [(300, 2), pytest.param(389, 3, marks=pytest.mark.slow)])
def test_real_a_hit_is_close_to_no_cache_and_says_the_same(smollm2, tmp_path, count, seed):
    model, tokenizer = smollm2
    ids = prompt_ids(tokenizer, count, seed=seed)
    lm = CachedLM.open(model, tmp_path, host="256 MiB", disk="256 MiB")
    with torch.no_grad():
        cold = model(input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits[0, -1]
        said = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=0)

    lm.prefill(ids)
    hit = lm.prefill(ids)
    answer = lm.generate(ids, max_new_tokens=8)
    lm.close()

    assert hit.num_reused >= count - 32
    assert (hit.logits - cold).abs().max() < 1e-4
    assert answer == said[0, count:].tolist()


@pytest.mark.model
def test_real_in_chunks_a_hit_equals_the_control(smollm2):
    model, tokenizer = smollm2
    ids = prompt_ids(tokenizer, 150, seed=4)
    lm = CachedLM.open(model, None, chunk_tokens=64, host="256 MiB", disk=0)
    control = CachedLM(model, None, chunk_tokens=64)
    lm.prefill(ids[:100])

    done = lm.prefill(ids)
    lm.close()

    assert done.num_reused == 64
    assert torch.equal(done.logits, control.prefill(ids).logits)
