"""A bundle is taken whole or not at all, whatever was done to it."""

import hashlib
import json
import struct

import pytest
from doctor_helpers import LONG, NAMES, OTHER, SLOT, held, names_of, place_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvtier.doctor.bundle import BundleReader
from kvtier.doctor.carrying import export, import_bundle
from kvtier.doctor.reports import Choice
from kvtier.errors import ConfigError, TierUnavailableError


def record_of(store, name):
    """A stored record, from the file."""
    with (store / "data.mdb").open("rb") as file:
        file.seek(place_of(store, name))
        return file.read(SLOT)


def digest(data):
    return hashlib.blake2b(data, digest_size=32, person=b"kvtier-bundle-1").digest()


def assembled(records, **changes):
    """A bundle put together after docs/bundle.md, not by the code under test; its digest is always right."""
    about = {
        "record_version": 3,
        "block_bytes": 4096,
        "block_tokens": 16,
        "count": len(records),
        "namespaces": [{"root": NAMES.root.hex(), "about": NAMES.record()}],
        **changes,
    }
    manifest = json.dumps(about).encode()
    data = struct.pack("<8sII", b"KVTBUNDL", 1, len(manifest)) + manifest + b"".join(records)
    return data + digest(data)


@pytest.fixture(scope="module")
def records(made):
    """The records of one prompt, as they are stored."""
    return [record_of(made, name) for name in names_of(OTHER)]


@pytest.fixture
def refused(tmp_path):
    """Try to import some bytes into a directory that is not there; returns why not."""

    def attempt(data):
        (tmp_path / "bundle").write_bytes(data)
        with pytest.raises(ConfigError, match="refused whole") as raised:
            import_bundle(tmp_path / "new", tmp_path / "bundle")
        assert not (tmp_path / "new").exists(), "something was written"
        return str(raised.value)

    return attempt


def test_a_bundle_is_what_its_document_says(store, tmp_path, records):
    export(store, tmp_path / "bundle", Choice(prompts=[OTHER]))

    assert (tmp_path / "bundle").read_bytes() == assembled(records)


def test_a_bundle_made_by_the_document_can_be_imported(tmp_path, records):
    (tmp_path / "bundle").write_bytes(assembled(records))

    assert import_bundle(tmp_path / "new", tmp_path / "bundle").imported == 3
    assert held(tmp_path / "new", OTHER) == 3


CHANGES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@CHANGES
@given(place=st.integers(0, 2**32), flipped=st.integers(1, 255))
def test_with_any_byte_changed_nothing_of_it_is_imported(refused, records, place, flipped):
    data = bytearray(assembled(records))
    data[place % len(data)] ^= flipped

    refused(data)


@CHANGES
@given(place=st.integers(0, 2**32))
def test_cut_anywhere_nothing_of_it_is_imported(refused, records, place):
    data = assembled(records)

    refused(data[: place % len(data)])


@CHANGES
@given(place=st.integers(0, 2**32), more=st.binary(min_size=1, max_size=40))
def test_with_anything_put_in_nothing_of_it_is_imported(refused, records, place, more):
    data = assembled(records)
    place %= len(data) + 1

    refused(data[:place] + more + data[place:])


@CHANGES
@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_bundle_are_refused(refused, data):
    refused(b"KVTBUNDL\x01\x00\x00\x00" + data)


# What a right digest does not excuse


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block_bytes", 0),
        ("block_bytes", -4096),
        ("block_bytes", 1 << 62),
        ("block_bytes", 4096.0),
        ("block_bytes", "4096"),
        ("block_bytes", True),
        ("block_tokens", 0),
        ("block_tokens", 1 << 40),
        ("block_tokens", 2000),
        ("count", 0),
        ("count", 2),
        ("count", 4),
        ("count", 1 << 47),
        ("count", None),
        ("record_version", 2),
        ("namespaces", {}),
        ("namespaces", ["root"]),
        ("namespaces", [{"root": "00"}]),
        ("namespaces", [{"root": "no hex"}]),
        ("namespaces", [{"root": "00" * 32, "about": []}]),
        ("namespaces", [{"root": NAMES.root.hex()}, {"root": "00"}]),
        ("namespaces", []),
        ("namespaces", [{"root": "11" * 32, "about": None}]),
    ],
)
def test_a_manifest_that_cannot_be_true_is_refused(refused, records, name, value):
    refused(assembled(records, **{name: value}))


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(refused, text):
    data = struct.pack("<8sII", b"KVTBUNDL", 1, len(text)) + text
    refused(data + digest(data))


