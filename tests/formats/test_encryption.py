"""Encryption at rest: what is on disk is ciphertext, bound to its name, and a wrong key serves nothing."""

import logging
import subprocess
import sys
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from formats.format_helpers import KEY, ODD, SPECS, as_bytes, decoded, encoded, like_kv, noise, strided
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import tokens
from tier_helpers import raw_flip, raw_get

from kvtier.errors import ConfigError, CorruptBlockError, SpecMismatchError
from kvtier.format import PAGE_BYTES
from kvtier.formats import encrypted as encrypted_module
from kvtier.formats.base import FORMATS, HEADER_BYTES, engine_layout, in_format
from kvtier.formats.choice import codec_for
from kvtier.formats.encrypted import TAG_BYTES, Encrypted
from kvtier.formats.keys import Key
from kvtier.hashing import Namespace
from kvtier.opening import open_store
from kvtier.spec import KVSpec
from kvtier.testing.blocks import SHAPE
from kvtier.testing.tier_tests import TierTests
from kvtier.tiers.disk import LMDBTier
from kvtier.tiers.encoded import EncodedTier

SECRET = bytes(range(100, 132))
OTHER = bytes(range(32))
NONCE = slice(16, 28)
ALL = ("raw", *FORMATS)

every_inner = pytest.mark.parametrize("inner", ALL)


def codec_of(inner, spec=SPECS[0], secret=SECRET):
    fitting = 1.0 if inner == "lossless" else None
    return Encrypted(spec, Key(secret), None if inner == "raw" else codec_for(inner, spec, budget=fitting))


# The format


@every_inner
@pytest.mark.parametrize("spec", [*SPECS, *ODD], ids=lambda spec: f"{spec.dtype}-{spec.head_dim}")
def test_a_block_comes_back_as_its_inner_format_gives_it(inner, spec):
    codec, block = codec_of(inner, spec), as_bytes(like_kv(spec))
    expected = block if inner == "raw" else decoded(codec._inner, encoded(codec._inner, block))

    assert torch.equal(decoded(codec, encoded(codec, block)), expected)


@every_inner
def test_an_encrypted_block_is_a_page_or_so_longer(inner):
    codec = codec_of(inner)
    plain = SPECS[0].block_bytes if inner == "raw" else codec._inner.encoded_bytes

    assert codec.encoded_bytes % PAGE_BYTES == 0
    assert plain + HEADER_BYTES + TAG_BYTES <= codec.encoded_bytes < plain + HEADER_BYTES + TAG_BYTES + PAGE_BYTES


@pytest.mark.parametrize("dtype", ["float64", "float8_e4m3fn"])
def test_raw_blocks_of_any_dtype_can_be_encrypted(dtype):
    spec = KVSpec(layers=2, kv_heads=1, head_dim=8, dtype=dtype)

    assert torch.equal(decoded(codec_of("raw", spec), encoded(codec_of("raw", spec), noise(spec))), noise(spec))


def test_another_implementation_of_the_format_can_read_a_block():
    block = noise(SPECS[0])
    stored = bytes(encoded(codec_of("raw"), block).tolist())
    key = blake2b(KEY, key=SECRET, digest_size=32, person=b"kvtier-crypt-v1").digest()
    key_id = blake2b(key=SECRET, digest_size=8, person=b"kvtier-keyid-v1").digest()
    end = HEADER_BYTES + SPECS[0].block_bytes + TAG_BYTES

    plain = AESGCM(key).decrypt(stored[NONCE], stored[HEADER_BYTES:end], stored[:HEADER_BYTES] + KEY)

    assert plain == bytes(block.tolist())
    assert stored[:16] == b"KVTE\1\1\0\0" + key_id
    assert not any(stored[28:HEADER_BYTES] + stored[end:])


@every_inner
def test_the_same_block_is_never_stored_as_the_same_bytes(inner):
    codec, block = codec_of(inner), as_bytes(like_kv(SPECS[0]))
    stored = [encoded(codec, block) for _ in range(20)]

    assert len({bytes(each[NONCE].tolist()) for each in stored}) == 20
    shares = [(a == b)[HEADER_BYTES:-PAGE_BYTES].float().mean() for a, b in pairwise(stored)]
    assert max(shares, default=0) < 0.02  # chance is 1 in 256


@every_inner
def test_a_strided_block_is_encrypted_and_decrypted_like_a_flat_one(inner):
    codec, block = codec_of(inner), as_bytes(like_kv(SPECS[0]))
    source, _ = strided(SPECS[0])
    source.copy_(block.view(source.shape))
    target, whole = strided(SPECS[0])

    codec.decode(KEY, encoded(codec, source), target)

    assert torch.equal(target.reshape(-1), decoded(codec, encoded(codec, block)))
    target.zero_()
    assert not whole.any()


