"""The plain constructor: a directory, three sizes, a namespace."""

from __future__ import annotations

import os
from typing import Any

import torch

from kvtier.config import parse_size
from kvtier.errors import ConfigError
from kvtier.hashing import Namespace
from kvtier.store import TieredStore
from kvtier.tiers.base import Tier
from kvtier.tiers.disk import LMDBTier
from kvtier.tiers.memory import MemoryTier


def open_store(
    directory: str | os.PathLike[str] | None,
    namespace: Namespace,
    *,
    device: int | str = 0,
    host: int | str = "1 GiB",
    disk: int | str = "8 GiB",
    on: str | torch.device = "cpu",
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
        options: Passed on to ``TieredStore``.

    Returns:
        An open store; use it as a context manager, or call ``close``.

    Raises:
        ConfigError: No tier has room for a block, or the directory cannot be used.
        SpecMismatchError: The directory holds blocks of another geometry.
    """
    spec = namespace.spec
    sizes = {"device": parse_size(device), "host": parse_size(host), "disk": parse_size(disk)}
    if sizes["disk"] and directory is None:
        raise ConfigError("a disk tier needs a directory; pass one, or disk=0")
    where = torch.device(on)
    tiers: list[Tier] = []
    try:
        if sizes["disk"]:  # first: it fails for more reasons, and before memory is touched
            assert directory is not None
            tiers.append(
                LMDBTier(
                    "disk",
                    directory,
                    capacity_bytes=sizes["disk"],
                    block_bytes=spec.block_bytes,
                    block_tokens=spec.block_tokens,
                )
            )
        for name, on_device, pinned in (("host", torch.device("cpu"), where.type == "cuda"), ("device", where, False)):
            if sizes[name]:
                pool = MemoryTier(
                    name, capacity_bytes=sizes[name], block_bytes=spec.block_bytes, device=on_device, pinned=pinned
                )
                tiers.insert(0, pool)
        return TieredStore(tiers, namespace, **options)
    except BaseException:
        for tier in tiers:
            tier.close()
        raise
