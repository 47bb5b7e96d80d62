"""Blocks that only the holder of a key can read or make: AES-256-GCM around any other storage format.

    block --inner format--> plain --AES-256-GCM--> [header, 64 bytes] [as many bytes as plain] [tag, 16] [zeros]

    header    magic KVTE | u8 version 1 | u8 cipher 1 | u16 zero | key id, 8 bytes | nonce, 12 bytes | zeros
    key       of this block's name, see ``kvtier.formats.keys``
    nonce     random, new for every write
    bound to  header, name: associated data

A name is the digest of the parent's name and the token ids, so ciphertext moved under another name, or
into another prompt, tenant, model or format, does not decrypt. An older ciphertext of the same block does:
it is the same block.

AES-GCM, because processors have instructions for it: ChaCha20-Poly1305 and AES-GCM-SIV are slower
(docs/benchmarks.md), and what the last protects from, a nonce used twice, is kept away by keys: see
``kvtier.formats.keys``.

Sizes, names, token ids and times are not hidden: see docs/security.md.

Source: NIST SP 800-38D; ``cryptography`` calls OpenSSL's implementation.
"""

from __future__ import annotations

import os
import struct
from typing import Any

import numpy as np
import torch

from kvtier.errors import ConfigError, CorruptBlockError
from kvtier.format import Bytes, whole_pages
from kvtier.formats.base import ENCRYPTION, HEADER_BYTES, Codec, Scratch
from kvtier.formats.keys import Key
from kvtier.spec import KVSpec

TAG_BYTES = 16
_NONCE_BYTES = 12
_HEADER = struct.Struct("<4sBBH8s12s")
_MAGIC, _VERSION, _CIPHER = b"KVTE", 1, 1


class Encrypted:
    """A format under encryption; see ``kvtier.formats.base.Codec`` for the contract.

    Unlike those of other formats, its encoded bytes differ each time, and not every block of noise is one.

    Args:
        spec: Geometry of the blocks, of any dtype if they are kept raw.
        key: The store's key.
        inner: The format that is encrypted; None for raw blocks.

    Raises:
        ConfigError: No cryptography.
    """

    def __init__(self, spec: KVSpec, key: Key, inner: Codec | None = None) -> None:
        self._cipher, self._forged = _cryptography()
        own = f"{ENCRYPTION}{key.id.hex()}"
        self.name = own if inner is None else f"{inner.name}/{own}"
        self.exact = inner is None or inner.exact
        self.spec = spec
        self._key = key
        self._inner = inner
        self._plain_bytes = spec.block_bytes if inner is None else inner.encoded_bytes
        self._end = HEADER_BYTES + self._plain_bytes + TAG_BYTES
        self.encoded_bytes = whole_pages(self._end)
        self._scratch = Scratch()

    def encode(self, key: bytes, block: torch.Tensor, out: torch.Tensor) -> str | None:
        """See ``Codec.encode``."""
        if self._inner is not None:
            plain = self._aside()
            if (reason := self._inner.encode(key, block, torch.from_numpy(plain))) is not None:
                return reason
        else:
            plain = block.numpy().reshape(-1)  # a copy, if its bytes lie apart
        encoded, nonce = out.numpy(), os.urandom(_NONCE_BYTES)
        header = self._header(nonce)
        encoded[:HEADER_BYTES] = np.frombuffer(header, np.uint8)
        cipher = self._cipher(self._key.of_block(key))
        cipher.encrypt_into(nonce, plain, header + key, encoded[HEADER_BYTES : self._end])
        encoded[self._end :] = 0
        return None

    def decode(self, key: bytes, encoded: torch.Tensor, out: torch.Tensor) -> None:
        """See ``Codec.decode``. Of a block that is not authentic, nothing is left in ``out``."""
        stored = encoded.numpy()
        header = self._checked(key, stored)
        in_place = self._inner is None and out.is_contiguous()
        plain = out.numpy().reshape(-1) if in_place else self._aside()
        nonce = header[_HEADER.size - _NONCE_BYTES : _HEADER.size]
        cipher = self._cipher(self._key.of_block(key))
        try:
            cipher.decrypt_into(nonce, stored[HEADER_BYTES : self._end], header + key, plain)
        except self._forged:
            plain[:] = 0  # the library decrypts before it knows
            raise CorruptBlockError(key, "it cannot be decrypted: wrong key, or forged, or moved here") from None
        if self._inner is not None:
            self._inner.decode(key, torch.from_numpy(plain), out)
        elif not in_place:
            np.copyto(out.numpy(), plain.reshape(out.shape))

    def _header(self, nonce: bytes) -> bytes:
        return _HEADER.pack(_MAGIC, _VERSION, _CIPHER, 0, self._key.id, nonce).ljust(HEADER_BYTES, b"\0")

    def _checked(self, key: bytes, stored: Bytes) -> bytes:
        """The header of an encoded block, if it is one of this format and key; the tag then proves it."""
        if len(stored) != self.encoded_bytes:
            raise CorruptBlockError(key, f"encrypted in {len(stored)} bytes, expected {self.encoded_bytes}")
        header = stored[:HEADER_BYTES].tobytes()
        *found, key_id, _ = _HEADER.unpack_from(header)
        if found != [_MAGIC, _VERSION, _CIPHER, 0]:
            raise CorruptBlockError(key, f"it is not encrypted in this way: it begins {found}")
        if key_id != self._key.id:
            raise CorruptBlockError(
                key, f"it is encrypted with key {key_id.hex()}, this store has key {self._key.id.hex()}: wrong key"
            )
        return header

    def _aside(self) -> Bytes:
        """Room for what is to be encrypted, or was decrypted, in this thread's scratch."""
        return self._scratch.take("plain", (self._plain_bytes,), np.uint8)


def _cryptography() -> tuple[Any, type[Exception]]:
    """The cipher and what it raises for a tag that is wrong: an extra, because only this format needs it."""
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as exc:
        raise ConfigError("encryption needs cryptography; run: pip install 'kvtier[encryption]'") from exc
    return AESGCM, InvalidTag
