"""Stores whose disk keeps blocks in a storage format, opened as users open them."""

import itertools

import pytest
import torch
from formats.format_helpers import as_bytes, like_kv
from store_helpers import tokens

from kvtier.errors import ConfigError, SpecMismatchError
from kvtier.formats.base import FORMATS
from kvtier.formats.choice import codec_for
from kvtier.hashing import Namespace
from kvtier.opening import open_store
from kvtier.spec import KVSpec

SPEC = KVSpec(layers=4, kv_heads=2, head_dim=64, dtype="float32", block_tokens=4)
#: Blocks of which no two formats have the same size; of ``SPEC`` some have, in whole pages.
LARGE = KVSpec(layers=8, kv_heads=2, head_dim=64, dtype="float32", block_tokens=16)
NAMES = Namespace(spec=SPEC, weights="w")
WORD = "abcde"


def blocks():
    return [as_bytes(like_kv(SPEC, seed)) for seed in range(len(WORD))]


def fresh():
    return [torch.zeros(SPEC.block_bytes, dtype=torch.uint8) for _ in WORD]


def opened(path, name, *, host=0, disk="1 MiB", **options):
    return open_store(path, NAMES, host=host, disk=disk, disk_format=name, **options)


def filled(path, name, **options):
    """Put the word, close, and get it back from disk."""
    with opened(path, name, **options) as store:
        store.put(tokens(WORD), blocks())
    out = fresh()
    with opened(path, name, **options) as store:
        assert store.get(tokens(WORD), out).tiers == ("disk",) * len(WORD)
    return out


@pytest.mark.parametrize("name", ["raw", "lossless"])
def test_exact_formats_give_back_every_bit_after_a_restart(tmp_path, name):
    assert all(torch.equal(*pair) for pair in zip(filled(tmp_path, name), blocks(), strict=True))


@pytest.mark.parametrize("name", ["fp8", "int8", "int4"])
def test_lossy_formats_give_back_what_their_codec_does(tmp_path, name):
    codec, expected = codec_for(name, SPEC), fresh()
    for block, target in zip(blocks(), expected, strict=True):
        stored = torch.zeros(codec.encoded_bytes, dtype=torch.uint8)
        codec.encode(b"", block, stored)
        codec.decode(b"", stored, target)

    found = filled(tmp_path, name)

    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(found, blocks(), strict=True))


def test_raw_is_the_default(tmp_path):
    filled(tmp_path, "raw")

    with open_store(tmp_path, NAMES, host=0, disk="1 MiB") as store:
        assert store.namespace is NAMES
        assert store.match(tokens(WORD)).num_blocks == len(WORD)


def test_a_disk_of_a_size_holds_more_blocks_in_a_smaller_format(tmp_path):
    sizes = {}
    for name in ("raw", *FORMATS):
        with opened(tmp_path / name, name, disk=20 * SPEC.block_bytes) as store:
            sizes[name] = store.stats()["tiers"]["disk"]["capacity_bytes"] // SPEC.block_bytes

    assert sizes["raw"] == 20
    assert sizes == {"raw": 20} | {
        name: 20 * SPEC.block_bytes // codec_for(name, SPEC).encoded_bytes for name in FORMATS
    }


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(["raw", *FORMATS], 2)))
def test_a_directory_of_one_format_is_refused_by_another_and_left_alone(tmp_path, first, second):
    names = Namespace(spec=LARGE, weights="w")
    given = as_bytes(like_kv(LARGE))
    with open_store(tmp_path, names, host=0, disk="1 MiB", disk_format=first) as store:
        store.put(tokens("aaaa"), [given])

    with pytest.raises(SpecMismatchError, match=r"was it written with another disk_format\?"):
        open_store(tmp_path, names, host=0, disk="1 MiB", disk_format=second)

    with open_store(tmp_path, names, host=0, disk="1 MiB", disk_format=first) as store:
        assert store.get(tokens("aaaa"), [torch.zeros_like(given)]).num_blocks == 1


@pytest.mark.parametrize(("first", "second"), [("raw", "lossless"), ("lossless", "raw"), ("int8", "int4")])
def test_a_directory_of_another_format_whose_blocks_have_the_same_size_serves_nothing(tmp_path, first, second):
    filled(tmp_path, first)
    out = fresh()

    with opened(tmp_path, second) as store:
        assert store.match(tokens(WORD)).num_blocks == 0
        assert store.get(tokens(WORD), out).num_blocks == 0
        assert store.put(tokens(WORD), blocks()).num_new == len(WORD)

    assert not any(block.any() for block in out)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(["raw", *FORMATS], 2)))
def test_the_names_of_one_format_are_those_of_no_other(tmp_path, first, second):
    with opened(tmp_path / "1", first) as one, opened(tmp_path / "2", second) as two:
        assert set(one.name(tokens(WORD)).keys).isdisjoint(two.name(tokens(WORD)).keys)


def test_a_lossless_budget_is_passed_on(tmp_path):
    with opened(tmp_path, "lossless", disk_budget=0.8) as store:
        assert store.tiers[-1].inner.block_bytes == codec_for("lossless", SPEC, budget=0.8).encoded_bytes


def test_a_block_beyond_its_budget_ends_the_prompt_and_nothing_else(tmp_path):
    noise = torch.randint(0, 256, (SPEC.block_bytes,), dtype=torch.uint8)
    given = [*blocks()[:2], noise, *blocks()[3:]]
    with opened(tmp_path, "lossless") as store:
        stored = store.put(tokens(WORD), given)
        out = fresh()

        assert (stored.num_new, stored.num_refused) == (2, 3)
        assert store.get(tokens(WORD), out).num_blocks == 2
        assert all(torch.equal(*pair) for pair in zip(out[:2], given[:2], strict=True))


def test_blocks_sink_and_rise_between_memory_and_a_format(tmp_path):
    with opened(tmp_path, "lossless", host=4 * SPEC.block_bytes, put_patience_s=10.0) as store:
        store.put(tokens(WORD), blocks())
        store.put(tokens("vwxyz"), blocks())
        store._mover.drain()
        out = fresh()

        assert "disk" in store.get(tokens(WORD), out).tiers
        assert all(torch.equal(*pair) for pair in zip(out, blocks(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"disk_format": "zip"}, "'zip' is not known; use 'raw' or one of"),
        ({"disk_format": "int8", "disk": 0, "host": "1 MiB"}, "disk_format='int8' is for a disk tier"),
        ({"disk_format": "raw", "disk_budget": 0.9}, "disk_budget is for disk_format='lossless'"),
        ({"disk_format": "int8", "disk_budget": 0.9}, "has a fixed size; a budget is for 'lossless'"),
        ({"disk_format": "lossless", "disk_budget": 2}, "at most 1, got 2"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_made(tmp_path, options, message):
    directory = tmp_path / "store"

    with pytest.raises(ConfigError, match=message):
        open_store(directory, NAMES, **{"host": 0, "disk": "1 MiB", **options})

    assert not directory.exists()
