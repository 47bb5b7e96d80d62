"""Loading and computing at once: whoever wins, whatever fails, the answer is that of computing alone."""

import logging
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import GatedTier, ids_of, settle
from transformers import DynamicCache

from kvtier.econ.machine import machine_name, versions
from kvtier.econ.profile import PrefillPoint, Profile
from kvtier.errors import ConfigError, ProfileError, TierUnavailableError
from kvtier.ground import Ground
from kvtier.integrations.meeting import Judge
from kvtier.integrations.transformers import CachedLM, namespace_of
from kvtier.store import TieredStore
from kvtier.testing.tiers import Damaged, FaultyTier, ShortRead, on
from kvtier.tiers.memory import MemoryTier

#: Five chunks of two blocks may be reused, five tokens are always computed.
IDS = ids_of(1, 45)
CHUNK = 8


def loaders():
    return [thread for thread in threading.enumerate() if thread.name == "kvtier-loader"]


def pool(spec, name="host", blocks=32):
    return MemoryTier(name, capacity_bytes=blocks * spec.block_bytes, block_bytes=spec.block_bytes)


@contextmanager
def filled(model, wrap=lambda tier: tier, *, chunk_tokens=CHUNK, reuse="both", ids=IDS):
    """A model over one tier that holds a prompt; it has observed nothing."""
    names = namespace_of(model, block_tokens=4, chunk_tokens=chunk_tokens)
    tier = wrap(pool(names.spec))
    with TieredStore([tier], names) as store:
        CachedLM(model, store, chunk_tokens=chunk_tokens, _names=names).prefill(ids)
        yield CachedLM(model, store, chunk_tokens=chunk_tokens, reuse=reuse, _names=names), tier


@pytest.fixture
def smallest(monkeypatch):
    """Pieces and windows of one unit, whatever has been observed."""
    for name in ("_piece_units", "_window_units"):
        monkeypatch.setattr(Ground, name, lambda ground: int(ground.front < ground.back))


@contextmanager
def counted(model):
    """Lengths of what the model computes."""
    lengths = []
    hook = model.register_forward_pre_hook(
        lambda _, args, options: lengths.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    yield lengths
    hook.remove()


def before_computing(lm, act):
    """Call ``act`` before each piece of a meeting is computed."""
    compute = lm._compute_part

    def part(*args):
        act()
        compute(*args)

    lm._compute_part = part


def loading_has_ended():
    for thread in loaders():
        thread.join(60)


def right(lm, done, lengths, ids=IDS):
    """Whether a prefill is the control's, bit for bit, and every token of it accounted for."""
    accounted = done.num_reused + sum(lengths) == len(ids)  # before the control computes
    control = CachedLM(lm.model, None, chunk_tokens=lm.chunk_tokens)
    return accounted and torch.equal(done.logits, control.prefill(ids).logits) and not loaders()


# Every split, every failing window


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("count", range(5))
def test_with_the_last_windows_loaded_the_rest_is_computed(tiny, smallest, kind, count):
    model = tiny(kind)
    with filled(model, lambda tier: FaultyTier(tier, lambda *_: None)) as (lm, tier), counted(model) as lengths:
        gone = TierUnavailableError("host", "gone")
        tier.faults = lambda operation, number: gone if operation == "read" and number > count else None
        before_computing(lm, loading_has_ended)

        done = lm.prefill(IDS)

        assert done.num_reused == done.hit.num_tokens == CHUNK * count
        assert done.hit.stopped_by == ("unavailable" if count < 4 else "computed")
        assert right(lm, done, lengths)


FAULTS = [TierUnavailableError("host", "gone"), ShortRead(0), ShortRead(1), Damaged(0), Damaged(1)]


@pytest.mark.parametrize("fault", FAULTS, ids=["gone", "short", "half", "damaged", "half-damaged"])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_a_window_that_fails_is_computed_and_those_behind_it_are_used(tiny, smallest, fault, window):
    model = tiny()
    with filled(model, lambda tier: FaultyTier(tier, lambda *_: None)) as (lm, tier), counted(model) as lengths:
        tier.faults = on("read", fault, window)
        before_computing(lm, loading_has_ended)

        done = lm.prefill(IDS)

        assert done.num_reused == done.hit.num_tokens == 3 * CHUNK
        assert done.hit.stopped_by in {"unavailable", "damaged", "not_held"}
        assert right(lm, done, lengths)
        settle(lm.store)
        lm.prefill(IDS)
        assert lm.store.match(IDS).num_blocks == 10, "what could not be loaded was not stored again"


def test_where_computing_gains_nothing_all_is_loaded(tiny, monkeypatch):
    model = tiny()
    monkeypatch.setattr(Ground, "_piece_units", lambda ground: 0)
    with filled(model) as (lm, _), counted(model) as lengths:
        done = lm.prefill(IDS)

        assert (done.num_reused, done.hit.stopped_by, done.hit.tiers) == (40, None, ("host",) * 10)
        assert right(lm, done, lengths)


def test_where_loading_gains_nothing_all_is_computed(tiny, monkeypatch):
    model = tiny()
    monkeypatch.setattr(Ground, "_window_units", lambda ground: 0)
    with filled(model) as (lm, _), counted(model) as lengths:
        done = lm.prefill(IDS)

        assert (done.num_reused, done.hit.num_tokens, done.hit.stopped_by) == (0, 0, "computed")
        assert right(lm, done, lengths)


class Turns:
    """Lets two threads act in the order of a script; who waits too long for the other goes ahead."""

    def __init__(self, script):
        self._left = list(script)
        self._changed = threading.Condition()

    def take(self, who):
        with self._changed:
            self._changed.wait_for(lambda: not self._left or self._left[0] == who, timeout=0.02)
            if self._left:
                self._left.pop(0)
            self._changed.notify_all()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from("cl"), max_size=12),
    st.dictionaries(st.integers(1, 5), st.sampled_from(range(len(FAULTS))), max_size=2),
    st.sampled_from([CHUNK, 16]),
    st.integers(6, 45),
)
def test_whoever_comes_first_the_answer_is_the_same(tiny, script, faults, chunk_tokens, count):
    model = tiny()
    ids = IDS[:count]
    turns = Turns(script)

    def schedule(operation, number):
        if operation != "read":
            return None
        turns.take("l")
        return FAULTS[faults[number]] if number in faults else None

    with (
        filled(model, lambda tier: FaultyTier(tier, lambda *_: None), chunk_tokens=chunk_tokens) as (lm, tier),
        counted(model) as lengths,
    ):
        tier.faults = schedule
        before_computing(lm, lambda: turns.take("c"))

        done = lm.prefill(ids)

        assert right(lm, done, lengths, ids)


