"""Ways in which a prompt can be served: each arranges a store, checks the prompts, and says if it showed nothing.

Sizes are in blocks. A mode that could not bring about what it is there for (no block came from the disk, say)
counts as failed: an oracle that looked at nothing is not content.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kvtier.errors import KVTierError
from kvtier.integrations.transformers import CachedLM
from kvtier.oracle.files import data_file, drop_pages, flip_bits, read_through
from kvtier.oracle.models import ModelSource, make_prompts
from kvtier.oracle.reference import Reference
from kvtier.oracle.trial import Settings, Trial
from kvtier.store import TieredStore

_CHILD_S = 600
_SETTLE_S = 30
_ROUNDS = 2
_CROWD = 2


class Bench:
    """A model, its prompts, and a place for directories.

    Args:
        source: Where the model is from; another process loads it from there.
        model: The model itself.
        settings: What is asked.
        directory: Empty, or absent.
    """

    def __init__(self, source: ModelSource, model: Any, settings: Settings, directory: Path) -> None:
        self.source = source
        self.model = model
        self.settings = settings
        self.reference = Reference(model, settings.new_tokens, settings.chunk_tokens)
        text_config = model.config.get_text_config(decoder=True)
        self.prompts = make_prompts(
            settings.prompts,
            settings.tokens,
            block_tokens=settings.block_tokens,
            vocab=text_config.vocab_size,
            seed=settings.seed,
        )
        self.num_blocks = sum(len(ids) // settings.block_tokens for ids in self.prompts)
        self._directory = directory
        self._block_bytes: int | None = None
        self._strangers = 0

    def place(self, name: str) -> Path:
        """A directory for a store."""
        return self._directory / name

    @contextmanager
    def opened(
        self, path: Path | None = None, *, device: int = 0, host: int = 0, disk: int = 0, **options: Any
    ) -> Iterator[CachedLM]:
        """The model with a store; it computes layer by layer only if told to."""
        size = self._size()
        lm = CachedLM.open(
            self.model,
            path,
            block_tokens=self.settings.block_tokens,
            chunk_tokens=self.settings.chunk_tokens,
            device=device * size,
            host=host * size,
            disk=disk * size,
            on=self.source.device,
            **{"layerwise": "never", "put_patience_s": 10.0, **options},
        )
        try:
            yield lm
        finally:
            lm.close()

    def stranger(self, num_blocks: int) -> list[int]:
        """A prompt of whole blocks that nobody has seen."""
        self._strangers += 1
        return make_prompts(
            1,
            num_blocks * self.settings.block_tokens,
            block_tokens=self.settings.block_tokens,
            vocab=self.model.config.get_text_config(decoder=True).vocab_size,
            seed=(self.settings.seed + 1) * 1_000_003 + self._strangers,
        )[0]

    def usable(self, ids: Sequence[int]) -> int:
        """Blocks of a prompt that a prefill would take."""
        unit = self.settings.chunk_tokens or self.settings.block_tokens
        return (len(ids) - 1) // unit * unit // self.settings.block_tokens

    def _size(self) -> int:
        if self._block_bytes is None:
            control = CachedLM(self.model, None)
            self._block_bytes = control.spec.block_bytes // control.spec.block_tokens * self.settings.block_tokens
        return self._block_bytes


def cold(bench: Bench, trial: Trial) -> str | None:
    """The adapter without a store."""
    lm = CachedLM(bench.model, None, chunk_tokens=bench.settings.chunk_tokens)
    for ids in bench.prompts:
        trial.check(lm, ids)
    return None


def filled(bench: Bench, trial: Trial) -> str | None:
    """A store that learns the prompts: what two of them share is served, the rest computed."""
    with bench.opened(host=2 * bench.num_blocks) as lm:
        for ids in bench.prompts:
            trial.check(lm, ids)
        return None if lm.store is not None and lm.store.stats()["counters"]["new_blocks"] else "nothing was stored"


def device(bench: Bench, trial: Trial) -> str | None:
    """All from device memory."""
    with bench.opened(device=2 * bench.num_blocks) as lm:
        _fill_and_check(bench, trial, lm)
    return trial.lacks("device")


def host(bench: Bench, trial: Trial) -> str | None:
    """All from host memory."""
    with bench.opened(host=2 * bench.num_blocks) as lm:
        _fill_and_check(bench, trial, lm)
    return trial.lacks("host")


def disk_warm(bench: Bench, trial: Trial) -> str | None:
    """All from disk, its pages in memory."""
    place = bench.place("disk-warm")
    with bench.opened(place, disk=2 * bench.num_blocks) as lm:
        trial.fill(lm, bench.prompts)
        read_through(data_file(place))
        _check_all(bench, trial, lm)
    return trial.lacks("disk")


def disk_cold(bench: Bench, trial: Trial) -> str | None:
    """All from disk, its pages dropped."""
    place = bench.place("disk-cold")
    with bench.opened(place, disk=2 * bench.num_blocks) as lm:
        trial.fill(lm, bench.prompts)
    drop_pages(data_file(place))
    with bench.opened(place, disk=2 * bench.num_blocks) as lm:
        _check_all(bench, trial, lm)
    return trial.lacks("disk")


def layers(bench: Bench, trial: Trial) -> str | None:
    """From disk, and from host memory, layer by layer while the model computes."""
    for sizes in ({"disk": 2 * bench.num_blocks}, {"host": 2 * bench.num_blocks}):
        with bench.opened(bench.place("layers"), **sizes) as lm:
            trial.fill(lm, bench.prompts)
            lm.layerwise = "always"
            _check_all(bench, trial, lm)
    return trial.lacks("host", "disk")


def restart(bench: Bench, trial: Trial) -> str | None:
    """From a directory that another process has filled and closed."""
    place = bench.place("restart")
    if bench.settings.new_process:
        _in_a_new_process(bench, place)
    else:
        fill_directory(bench, place)
    with bench.opened(host=2 * bench.num_blocks) as lm:  # what the other one computed, computed here as well
        trial.fill(lm, bench.prompts)
    with bench.opened(place, disk=2 * bench.num_blocks) as lm:
        _check_all(bench, trial, lm)
    return trial.lacks("disk")


def mixed(bench: Bench, trial: Trial) -> str | None:
    """Prefixes whose head is in device memory, their middle in host memory and their tail on disk."""
    spread = 0
    for number, ids in enumerate(bench.prompts):
        count = len(ids) // bench.settings.block_tokens
        sizes = {"device": -(-4 * count // 3) + 1, "host": max(1, count // 3), "disk": 4 * count}
        with bench.opened(bench.place(f"mixed-{number}"), **sizes) as lm:
            trial.fill(lm, [ids])
            assert lm.store is not None
            _sink(bench, lm.store, ids)
            spread += len(set(trial.check(lm, ids).tiers)) == 3
    return None if spread else "no prefix lay in three tiers"


def evictions(bench: Bench, trial: Trial) -> str | None:
    """A store for a few prompts only, while other threads put theirs."""
    count = max(len(ids) for ids in bench.prompts) // bench.settings.block_tokens
    sizes = {"device": count, "host": count, "disk": 3 * count}
    with bench.opened(bench.place("evictions"), **sizes) as lm:
        assert lm.store is not None
        with _crowd(bench, lm.store, count // 2) as let_in:
            for _ in range(_ROUNDS):
                for ids in [*bench.prompts, *bench.prompts[::-1]]:  # the last one at once again, the first long after
                    let_in()
                    trial.check(lm, ids)
        lm.store.flush()  # what is to be dropped in the background is
        dropped = lm.store.stats()["counters"]["dropped_blocks"]
    if not dropped:
        return "nothing was evicted"
    return None if trial.blocks else "no block came from the store"


def damaged(bench: Bench, trial: Trial) -> str | None:
    """A bit flipped in the record of one block of each prompt, after which the prompts are asked twice."""
    place = bench.place("damaged")
    with bench.opened(place, disk=2 * bench.num_blocks) as lm:
        trial.fill(lm, bench.prompts)
        assert lm.store is not None
        names = [
            lm.store.name(ids).keys[bench.usable(ids) * (number + 1) // (len(bench.prompts) + 1)]
            for number, ids in enumerate(bench.prompts)
        ]
    found = flip_bits(data_file(place), names, lm.spec, seed=bench.settings.seed)
    with bench.opened(place, disk=2 * bench.num_blocks) as lm:
        _check_all(bench, trial, lm)
        _check_all(bench, trial, lm)
        assert lm.store is not None
        noticed = lm.store.stats()["counters"]["damaged_blocks"]
    if found < len(set(names)) or not noticed:
        return f"{found} of {len(set(names))} records were damaged, {noticed} of them noticed"
    return trial.lacks("disk")


Mode = Callable[[Bench, Trial], str | None]

MODES: dict[str, Mode] = {
    "cold": cold,
    "filled": filled,
    "device": device,
    "host": host,
    "disk, warm": disk_warm,
    "disk, pages dropped": disk_cold,
    "layer by layer": layers,
    "restart": restart,
    "mixed tiers": mixed,
    "evictions": evictions,
    "damaged disk": damaged,
}


def _check_all(bench: Bench, trial: Trial, lm: CachedLM) -> None:
    for ids in bench.prompts:
        trial.check(lm, ids)


def _fill_and_check(bench: Bench, trial: Trial, lm: CachedLM) -> None:
    trial.fill(lm, bench.prompts)
    _check_all(bench, trial, lm)


def _sink(bench: Bench, store: TieredStore, ids: Sequence[int]) -> None:
    """Put other blocks, one by one, until a prompt's usable blocks lie in three tiers; gives up after many."""
    for _ in range(4 * len(ids)):
        if len(set(store.match(ids).tiers[: bench.usable(ids)])) == 3:
            return
        _put_noise(bench, store, 1)
        give_up = time.monotonic() + _SETTLE_S
        while store.match(ids).stopped_by == "in_flight" and time.monotonic() < give_up:
            time.sleep(0.001)


