"""Time to first token of one prompt, recomputed and reloaded from each tier, taking turns.

    recompute    prefill of the whole prompt, no store
    device       every block in memory of the device (on a CPU: a stand-in, a pool in RAM)
    host         every block in host RAM (page-locked if the device is a GPU)
    disk_warm    every block in LMDB, its pages in the page cache
    disk_cold    every block in LMDB; environment closed, pages dropped, residency checked, reopened

Each round also times a bare ``get`` into ready buffers and the raw limit of the same medium, so
that every ratio pairs two measurements made within seconds of each other.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from kvtier import TieredStore, open_store
from kvtier.calibrate.limits import RawDisk, device_copy_once, memcpy_once, pinned_copy_once
from kvtier.calibrate.residency import assert_cold, drop, make_resident, resident_fraction
from kvtier.calibrate.stats import interleave
from kvtier.hashing import Namespace
from kvtier.integrations.transformers import CachedLM, Prefill

TIERS = ("device", "host", "disk_warm", "disk_cold")
PATHS = ("recompute", *TIERS)
NEW_TOKENS = 8


@dataclass(slots=True)
class LengthResult:
    """Everything measured at one prompt length. Times in seconds, rates in bytes/s, one entry a round."""

    num_tokens: int
    num_bytes: int
    """KV bytes of the prompt's whole blocks: what a get moves."""

    ttft_s: dict[str, list[float]]
    get_s: dict[str, list[float]]
    limit_bytes_per_s: dict[str, list[float]]
    rest_s: dict[str, list[float]]
    """Forward pass over what is left after loading, by path."""

    unseen_s: list[float]
    """What the store adds to a prompt it has never seen: naming, failed lookup, put."""

    tokens_equal: bool
    """Greedy tokens from every tier equal those of the run without a store."""

    bit_exact: bool
    """Logits from every tier equal the same two steps (prefix, last token) without a store, bit for bit."""

    max_logit_difference: float
    """Largest difference to the logits of the prompt computed in one go."""


@dataclass(slots=True)
class Subject:
    """What is measured."""

    model: Any
    namespace: Namespace
    chunk_tokens: int | None
    device: torch.device
    prompt: Callable[[int, int], list[int]]
    """Token ids of a prompt from its length and a seed."""


