"""What a storage format of the disk tier gains and costs, measured on a model's KV of real text.

    size        bytes of a block's place on disk, and of those the bytes in use, over raw bytes
    speed       encoding and decoding a batch on as many threads as the tier uses, beside memcpy
    cold read   the tier's read of the whole batch, closed, dropped and checked before, beside raw
    fidelity    the model goes on from a restored prefix; its logits beside those from the exact one

Speeds count raw bytes. All cases of one dtype take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import numpy as np
import torch

from kvtier.calibrate.limits import memcpy_once
from kvtier.calibrate.residency import resident_fraction
from kvtier.calibrate.stats import interleave, summary
from kvtier.errors import NotColdError
from kvtier.formats.base import FORMATS, Codec
from kvtier.formats.choice import codec_for
from kvtier.integrations.cache import block_views, buffered_cache
from kvtier.integrations.transformers import kv_spec
from kvtier.spec import KVSpec
from kvtier.tiers.copying import Striper
from kvtier.tiers.encoded import EncodedTier
from kvtier.tiers.pages import page_aligned

from .bandwidth import COLD_BYTES, KvtierDisk

Blocks = Sequence[torch.Tensor]
Rows = dict[tuple[str, str], dict[str, Any]]
"""By dtype and format."""


class FormatDisk(KvtierDisk):
    """kvtier's disk tier with its blocks in a format.

    Args:
        directory: Its own.
        spec: Geometry of the blocks.
        codec: The format; None for raw blocks.
        capacity_blocks: Blocks to hold.
    """

    def __init__(self, directory: Path, spec: KVSpec, codec: Codec | None, capacity_blocks: int) -> None:
        self.codec = codec
        super().__init__(directory, spec.block_bytes if codec is None else codec.encoded_bytes, capacity_blocks)

    def open(self) -> None:
        """See ``Rival``."""
        super().open()
        if self.codec is not None:
            self.tier: Any = EncodedTier(self.tier, self.codec)


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt, computed exactly, and what follows it."""

    buffer: torch.Tensor
    """KV of the prefix, and zeros as room for what follows: ``[1, layers, 2, kv_heads, tokens, head_dim]``."""

    prefix: int
    """Tokens in place."""

    following: torch.Tensor
    """Token ids after the prefix, ``[1, count]``."""


def computed(model: Any, spec: KVSpec, ids: Sequence[int], prefix: int) -> Text:
    """Prefill ``prefix`` tokens, a whole number of blocks, of a longer text."""
    shape = (1, spec.layers, 2, spec.kv_heads, len(ids), spec.head_dim)
    buffer = torch.zeros(shape, dtype=getattr(torch, spec.dtype))
    with torch.no_grad():
        model(
            input_ids=torch.tensor([ids[:prefix]]),
            past_key_values=buffered_cache(model.config, buffer, 0),
            use_cache=True,
            logits_to_keep=1,
        )
    return Text(buffer, prefix, torch.tensor([ids[prefix:]]))


