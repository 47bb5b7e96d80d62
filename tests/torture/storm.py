"""Many threads that call every verb of one store at once, and verify every block they are given.

Words over four letters share their heads, and the tiers hold a few blocks, so that everything
evicts everything. The payload of a block is a function of its name: whoever reads it knows it.
"""

import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from store_helpers import BLOCK, SPEC, check, keys, orphans, settle, tokens
from store_helpers import payload as make_payload

from kvtier.errors import StreamBrokenError, TierClosedError

NUM_THREADS = 32
LETTERS = "abcd"
LONGEST = 6
#: Calls of each kind in a hundred.
WEIGHTS = {
    "get": 32,
    "put": 22,
    "put_and_get": 10,
    "stream": 8,
    "match": 8,
    "prefetch": 6,
    "pin": 6,
    "get_some": 3,
    "put_tail": 3,
    "lapse": 1,
    "flush": 1,
}
#: Counters that stay 0 where no fault was injected.
FAULTS = ("tier_errors", "damaged_blocks", "lost_blocks")

payload = lru_cache(1 << 16)(make_payload)


@dataclass(slots=True)
class Tally:
    """What one caller did, or all of them."""

    calls: int = 0
    asked: int = 0
    """Blocks asked for with get and stream."""

    delivered: int = 0
    wrong_bytes: int = 0
    """Bytes delivered that are not those put."""

    errors: list = field(default_factory=list)
    """What calls raised, and promises not kept."""

    def add(self, other):
        self.calls += other.calls
        self.asked += other.asked
        self.delivered += other.delivered
        self.wrong_bytes += other.wrong_bytes
        self.errors += other.errors