def test_a_manifest_longer_than_any_is_refused_before_it_is_read(refused):
    refused(struct.pack("<8sII", b"KVTBUNDL", 1, (1 << 32) - 1) + bytes(2 << 20))


def test_a_manifest_padded_beyond_any_is_refused_though_its_digest_is_right(refused, records):
    whole = assembled(records)
    (length,) = struct.unpack_from("<I", whole, 12)
    manifest = whole[16 : 16 + length] + b" " * (1 << 20)
    data = struct.pack("<8sII", b"KVTBUNDL", 1, len(manifest)) + manifest + b"".join(records)

    refused(data + digest(data))


def test_true_is_no_count(refused, records):
    refused(assembled(records[:1], count=True))


def test_another_version_is_refused_by_its_number(refused, records):
    data = bytearray(assembled(records))
    data[8] = 2

    assert "version 2, this kvtier reads 1" in refused(data)


def test_a_block_before_its_parent_is_refused(refused, records):
    assert "is not in it" in refused(assembled([records[1], records[0], records[2]]))


def test_a_block_without_its_parent_is_refused(refused, records):
    assert "is not in it" in refused(assembled([records[0], records[2]]))


def test_a_block_that_is_in_it_twice_is_refused(refused, records):
    assert "twice" in refused(assembled([records[0], records[1], records[1]]))


def test_a_record_with_a_payload_that_does_not_fit_its_checksum_is_refused(refused, records):
    bad = records[1][:-1] + bytes([records[1][-1] ^ 1])

    assert "record 1: checksum mismatch" in refused(assembled([records[0], bad, records[2]]))


def resealed(record, **at):
    """A record with other fields and the checksum that fits them."""
    import xxhash

    changed = bytearray(record)
    for place, data in at.values():
        changed[place : place + len(data)] = data
    changed[8:16] = xxhash.xxh3_64_intdigest(bytes(changed[16:])).to_bytes(8, "little")
    return bytes(changed)


def test_a_record_that_is_not_what_its_name_says_is_refused(refused, records):
    liar = resealed(records[1], tokens=(96, b"\x07\x00\x00\x00"))

    assert "record 1" in refused(assembled([records[0], liar, records[2]]))


def test_a_record_at_another_depth_than_behind_its_parent_is_refused(refused, records):
    deep = resealed(records[1], depth=(80, (5).to_bytes(4, "little")))

    assert "is not in it" in refused(assembled([records[0], deep, records[2]]))


def test_a_first_block_with_a_depth_is_refused(refused, records):
    deep = resealed(records[0], depth=(80, (1).to_bytes(4, "little")))

    assert "is not in it" in refused(assembled([deep]))


def test_a_bundle_that_changes_after_it_was_proven_is_refused(tmp_path, records):
    bundle = tmp_path / "bundle"
    bundle.write_bytes(assembled(records))
    with BundleReader(bundle) as reader:
        reader.prove()
        data = bytearray(bundle.read_bytes())
        data[-40] ^= 1
        with bundle.open("r+b") as file:
            file.write(data)

        with pytest.raises(ConfigError, match="record 2"):
            list(reader.blocks())


def test_a_bundle_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        BundleReader(tmp_path / "nothing")


def test_a_directory_is_no_bundle(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        BundleReader(tmp_path)


# How it is written


def test_a_bundle_is_for_its_owner_alone(store, tmp_path):
    export(store, tmp_path / "bundle", Choice(everything=True))

    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o600


def test_a_bundle_never_takes_the_place_of_another_file(store, tmp_path):
    (tmp_path / "bundle").write_text("precious")

    with pytest.raises(ConfigError, match="exists already"):
        export(store, tmp_path / "bundle", Choice(everything=True))

    assert (tmp_path / "bundle").read_text() == "precious"


def test_a_bundle_that_cannot_be_finished_leaves_nothing(store, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kvtier.doctor.bundle.os.fsync", full)
    there = tmp_path / "there"
    there.mkdir()

    with pytest.raises(TierUnavailableError, match="No space left"):
        export(store, there / "bundle", Choice(everything=True))

    assert list(there.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        export(store, tmp_path / "nowhere" / "bundle", Choice(prompts=[LONG]))