def _put_noise(bench: Bench, store: TieredStore, num_blocks: int) -> None:
    ids = bench.stranger(num_blocks)
    noise = torch.full((num_blocks, store.spec.block_bytes), ids[0] % 256, dtype=torch.uint8, device=bench.model.device)
    store.put(ids, list(noise))


@contextmanager
def _crowd(bench: Bench, store: TieredStore, num_blocks: int) -> Iterator[Callable[[], None]]:
    """Threads that put prompts of their own; gives a call that lets each put a few more."""
    turns, leave, errors = threading.Semaphore(0), threading.Event(), []

    def work() -> None:
        try:
            while turns.acquire() and not leave.is_set():
                for _ in range(3):
                    _put_noise(bench, store, num_blocks)
        except BaseException as exc:  # noqa: BLE001  (raised again below)
            errors.append(exc)

    threads = [threading.Thread(target=work, name="kvtier-oracle-crowd") for _ in range(_CROWD)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: turns.release(_CROWD)
    finally:
        leave.set()
        turns.release(_CROWD)
        for thread in threads:
            thread.join()
    for error in errors:
        raise error


def fill_directory(bench: Bench, place: Path) -> None:
    """What came before the restart."""
    with bench.opened(place, host=2 * bench.num_blocks, disk=2 * bench.num_blocks) as lm:
        for ids in bench.prompts:
            lm.prefill(ids)


def _child(source: ModelSource, settings: Settings, place: Path, num_threads: int) -> None:
    torch.set_num_threads(num_threads)  # bits may depend on how work is divided
    fill_directory(Bench(source, source.load(), settings, place.parent), place)


def _in_a_new_process(bench: Bench, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    arguments = (bench.source, bench.settings, place, torch.get_num_threads())
    child = multiprocessing.get_context("spawn").Process(target=_child, args=arguments, name="kvtier-oracle")
    child.start()
    child.join(_CHILD_S)
    if child.is_alive():
        child.kill()
        child.join()
    if child.exitcode:
        raise KVTierError(f"restart: the process that fills the directory ended with status {child.exitcode}")
