"""The bundle: some prefixes of a store in one file, for another machine.

    offset  bytes  field
         0      8  magic            b"KVTBUNDL"
         8      4  version          1
        12      4  manifest bytes   m, at most 1 MiB
        16      m  manifest         JSON, UTF-8
      16+m    n*r  records          n of them, r bytes each, as they are stored: kvtier.format
     the end    32  digest           BLAKE2b-256 of everything before it, person "kvtier-bundle-1"

Integers are little-endian. A record's parent is a root named in the manifest, or an earlier
record, so any beginning of the records is a closed set of prefixes.

A reader believes nothing. The length of the file must be exactly what the manifest says before
anything of that length is asked for; then the digest, each record's checksum, its name
recomputed, and its place behind its parent must all be right before the first block is used. The
digest finds accidents. Who can change a bundle can also write a new digest: carry it over a
channel you trust, or do not import it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from kvtier.doctor.reading import own_name, sync_directory
from kvtier.doctor.reports import Progress, quiet
from kvtier.errors import ConfigError, CorruptBlockError, TierUnavailableError
from kvtier.format import FORMAT_VERSION, Bytes, header_bytes, verify
from kvtier.hashing import HASH_BYTES, BlockHash, Label

MAGIC = b"KVTBUNDL"
VERSION = 1
MAX_MANIFEST_BYTES = 1 << 20
DIGEST_BYTES = 32
_HEAD = struct.Struct("<8sII")
_PERSON = b"kvtier-bundle-1"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says about itself."""

    block_bytes: int
    """Payload bytes of one block."""

    block_tokens: int
    """Tokens of one block."""

    count: int
    """Records."""

    namespaces: Mapping[BlockHash, Mapping[str, Any] | None] = field(default_factory=dict)
    """Roots of the prefixes, each with what the store knew about it."""

    @property
    def header(self) -> int:
        """Bytes of a record before its payload."""
        return header_bytes(self.block_tokens)

    @property
    def record_bytes(self) -> int:
        """Bytes of one record."""
        return self.header + self.block_bytes

    def packed(self) -> bytes:
        """As it is written."""
        roots = [{"root": root.hex(), "about": about} for root, about in self.namespaces.items()]
        about = {
            "record_version": FORMAT_VERSION,
            "block_bytes": self.block_bytes,
            "block_tokens": self.block_tokens,
            "count": self.count,
            "namespaces": roots,
        }
        return json.dumps(about).encode()

    @classmethod
    def unpacked(cls, stored: bytes) -> Manifest:
        """As it was read.

        Raises:
            ValueError: It is no manifest, or one of another version of records; says what is wrong.
        """
        about = json.loads(stored)
        if not isinstance(about, dict) or about.get("record_version") != FORMAT_VERSION:
            raise ValueError(f"it has no records of version {FORMAT_VERSION}")
        sizes: dict[str, Any] = {name: about.get(name) for name in ("block_bytes", "block_tokens", "count")}
        for name, size in sizes.items():
            if not isinstance(size, int) or isinstance(size, bool) or not 0 < size < 1 << 48:
                raise ValueError(f"{name} is {size!r}")
        if not isinstance(about.get("namespaces"), list):
            raise ValueError("its namespaces are no list")  # noqa: TRY004  (the file is wrong, not the caller)
        roots: dict[BlockHash, Mapping[str, Any] | None] = {}
        for each in about["namespaces"]:
            if not isinstance(each, dict) or not isinstance(each.get("root"), str):
                raise ValueError("a namespace without a root")  # noqa: TRY004
            root = BlockHash(bytes.fromhex(each["root"]))
            known = each.get("about")
            if len(root) != HASH_BYTES or not (known is None or isinstance(known, dict)):
                raise ValueError(f"no namespace: {str(each)[:80]}")
            roots[root] = known
        return cls(**sizes, namespaces=roots)