@dataclass(slots=True)
class ReloadBench:
    """The stores of each path, and the measurements on them. Use as a context manager."""

    subject: Subject
    directory: Path
    lengths: list[int]
    runs: int
    raw: RawDisk
    memcpy_threads: int
    stores: dict[str, TieredStore] = field(default_factory=dict)
    pages_warm: bool = False
    control: CachedLM = field(init=False)
    lm: CachedLM = field(init=False)

    def __post_init__(self) -> None:
        self.control = CachedLM(self.subject.model, None, chunk_tokens=self.subject.chunk_tokens)
        self.lm = CachedLM(self.subject.model, None)

    def __enter__(self) -> Self:
        spec = self.subject.namespace.spec
        blocks = sum(n // spec.block_tokens for n in self.lengths) + 1
        size = blocks * spec.block_bytes
        on = self.subject.device
        names = self.subject.namespace
        self.stores["device"] = open_store(None, names, device=size, host=0, disk=0, on=on)
        self.stores["host"] = open_store(None, names, host=size, disk=0, on=on)
        self._open_disk()
        unseen = 2 * max(self.lengths) // spec.block_tokens * spec.block_bytes + 8 * spec.block_bytes
        self.stores["unseen"] = open_store(self.directory / "unseen", names, host=unseen, disk=2 * unseen, on=on)
        return self

    def __exit__(self, *_: object) -> None:
        for store in self.stores.values():
            store.close()

    def fill(self, num_tokens: int) -> bool:
        """Bring a prompt into every store; True if the disk had it from an earlier run."""
        ids = self.prompt_ids(num_tokens)
        disk, count = self.stores["disk"], num_tokens // self.subject.namespace.spec.block_tokens
        found = disk.match(ids).num_blocks == count
        if not found:
            self.lm.store = disk
            self.lm.prefill(ids)
        blocks = self._ready(count)
        disk.get(ids, blocks)
        for name in ("device", "host"):
            self.stores[name].put(ids, blocks)
        return found

    def measure(self, num_tokens: int) -> LengthResult:
        """All paths at one length, in rounds."""
        ids = self.prompt_ids(num_tokens)
        spec = self.subject.namespace.spec
        blocks = self._ready(num_tokens // spec.block_tokens)
        last: dict[str, Prefill] = {}
        rest: dict[str, list[float]] = {path: [] for path in PATHS}
        num_bytes = len(blocks) * spec.block_bytes
        cases: list[tuple[str, Callable[[], float]]] = [
            ("ttft recompute", partial(self._ttft, "recompute", ids, last, rest)),
            ("unseen", partial(self._unseen, num_tokens, blocks)),
        ]
        for path in TIERS:  # a path's cases side by side: to warm or cool the pages takes longer than to read them
            cases += [
                (f"ttft {path}", partial(self._ttft, path, ids, last, rest)),
                (f"get {path}", partial(self._get, path, ids, blocks)),
                (f"limit {path}", partial(self._limit, path, num_bytes)),
            ]
        times = interleave(cases, self.runs)
        equal = self._same_tokens(ids, last["recompute"])
        reference = self._reference(ids, last["recompute"])
        return LengthResult(
            num_tokens=num_tokens,
            num_bytes=num_bytes,
            ttft_s={path: times[f"ttft {path}"] for path in PATHS},
            get_s={path: times[f"get {path}"] for path in TIERS},
            limit_bytes_per_s={path: [num_bytes / max(s, 1e-9) for s in times[f"limit {path}"]] for path in TIERS},
            rest_s=rest,
            unseen_s=times["unseen"],
            tokens_equal=equal,
            bit_exact=all(torch.equal(reference, _logits(last[path])) for path in TIERS),
            max_logit_difference=max(
                float((_logits(last[path]) - _logits(last["recompute"])).abs().max()) for path in TIERS
            ),
        )

    def prompt_ids(self, num_tokens: int) -> list[int]:
        """The prompt measured at one length; no two lengths share a block."""
        return self.subject.prompt(num_tokens, num_tokens)

    def _ttft(self, path: str, ids: list[int], last: dict[str, Prefill], rest: dict[str, list[float]]) -> float:
        lm = self.control
        if path != "recompute":
            lm = self.lm
            lm.store = self._ready_store(path)
        began = self._now()
        result = lm.prefill(ids)
        seconds = self._now() - began
        if path != "recompute" and result.num_reused < len(ids) - self.subject.namespace.spec.block_tokens:
            raise AssertionError(f"{path}: only {result.num_reused} of {len(ids)} tokens came from the store")
        last[path] = result
        rest[path].append(seconds - result.seconds["load"] - result.seconds["save"])
        return seconds

    def _get(self, path: str, ids: list[int], blocks: list[torch.Tensor]) -> float:
        store = self._ready_store(path)
        began = self._now()
        hit = store.get(ids, blocks)
        seconds = self._now() - began
        if hit.num_blocks < len(blocks):
            raise AssertionError(f"{path}: only {hit.num_blocks} of {len(blocks)} blocks came ({hit.stopped_by})")
        return seconds

    def _limit(self, path: str, num_bytes: int) -> float:
        """Seconds the raw medium needs for as many bytes."""
        if not num_bytes:
            return 0.0
        if path == "disk_cold":
            return num_bytes / self.raw.read_once()
        if self.subject.device.type == "cuda" and path == "device":
            return num_bytes / device_copy_once(num_bytes)
        if self.subject.device.type == "cuda" and path == "host":
            return num_bytes / pinned_copy_once(num_bytes, "h2d")
        return num_bytes / memcpy_once(num_bytes, self.memcpy_threads)

    def _unseen(self, num_tokens: int, blocks: list[torch.Tensor]) -> float:
        """The store's share of a prompt that it has not seen: lookup, then put; disk work comes later."""
        store = self.stores["unseen"]
        ids = np.random.default_rng().integers(0, 1000, num_tokens)
        began = self._now()
        store.get(ids, blocks)
        store.put(ids, blocks)
        seconds = self._now() - began
        store.flush()
        return seconds

    def _ready_store(self, path: str) -> TieredStore:
        """The store of a path, with the disk's pages proven cold or made warm."""
        if path == "disk_cold":
            self.stores["disk"].close()
            data = self.directory / "disk" / "data.mdb"
            drop(data)
            assert_cold(data)
            self._open_disk()
            self.pages_warm = False
        elif path == "disk_warm" and not self.pages_warm:
            data = self.directory / "disk" / "data.mdb"
            make_resident(data)
            if resident_fraction(data) < 0.99:
                raise AssertionError(f"disk_warm: only {resident_fraction(data):.0%} of the pages are in memory")
            for num_tokens in self.lengths:  # the first touch in this process maps the pages
                count = num_tokens // self.subject.namespace.spec.block_tokens
                self.stores["disk"].get(self.prompt_ids(num_tokens), self._ready(count))
            self.pages_warm = True
        return self.stores["disk" if path.startswith("disk") else path]

    def _open_disk(self) -> None:
        spec = self.subject.namespace.spec
        blocks = sum(n // spec.block_tokens for n in self.lengths) + 1
        self.stores["disk"] = open_store(
            self.directory / "disk", self.subject.namespace, host=0, disk=max(2 * blocks * spec.block_bytes, 2 << 30)
        )

    def _reference(self, ids: list[int], whole: Prefill) -> torch.Tensor:
        """Logits of the last token, on the cache of the whole prompt less that token."""
        whole.past_key_values.crop(-1)
        piece = torch.tensor([ids[-1:]], device=self.subject.device)
        with torch.no_grad():
            output = self.subject.model(input_ids=piece, past_key_values=whole.past_key_values)
        return torch.as_tensor(output.logits[0, -1])

    def _same_tokens(self, ids: list[int], whole: Prefill) -> bool:
        expected = self._continued(whole)
        same = True
        for path in TIERS:
            self.lm.store = self._ready_store(path)
            tokens = self.lm.generate(ids, max_new_tokens=NEW_TOKENS)
            same = same and len(tokens) > 0 and tokens == expected[: len(tokens)]  # fewer if the text ended
        return same

    def _continued(self, whole: Prefill) -> list[int]:
        """Greedy tokens after the prompt computed in one go; its cache is left as it was."""
        cache, tokens = whole.past_key_values, [int(_logits(whole).argmax())]
        with torch.no_grad():
            while len(tokens) < NEW_TOKENS:
                piece = torch.tensor([tokens[-1:]], device=self.subject.device)
                output = self.subject.model(input_ids=piece, past_key_values=cache)
                tokens.append(int(output.logits[0, -1].argmax()))
        cache.crop(1 - NEW_TOKENS)
        return tokens

    def _ready(self, count: int) -> list[torch.Tensor]:
        """Touched buffers for blocks, on the device."""
        shape = (count, self.subject.namespace.spec.block_bytes)
        return list(torch.ones(shape, dtype=torch.uint8, device=self.subject.device))

    def _now(self) -> float:
        if self.subject.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def _logits(result: Prefill) -> torch.Tensor:
    assert result.logits is not None
    return result.logits
