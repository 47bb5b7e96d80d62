"""Disks that fill up, fail, refuse or hang for a while, under a store at work.

    traffic -> fault begins -> traffic, or close -> fault is over -> traffic until "ok" -> all that was lost is said

One case is one store's life over one disk. Asked of each:

    all along           no call but flush raises, no byte is wrong, and no call waits for the disk for long
    during the fault    the tier's state is "degraded: " and why, where the fault is one that the store can see
    afterwards          "ok" again without reopening; blocks sink again; books = listing = what is read
    opened again        what the disk had taken is there, but for what was evicted and what the fault itself hit

The waits of the circuit breaker are made short, so that a case takes a second and not a minute.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from store_helpers import check

from kvtier.errors import KVTierError, TierError
from kvtier.hashing import BlockHash
from kvtier.store import TieredStore
from kvtier.tiers.disk import LMDBTier
from torture import blocks, mounts
from torture.ailments import AILMENTS, Kind, Scene, few_descriptors
from torture.blocks import FULL, ROOMY
from torture.checking import check_survivors
from torture.children import Outcome, Say, run_cases
from torture.report import Budget, Progress, Row, Tries, merge
from torture.writing import Ground, report_promises

TRIES = Tries(long=420, quick=21, ci=42)

_MAP_FULL = "map full"
_AT_OPENING = ("opened on a full file system", "opened read-only", "opened without descriptors")
_CASES = [*AILMENTS, _MAP_FULL, *_AT_OPENING]
FAULTS = [f"disks: {name}" for name in _CASES]

#: Of the file system of a case that has its own.
_SIZE_BYTES = 8 << 20

#: Pages of a map in which three slabs find room, and no fourth one.
_SMALL_MAP_PAGES = 150

#: Longest that a store may take to find out that the disk works again.
_RECOVERY_S = 20.0


def run(budget: Budget, progress: Progress) -> list[Row]:
    """A row for each fault."""
    unmountable = mounts.hindrance()
    rows: list[Row] = []
    seeds = budget.seeds(TRIES)
    for outcome in run_cases(partial(_case, budget, unmountable), seeds, lanes=budget.lanes, limit_s=90):
        rows.append(_row(outcome))
        budget.leave(outcome.seed, good=rows[-1].is_good)
        progress.step(len(rows), len(seeds), f"{sum(not row.is_good for row in rows)} failures")
    return sorted(merge(rows), key=lambda row: FAULTS.index(row.fault))


def _name(seed: int) -> str:
    return _CASES[seed % len(_CASES)]


def _row(outcome: Outcome) -> Row:
    row = Row(fault=f"disks: {_name(outcome.seed)}", unit="faults", tried=1, seconds=outcome.seconds)
    failures = [outcome.death] if outcome.death is not None else outcome.answer.pop("failures")
    for name, value in (outcome.answer or {}).items():
        setattr(row, name, value)
    row.survived = int(not failures) if row.tried else 0
    row.failures = [f"seed {outcome.seed}: {'; '.join(failures)}"] if failures else []
    return row


def _case(budget: Budget, unmountable: str | None, seed: int, say: Say) -> dict[str, Any]:
    """The numbers of a row, but for ``survived``."""
    logging.disable(logging.CRITICAL)  # what a failing disk has logged is many lines
    name = _name(seed)
    mounted = AILMENTS[name].mounted if name in AILMENTS else name in _AT_OPENING[:2]
    if mounted and unmountable is not None:
        return {"tried": 0, "failures": [], "notes": f"left out: {unmountable}"}
    place = budget.place(seed)
    with ExitStack() as stack:
        if mounted:
            mounts.enter()
            mounts.mount(place, _SIZE_BYTES)
            stack.callback(mounts.unmount, place)
        stack.enter_context(_impatient())
        life = _Life(place / "kv", random.Random(seed), say)
        if name in AILMENTS:
            life.suffer(AILMENTS[name])
        elif name == _MAP_FULL:
            life.grow_out_of_map()
        else:
            life.open_in_trouble(name)
        return life.verdict()


@contextmanager
def _impatient() -> Iterator[None]:
    """Waits after failures are short, and no space is kept free."""
    defaults = LMDBTier.__init__.__kwdefaults__
    with (
        patch("kvtier.health.FIRST_WAIT_S", 0.02),
        patch("kvtier.health.LONGEST_WAIT_S", 0.2),
        patch("kvtier.tiers.growth.NO_GROWTH_S", 0.1),
        patch.dict(defaults, {"min_free_bytes": 0}),
    ):
        yield


class _Life:
    """One store over one disk, and what went wrong."""

    def __init__(self, path: Path, rng: random.Random, say: Say) -> None:
        self._path = path
        self._rng = rng
        self._say = say
        self._disk = rng.choice([ROOMY, FULL])
        self._host = rng.choice([8, 8, 24])
        self._ground = Ground(path, self._disk)
        self._excused: set[int] = set()
        self._problems: list[str] = []
        self._states: set[str] = set()
        self._wrong = 0
        self._notes = ""
        report_promises(self._ground.hear)

    def suffer(self, kind: Kind) -> None:
        """Work, ail, recover, close."""
        store = self._open()
        scene = Scene(store, self._path, self._rng)
        self._work(store, 6 if kind.evicts else 25)  # what has grown already needs no more space
        store.flush()
        dies = kind.flushes and self._rng.random() < 0.2
        self._say("the fault")
        self._ground.disk = FULL if kind.evicts else self._disk
        with kind.ailment(scene):
            if dies:
                self._work(store, 10, flushes=kind.flushes)
                store.close()
            else:
                self._ail(store, kind, scene)
        self._excused |= scene.excused
        if dies:
            self._notes = "closed meanwhile"
            return
        self._recover(store)
        store.close()

    def grow_out_of_map(self) -> None:
        """A map too small for the capacity: puts and evictions go on in what there is."""
        self._disk, self._ground.disk = FULL, FULL
        with patch("kvtier.tiers.layout.Layout.map_bytes", lambda *_: _SMALL_MAP_PAGES * 4096):
            store = self._open()
            self._work(store, 60)
            if not any(state.startswith("degraded: ") and "map is full" in state for state in self._states):
                self._problems.append(f"the map is full, and the state was only {sorted(self._states)}")
            before = set(store.tiers[-1].scan())
            self._work(store, 40)
            if not set(store.tiers[-1].scan()) - before:
                self._problems.append("no block has sunk since the map is full")
            check(store)
            store.close()

    def open_in_trouble(self, name: str) -> None:
        """Opened while it cannot work: as well as it goes, or refused with one of kvtier's errors."""
        store = self._open()
        self._work(store, 25)
        store.close()
        with ExitStack() as stack:
            if name == _AT_OPENING[0]:
                self._ground.disk = FULL  # the disk has less room than it should
                stack.enter_context(AILMENTS["file system full"].ailment(Scene(store, self._path, self._rng)))
            elif name == _AT_OPENING[1]:
                mounts.remount(self._path.parent, _SIZE_BYTES, read_only=True)
                stack.callback(mounts.remount, self._path.parent, _SIZE_BYTES, read_only=False)
            else:
                stack.enter_context(few_descriptors(self._rng.randrange(12)))
            self._say(f"opening: {name}")
            try:
                store = self._open()
            except KVTierError as exc:
                self._notes = f"refused: {type(exc).__name__}"
                return
            self._notes = "opened"
            self._work(store, 25)
        self._recover(store)
        store.close()

    def verdict(self) -> dict[str, Any]:
        """Open it once more, and hold all against one another."""
        found = check_survivors(self._path, self._host, self._disk, 0, self._say)
        lost = self._ground.promised() - set(found["listed"]) - self._with_descendants(self._excused)
        wrong = self._wrong + found["wrong_bytes"]
        failures = self._problems + found["problems"]
        if wrong:
            failures.append(f"{wrong} wrong bytes served")
        if lost:
            failures.append(f"lost blocks {sorted(lost)[:8]}")
        if found["leaks"]:
            failures.append(f"{found['leaks']} descriptors or threads left")
        numbers = {"wrong_bytes": wrong, "lost_flushed": len(lost), "leaks": found["leaks"]}
        return {**numbers, "notes": self._notes, "failures": failures}

    def _open(self) -> TieredStore:
        options = {"write": self._rng.choice(["on_insertion", "on_eviction"]), "group_age_s": 0.0}
        return blocks.open_small(self._path, host=self._host, disk=self._disk, put_patience_s=0.02, **options)

    def _ail(self, store: TieredStore, kind: Kind, scene: Scene) -> None:
        """Work until the state shows the fault, and a while longer."""
        for _ in range(20):
            self._work(store, 10, flushes=kind.flushes)
            if not kind.degrades or any(state != "ok" for state in self._states):
                break
        else:
            self._problems.append(f"after 200 calls the state was only {sorted(self._states)}")
        self._work(store, 20, flushes=kind.flushes)
        if scene.waiting is not None and not scene.waiting.is_set():
            self._problems.append("no write has hung")
        strange = [state for state in self._states if state != "ok" and not state.startswith("degraded: ")]
        self._problems += [f"state {state!r}" for state in strange]

    def _recover(self, store: TieredStore) -> None:
        """Work until the disk is well and holds what is new; without reopening the store."""
        self._say("recovering")
        deadline = time.monotonic() + _RECOVERY_S
        while (state := self._state(store)) != "ok":
            if time.monotonic() > deadline:
                self._problems.append(f"after {_RECOVERY_S:.0f} s still {state}")
                return
            self._work(store, 5)
            time.sleep(0.01)
        self._say("sinking again")
        for prompt in self._rng.sample(range(blocks.NUM_PROMPTS), 6):
            for _ in range(20):  # a put longer than the host tier waits for the disk, and not for long
                blocks.put(store, prompt)
                left = store.flush().num_left
                held = store.tiers[-1].contains(blocks.CHAINS[prompt].keys)
                if not left and held == len(blocks.CHAINS[prompt]):
                    break
            else:
                self._problems.append(f"well again, and {left} blocks stay in memory, {held} of a new prompt are held")
        check(store)
        if (state := self._state(store)) != "ok":
            self._problems.append(f"was well, and then {state}")

    def _work(self, store: TieredStore, steps: int, *, flushes: bool = True) -> None:
        """Calls at random; only a flush may fail, and only by a tier's error."""
        for _ in range(steps):
            prompt = self._rng.randrange(blocks.NUM_PROMPTS)
            what = self._rng.choices(
                ["put", "get", "match", "pin", "prefetch", "flush", "stats"], [50, 20, 5, 5, 5, 5 * flushes, 10]
            )[0]
            self._say(what)
            try:
                self._call(store, what, prompt)
            except TierError as exc:
                if what != "flush":
                    self._problems.append(f"{what}: {exc!r}")
            except Exception as exc:  # noqa: BLE001  (whatever it is, it is reported)
                self._problems.append(f"{what}: {exc!r}")
        self._state(store)

    def _call(self, store: TieredStore, what: str, prompt: int) -> None:
        tokens = blocks.PROMPTS[prompt]
        if what == "put":
            blocks.put(store, prompt)
        elif what == "get":
            self._wrong += blocks.get(store, prompt)[1]
        elif what == "match":
            store.match(tokens)
        elif what == "pin":
            with store.pin(tokens, owner="torture"):
                self._wrong += blocks.get(store, prompt)[1]
        elif what == "prefetch":
            with suppress(TimeoutError):
                store.prefetch(tokens).wait(0.01)
        elif what == "flush":
            store.flush()
        else:
            self._state(store)

    def _state(self, store: TieredStore) -> str:
        state = str(store.stats()["tiers"]["disk"]["state"])
        self._states.add(state)
        return state

    def _with_descendants(self, numbers: set[int]) -> set[int]:
        """Blocks, and those that hang on them."""
        gone: set[BlockHash] = set()
        for key, label in sorted(blocks.LABELS.items(), key=lambda entry: entry[1].depth):
            if blocks.NUMBERS[key] in numbers or (label.depth and label.parent in gone):
                gone.add(key)
        return {blocks.NUMBERS[key] for key in gone}
