"""The model that is calibrated with, the blocks it makes, and the tiers and limits of its machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from kvtier.calibrate.limits import best_memcpy, device_copy_once, memcpy_once, pinned_copy_once
from kvtier.calibrate.rawdisk import DiskSetting, RawDisk
from kvtier.calibrate.tiers import Bench, ColdDisk
from kvtier.hashing import Chain, Namespace, name_chain
from kvtier.integrations.cache import block_views
from kvtier.integrations.transformers import CachedLM
from kvtier.oracle.models import ModelSource
from kvtier.spec import KVSpec
from kvtier.tiers.base import Tier
from kvtier.tiers.memory import MemoryTier
from kvtier.tiers.pages import page_aligned

GRID = (DiskSetting(1, 1 << 20), DiskSetting(4, 256 << 10), DiskSetting(16, 1 << 20))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model on its device."""

    label: str
    dtype: str
    device: torch.device
    spec: KVSpec
    lm: CachedLM
    max_tokens: int | None
    """The longest prompt that the model was made for."""

    @classmethod
    def load(cls, source: ModelSource, *, block_tokens: int, chunk_tokens: int | None) -> Subject:
        """Load a model.

        Raises:
            ConfigError: See ``ModelSource.load``.
            UnsupportedModelError: Its cache is not one that a store can keep.
        """
        from kvtier.integrations.identity import kv_spec

        model = source.load()
        config = model.config.get_text_config(decoder=True)
        return cls(
            label=source.label,
            dtype=source.dtype,
            device=model.device,
            spec=kv_spec(model, block_tokens),
            lm=CachedLM(model, None, chunk_tokens=chunk_tokens),
            max_tokens=getattr(config, "max_position_embeddings", None),
        )

    @property
    def gpu(self) -> str | None:
        """The GPU's name; None on a CPU."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None

    @property
    def gpu_bytes(self) -> int:
        """Its memory; 0 on a CPU."""
        return torch.cuda.get_device_properties(self.device).total_memory if self.device.type == "cuda" else 0

    def compute(self, num_tokens: int) -> None:
        """Prefill a prompt from nothing; returns when it is done."""
        vocab: int = self.lm.model.config.get_text_config(decoder=True).vocab_size
        ids = np.random.default_rng(num_tokens).integers(0, vocab, num_tokens)
        self.lm.prefill(cast("Sequence[int]", ids))
        self.settle()

    def settle(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def names(self, count: int, seed: int = 0) -> Chain:
        """Names of so many blocks; other seeds give other ones."""
        tokens = np.full(count * self.spec.block_tokens, seed, np.uint32)
        return name_chain(Namespace(spec=self.spec, weights="calibration"), tokens)

    def in_a_cache(self, blocks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Blocks as those of a prompt lie in the model's cache: strided views of one buffer on its device."""
        layers, kinds, heads, tokens, width = self.spec.block_shape
        dtype = getattr(torch, self.spec.dtype)
        cache = torch.empty((layers, kinds, heads, tokens * len(blocks), width), dtype=dtype, device=self.device)
        views = block_views(cache, 0, len(blocks), tokens)
        for view, block in zip(views, blocks, strict=True):
            view.copy_(block.view(view.shape))
        return views

    def buffers(self, count: int) -> list[torch.Tensor]:
        """Blocks in host memory, touched, of bytes that do not compress."""
        memory = page_aligned(count * self.spec.block_bytes)
        memory[:] = np.random.default_rng(0).integers(0, 256, len(memory), np.uint8)
        return list(torch.from_numpy(memory).view(count, self.spec.block_bytes))


@contextmanager
def benches(subject: Subject, directory: Path, count: int) -> Iterator[list[Bench]]:
    """The tiers of a machine, each holding ``count`` blocks, and their limits.

    Args:
        subject: Whose blocks, and where it computes.
        directory: For the disk tier and the raw file beside it.
        count: Blocks.

    Raises:
        KVTierError: A tier cannot be made.
        OSError: The raw file cannot be made.
    """
    part, size = subject.names(count), count * subject.spec.block_bytes
    blocks, out = subject.buffers(count), subject.buffers(count)
    on_gpu = subject.device.type == "cuda"
    near, near_out = (subject.in_a_cache(side) if on_gpu else side for side in (blocks, out))
    with ExitStack() as stack:
        found: list[Bench] = []
        copies = _copies(size, on_gpu=on_gpu)
        for name in ("device", "host") if on_gpu else ("host",):
            where = subject.device if name == "device" else torch.device("cpu")
            tier = MemoryTier(
                name,
                capacity_bytes=size,
                block_bytes=subject.spec.block_bytes,
                device=where,
                pinned=on_gpu and name == "host",
            )
            stack.callback(tier.close)
            tier.write(part.keys, near, part.labels)
            found.append(_memory_bench(tier, part, near, near_out, copies[name]))
        disk = stack.enter_context(
            ColdDisk(directory / "tier", size, subject.spec.block_bytes, subject.spec.block_tokens)
        )
        disk.tier.write(part.keys, blocks, part.labels)
        raw = stack.enter_context(RawDisk(directory, size))
        raw.calibrate(GRID, runs=2)
        found.append(_disk_bench(disk, raw, blocks, out))
        yield found


def _memory_bench(
    tier: MemoryTier,
    part: Chain,
    blocks: Sequence[torch.Tensor],
    out: Sequence[torch.Tensor],
    copies: tuple[Callable[[], float], Callable[[], float]],
) -> Bench:
    def read_once() -> None:
        tier.read(part.keys, out, part.labels)

    raw_read, raw_write = copies
    return Bench(
        name=tier.name,
        tier=lambda: cast("Tier", tier),
        prepare=read_once,
        blocks=blocks,
        out=out,
        raw_read=raw_read,
        raw_write=raw_write,
    )


def _disk_bench(disk: ColdDisk, raw: RawDisk, blocks: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> Bench:
    return Bench(
        name="disk",
        tier=lambda: cast("Tier", disk.tier),
        prepare=disk.chill,
        blocks=blocks,
        out=out,
        raw_read=raw.read_once,
        raw_write=raw.write_once,
    )


def _copies(size: int, *, on_gpu: bool) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Raw reads and writes of each memory tier."""
    if on_gpu:
        copy = partial(device_copy_once, size)
        return {
            "device": (copy, copy),
            "host": (partial(pinned_copy_once, size, "h2d"), partial(pinned_copy_once, size, "d2h")),
        }
    _, threads = best_memcpy(size, runs=3)
    copy = partial(memcpy_once, size, threads)
    return {"host": (copy, copy)}