# Without chunks


@pytest.mark.parametrize("count", [5, 8, 9, 44, 48])
def test_without_chunks_the_answer_is_that_of_computing_up_to_rounding(tiny, smallest, count):
    model = tiny()
    ids = ids_of(2, count)
    with filled(model, chunk_tokens=None, ids=ids) as (lm, _), counted(model) as lengths:
        done = lm.prefill(ids)
        computed = sum(lengths)
        cache = DynamicCache(config=model.config)
        expected = model(input_ids=torch.tensor([ids]), past_key_values=cache).logits[0, -1]

        assert computed + done.num_reused == count
        assert torch.allclose(done.logits, expected, atol=1e-5)
        assert done.past_key_values.get_seq_length() == count


@pytest.mark.parametrize("reuse", ["both", "compute"])
def test_generation_is_the_same(tiny, reuse):
    model = tiny()
    with filled(model, reuse=reuse) as (lm, _):
        control = CachedLM(model, None, chunk_tokens=CHUNK)

        assert lm.generate([IDS, IDS[:20]], max_new_tokens=6) == control.generate([IDS, IDS[:20]], max_new_tokens=6)


def test_in_inference_mode_too(tiny):
    with torch.inference_mode(), filled(tiny()) as (lm, _), counted(lm.model) as lengths:
        done = lm.prefill(IDS)

        assert right(lm, done, lengths)


# What goes wrong


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_error_while_computing_ends_the_loader_first(tiny, smallest, error):
    model = tiny()
    with filled(model, lambda tier: GatedTier(tier, "read")) as (lm, tier):

        def fail():
            assert tier.entered.wait(60)
            threading.Timer(0.1, tier.gate.set).start()
            raise error

        compute = lm._compute_part
        before_computing(lm, fail)

        with pytest.raises(type(error)):
            lm.prefill(IDS)

        assert loaders() == []
        lm._compute_part = compute
        with counted(model) as lengths:
            done = lm.prefill(IDS)
        assert right(lm, done, lengths)


