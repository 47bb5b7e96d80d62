"""The plain constructor: a directory, three sizes, a namespace."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch

from kvtier.config import parse_size
from kvtier.errors import ConfigError, SpecMismatchError
from kvtier.formats.base import Codec, in_format
from kvtier.formats.choice import codec_for
from kvtier.formats.encrypted import Encrypted
from kvtier.formats.keys import KeySource, load_key
from kvtier.hashing import Namespace
from kvtier.spec import KVSpec
from kvtier.store import TieredStore
from kvtier.tiers.base import Tier
from kvtier.tiers.disk import LMDBTier
from kvtier.tiers.encoded import EncodedTier
from kvtier.tiers.memory import MemoryTier


def open_store(
    directory: str | os.PathLike[str] | None,
    namespace: Namespace,
    *,
    device: int | str = 0,
    host: int | str = "1 GiB",
    disk: int | str = "8 GiB",
    on: str | torch.device = "cpu",
    disk_format: str = "raw",
    disk_budget: float | None = None,
    encryption_key: KeySource | None = None,
    gpu_direct: Literal["off", "auto"] = "off",
    **options: Any,
) -> TieredStore:
    """A store over up to three tiers: device memory, host memory, and a directory on NVMe.

    Args:
        directory: Where the disk tier lives, made if absent; None needs ``disk=0``.
        namespace: Whose blocks these are: geometry, weights, adapter, tenant.
        device: Size of the device tier; 0 leaves it out.
        host: Size of the host tier; 0 leaves it out.
        disk: Size of the disk tier; 0 leaves it out.
        on: The device of the device tier; ``"cpu"`` is a stand-in for a GPU. With a CUDA device
            the host tier is page-locked.
        disk_format: How blocks are written down on disk: ``"raw"``, as they are; ``"lossless"``, exact
            and smaller; ``"fp8"``, ``"int8"``, ``"int4"``, smaller still and **not exact**. See
            docs/formats.md. For all but ``"raw"`` the store's namespace is one of its own, so a
            directory serves the blocks of one format only.
        disk_budget: With ``"lossless"``: share of its raw bytes that a block may take, see
            ``kvtier.formats.lossless.Lossless``.
        encryption_key: Encrypts what is written to disk, in any format: 32 random bytes, or the path of a file that
            holds them, or a function that returns them; see ``kvtier.formats.keys.load_key`` and
            docs/security.md. The namespace is one of its own for every key: a directory opened with
            another key serves nothing of the first one.
        gpu_direct: ``"auto"``: blocks go from the drive straight into GPU memory where GPUDirect Storage is there
            for it, see ``kvtier.tiers.disk.LMDBTier``. Only with ``"raw"`` and without a
            key: what is encoded or encrypted goes through the CPU.
        options: Passed on to ``TieredStore``.

    Returns:
        An open store; use it as a context manager, or call ``close``.

    Raises:
        ConfigError: No tier has room for a block, or the directory, the format or the key cannot be used.
        SpecMismatchError: The directory holds blocks of another geometry, or in another format.
    """
    spec = namespace.spec
    sizes = {"device": parse_size(device), "host": parse_size(host), "disk": parse_size(disk)}
    if sizes["disk"] and directory is None:
        raise ConfigError("a disk tier needs a directory; pass one, or disk=0")
    codec = _encrypted(_codec(disk_format, disk_budget, spec, sizes["disk"]), encryption_key, spec, sizes["disk"])
    if gpu_direct != "off" and (codec is not None or not sizes["disk"]):
        raise ConfigError(f"gpu_direct={gpu_direct!r} is for a disk tier of raw blocks, not encrypted; leave it out")
    names = namespace if codec is None else in_format(namespace, codec.name)
    where = torch.device(on)
    tiers: list[Tier] = []
    try:
        if sizes["disk"]:  # first: it fails for more reasons, and before memory is touched
            assert directory is not None
            tiers.append(_disk_tier(directory, sizes["disk"], spec, codec, gpu_direct))
        for name, at, pinned in (("host", torch.device("cpu"), where.type == "cuda"), ("device", where, False)):
            if size := sizes[name]:
                pool = MemoryTier(name, capacity_bytes=size, block_bytes=spec.block_bytes, device=at, pinned=pinned)
                tiers.insert(0, pool)
        return TieredStore(tiers, names, **options)
    except BaseException:
        for tier in tiers:
            tier.close()
        raise


def _codec(name: str, budget: float | None, spec: KVSpec, disk_bytes: int) -> Codec | None:
    """The storage format of the disk tier; None for raw blocks."""
    if name == "raw" and budget is None:
        return None
    if name == "raw":
        raise ConfigError("disk_budget is for disk_format='lossless'; raw blocks take what they have")
    codec = codec_for(name, spec, budget=budget)
    if not disk_bytes:
        raise ConfigError(f"disk_format={name!r} is for a disk tier; give disk a size, or leave the format out")
    return codec


def _encrypted(codec: Codec | None, key: KeySource | None, spec: KVSpec, disk_bytes: int) -> Codec | None:
    """A storage format with encryption around it; as it is without a key."""
    if key is None:
        return codec
    if not disk_bytes:
        raise ConfigError("encryption_key is for a disk tier; give disk a size, or leave the key out")
    return Encrypted(spec, load_key(key), codec)


def _disk_tier(
    directory: str | os.PathLike[str],
    disk_bytes: int,
    spec: KVSpec,
    codec: Codec | None,
    gpu_direct: Literal["off", "auto"],
) -> Tier:
    block_bytes = spec.block_bytes if codec is None else codec.encoded_bytes
    try:
        tier = LMDBTier(
            "disk",
            directory,
            capacity_bytes=disk_bytes,
            block_bytes=block_bytes,
            block_tokens=spec.block_tokens,
            gpu_direct=gpu_direct,
        )
    except SpecMismatchError as exc:
        raise SpecMismatchError(f"{exc}; or was it written with another disk_format? Or with a key?") from exc
    if codec is None:
        return tier
    return EncodedTier(tier, codec)