@every_inner
def test_ciphertext_under_another_name_is_damage(inner):
    codec = codec_of(inner)
    stored = encoded(codec, as_bytes(like_kv(SPECS[0])))

    with pytest.raises(CorruptBlockError, match=r"block 020202020202: it cannot be decrypted: wrong key, or forged"):
        codec.decode(b"\2" * 32, stored, torch.zeros(SPECS[0].block_bytes, dtype=torch.uint8))


@pytest.mark.parametrize("at", [*range(HEADER_BYTES), HEADER_BYTES + 5, -1])
def test_a_changed_byte_of_header_ciphertext_or_tag_is_damage(at):
    codec = codec_of("raw")
    stored = encoded(codec, noise(SPECS[0]))
    end = HEADER_BYTES + SPECS[0].block_bytes + TAG_BYTES
    stored[at % end] ^= 1

    with pytest.raises(CorruptBlockError):
        decoded(codec, stored)


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, HEADER_BYTES + SPECS[0].block_bytes + TAG_BYTES - 1), mask=st.integers(1, 255))
def test_no_change_anywhere_goes_unnoticed(at, mask):
    codec = codec_of("raw")
    stored = encoded(codec, noise(SPECS[0]))
    stored[at] ^= mask

    with pytest.raises(CorruptBlockError):
        decoded(codec, stored)


@pytest.mark.parametrize("shape", ["flat", "strided"])
@every_inner
def test_of_a_forged_block_nothing_is_left_in_the_buffer(inner, shape):
    codec = codec_of(inner)
    stored = encoded(codec, as_bytes(like_kv(SPECS[0])))
    stored[HEADER_BYTES + 100] ^= 1
    out = torch.zeros(SPECS[0].block_bytes, dtype=torch.uint8) if shape == "flat" else strided(SPECS[0])[0]

    with pytest.raises(CorruptBlockError, match="forged"):
        codec.decode(KEY, stored, out)

    assert not out.any()
    assert not codec._aside().any() or (inner == "raw" and shape == "flat")


@pytest.mark.parametrize("change", [-PAGE_BYTES, -1, 1])
def test_another_length_is_damage(change):
    codec = codec_of("raw")
    stored = encoded(codec, noise(SPECS[0]))
    cut = torch.cat([stored, stored])[: len(stored) + change]

    with pytest.raises(CorruptBlockError, match=f"{len(cut)} bytes, expected {len(stored)}"):
        decoded(codec, cut)


@every_inner
def test_a_wrong_key_is_named_by_its_id(inner):
    stored = encoded(codec_of(inner), as_bytes(like_kv(SPECS[0])))

    with pytest.raises(
        CorruptBlockError,
        match=f"encrypted with key {Key(SECRET).id.hex()}, this store has key {Key(OTHER).id.hex()}: wrong key",
    ):
        decoded(codec_of(inner, secret=OTHER), stored)


def test_a_wrong_key_that_claims_the_right_id_is_found_out():
    stored = encoded(codec_of("raw", secret=OTHER), noise(SPECS[0]))
    stored[8:16] = torch.frombuffer(bytearray(Key(SECRET).id), dtype=torch.uint8)

    with pytest.raises(CorruptBlockError, match="cannot be decrypted: wrong key"):
        decoded(codec_of("raw"), stored)


def test_a_block_that_is_not_encrypted_is_not_taken_for_one_that_is():
    codec = codec_of("int8")
    plain = torch.zeros(codec.encoded_bytes, dtype=torch.uint8)
    plain[: codec._inner.encoded_bytes] = encoded(codec._inner, as_bytes(like_kv(SPECS[0])))

    with pytest.raises(CorruptBlockError, match=r"not encrypted in this way: it begins \[b'KVTF'"):
        decoded(codec, plain)


@pytest.mark.parametrize("inner", [name for name in FORMATS if name != "lossless"])
def test_a_block_that_the_inner_format_refuses_is_refused(inner):
    codec, numbers = codec_of(inner), like_kv(SPECS[0])
    numbers[0, 0, 0, 0, 0] = float("nan")

    reason = codec.encode(KEY, as_bytes(numbers), torch.zeros(codec.encoded_bytes, dtype=torch.uint8))

    assert reason.startswith("the keys hold a number that is not finite")


@every_inner
def test_blocks_of_all_threads_at_once_are_kept_apart(inner):
    from concurrent.futures import ThreadPoolExecutor

    codec = codec_of(inner, SPECS[1])
    blocks = [as_bytes(like_kv(SPECS[1], seed)) for seed in range(24)]
    expected = [decoded(codec, encoded(codec, block)) for block in blocks]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda block: decoded(codec, encoded(codec, block)), blocks))

    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@every_inner
def test_it_is_exact_if_its_inner_format_is(inner):
    assert codec_of(inner).exact == (inner in {"raw", "lossless"})


