"""Shadow recompute: a share of the hits is computed once more, and what differs is not used."""

import logging
from itertools import pairwise

import pytest
import torch
from store_helpers import ids_of

from kvtier import opening
from kvtier.errors import ConfigError
from kvtier.integrations.shadow import Shadow
from kvtier.integrations.transformers import CachedLM
from kvtier.tiers.memory import MemoryTier

CHUNKS = {"block_tokens": 4, "chunk_tokens": 8}


class LyingTier(MemoryTier):
    """Memory in which a bit of one block of each read has turned over, unless told not to lie."""

    lies = True
    block = 1

    def read(self, keys, out, labels=None):
        count = super().read(keys, out, labels)
        if self.lies and count > self.block:
            place = (0,) * (out[self.block].dim() - 1)
            out[self.block][place][3] ^= 64  # a bit of an exponent
        return count


@pytest.fixture
def lying(monkeypatch):
    monkeypatch.setattr(opening, "MemoryTier", LyingTier)
    monkeypatch.setattr(LyingTier, "lies", True)
    return LyingTier


def counted(lm):
    counters = lm.store.stats()["counters"]
    return counters["shadow_checks"], counters["shadow_mismatches"]


def control(model):
    return CachedLM(model, None, chunk_tokens=8)


# Good hits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("reuse", ["load", "both", "compute"])
def test_good_hits_are_never_found_different(tiny, open_lm, tmp_path, dtype, reuse):
    model = tiny(dtype=dtype)
    lm = open_lm(model, tmp_path, host=4, disk=32, shadow=1, reuse=reuse, **CHUNKS)
    for count in (30, 33, 40, 17):
        done = lm.prefill(ids_of(1, count))

        assert torch.equal(done.logits, control(model).prefill(ids_of(1, count)).logits)

    checks, mismatches = counted(lm)
    assert (checks > 0) == (reuse != "compute")
    assert mismatches == 0


def test_a_good_hit_stays_a_hit(tiny, open_lm):
    lm = open_lm(tiny(), host=32, shadow=1, **CHUNKS)
    lm.prefill(ids_of(1, 30))

    done = lm.prefill(ids_of(1, 30))

    assert (done.num_reused, done.hit.num_blocks, counted(lm)) == (24, 6, (1, 0))


def test_a_miss_is_not_checked(tiny, open_lm):
    lm = open_lm(tiny(), host=32, shadow=1, **CHUNKS)

    lm.prefill(ids_of(1, 30))

    assert counted(lm) == (0, 0)


def test_a_streamed_hit_is_checked(tiny, open_lm):
    lm = open_lm(tiny(), host=32, shadow=1, layerwise="always", **CHUNKS)
    lm.prefill(ids_of(1, 30))

    lm.prefill(ids_of(1, 30))

    assert counted(lm) == (1, 0)


# Wrong hits


def test_a_wrong_hit_is_replaced_by_what_is_computed(tiny, open_lm, lying):
    model, ids = tiny(), ids_of(1, 30)
    expected = control(model).prefill(ids)
    lm = open_lm(model, host=32, shadow=1, **CHUNKS)
    lm.prefill(ids)

    done = lm.prefill(ids)

    assert torch.equal(done.logits, expected.logits)
    for mine, right in zip(done.past_key_values.layers, expected.past_key_values.layers, strict=True):
        assert torch.equal(mine.keys, right.keys)
        assert torch.equal(mine.values, right.values)
    assert (done.num_reused, done.hit.tiers, done.hit.stopped_by) == (0, (), "damaged")
    assert counted(lm) == (1, 1)


def test_without_a_shadow_a_lying_tier_is_believed(tiny, open_lm, lying):
    """Otherwise the other tests would show nothing."""
    model, ids = tiny(), ids_of(1, 30)
    lm = open_lm(model, host=32, **CHUNKS)
    lm.prefill(ids)

    done = lm.prefill(ids)

    assert not torch.equal(done.logits, control(model).prefill(ids).logits)
    assert counted(lm) == (0, 0)


def test_a_wrong_hit_says_so_in_the_log(tiny, open_lm, lying, caplog):
    lm = open_lm(tiny(), host=32, shadow=1, **CHUNKS)
    lm.prefill(ids_of(1, 30))

    with caplog.at_level(logging.ERROR, "kvtier"):
        lm.prefill(ids_of(1, 30))

    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    said = record.getMessage()
    assert "prompt of 30 tokens, 6 blocks (6 from host), first at block 1, logits differ by up to " in said
    assert "by up to 0;" not in said


def test_the_wrong_block_and_what_hangs_on_it_are_stored_anew(tiny, open_lm, lying, monkeypatch):
    model, ids = tiny(), ids_of(1, 30)
    lm = open_lm(model, host=32, shadow=1, **CHUNKS)
    lm.prefill(ids)
    new = lm.store.stats()["counters"]["new_blocks"]

    lm.prefill(ids)
    monkeypatch.setattr(lying, "lies", False)
    done = lm.prefill(ids)

    counters = lm.store.stats()["counters"]
    assert (counters["new_blocks"] - new, counters["damaged_blocks"]) == (5, 1)  # all but the first of six
    assert (done.num_reused, counted(lm)) == (24, (2, 1))
    assert torch.equal(done.logits, control(model).prefill(ids).logits)


