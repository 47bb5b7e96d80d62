"""Other ways to keep the same blocks on the same disk, each used as well as it allows.

    file             one file a block, written and read through the page cache by four threads
    file_direct      one file a block, O_DIRECT, sixteen threads, from and into page-aligned memory
    safetensors      one file a block, one tensor in it
    torch_save       one file a block
    lmdb             one environment, a transaction a batch, values as they are
    diskcache        its own mixture of SQLite and files

Those marked durable have synced every byte when ``put`` returns, like kvtier's disk tier. None of
them verifies what it reads. Blocks lie in page-aligned memory, as whole pages, so that
O_DIRECT can use them where they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import lmdb
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from kvtier.calibrate.residency import drop

from .errors import SetupError

Blocks = Sequence[torch.Tensor]


class Rival:
    """One way to keep blocks. Use as a context manager; it owns its directory."""

    name = ""
    durable = True
    threads = 4

    def __init__(self, directory: Path, block_bytes: int, capacity_blocks: int) -> None:
        self.directory = directory
        self.block_bytes = block_bytes
        self.capacity_blocks = capacity_blocks
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self._pool = ThreadPoolExecutor(self.threads)
        self.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._pool.shutdown()
        shutil.rmtree(self.directory, ignore_errors=True)

    def open(self) -> None:
        """Open what is kept open between calls."""

    def close(self) -> None:
        """Close it, so that nothing holds the pages of the files."""

    def put(self, names: Sequence[str], blocks: Blocks) -> None:
        """Store a batch."""
        raise NotImplementedError

    def get(self, names: Sequence[str], out: Blocks) -> None:
        """Read a batch into ready buffers."""
        raise NotImplementedError

    def delete(self, names: Sequence[str]) -> None:
        """Make room."""
        for name in names:
            self._path(name).unlink()

    def chill(self) -> None:
        """Close, drop every file from the page cache, open."""
        self.close()
        for path in self.files():
            drop(path)
        self.open()

    def files(self) -> list[Path]:
        """Every file that holds something."""
        return [path for path in self.directory.rglob("*") if path.is_file()]

    def _path(self, name: str) -> Path:
        return self.directory / name

    def _each(self, work: Callable[[str, torch.Tensor], None], names: Sequence[str], blocks: Blocks) -> None:
        for _ in self._pool.map(work, names, blocks):
            pass

    def _sync(self, paths: Sequence[Path]) -> None:
        for path in [*paths, self.directory]:
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)


class File(Rival):
    """A file a block, through the page cache."""

    name = "file"
    flags = 0

    def put(self, names: Sequence[str], blocks: Blocks) -> None:
        """See ``Rival``."""
        self._each(self._write, names, blocks)
        self._sync([])

    def get(self, names: Sequence[str], out: Blocks) -> None:
        """See ``Rival``."""
        self._each(self._read, names, out)

    def _write(self, name: str, block: torch.Tensor) -> None:
        file = os.open(self._path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | self.flags, 0o600)
        try:
            os.pwritev(file, [block.numpy().data], 0)
            os.fdatasync(file)
        finally:
            os.close(file)

    def _read(self, name: str, block: torch.Tensor) -> None:
        file = os.open(self._path(name), os.O_RDONLY | self.flags)
        try:
            if os.preadv(file, [block.numpy().data], 0) < self.block_bytes:
                raise SetupError(f"{self.name}: {name} is short")
        finally:
            os.close(file)


class FileDirect(File):
    """A file a block, around the page cache."""

    name = "file_direct"
    flags = getattr(os, "O_DIRECT", 0)
    threads = 16


class Safetensors(Rival):
    """A safetensors file a block."""

    name = "safetensors"

    def put(self, names: Sequence[str], blocks: Blocks) -> None:
        """See ``Rival``."""
        self._each(lambda name, block: save_file({"kv": block}, self._path(name)), names, blocks)
        self._sync([self._path(name) for name in names])

    def get(self, names: Sequence[str], out: Blocks) -> None:
        """See ``Rival``."""
        self._each(self._read, names, out)

    def _read(self, name: str, block: torch.Tensor) -> None:
        with safe_open(self._path(name), "pt") as file:
            np.copyto(block.numpy(), file.get_tensor("kv").numpy())


class TorchSave(Rival):
    """A pickled tensor a block."""

    name = "torch_save"

    def put(self, names: Sequence[str], blocks: Blocks) -> None:
        """See ``Rival``. A clone, since a view would be saved with the memory around it."""
        self._each(lambda name, block: torch.save(block.clone(), self._path(name)), names, blocks)
        self._sync([self._path(name) for name in names])

    def get(self, names: Sequence[str], out: Blocks) -> None:
        """See ``Rival``."""
        self._each(lambda name, block: np.copyto(block.numpy(), torch.load(self._path(name)).numpy()), names, out)


class PlainLMDB(Rival):
    """LMDB with a transaction a batch."""

    name = "lmdb"

    def open(self) -> None:
        """See ``Rival``."""
        size = 2 * self.capacity_blocks * (self.block_bytes + 8192) + (64 << 20)
        self._env: Any = lmdb.open(str(self.directory), map_size=size)

    def close(self) -> None:
        """See ``Rival``."""
        self._env.close()

    def put(self, names: Sequence[str], blocks: Blocks) -> None:
        """See ``Rival``."""
        with self._env.begin(write=True) as txn:
            for name, block in zip(names, blocks, strict=True):
                txn.put(name.encode(), block.numpy().data)

    def get(self, names: Sequence[str], out: Blocks) -> None:
        """See ``Rival``."""
        self._each(self._read, names, out)

    def delete(self, names: Sequence[str]) -> None:
        """See ``Rival``."""
        with self._env.begin(write=True) as txn:
            for name in names:
                txn.delete(name.encode())

    def _read(self, name: str, block: torch.Tensor) -> None:
        with self._env.begin(buffers=True) as txn:
            np.copyto(block.numpy(), np.frombuffer(txn.get(name.encode()), np.uint8))


class DiskCache(Rival):
    """The diskcache package, with its own settings but for the size limit."""

    name = "diskcache"
    durable = False

    def open(self) -> None:
        """See ``Rival``."""
        try:
            import diskcache  # type: ignore[import-untyped]
        except ImportError as exc:
            raise SetupError("diskcache is not installed; pip install 'kvtier[bench]'") from exc
        self._cache = diskcache.Cache(str(self.directory), size_limit=1 << 50)

    def close(self) -> None:
        """See ``Rival``."""
        self._cache.close()

    def put(self, names: Sequence[str], blocks: Blocks) -> None:
        """See ``Rival``."""
        for name, block in zip(names, blocks, strict=True):
            self._cache.set(name, block.numpy().tobytes())

    def get(self, names: Sequence[str], out: Blocks) -> None:
        """See ``Rival``."""
        for name, block in zip(names, out, strict=True):
            np.copyto(block.numpy(), np.frombuffer(self._cache.get(name), np.uint8))

    def delete(self, names: Sequence[str]) -> None:
        """See ``Rival``."""
        for name in names:
            self._cache.delete(name)


RIVALS: tuple[type[Rival], ...] = (File, FileDirect, Safetensors, TorchSave, PlainLMDB, DiskCache)