def test_without_the_library_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)

    with pytest.raises(ConfigError, match=r"pip install 'kvtier\[encryption\]'"):
        codec_of("raw")


# Layouts


@every_inner
@pytest.mark.parametrize("layout", ["kvtier-v1", "kvtier-v1/chunk64", "other"])
def test_a_namespace_under_a_key_is_another_and_tells_its_engine(inner, layout):
    plain = Namespace(spec=SPECS[0], weights="w", layout=layout)

    roots = {in_format(plain, codec_of(inner, secret=secret).name).root for secret in (SECRET, OTHER)}

    assert len(roots | {plain.root}) == 3
    assert engine_layout(in_format(plain, codec_of(inner).name).layout) == layout


def test_formats_under_one_key_have_namespaces_of_their_own():
    plain = Namespace(spec=SPECS[0], weights="w")

    assert len({in_format(plain, codec_of(inner).name).root for inner in ALL}) == len(ALL)


@pytest.mark.parametrize("layout", ["aes256gcm-0011223344556677", "v1/aes256gcm-00", "v1/xaes256gcm-0011223344556677"])
def test_what_only_looks_like_a_key_is_the_engines(layout):
    assert engine_layout(layout) == layout


# Tiers


class EncryptedTierLaws(TierTests):
    """The laws of every tier; the suite's blocks are noise, so the budget is one that noise keeps to."""

    persistent = True
    verifies = True
    inner = "raw"
    page_cache = "bypass"

    def open(self, path):
        layers, _, heads, num_tokens, head_bytes = SHAPE
        spec = KVSpec(layers=layers, kv_heads=heads, head_dim=head_bytes // 4, dtype="float32", block_tokens=num_tokens)
        codec = codec_of(self.inner, spec, OTHER)
        size = codec.encoded_bytes
        options = {"block_bytes": size, "min_free_bytes": 0, "page_cache": self.page_cache}
        return EncodedTier(LMDBTier("nvme", path, capacity_bytes=self.NUM_BLOCKS * size, **options), codec)

    def raw_damage(self, tier, key):
        raw_flip(tier.inner, key, len(raw_get(tier.inner, key)) - 1)

    def writer_command(self, path):
        return [sys.executable, str(Path(__file__).parents[1] / "tiers" / "kill_writer.py"), str(path), "--encrypted"]


class TestEncryptedTier(EncryptedTierLaws):
    pass


class TestEncryptedTierThroughThePageCache(EncryptedTierLaws):
    page_cache = "keep"
    persistent = False  # one process that is killed is enough


class TestEncryptedLosslessTier(EncryptedTierLaws):
    inner = "lossless"
    persistent = False


del EncryptedTierLaws  # a base is no test class of its own


# Stores

SPEC = KVSpec(layers=4, kv_heads=2, head_dim=64, dtype="float32", block_tokens=4)
NAMES = Namespace(spec=SPEC, weights="w")
WORD = "abcde"


def blocks():
    return [as_bytes(like_kv(SPEC, seed)) for seed in range(len(WORD))]


def fresh():
    return [torch.zeros(SPEC.block_bytes, dtype=torch.uint8) for _ in WORD]


def opened(path, secret=SECRET, inner="raw", **options):
    options = {"host": 0, "disk": "1 MiB", **options}
    return open_store(path, NAMES, disk_format=inner, encryption_key=secret, **options)


def filled(path, **options):
    with opened(path, **options) as store:
        assert store.put(tokens(WORD), blocks()).num_new == len(WORD)


@every_inner
def test_a_store_with_a_key_gives_back_what_it_was_given_after_a_restart(tmp_path, inner):
    filled(tmp_path, inner=inner)
    out = fresh()

    with opened(tmp_path, inner=inner) as store:
        assert store.get(tokens(WORD), out).tiers == ("disk",) * len(WORD)

    exact = [torch.equal(*pair) for pair in zip(out, blocks(), strict=True)]
    assert all(exact) if inner in {"raw", "lossless"} else not any(exact)


def everything_in(path):
    return b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())


def test_no_payload_is_in_the_directory_in_clear_and_neither_is_the_key(tmp_path):
    filled(tmp_path / "plain", secret=None)
    filled(tmp_path / "crypt")
    pieces = [bytes(block[at : at + 16].tolist()) for block in blocks() for at in range(0, SPEC.block_bytes - 16, 512)]

    plain, crypt = everything_in(tmp_path / "plain"), everything_in(tmp_path / "crypt")

    assert all(piece in plain for piece in pieces)
    assert not any(piece in crypt for piece in pieces)
    assert not any(secret in crypt for secret in (SECRET, SECRET.hex().encode()))


