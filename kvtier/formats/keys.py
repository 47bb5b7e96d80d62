"""A store's encryption key: where it comes from, and what is derived from it.

    key, 32 random bytes
     |-- id         BLAKE2b-64, keyed, person "kvtier-keyid-v1"               names the key, tells nothing of it
     '-- block key  BLAKE2b-256, keyed, person "kvtier-crypt-v1", of a name   one for every block name

Why a key for every name: blocks are encrypted with random nonces of 96 bits, and for those AES-GCM allows
2^32 messages under one key, after which two share a nonce with a probability of 2^-33. At 7,000 blocks
a second, 10 GB/s of small ones, a single key would have used that up within a week. With a key for each
name, only writes of the very same block count, and 2^32 of those, one a second, take 136 years.

The key itself is not kept: what stays is the state of a keyed hash, which cannot be printed or pickled.
It must be random, not a password: the id and every stored block let a guess be tried.

Source: NIST SP 800-38D, 8.3, for the number of messages; RFC 7693, 2.9, for the keyed hash.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from hashlib import blake2b

from kvtier.errors import ConfigError

KEY_BYTES = 32

KeySource = bytes | str | os.PathLike[str] | Callable[[], bytes]
"""A key of 32 bytes, the path of a file that holds one, or a function that returns one."""

_ID_BYTES = 8
_ID_PERSON = b"kvtier-keyid-v1"
_BLOCK_PERSON = b"kvtier-crypt-v1"

#: More than a file with a key has, so that a longer one is noticed.
_MOST_FILE_BYTES = 128


class Key:
    """What a store needs of its key.

    Args:
        secret: 32 random bytes.

    Raises:
        ConfigError: Anything else; the message does not show it.
    """

    __slots__ = ("_of_blocks", "id")

    def __init__(self, secret: bytes) -> None:
        if not isinstance(secret, bytes):
            raise ConfigError(f"an encryption key must be bytes, got {type(secret).__name__}")
        if len(secret) != KEY_BYTES:
            raise ConfigError(
                f"an encryption key has {KEY_BYTES} bytes, got {len(secret)}; make one with secrets.token_bytes"
            )
        self.id = blake2b(key=secret, digest_size=_ID_BYTES, person=_ID_PERSON).digest()
        """Names the key where blocks are stored."""
        self._of_blocks = blake2b(key=secret, digest_size=KEY_BYTES, person=_BLOCK_PERSON)

    def of_block(self, name: bytes) -> bytes:
        """The key of one block name."""
        state = self._of_blocks.copy()
        state.update(name)
        return state.digest()

    def __repr__(self) -> str:
        return f"Key(id={self.id.hex()})"


def load_key(source: KeySource) -> Key:
    """The key that a user names.

    Args:
        source: 32 bytes; a function that returns them, called once; or the path of a regular file, not
            a link, that belongs to this user, that nobody else has any right to, and that holds 32 raw
            bytes or 64 hexadecimal digits.

    Raises:
        ConfigError: None of these. The message shows neither the key nor a path that leads nowhere, since
            that may be the key itself.
    """
    if isinstance(source, (str, os.PathLike)):
        return Key(_secret_in(os.fspath(source)))
    return Key(source() if callable(source) else source)


def _secret_in(path: str) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError) as exc:
        problem = os.strerror(exc.errno or 0) if isinstance(exc, OSError) else "not a path"
    else:
        try:
            _check_private(path, os.fstat(file))
            return _parsed(path, os.read(file, _MOST_FILE_BYTES))
        finally:
            os.close(file)
    raise ConfigError(  # outside the except clause: the error caught there has the path
        f"encryption_key names a file that cannot be opened: {problem}; a link is not followed. The path is not "
        "shown, in case it is the key: pass a key itself as bytes"
    )


def _check_private(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"the key file {path} is not a regular file")
    if status.st_uid != os.geteuid():
        raise ConfigError(f"the key file {path} belongs to user {status.st_uid}, this process runs as {os.geteuid()}")
    if status.st_mode & 0o077:
        raise ConfigError(
            f"the key file {path} has mode {stat.S_IMODE(status.st_mode):04o}: others have rights to it; run: chmod 600"
        )


def _parsed(path: str, content: bytes) -> bytes:
    digits = content.strip()
    if len(content) == KEY_BYTES:
        return content
    try:
        secret = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        secret = b""
    if len(digits) != 2 * KEY_BYTES or len(secret) != KEY_BYTES:
        raise ConfigError(f"the key file {path} must hold {KEY_BYTES} raw bytes or {2 * KEY_BYTES} hexadecimal digits")
    return secret