class Caller:
    """One thread's calls.

    Args:
        store: Everybody's.
        rng: What is called, and with which word.
        owner: Names its leases.
        may_be_closed: Somebody closes the store meanwhile: ``TierClosedError`` ends the calls.
    """

    def __init__(self, store, rng, owner, *, may_be_closed=False):
        self.store = store
        self.rng = rng
        self.owner = owner
        self.may_be_closed = may_be_closed
        self.tally = Tally()
        self._flushes = 0

    def run(self, steps, until):
        """Call so many times, or until a time on the monotonic clock."""
        verbs, weights = list(WEIGHTS), list(WEIGHTS.values())
        for _ in range(steps):
            if time.monotonic() >= until:
                return
            verb = self.rng.choices(verbs, weights)[0]
            word = "".join(self.rng.choice(LETTERS) for _ in range(self.rng.randint(1, LONGEST)))
            try:
                getattr(self, verb)(word)
            except TierClosedError as exc:
                if not self.may_be_closed:
                    self.tally.errors.append(f"{self.owner}: {verb} {word}: {exc!r}")
                return
            except BaseException as exc:  # noqa: BLE001  (whatever it is, it is reported)
                self.tally.errors.append(f"{self.owner}: {verb} {word}: {exc!r}")
            self.tally.calls += 1

    def get(self, word):
        return self._read(word, len(word))

    def get_some(self, word):
        self._read(word, self.rng.randint(0, len(word)))

    def put(self, word):
        self.store.put(tokens(word), [payload(key) for key in keys(self.store, word)])

    def put_and_get(self, word):
        self.put(word)
        self.get(word)

    def put_tail(self, word):
        start = self.rng.randint(0, len(word))
        self.store.put(tokens(word), [payload(key) for key in keys(self.store, word)[start:]], start=start)

    def stream(self, word):
        out = [torch.zeros((SPEC.layers, BLOCK // SPEC.layers), dtype=torch.uint8) for _ in word]
        stream = self.store.stream(tokens(word), out)
        with suppress(StreamBrokenError):  # promised blocks that did not come: the result says how many did
            stream.wait(0)
        self._verify(word, stream.result(), out)
        self.tally.asked += len(word)

    def match(self, word):
        hit = self.store.match(tokens(word))
        if hit.num_blocks > len(word):
            self.tally.errors.append(f"match of {word} found {hit.num_blocks} blocks")

    def prefetch(self, word):
        transfer = self.store.prefetch(tokens(word))
        if self.rng.random() < 0.2:
            transfer.wait(60)

    def pin(self, word):
        with self.store.pin(tokens(word), owner=self.owner) as promised:
            found = self.store.match(tokens(word))
            got = self._read(word, len(word))
        if min(found.num_blocks, got.num_blocks) < promised.num_blocks and not self.may_be_closed:
            self.tally.errors.append(f"{self.owner}: a pinned block of {word} was a miss: {promised} {found} {got}")

    def lapse(self, word):
        with self.store.pin(tokens(word), owner=self.owner, ttl_s=0.0):
            self._read(word, len(word))

    def flush(self, word):
        self.store.flush()

    def _read(self, word, wanted):
        out = [torch.zeros(BLOCK, dtype=torch.uint8) for _ in range(wanted)]
        hit = self.store.get(tokens(word), out)
        self._verify(word, hit, out)
        self.tally.asked += wanted
        return hit

    def _verify(self, word, hit, out):
        names = keys(self.store, word)[: hit.num_blocks]
        self.tally.delivered += hit.num_blocks
        for block, name in zip(out, names, strict=False):
            if not torch.equal(block.flatten(), payload(name)):
                self.tally.wrong_bytes += int((block.flatten() != payload(name)).sum())
                self.tally.errors.append(f"{self.owner}: wrong bytes in a block of {word}")


def storm(store, seed, *, steps, num_threads=NUM_THREADS, until=float("inf"), close_after_s=None):
    """Call from many threads, released together; what they did in all.

    Args:
        store: Open; still open afterwards unless it is closed meanwhile.
        seed: What is called.
        steps: Calls of each thread, at most.
        num_threads: Callers.
        until: On the monotonic clock; nobody calls after it.
        close_after_s: Close the store under the callers, so long after they began.
    """
    start = threading.Barrier(num_threads + 1)
    callers = [
        Caller(store, random.Random(f"{seed}/{number}"), f"caller-{number}", may_be_closed=close_after_s is not None)
        for number in range(num_threads)
    ]

    def work(caller):
        start.wait()
        caller.run(steps, until)

    threads = [threading.Thread(target=work, args=(caller,), name=caller.owner) for caller in callers]
    for thread in threads:
        thread.start()
    start.wait()
    if close_after_s is not None:
        time.sleep(close_after_s)
        store.close()
    for thread in threads:
        thread.join()
    total = Tally()
    for caller in callers:
        total.add(caller.tally)
    return total


def found_wrong(store, tally):
    """What does not hold after a storm without injected faults, as sentences; the store is still open."""
    wrong = list(tally.errors)
    try:
        check(store)
    except AssertionError as exc:
        wrong.append(f"the books do not balance: {exc}")
    if orphans(store):
        wrong.append(f"{len(orphans(store))} blocks are held without their parent")
    stats = store.stats()
    counters = stats["counters"]
    wrong += [f"{counters[name]} {name} without a fault" for name in FAULTS if counters[name]]
    wrong += [f"a lease was never released: {lease}" for lease in stats["leases"]]
    if counters["hit_blocks"] + counters["missed_blocks"] != tally.asked:
        wrong.append(f"{tally.asked} blocks asked for, {counters['hit_blocks']} + {counters['missed_blocks']} counted")
    if counters["hit_blocks"] != tally.delivered:
        wrong.append(f"{tally.delivered} blocks delivered, {counters['hit_blocks']} counted")
    return wrong


def durable_after_flush(store):
    """Names of the blocks that the flush of ``close`` leaves on the last tier with all their ancestors.

    One whose ancestor found no room there (``Flushed.num_left``) is an orphan after a restart. A flush
    may evict what an earlier one brought down, so it is repeated until there is nothing to bring.
    """
    while store.flush().num_blocks:
        pass
    settle(store)
    held = dict(store.tiers[-1].scan())
    whole = set()
    for key, label in sorted(held.items(), key=lambda entry: entry[1].depth):
        if label.depth == 0 or label.parent in whole:
            whole.add(key)
    return whole