class BundleWriter:
    """Writes a bundle that appears whole under its name, or not at all.

    Args:
        path: Where it will be; must not exist.
        manifest: What will be in it.

    Raises:
        ConfigError: There is such a file already, or it cannot be made.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path = path
        self._manifest = manifest
        self._left = manifest.count
        self._digest = _new_digest()
        if path.exists():
            raise ConfigError(f"{path} exists already; name another file")
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
        except OSError as exc:
            raise ConfigError(f"{path} cannot be written: {exc.strerror}") from exc
        self._partial = Path(name)
        self._file = os.fdopen(handle, "wb")
        packed = manifest.packed()
        self._write(_HEAD.pack(MAGIC, VERSION, len(packed)) + packed)

    def add(self, record: Bytes) -> None:
        """The next record; its parent is a root or was added before."""
        assert len(record) == self._manifest.record_bytes
        self._left -= 1
        self._write(record.data)

    def finish(self) -> int:
        """Publish it; returns its bytes.

        Raises:
            TierUnavailableError: The disk refused; nothing is left of it.
        """
        assert self._left == 0
        with self._translated():
            self._file.write(self._digest.digest())
            self._file.flush()
            os.fsync(self._file.fileno())
            size = self._file.tell()
            os.link(self._partial, self._path)  # unlike a rename, never over another file
            self._partial.unlink()
            sync_directory(self._path.absolute().parent)
        return size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):  # what could not be written is not wanted any more
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def _write(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        with self._translated():
            self._file.write(data)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise TierUnavailableError("bundle", f"{self._path} could not be written: {exc.strerror}") from exc


class BundleReader:
    """A bundle on its way in. Nothing of it may be used before ``prove`` has returned.

    Raises:
        ConfigError: It is not a bundle, of another version, or not as long as it says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as exc:
            raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self.manifest, self._begin = self._read_manifest()
        except BaseException:
            self._file.close()
            raise
        self._keys: list[BlockHash] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def prove(self, progress: Progress = quiet) -> dict[BlockHash, Label]:
        """Read all of it once; returns names and labels in the order of the records.

        Raises:
            ConfigError: A byte of it is not as it was written, or its records are not closed prefixes.
        """
        digest = _new_digest()
        for at in range(0, self._begin, _PIECE_BYTES):
            digest.update(self._read(at, min(_PIECE_BYTES, self._begin - at)))
        labels: dict[BlockHash, Label] = {}
        total = self.manifest.count * self.manifest.record_bytes
        for number, record in enumerate(self._records()):
            digest.update(record.data)
            key, label = self._proven(record, number, own_name(record))
            self._check_place(labels, key, label, number)
            labels[key] = label
            progress((number + 1) * self.manifest.record_bytes, total)
        if self._read(self._size - DIGEST_BYTES, DIGEST_BYTES) != digest.digest():
            raise self._refused("its digest does not fit: it is not as it was written")
        self._keys = list(labels)
        return labels

    def blocks(self) -> Iterator[tuple[BlockHash, Label, Bytes]]:
        """Names, labels and payloads, in order; each payload is good until the next is asked for.

        Raises:
            ConfigError: The file has changed since ``prove``.
        """
        assert len(self._keys) == self.manifest.count
        for number, record in enumerate(self._records()):
            key, label = self._proven(record, number, self._keys[number])
            yield key, label, record[self.manifest.header :]

    def _records(self) -> Iterator[Bytes]:
        span = self.manifest.record_bytes  # not longer than the file: its length was compared
        for number in range(self.manifest.count):
            yield np.frombuffer(self._read(self._begin + number * span, span), np.uint8)

    def _proven(self, record: Bytes, number: int, key: BlockHash) -> tuple[BlockHash, Label]:
        try:
            found = verify(record, key, header=self.manifest.header, block_bytes=self.manifest.block_bytes)
        except CorruptBlockError as exc:
            raise self._refused(f"record {number}: {exc.reason}") from exc
        return found.key, found.label

    def _check_place(self, labels: Mapping[BlockHash, Label], key: BlockHash, label: Label, number: int) -> None:
        if key in labels:
            raise self._refused(f"record {number}: block {key.hex()[:12]} is in it twice")
        before = labels.get(label.parent)
        depth = before.depth + 1 if before is not None else 0
        if (before is None and label.parent not in self.manifest.namespaces) or label.depth != depth:
            raise self._refused(f"record {number}: the block before {key.hex()[:12]} is not in it")

    def _read_manifest(self) -> tuple[Manifest, int]:
        head = self._read(0, min(_HEAD.size, self._size))
        if len(head) < _HEAD.size or not head.startswith(MAGIC):
            raise self._refused("it does not begin as a bundle does")
        _, version, length = _HEAD.unpack(head)
        if version != VERSION:
            raise self._refused(f"it has version {version}, this kvtier reads {VERSION}")
        if length > min(MAX_MANIFEST_BYTES, self._size - _HEAD.size):
            raise self._refused(f"it is cut short, or its manifest of {length} bytes is too long")
        try:
            manifest = Manifest.unpacked(self._read(_HEAD.size, length))
        except (ValueError, RecursionError) as exc:
            raise self._refused(f"its manifest cannot be used: {exc}") from exc
        begin = _HEAD.size + length
        expected = begin + manifest.count * manifest.record_bytes + DIGEST_BYTES
        if self._size != expected:
            raise self._refused(f"it has {self._size} bytes, its manifest says {expected}")
        return manifest, begin

    def _read(self, at: int, length: int) -> bytes:
        pieces = []
        while length:
            piece = os.pread(self._file.fileno(), length, at)
            if not piece:
                raise self._refused("it ends while it is being read")
            pieces.append(piece)
            at, length = at + len(piece), length - len(piece)
        return b"".join(pieces)

    def _refused(self, reason: str) -> ConfigError:
        return ConfigError(f"{self.path} is refused whole: {reason}; nothing was imported")


def _new_digest() -> Any:
    return hashlib.blake2b(digest_size=DIGEST_BYTES, person=_PERSON)
