"""Where the time of one cold get and one put goes, by stage.

Each stage is a function of the disk tier, wrapped while it is watched. Its time is what all threads
spent in it together, waiting included, so the shares say what the threads did, not what would be
saved: a thread that waits for the disk while another verifies costs nothing.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from kvtier.tiers import records as records_module
from kvtier.tiers import volume as volume_module
from kvtier.tiers.environment import Environment
from kvtier.tiers.pages import page_aligned
from kvtier.tiers.slabs import Slabs
from kvtier.tiers.volume import Volume

from .bandwidth import KvtierDisk

GET = {
    "plan: index entries, page cache": (Volume, "places"),
    "wait for requests to the disk": (Slabs, "carry_out"),
    "verify: XXH3, name, token ids": (records_module, "verify"),
    "copy out": (np, "copyto"),
}
PUT = {
    "look for what is held": (volume_module, "_absent"),
    "copy in, where not aligned": (volume_module, "whole_pages_of"),
    "seal: XXH3": (volume_module, "seal"),
    "wait for writes to the disk": (Slabs, "write"),
    "commit: index, sync": (Environment, "change"),
}


def stages(directory: Path, *, block_bytes: int, batch: int, runs: int) -> list[dict[str, Any]]:
    """Rows with ``op``, ``stage``, ``thread_ms`` and ``share`` of all thread time; medians over ``runs``."""
    memory = page_aligned(batch * block_bytes)
    memory[:] = np.random.default_rng(0).integers(0, 256, len(memory), np.uint8)
    blocks = list(torch.from_numpy(memory).view(batch, block_bytes))
    out = [torch.ones_like(block) for block in blocks]
    names = [str(number) for number in range(batch)]
    rows = []
    with KvtierDisk(directory / "stages", block_bytes, batch) as store:
        store.put(names, blocks)
        for op, watched, prepare, run in (
            ("get", GET, store.chill, lambda: store.get(names, out)),
            ("put", PUT, lambda: store.delete(names), lambda: store.put(names, blocks)),
        ):
            rows += _rows(op, [_watch(watched, prepare, run) for _ in range(runs)])
    return rows


def _watch(
    stages: dict[str, tuple[Any, str]], prepare: Callable[[], None], run: Callable[[], None]
) -> dict[str, float]:
    prepare()
    spent: dict[str, float] = defaultdict(float)
    lock = threading.Lock()
    with ExitStack() as stack:
        for name, (owner, attribute) in stages.items():
            stack.enter_context(_timed(owner, attribute, name, spent, lock))
        began = time.perf_counter()
        run()
        spent["wall"] = time.perf_counter() - began
    return spent


@contextmanager
def _timed(owner: Any, attribute: str, name: str, spent: dict[str, float], lock: threading.Lock) -> Iterator[None]:
    genuine = getattr(owner, attribute)

    @contextmanager
    def ended(*args: Any) -> Iterator[Any]:
        """A transaction of which only the end is timed: index, journal and sync."""
        transaction = genuine(*args)
        value = transaction.__enter__()
        try:
            yield value
        except BaseException as exc:
            transaction.__exit__(type(exc), exc, exc.__traceback__)
            raise
        began = time.perf_counter()
        transaction.__exit__(None, None, None)
        with lock:
            spent[name] += time.perf_counter() - began

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return genuine(*args, **kwargs)
        finally:
            with lock:
                spent[name] += time.perf_counter() - began

    with patch.object(owner, attribute, ended if attribute == "change" else wrapped):
        yield


def _rows(op: str, samples: list[dict[str, float]]) -> list[dict[str, Any]]:
    names = [name for name in samples[0] if name != "wall"]
    medians = {name: float(np.median([sample[name] for sample in samples])) * 1e3 for name in (*names, "wall")}
    total = sum(medians[name] for name in names)
    return [
        {
            "op": op,
            "stage": name,
            "thread_ms": medians[name],
            "share": medians[name] / total,
            "wall_ms": medians["wall"],
        }
        for name in names
    ]
