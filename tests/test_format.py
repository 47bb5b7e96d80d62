"""The record: golden bytes, which no release may change, and every way in which one can be wrong."""

import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from kvtier.errors import CorruptBlockError, SpecMismatchError
from kvtier.format import (
    FORMAT_VERSION,
    Entry,
    check_label,
    header_bytes,
    pack_entry,
    record_bytes,
    seal,
    unpack_entry,
    verify,
)
from kvtier.hashing import BlockHash, Label, name_block

HEADER = header_bytes(4)
PAYLOAD = np.tile(np.arange(256, dtype=np.uint8), 2)
LABEL = Label(BlockHash(bytes(range(32))), 7, np.array([1, 2, 49151, 2**32 - 1], "<u4").tobytes())
KEY = name_block(LABEL)

#: The first 112 bytes of the record of ``PAYLOAD`` under ``LABEL``; zeros follow up to the payload.
GOLDEN = bytes.fromhex(
    "4b565442 0300 0000 6131a1a01fd7fb41"
    "11d2054941cde16a359d6d8cf0e6b994992f6d400c918b3a8f34f50595ff8b27"
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "07000000 04000000 0002000000000000"
    "01000000 02000000 ffbf0000 ffffffff"
)
GOLDEN_ENTRY = bytes.fromhex(
    "0500000000000000"
    "03000000"
    "09000000"
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "07000000"
    "01000000 02000000 ffbf0000 ffffffff"
)


def sealed(key=KEY, label=LABEL, payload=PAYLOAD):
    record = np.full(HEADER + len(payload), 0xAA, np.uint8)  # what was in the buffer before must not matter
    record[HEADER:] = payload
    seal(record[:HEADER], payload, key, label)
    return record


def check(record, key=KEY):
    return verify(record, key, header=HEADER, block_bytes=len(PAYLOAD))


def resealed(**fields):
    """A record with other fields and a checksum that fits them."""
    offsets = {"own_key": (16, "32s"), "parent": (48, "32s"), "depth": (80, "<I"), "tokens": (84, "<I")}
    offsets |= {"payload": (88, "<Q"), "ids": (96, "16s")}
    record = sealed()
    for name, value in fields.items():
        offset, kind = offsets[name]
        struct.pack_into(kind, record.data, offset, value)
    struct.pack_into("<Q", record.data, 8, xxhash.xxh3_64_intdigest(record[16:].data))
    return record


def test_a_record_begins_with_these_bytes_for_ever():
    assert sealed()[: len(GOLDEN)].tobytes() == GOLDEN


def test_zeros_lie_between_the_token_ids_and_the_payload():
    assert not sealed()[len(GOLDEN) : HEADER].any()


def test_the_payload_ends_the_record_as_it_is():
    assert sealed()[HEADER:].tobytes() == PAYLOAD.tobytes()


def test_the_golden_record_is_read_back():
    record = np.concatenate([np.frombuffer(GOLDEN, np.uint8), np.zeros(HEADER - len(GOLDEN), np.uint8), PAYLOAD])

    assert check(record) == (KEY, LABEL)


def test_an_index_entry_has_these_bytes_for_ever():
    assert pack_entry(Entry(5, 3, 9, LABEL)) == GOLDEN_ENTRY


@pytest.mark.parametrize(
    ("block_tokens", "header"),
    [(1, 4096), (32, 4096), (1000, 4096), (1001, 8192), (2024, 8192), (2025, 12288), (10_000, 40_960)],
)
def test_a_header_is_as_few_pages_as_hold_the_token_ids(block_tokens, header):
    assert header_bytes(block_tokens) == header


def test_a_record_is_its_header_and_its_payload():
    assert record_bytes(1000, 32) == 5096


