"""Encryption keys: where they may come from, what is derived from them, and that nothing shows them."""

import gc
import os
import pickle
import traceback

import pytest

from kvtier.errors import ConfigError
from kvtier.formats.keys import Key, load_key

SECRET = bytes(range(100, 132))
HEX = SECRET.hex().encode()
OTHER = bytes(range(32))
NAME = b"\1" * 32


def test_every_name_has_a_key_of_its_own_and_none_is_the_secret():
    key = Key(SECRET)
    derived = {key.of_block(bytes([number]) * 32) for number in range(256)}

    assert len(derived) == 256
    assert SECRET not in derived
    assert {len(each) for each in derived} == {32}
    assert key.of_block(NAME) == Key(SECRET).of_block(NAME) != Key(OTHER).of_block(NAME)


def test_a_key_cannot_be_printed_or_pickled():
    key = Key(SECRET)

    assert repr(key) == f"Key(id={key.id.hex()})"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    assert SECRET not in [each for each in gc.get_referents(key) if isinstance(each, bytes)]


@pytest.mark.parametrize("content", [SECRET, HEX, HEX.upper() + b"\n"])
def test_a_key_is_read_from_a_private_file(tmp_path, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)

    assert load_key(file).id == load_key(str(file)).id == Key(SECRET).id


def test_a_file_of_32_bytes_is_a_raw_key_whatever_they_are(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(b"\n" + b"0" * 30 + b"\n")
    file.chmod(0o400)

    assert load_key(file).id == Key(b"\n" + b"0" * 30 + b"\n").id


def test_a_key_may_come_from_a_function():
    assert load_key(lambda: SECRET).id == Key(SECRET).id


def refused(source):
    """The message of the refusal, which with its traceback must not show the key."""
    with pytest.raises(ConfigError) as caught:
        load_key(source)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET.hex() not in shown
    assert repr(SECRET)[2:-1] not in shown
    assert caught.value.__context__ is None
    return str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_file_that_others_have_rights_to_is_refused(tmp_path, mode):
    file = tmp_path / "key"
    file.write_bytes(SECRET)
    file.chmod(mode)

    assert f"mode {mode:04o}" in refused(file)


def test_a_file_of_another_user_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_bytes(SECRET)
    file.chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)

    assert "belongs to user" in refused(file)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(0o700)
    (tmp_path / "key").write_bytes(SECRET)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "key")

    assert "not a regular file" in refused(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "directory")
    assert "a link is not followed" in refused(tmp_path / "link")


@pytest.mark.parametrize(
    "content",
    [b"", SECRET + b"\n", SECRET[:31], HEX[:-1], HEX[:32] + b" " + HEX[32:], b"x" * 64, HEX + HEX, b"0" * 200],
)
def test_a_file_with_anything_else_is_refused(tmp_path, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)

    assert "must hold 32 raw bytes or 64 hexadecimal digits" in refused(file)


@pytest.mark.parametrize("source", [SECRET.hex(), "a\0b", "x" * 5000, "/nowhere/at/all"])
def test_a_path_that_leads_nowhere_is_not_shown_since_it_may_be_the_key(source):
    message = refused(source)

    assert source not in message
    assert "pass a key itself as bytes" in message


@pytest.mark.parametrize("source", [SECRET[:16], SECRET + SECRET, HEX, b""])
def test_bytes_of_another_length_are_refused(source):
    assert f"has 32 bytes, got {len(source)}" in refused(source)


@pytest.mark.parametrize("source", [7, bytearray(SECRET), SECRET.hex, lambda: None])
def test_what_is_not_bytes_is_refused(source):
    assert "must be bytes" in refused(source)