def block_list(texts: Sequence[Text], spec: KVSpec, most: int) -> list[torch.Tensor]:
    """Blocks of the texts, as many as asked for or as there are, in page-aligned memory."""
    views = [
        view
        for text in texts
        for view in block_views(text.buffer[0], 0, text.prefix // spec.block_tokens, spec.block_tokens)
    ][:most]
    memory = torch.from_numpy(page_aligned(len(views) * spec.block_bytes)).view(len(views), spec.block_bytes)
    for row, view in zip(memory, views, strict=True):
        row.view(view.shape).copy_(view)
    return list(memory)


def rounded(blocks: Blocks, spec: KVSpec, dtype: str) -> tuple[list[torch.Tensor], KVSpec]:
    """The same numbers in another dtype."""
    own, other = getattr(torch, spec.dtype), getattr(torch, dtype)
    numbers = torch.stack([block.view(own) for block in blocks]).to(other)
    memory = torch.from_numpy(page_aligned(numbers.numel() * other.itemsize)).view(len(blocks), -1)
    memory.copy_(numbers.view(torch.uint8))
    changed = KVSpec(
        layers=spec.layers, kv_heads=spec.kv_heads, head_dim=spec.head_dim, dtype=dtype, block_tokens=spec.block_tokens
    )
    return list(memory), changed


def speeds(
    blocks: Blocks, spec: KVSpec, directory: Path, *, runs: int, memcpy_threads: int, formats: Sequence[str] = FORMATS
) -> Rows:
    """Size, speed and cold reads of every format, and of raw blocks; a row each."""
    codecs: dict[str, Codec | None] = {"raw": None, **{name: codec_for(name, spec) for name in formats}}
    with ExitStack() as stack:
        benches = {
            name: stack.enter_context(FormatBench(blocks, spec, codec, directory / f"{spec.dtype}-{name}"))
            for name, codec in codecs.items()
        }
        size = len(blocks) * spec.block_bytes
        cases: list[tuple[str, Callable[[], float]]] = [("memcpy", lambda: memcpy_once(size, memcpy_threads))]
        for name, bench in benches.items():
            cases += [(f"{name} {op}", case) for op, case in bench.cases()]
        found = interleave(cases, runs)
        return {(spec.dtype, name): {**bench.size(), **bench.rates(name, found)} for name, bench in benches.items()}


class FormatBench:
    """One format's cases over one batch of blocks. Use as a context manager."""

    def __init__(self, blocks: Blocks, spec: KVSpec, codec: Codec | None, directory: Path) -> None:
        self.blocks, self.spec, self.codec = blocks, spec, codec
        self.names = [str(number) for number in range(len(blocks))]
        self.out = [torch.ones_like(block) for block in blocks]
        self._directory = directory
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._disk = self._stack.enter_context(FormatDisk(self._directory, self.spec, self.codec, len(self.blocks)))
        self._disk.put(self.names, self.blocks)
        self._striper = Striper("bench", min(8, torch.get_num_threads()))
        self._stack.callback(self._striper.close)
        if self.codec is not None:
            size = self.codec.encoded_bytes
            self.encoded = list(torch.from_numpy(page_aligned(len(self.blocks) * size)).view(-1, size))
            self._encode()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cases(self) -> Iterator[tuple[str, Callable[[], float]]]:
        """What is timed, by name; each returns seconds."""
        yield "cold", self._cold
        if self.codec is not None:
            yield "encode", partial(_timed, self._encode)
            yield "decode", partial(_timed, self._decode)

    def size(self) -> dict[str, Any]:
        """Bytes set aside for a block and bytes in use, over raw bytes."""
        raw = self.spec.block_bytes
        if self.codec is None:
            return {"block_bytes": raw, "stored_share": 1.0, "used_share": 1.0}
        used = [int.from_bytes(bytes(block[8:16].tolist()), "little") for block in self.encoded]
        shares = np.array(used) / raw
        return {
            "block_bytes": raw,
            "stored_share": self.codec.encoded_bytes / raw,
            "used_share": float(shares.mean()),
            "largest_used_share": float(shares.max()),
        }

    def rates(self, name: str, found: dict[str, list[float]]) -> dict[str, Any]:
        """Medians, and ratios to what was measured in the same rounds."""
        size, memcpy = len(self.blocks) * self.spec.block_bytes, found["memcpy"]
        cold = found[f"{name} cold"]
        row: dict[str, Any] = {
            "blocks": len(self.blocks),
            "memcpy_gib_per_s": float(np.median(memcpy)) / 2**30,
            "cold_read_ms": summary(cold)["p50_ms"],
            "cold_read_gib_per_s": size / float(np.median(cold)) / 2**30,
            "cold_read_speedup": float(
                np.median([raw / own for raw, own in zip(found["raw cold"], cold, strict=True)])
            ),
        }
        for op in ("encode", "decode"):
            seconds = found.get(f"{name} {op}")
            row[f"{op}_gib_per_s"] = None if seconds is None else size / float(np.median(seconds)) / 2**30
            row[f"{op}_of_memcpy"] = (
                None
                if seconds is None
                else float(np.median([size / s / most for s, most in zip(seconds, memcpy, strict=True)]))
            )
        return row

    def _cold(self) -> float:
        self._disk.chill()
        for path in self._disk.files():
            resident = resident_fraction(path) * path.stat().st_blocks * 512
            if resident > COLD_BYTES:
                raise NotColdError(f"{resident:.0f} bytes of {path.name} are still in memory")
        return _timed(partial(self._disk.get, self.names, self.out))

    def _encode(self) -> None:
        codec = self.codec
        assert codec is not None

        def work(mine: Iterator[int]) -> None:
            for i in mine:
                if reason := codec.encode(b"", self.blocks[i], self.encoded[i]):
                    raise AssertionError(f"{codec.name}: block {i} is refused: {reason}")

        self._striper.run(len(self.blocks), work, self._striper.threads)

    def _decode(self) -> None:
        codec = self.codec
        assert codec is not None

        def work(mine: Iterator[int]) -> None:
            for i in mine:
                codec.decode(b"", self.encoded[i], self.out[i])

        self._striper.run(len(self.blocks), work, self._striper.threads)


def fidelity(model: Any, texts: Sequence[Text], formats: Sequence[str] = FORMATS) -> Rows:
    """What the model makes of a prefix restored from each format; means over all tokens that follow."""
    spec = kv_spec(model)
    codecs: dict[str, Codec | None] = {"raw": None, **{name: codec_for(name, spec) for name in formats}}
    tokens: dict[str, list[torch.Tensor]] = {name: [] for name in codecs}
    identical = dict.fromkeys(codecs, True)
    for text in texts:
        exact = _following(model, text, text.buffer)
        for name, codec in codecs.items():
            restored = _restored(text, spec, codec)
            identical[name] &= torch.equal(restored.view(torch.uint8), text.buffer.view(torch.uint8))
            tokens[name].append(_compare(exact, _following(model, text, restored), text.following))
    rows: Rows = {}
    for name, parts in tokens.items():
        divergence, agrees, loss, exact_loss = torch.cat(parts, dim=1).mean(dim=1).tolist()
        rows[spec.dtype, name] = {
            "identical_bits": identical[name],
            "kl_nats": divergence,
            "next_token_agreement": agrees,
            "perplexity": float(np.exp(loss)),
            "perplexity_exact": float(np.exp(exact_loss)),
            "tokens_compared": sum(part.shape[1] for part in parts),
        }
    return rows


def _restored(text: Text, spec: KVSpec, codec: Codec | None) -> torch.Tensor:
    """A buffer whose prefix went through a format, block by block."""
    buffer = text.buffer.clone()
    if codec is None:
        return buffer
    stored = torch.empty(codec.encoded_bytes, dtype=torch.uint8)
    for view in block_views(buffer[0], 0, text.prefix // spec.block_tokens, spec.block_tokens):
        if reason := codec.encode(b"", view, stored):
            raise AssertionError(f"{codec.name}: a block is refused: {reason}")
        codec.decode(b"", stored, view)
    return buffer


def _following(model: Any, text: Text, buffer: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of what follows a prefix in place: ``[count, vocab]``."""
    with torch.no_grad():
        cache = buffered_cache(model.config, buffer.clone(), text.prefix)
        logits = model(input_ids=text.following, past_key_values=cache, use_cache=True).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)


def _compare(exact: torch.Tensor, other: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """For each token but the last: divergence, whether the likeliest next token agrees, both losses: ``[4, count]``."""
    exact, other, targets = exact[:-1], other[:-1], following[0, 1:, None]
    divergence = (exact.exp() * (exact - other)).sum(dim=-1)
    agrees = (exact.argmax(dim=-1) == other.argmax(dim=-1)).float()
    return torch.stack([divergence, agrees, -other.gather(1, targets)[:, 0], -exact.gather(1, targets)[:, 0]])


def _timed(work: Callable[[], None]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began