def test_an_error_of_the_loader_beyond_a_miss_is_raised_to_the_caller(tiny, smallest):
    with filled(tiny(), lambda tier: FaultyTier(tier, lambda *_: None)) as (lm, tier):
        tier.faults = on("read", ZeroDivisionError("a bug"))

        with pytest.raises(ZeroDivisionError, match="a bug"):
            lm.prefill(IDS)

        assert loaders() == []


def test_reuse_must_be_a_choice(tiny, open_lm):
    with pytest.raises(ConfigError, match="reuse must be 'auto', 'load', 'compute' or 'both', got 'never'"):
        CachedLM(tiny(), None, reuse="never")
    with pytest.raises(ConfigError, match="got 'never'"):
        open_lm(tiny(), host=8, reuse="never")


# Decisions


def teach(lm, *, token_s, disk_token_s, host_token_s=1e-9):
    """Make a model and its store believe in rates."""
    lm._judge = Judge()
    token_bytes = lm.spec.bytes_per_token
    for count in (10, 20, 40):
        lm._judge._rate.observe((count, 0, 1), count * token_s)
        for tier, seconds in (("host", host_token_s), ("disk", disk_token_s)):
            lm.store._core.loads.observe(tier, count * token_bytes, count * seconds)


@pytest.mark.parametrize(
    ("token_s", "load_s", "expected"), [(1.0, 0.01, "load"), (0.01, 1.0, "compute"), (1.0, 1.0, "both")]
)
def test_what_is_predicted_to_be_fastest_is_done(tiny, token_s, load_s, expected):
    model = tiny()
    with filled(model, reuse="auto") as (lm, _), counted(model) as lengths:
        teach(lm, token_s=token_s, disk_token_s=1.0, host_token_s=load_s)

        done = lm.prefill(IDS)

        assert done.decision.chosen == expected
        assert set(done.decision.predicted) == {"load", "compute", "both"}
        assert 0 < done.decision.seconds < 60
        assert done.decision.seconds == pytest.approx(done.seconds["load"] + done.seconds["compute"])
        assert right(lm, done, lengths)


def profile_of(lm, *, token_s, bytes_per_s, **change):
    """A profile of this machine with a model: seconds a token, bytes a second."""
    tier = Profile.named("h100", "llama-3.1-8b").tiers["host"]
    tier = replace(tier, read_bytes_per_s=replace(tier.read_bytes_per_s, value=bytes_per_s, lo=None, hi=None))
    points = tuple(PrefillPoint(tokens=n, lo=n * token_s, mid=n * token_s, hi=n * token_s) for n in (1, 16, 64))
    fields = {
        "name": "mine",
        "source": "a test",
        "date": "2026-11",
        "machine": machine_name(),
        "versions": versions(),
        "model": "tiny",
        "kv_dtype": "float32",
        "bytes_per_token": lm.spec.bytes_per_token,
        "prefill": points,
        "gpu_usd_per_hour": tier.rent_usd_per_gb_hour,
        "tiers": {"host": tier},
    }
    return Profile(**(fields | change))


@pytest.mark.parametrize(
    ("token_s", "load_s", "expected"), [(1.0, 0.01, "load"), (1e-3, 1.0, "compute"), (1.0, 1.0, "both")]
)
def test_with_a_profile_the_first_hit_is_decided_about(tiny, token_s, load_s, expected):
    model = tiny()
    with filled(model, reuse="auto") as (lm, _), counted(model) as lengths:
        names = lm.store.namespace
        profile = profile_of(lm, token_s=token_s, bytes_per_s=lm.spec.bytes_per_token / load_s)
        blind = CachedLM(model, lm.store, chunk_tokens=CHUNK, reuse="auto", _names=names)
        told = CachedLM(model, lm.store, chunk_tokens=CHUNK, reuse="auto", profile=profile, _names=names)

        done = told.prefill(IDS)

        assert done.decision.chosen == expected
        assert set(done.decision.predicted) == {"load", "compute", "both"}
        assert done.decision.predicted["compute"] == pytest.approx(45 * token_s, rel=0.1)
        assert right(told, done, lengths)
        assert "too little is known" in blind.prefill(IDS).decision.reason


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"machine": "another"}, "was measured on 'another'"),
        ({"versions": {"torch": "0.1"}}, "was measured with torch 0.1"),
        ({"bytes_per_token": 7}, "is of tiny with 7 bytes of KV per token, this model has"),
    ],
)
def test_a_profile_of_something_else_is_refused(tiny, change, says):
    model = tiny()
    with filled(model) as (lm, _):
        profile = profile_of(lm, token_s=1.0, bytes_per_s=1.0, **change)

        with pytest.raises(ProfileError, match=says):
            CachedLM(model, None, profile=profile)