@given(
    parent=st.binary(min_size=32, max_size=32),
    depth=st.integers(0, 2**32 - 1),
    ids=st.lists(st.integers(0, 2**32 - 1), max_size=1000),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_sealed_is_verified(parent, depth, ids, seed):
    label = Label(BlockHash(parent), depth, np.array(ids, "<u4").tobytes())
    payload = np.random.default_rng(seed).integers(0, 256, len(PAYLOAD), np.uint8)

    record = sealed(name_block(label), label, payload)

    assert check(record, name_block(label)) == (name_block(label), label)
    assert np.array_equal(record[HEADER:], payload)


@given(
    batch=st.integers(0, 2**64 - 1),
    slot=st.integers(0, 2**32 - 1),
    time_s=st.integers(0, 2**32 - 1),
    parent=st.binary(min_size=32, max_size=32),
    depth=st.integers(0, 2**32 - 1),
    tokens=st.binary(max_size=4000),
)
def test_what_is_packed_is_unpacked(batch, slot, time_s, parent, depth, tokens):
    entry = Entry(batch, slot, time_s, Label(BlockHash(parent), depth, tokens))

    assert unpack_entry(pack_entry(entry)) == entry


def test_an_entry_that_is_too_short_is_not_unpacked():
    with pytest.raises(struct.error):
        unpack_entry(GOLDEN_ENTRY[:51])


@pytest.mark.parametrize(
    "offset",
    [
        pytest.param(0, id="magic"),
        pytest.param(4, id="version"),
        pytest.param(6, id="flags"),
        pytest.param(8, id="checksum"),
        pytest.param(16, id="key"),
        pytest.param(48, id="parent"),
        pytest.param(80, id="depth"),
        pytest.param(84, id="tokens"),
        pytest.param(88, id="payload bytes"),
        pytest.param(96, id="first token id"),
        pytest.param(111, id="last token id"),
        pytest.param(112, id="first zero"),
        pytest.param(HEADER - 1, id="last zero"),
        pytest.param(HEADER, id="first byte of the payload"),
        pytest.param(HEADER + len(PAYLOAD) - 1, id="last byte of the payload"),
    ],
)
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_change_of_any_field_is_found(offset, mask):
    record = sealed()
    record[offset] ^= mask

    with pytest.raises(CorruptBlockError, match=KEY.hex()[:12]):
        check(record)


@pytest.mark.parametrize("length", [0, 50, HEADER, HEADER + len(PAYLOAD) - 1])
def test_a_record_cut_short_is_found(length):
    with pytest.raises(CorruptBlockError, match=f"record has {length} bytes, expected {HEADER + len(PAYLOAD)}"):
        check(sealed()[:length])


def test_a_record_with_more_behind_it_is_found():
    with pytest.raises(CorruptBlockError, match="record has"):
        check(np.append(sealed(), np.uint8(0)))


def test_a_record_of_another_release_is_found_by_its_version():
    record = sealed()
    record[4] = FORMAT_VERSION + 1

    with pytest.raises(
        CorruptBlockError, match=rf"not a version {FORMAT_VERSION} record: begins b'KVTB', version {FORMAT_VERSION + 1}"
    ):
        check(record)


def test_a_record_with_flags_nobody_knows_is_found():
    record = sealed()
    record[6] = 1

    with pytest.raises(CorruptBlockError, match="flags 1"):
        check(record)


OTHER = name_block(LABEL._replace(tokens=bytes(16)))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"own_key": OTHER}, "the record is that of block", id="key"),
        pytest.param({"parent": bytes(32)}, "the record is that of block", id="parent"),
        pytest.param({"ids": bytes(16)}, "the record is that of block", id="token ids"),
        pytest.param({"tokens": 3}, "the record is that of block", id="fewer token ids"),
        pytest.param({"tokens": 1001}, "record says 512 payload bytes, 1001 tokens", id="more than the header holds"),
        pytest.param({"payload": 511}, "record says 511 payload bytes", id="payload bytes"),
    ],
)
def test_a_record_that_is_whole_and_says_something_else_is_found(fields, reason):
    with pytest.raises(CorruptBlockError, match=reason):
        check(resealed(**fields))


def test_another_blocks_record_is_found_under_this_blocks_name():
    label = LABEL._replace(tokens=bytes(16))

    with pytest.raises(CorruptBlockError, match=f"the record is that of block {OTHER.hex()[:12]}"):
        check(sealed(OTHER, label))


def test_a_record_of_another_header_length_is_found():
    with pytest.raises(CorruptBlockError):
        verify(sealed(), KEY, header=HEADER - 16, block_bytes=len(PAYLOAD) + 16)


def test_a_label_that_fills_the_header_is_accepted():
    check_label(KEY, LABEL._replace(tokens=bytes(4 * 1000)), header=HEADER)


def test_a_label_that_would_run_into_the_payload_is_refused():
    with pytest.raises(SpecMismatchError, match="has 1001 token ids, the record's header holds 1000"):
        check_label(KEY, LABEL._replace(tokens=bytes(4 * 1001)), header=HEADER)