def test_token_ids_are_in_the_directory_in_clear(tmp_path):
    filled(tmp_path)

    assert b"".join(ord("c").to_bytes(4, "little") for _ in range(4)) in everything_in(tmp_path)  # as documented


@every_inner
def test_a_wrong_key_serves_nothing_says_so_and_leaves_what_is_there(tmp_path, inner):
    filled(tmp_path, inner=inner)
    out = fresh()

    with opened(tmp_path, secret=OTHER, inner=inner) as store:
        asked, hit = store.match(tokens(WORD)), store.get(tokens(WORD), out)
        assert store.put(tokens(WORD), blocks()).num_new == len(WORD)

    assert (asked.num_blocks, hit.num_blocks, hit.stopped_by) == (0, 0, "other_namespace")
    assert Key(SECRET).id.hex() in hit.detail
    assert Key(OTHER).id.hex() in hit.detail
    assert not any(block.any() for block in out)
    with opened(tmp_path, inner=inner) as store:
        assert store.get(tokens(WORD), out).num_blocks == len(WORD)


@pytest.mark.parametrize(("first", "second"), [(None, SECRET), (SECRET, None)])
def test_a_directory_without_a_key_is_refused_by_a_store_with_one_and_the_reverse(tmp_path, first, second):
    filled(tmp_path, secret=first)

    with pytest.raises(SpecMismatchError, match="Or with a key"):
        opened(tmp_path, secret=second)

    with opened(tmp_path, secret=first) as store:
        assert store.get(tokens(WORD), fresh()).num_blocks == len(WORD)


def test_names_that_lead_to_blocks_of_another_key_are_misses_all_the_same(tmp_path, monkeypatch):
    """The names differ by the key's id; if they did not, the tag would still be wrong."""
    filled(tmp_path)
    monkeypatch.setattr(encrypted_module.Encrypted, "_checked", lambda _, __, stored: stored[:HEADER_BYTES].tobytes())
    out = fresh()
    with opened(tmp_path, secret=OTHER) as store:
        store.namespace = in_format(NAMES, codec_of("raw", SPEC).name)

        assert store.match(tokens(WORD)).num_blocks == len(WORD)
        assert store.get(tokens(WORD), out).num_blocks == 0
        assert store.stats()["counters"]["damaged_blocks"] == 1

    assert not any(block.any() for block in out)


def test_two_ciphertexts_that_were_exchanged_are_misses(tmp_path):
    """By someone who can write valid records, checksum and all."""
    with opened(tmp_path) as store:
        store.put(tokens(WORD), blocks())
        chain, inner = store.name(tokens(WORD)), store.tiers[-1].inner
        stored = [torch.zeros(inner.block_bytes, dtype=torch.uint8) for _ in WORD]
        inner.read(chain.keys, stored, chain.labels)
        inner.delete(chain.keys[1:3])
        inner.write(chain.keys[1:3], [stored[2], stored[1]], chain.labels[1:3])
        out = fresh()

        assert store.get(tokens(WORD), out).num_blocks == 1
        assert torch.equal(out[0], blocks()[0])
        assert store.match(tokens(WORD)).num_blocks == 1


def test_blocks_sink_encrypted_and_rise_again(tmp_path):
    with opened(tmp_path, host=4 * SPEC.block_bytes, put_patience_s=10.0) as store:
        store.put(tokens(WORD), blocks())
        store.put(tokens("vwxyz"), blocks())
        store._mover.drain()
        out = fresh()

        assert "disk" in store.get(tokens(WORD), out).tiers
        assert all(torch.equal(*pair) for pair in zip(out, blocks(), strict=True))


def test_the_key_is_in_nothing_that_a_store_shows(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG), opened(tmp_path) as store:
        store.put(tokens(WORD), blocks())
        tier = store.tiers[-1]
        shown = (
            f"{store.stats()!r} {store.namespace!r} {tier.codec!r} {vars(tier.codec)!r} {vars(tier)!r} {caplog.text}"
        )

    assert SECRET.hex() not in shown
    assert repr(SECRET)[2:-1] not in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"secret": b"short"}, "has 32 bytes, got 5"),
        ({"secret": SECRET.hex()}, "cannot be opened"),
        ({"disk": 0, "host": "1 MiB"}, "encryption_key is for a disk tier"),
        ({"gpu_direct": "auto"}, "raw blocks, not encrypted"),
        ({"inner": "zip"}, "'zip' is not known"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_made(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        opened(tmp_path / "store", **options)

    assert not (tmp_path / "store").exists()


def test_a_store_without_a_key_needs_no_cryptography():
    code = "import sys, kvtier, kvtier.opening; print('cryptography' in sys.modules)"
    command, place = [sys.executable, "-c", code], Path(encrypted_module.__file__).parents[2]

    assert subprocess.run(command, capture_output=True, text=True, cwd=place, check=True).stdout == "False\n"