def test_a_model_opened_with_a_profile_believes_it(tiny, open_lm):
    lm = open_lm(tiny(), host=8)
    profile = profile_of(lm, token_s=1.0, bytes_per_s=1e6)

    told = open_lm(tiny(), host=8, profile=profile)

    assert told._judge.cost().seconds((16, 0, 0)) == pytest.approx(16, rel=0.1)


def test_the_head_in_a_faster_tier_is_loaded_first(tiny):
    model = tiny()
    names = namespace_of(model, block_tokens=4, chunk_tokens=CHUNK)
    with TieredStore(
        [pool(names.spec, "host", 8), pool(names.spec, "disk")], names, promote=False, put_patience_s=10
    ) as store:
        lm = CachedLM(model, store, chunk_tokens=CHUNK, reuse="auto", _names=names)
        lm.prefill(IDS)
        lm.prefill(ids_of(9, 8))  # the host tier holds others now, and some of the prompt
        settle(store)
        store.prefetch(IDS[:16]).wait()  # its head
        settle(store)
        tiers = store.match(IDS).tiers
        teach(lm, token_s=1.0, disk_token_s=1.0)
        with counted(model) as lengths:
            done = lm.prefill(IDS)

        head = tiers.index("disk") // 2 * 2
        assert 0 < head < 10
        assert done.decision.chosen == "both"
        assert done.hit.tiers[:head] == ("host",) * head
        assert right(lm, done, lengths)


def test_what_was_loaded_from_below_is_promoted(tiny, monkeypatch):
    model = tiny()
    monkeypatch.setattr(Ground, "_piece_units", lambda ground: 0)
    names = namespace_of(model, block_tokens=4, chunk_tokens=CHUNK)
    with TieredStore([pool(names.spec, "host", 4), pool(names.spec, "disk")], names) as store:
        lm = CachedLM(model, store, chunk_tokens=CHUNK, reuse="both", _names=names)
        for ids in (IDS, ids_of(9, 45)):
            lm.prefill(ids)
            settle(store)
        before = store.match(IDS).tiers

        lm.prefill(IDS)
        settle(store)

        assert before == ("disk",) * 10
        assert store.match(IDS).tiers[0] == "host"


@pytest.mark.parametrize("reuse", ["auto", "load"])
def test_before_anything_was_observed_a_prefix_is_loaded(tiny, reuse):
    with filled(tiny(), reuse=reuse) as (lm, _):
        done = lm.prefill(IDS)

        assert done.num_reused == 40
        assert done.decision is None if reuse == "load" else done.decision.reason.startswith("too little is known")


def test_to_compute_is_an_order(tiny):
    model = tiny()
    with filled(model, reuse="compute") as (lm, _), counted(model) as lengths:
        done = lm.prefill(IDS)

        assert (done.decision.chosen, done.num_reused, done.hit.tiers) == ("compute", 0, ())
        assert right(lm, done, lengths)


def test_nothing_held_is_nothing_to_decide(tiny):
    with filled(tiny()) as (lm, _):
        assert lm.prefill(ids_of(7, 30)).decision is None


def test_what_is_computed_and_loaded_is_observed(tiny):
    with filled(tiny(), reuse="load") as (lm, _):
        before = lm.store.load_costs().tiers, lm._judge.cost()
        lm.prefill(IDS)

        assert before == ({}, None)
        assert lm.store.load_costs().tiers["host"].num_seen == 1
        assert lm.store.load_costs().queued == {}
        assert lm._judge.cost().largest == 5


def test_a_side_left_out_for_long_is_observed_again(tiny):
    with filled(tiny(), reuse="auto") as (lm, _):
        chosen = []
        for _ in range(20):
            taught = lm._judge._one_sided
            teach(lm, token_s=1.0, disk_token_s=1.0, host_token_s=0.01)
            lm._judge._one_sided = taught
            chosen.append(lm.prefill(IDS).decision.chosen)

        assert chosen == ["load"] * 16 + ["both"] + ["load"] * 3


def test_the_decision_is_logged(tiny, caplog):
    with filled(tiny(), reuse="compute") as (lm, _), caplog.at_level(logging.DEBUG, "kvtier"):
        lm.prefill(IDS)

    assert "prefill of 45 tokens, 40 held: compute (asked for)" in caplog.text
