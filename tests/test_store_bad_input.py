"""What the store refuses: the right error, a message that ends the search, and nothing lost by it."""

import json
import os

import lmdb
import numpy as np
import pytest
import torch
from store_helpers import (
    BLOCK,
    NAMESPACE,
    SPEC,
    TOKENS,
    blank,
    disk_tier,
    fetch,
    keys,
    make,
    make_over,
    memory,
    payload,
    save,
    saved,
    tokens,
    used,
    where,
)

from kvtier.errors import ConfigError, KVTierError, SpecMismatchError, TierClosedError, TokenError
from kvtier.format import FORMAT_VERSION
from kvtier.hashing import Namespace
from kvtier.opening import open_store
from kvtier.spec import KVSpec
from kvtier.store import Hit, Stored, TieredStore


@pytest.fixture
def store(tmp_path):
    with make(tmp_path, host=4, disk=8) as store:
        saved(store, "ab")
        yield store


# Buffers

BAD_BUFFERS = {
    "dtype": (torch.zeros(BLOCK, dtype=torch.int8), r"torch\.int8"),
    "too-short": (torch.zeros(BLOCK - 1, dtype=torch.uint8), rf"\({BLOCK - 1},\)"),
    "too-long": (torch.zeros(BLOCK + 1, dtype=torch.uint8), rf"\({BLOCK + 1},\)"),
    "elements-not-bytes": (torch.zeros(BLOCK // 4, dtype=torch.float32), r"torch\.float32"),
}


@pytest.mark.parametrize(("bad", "got"), BAD_BUFFERS.values(), ids=BAD_BUFFERS)
@pytest.mark.parametrize("position", [0, 1])
def test_a_put_names_the_buffer_that_does_not_fit(store, bad, got, position):
    blocks = [payload(key) for key in keys(store, "xy")]
    blocks[position] = bad

    with pytest.raises(SpecMismatchError, match=f"{keys(store, 'xy')[position].hex()[:12]}.*{got}.*{BLOCK} elements"):
        store.put(tokens("xy"), blocks)


@pytest.mark.parametrize(("bad", "got"), BAD_BUFFERS.values(), ids=BAD_BUFFERS)
def test_a_get_names_the_buffer_that_does_not_fit(store, bad, got):
    with pytest.raises(SpecMismatchError, match=f"get: .*{got}.*{BLOCK} elements"):
        store.get(tokens("ab"), [blank(1)[0], bad])


def test_a_refused_put_stores_nothing(store):
    with pytest.raises(SpecMismatchError):
        store.put(tokens("xy"), [payload(keys(store, "x")[0]), torch.zeros(3, dtype=torch.uint8)])

    assert where(store, "xy") == ()


def test_more_blocks_than_the_prompt_has_are_refused(store):
    with pytest.raises(SpecMismatchError, match="3 blocks from number 0 on, but the prompt has 2"):
        store.put(tokens("xy"), blank(3))


def test_blocks_that_start_behind_the_prompt_are_refused(store):
    with pytest.raises(SpecMismatchError, match="1 blocks from number 7 on, but the prompt has 2"):
        store.put(tokens("xy"), blank(1), start=7)


def test_a_negative_start_is_refused(store):
    with pytest.raises(SpecMismatchError, match="2 blocks from number -3 on, but the prompt has 4"):
        store.put(tokens("abxy"), blank(2), start=-3)


@pytest.mark.gpu
def test_blocks_of_a_device_go_to_disk_and_back(tmp_path):
    with make(tmp_path, disk=4) as store:
        store.put(tokens("ab"), [payload(key).cuda() for key in keys(store, "ab")])
        out = [block.cuda() for block in blank(2)]

        store.get(tokens("ab"), out)

        assert all(torch.equal(got.cpu(), payload(key)) for got, key in zip(out, keys(store, "ab"), strict=True))


# Prompts

BAD_PROMPTS = {
    "negative": ([1, -100, 3, 4], "-100 at position 1"),
    "too-large": ([1, 2, 2**32, 4], f"{2**32} at position 2"),
    "floats": ([1.0, 2.0, 3.0, 4.0], "float64"),
    "text": ("abcd", "flat sequence"),
    "words": (["a", "b"], "tokenize"),
    "batch": ([[1, 2, 3, 4]], r"ids\[0\]"),
    "ragged": ([[1, 2], [3]], "flat sequence"),
    "huge": ([2**70, 1, 2, 3], "whole numbers"),
    "bools": ([True, False, True, True], "bool"),
    "none": (None, "flat sequence"),
    "number": (7, "flat sequence"),
}
CALLS = {
    "match": lambda store, prompt: store.match(prompt),
    "get": lambda store, prompt: store.get(prompt, blank(1)),
    "put": lambda store, prompt: store.put(prompt, blank(1)),
    "prefetch": lambda store, prompt: store.prefetch(prompt),
    "pin": lambda store, prompt: store.pin(prompt, owner="test").__enter__(),
}


@pytest.mark.parametrize(("prompt", "what"), BAD_PROMPTS.values(), ids=BAD_PROMPTS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_refuses_what_is_not_a_prompt(store, call, prompt, what):
    with pytest.raises(TokenError, match=what):
        call(store, prompt)


@pytest.mark.parametrize("prompt", [[], [1], [1] * (TOKENS - 1), np.empty(0, np.int64)], ids=len)
def test_a_prompt_shorter_than_a_block_is_fine_and_empty(store, prompt):
    assert store.match(prompt) == Hit(0, (), None)
    assert store.get(prompt, blank(2)) == Hit(0, (), None)
    assert store.put(prompt, []) == Stored(0, 0)


@pytest.mark.parametrize(
    "kind",
    [tuple, np.array, torch.tensor, lambda ids: np.array(ids, np.uint16)],
    ids=["tuple", "array", "tensor", "u16"],
)
def test_any_flat_sequence_of_whole_numbers_is_a_prompt(store, kind):
    assert store.match(kind(tokens("ab"))).num_blocks == 2


# Tiers and sizes


def test_a_store_without_tiers_is_refused():
    with pytest.raises(ConfigError, match="at least one tier"):
        make()


def test_two_tiers_of_one_name_are_refused():
    with pytest.raises(ConfigError, match=r"names must differ.*'a', 'a'"):
        make_over(memory("a", 2), memory("a", 2))


def test_a_tier_of_another_block_size_is_refused():
    other = Namespace(spec=KVSpec(layers=2, kv_heads=1, head_dim=8, dtype="float32", block_tokens=TOKENS), weights="w")

    with pytest.raises(SpecMismatchError, match=rf"host: .*{BLOCK} bytes.*{2 * BLOCK}"):
        TieredStore([memory("host", 2)], other)


def test_an_unknown_time_of_writing_is_refused():
    with pytest.raises(ConfigError, match="'on_eviction' or 'on_insertion', got 'later'"):
        make_over(memory("host", 2), write="later")


def test_a_disk_without_a_directory_is_refused():
    with pytest.raises(ConfigError, match="directory"):
        make(None, disk=4)


@pytest.mark.parametrize("tier", ["device", "host", "disk"])
def test_a_tier_too_small_for_one_block_is_refused(tmp_path, tier):
    with pytest.raises(ConfigError, match=f"{tier}: {BLOCK - 1} bytes hold no block of {BLOCK} bytes"):
        open_store(tmp_path, NAMESPACE, **{"device": 0, "host": 0, "disk": 0, tier: BLOCK - 1})


@pytest.mark.parametrize("size", ["lots", "-1 GiB", -1, 1.5, "1 XB", "", None, True], ids=repr)
def test_what_is_not_a_size_is_refused(tmp_path, size):
    with pytest.raises(ConfigError, match="size"):
        open_store(tmp_path, NAMESPACE, host=size, disk=0)


def test_a_refused_setting_leaves_the_directory_free(tmp_path):
    with pytest.raises(ConfigError):
        make(tmp_path, disk=4, write="later")

    with make(tmp_path, disk=4) as store:
        assert save(store, "a").num_new == 1


# Directories


@pytest.fixture
def held(tmp_path):
    """A directory whose closed store holds ``ab``."""
    path = tmp_path / "held"
    with make(path, disk=8) as store:
        saved(store, "ab")
    return path


def refused(error, message, path, **options):
    with pytest.raises(error, match=message):
        make(path, **{"disk": 8, **options})


def still_whole(path):
    with make(path, disk=8) as store:
        return fetch(store, "ab").num_blocks == 2 and used(store) == {"disk": 2}


def test_a_file_is_not_a_directory(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")

    refused(ConfigError, f"disk: {path} is a file", path)
    assert path.read_text() == "mine"


def test_a_directory_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")

    refused(ConfigError, "cannot be used", tmp_path / "file" / "below")


def test_a_directory_that_cannot_be_written_to_is_refused(held, monkeypatch):
    with monkeypatch.context() as as_another_user:
        as_another_user.setattr(os, "access", lambda *_: False)
        refused(ConfigError, f"{held} is not writable", held)

    assert still_whole(held)


def test_somebody_elses_directory_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")

    refused(ConfigError, r"not kvtier's: it holds 'thesis\.txt'", tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_somebody_elses_environment_is_left_alone(tmp_path):
    with lmdb.open(str(tmp_path)) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"1")

    refused(ConfigError, "not kvtier's", tmp_path)
    with lmdb.open(str(tmp_path)) as env, env.begin() as txn:
        assert [bytes(key) for key, _ in txn.cursor()] == [b"theirs"]


def _set_format(path, number):
    with lmdb.open(str(path), max_dbs=3) as env:
        meta = env.open_db(b"meta", create=False)
        with env.begin(write=True) as txn:
            about = json.loads(txn.get(b"format", db=meta))
            txn.put(b"format", json.dumps({**about, "format": number}).encode(), db=meta)


def test_a_newer_format_is_refused_and_left_alone(held):
    _set_format(held, FORMAT_VERSION + 1)

    refused(ConfigError, f"has format {FORMAT_VERSION + 1}, this kvtier reads {FORMAT_VERSION}", held)
    _set_format(held, FORMAT_VERSION)
    assert still_whole(held)


def test_a_directory_in_use_is_refused_and_goes_on(tmp_path):
    with make(tmp_path, disk=8) as store:
        saved(store, "ab")

        refused(ConfigError, rf"open in this process \(pid {os.getpid()}\) already", tmp_path)
        assert fetch(store, "ab").num_blocks == 2


def test_a_directory_of_another_geometry_is_refused_and_left_alone(held):
    other = Namespace(spec=KVSpec(layers=3, kv_heads=1, head_dim=8, dtype="float32", block_tokens=TOKENS), weights="w")

    refused(
        SpecMismatchError,
        rf"holds blocks of {BLOCK} bytes in slots of 8192, expected",
        held,
        namespace=other,
    )
    assert still_whole(held)


def test_two_geometries_of_one_size_do_not_share_blocks(held):
    twin = Namespace(spec=KVSpec(layers=1, kv_heads=2, head_dim=4, dtype="float32", block_tokens=TOKENS), weights="w")
    assert twin.spec.block_bytes == SPEC.block_bytes

    with make(held, disk=8, namespace=twin) as store:
        assert where(store, "ab") == ()


# After closing

CLOSED_CALLS = {**CALLS, "flush": lambda store, _: store.flush()}


@pytest.mark.parametrize("call", CLOSED_CALLS.values(), ids=CLOSED_CALLS)
def test_a_closed_store_says_so(call):
    store = make(host=2)
    store.close()

    with pytest.raises(TierClosedError, match="after close"):
        call(store, tokens("a"))


def test_what_was_held_before_a_refusal_is_held_after_it(tmp_path):
    with make(tmp_path, host=4, disk=8) as store:
        saved(store, "ab")
        for call in (
            lambda: store.put([-1], []),
            lambda: store.put(tokens("xy"), blank(3)),
            lambda: store.get("no", []),
        ):
            with pytest.raises(KVTierError):
                call()

    assert still_whole(tmp_path)


def test_a_store_of_ones_own_tiers_closes_them(tmp_path):
    tier = disk_tier(tmp_path, 4)

    make_over(tier).close()

    with pytest.raises(TierClosedError):
        tier.flush()