def test_a_wrong_block_is_forgotten_in_every_tier(tiny, open_lm, lying, tmp_path):
    ids = ids_of(1, 30)
    lm = open_lm(tiny(), tmp_path, host=32, disk=32, shadow=1, **CHUNKS)
    lm.prefill(ids)
    lm.store.flush()
    dropped = lm.store.stats()["counters"]["dropped_blocks"]

    lm.prefill(ids)

    assert lm.store.stats()["counters"]["dropped_blocks"] - dropped == 10
    assert lm.store.match(ids).tiers == ("host",) * 6


def test_a_wrong_hit_does_not_reach_what_is_generated(tiny, open_lm, lying):
    model, prompts = tiny(), [ids_of(1, 30), ids_of(2, 25)]
    lm = open_lm(model, host=64, shadow=1, **CHUNKS)
    lm.generate(prompts, max_new_tokens=6)

    said = lm.generate(prompts, max_new_tokens=6)

    assert said == control(model).generate(prompts, max_new_tokens=6)
    assert counted(lm) == (2, 2)


def test_a_wrong_hit_that_leaves_nothing_to_compute_is_found(tiny, open_lm, lying):
    """A generation computes a prompt's last token later, so there may be no logits to compare."""
    model, ids = tiny(), ids_of(1, 25)
    lm = open_lm(model, host=32, shadow=1, **CHUNKS)
    lm.generate(ids, max_new_tokens=1)

    said = lm.generate(ids, max_new_tokens=6)

    assert said == control(model).generate(ids, max_new_tokens=6)
    assert counted(lm) == (1, 1)


def test_a_model_that_computes_other_bits_each_time_is_not_the_stores_fault(tiny, open_lm, caplog):
    def drift(head, *_):
        head.weight.data.mul_(1.001)

    model, ids = tiny("qwen2", seed=3, num_hidden_layers=1), ids_of(1, 30)
    lm = open_lm(model, host=32, shadow=1, **CHUNKS)
    lm.prefill(ids)
    model.lm_head.register_forward_hook(drift)

    lm.prefill(ids)

    assert counted(lm) == (1, 1)
    assert "the model does not compute the same twice" in caplog.text
    assert lm.store.match(ids).num_blocks == 6


# Which hits


def drawn(shadow, count=1000):
    return [shadow.drawn() for _ in range(count)]


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.25, 180, 320), (1.0, 1000, 1000)])
def test_the_share_of_hits_is_drawn(share, low, high):
    assert low <= sum(drawn(Shadow(share))) <= high


def test_equal_seeds_draw_the_same_hits():
    assert drawn(Shadow(0.5, seed=7)) == drawn(Shadow(0.5, seed=7))
    assert drawn(Shadow(0.5, seed=7)) != drawn(Shadow(0.5, seed=8))


def test_a_shadow_with_a_seed_can_be_passed(tiny, open_lm):
    expected = drawn(Shadow(0.5, seed=7), 8)
    lm = open_lm(tiny(), host=32, shadow=Shadow(0.5, seed=7), **CHUNKS)
    lm.prefill(ids_of(1, 30))

    checks = [0]
    for _ in expected:
        lm.prefill(ids_of(1, 30))
        checks.append(counted(lm)[0])

    assert [after > before for before, after in pairwise(checks)] == expected


# Refusals


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), True, "half", None])
def test_what_is_no_share_is_refused(tiny, share):
    with pytest.raises(ConfigError, match="shadow must be a share of the hits, from 0 to 1, got"):
        CachedLM(tiny(), None, chunk_tokens=32, shadow=share)


def test_a_shadow_without_chunks_is_refused(tiny):
    with pytest.raises(ConfigError, match="set chunk_tokens"):
        CachedLM(tiny(), None, shadow=0.5)


@pytest.mark.parametrize("name", ["fp8", "int8", "int4"])
def test_a_shadow_of_a_lossy_format_is_refused_and_the_directory_is_free_again(tiny, open_lm, tmp_path, name):
    for _ in range(2):  # the second would find the directory in use
        with pytest.raises(ConfigError, match=f"disk_format='{name}' is not exact"):
            open_lm(tiny(), tmp_path, disk=32, disk_format=name, shadow=0.5, chunk_tokens=32)


def test_a_lossy_format_without_a_shadow_is_taken(tiny, open_lm, tmp_path):
    open_lm(tiny(), tmp_path, disk=32, disk_format="int8", chunk_tokens=32)


def test_the_lossless_format_is_checked(tiny, open_lm, tmp_path):
    lm = open_lm(tiny(), tmp_path, disk=64, disk_format="lossless", disk_budget=1.0, shadow=1, chunk_tokens=32)
    lm.prefill(ids_of(1, 80))

    lm.prefill(ids_of(1, 80))

    assert counted(lm) == (1, 0)
