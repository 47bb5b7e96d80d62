"""Many callers at once: whatever they do to each other, no wrong byte, and the books balance afterwards."""

import random
import threading

import pytest
from store_helpers import check, fetch, keys, make, orphans, save, saved, settle, tokens

NUM_THREADS = 8
STEPS = 40


def random_word(rng):
    """A short prompt that shares its head with many others."""
    return "".join(rng.choice("abc") for _ in range(rng.randint(1, 6)))


def run_threads(store, seed, steps=STEPS):
    """Mixed calls from all threads, released together; returns what went wrong in any of them."""
    errors = []
    start = threading.Barrier(NUM_THREADS)

    def work(number):
        rng = random.Random(1000 * seed + number)
        start.wait()
        try:
            for _ in range(steps):
                word = random_word(rng)
                match rng.randrange(20):
                    case 0:
                        store.flush()
                    case 1 | 2:
                        store.prefetch(tokens(word))
                    case 3:
                        with store.pin(tokens(word), owner=f"thread {number}") as hit:
                            assert fetch(store, word).num_blocks >= hit.num_blocks, "a pinned block was a miss"
                    case 4:
                        store.stats()
                    case n if n < 12:
                        save(store, word)
                    case _:
                        fetch(store, word)
        except BaseException as exc:  # noqa: BLE001  (whatever it is, the test reports it)
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "sizes",
    [
        {"device": 4, "host": 3, "disk": 8},
        {"host": 8, "disk": 8},
        {"host": 8, "disk": 12, "write": "on_insertion"},
        {"disk": 8},
        {"device": 8},
    ],
    ids="-".join,
)
def test_threads_get_no_wrong_bytes_and_the_books_balance(tmp_path, sizes, seed):
    with make(tmp_path, **sizes) as store:
        assert run_threads(store, seed) == []
        check(store)
        assert orphans(store) == []


def test_two_threads_that_put_one_prompt_store_it_once():
    with make(host=8) as store:
        threads = [threading.Thread(target=save, args=(store, "abcdef")) for _ in range(NUM_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        settle(store)
        assert (store.stats()["counters"]["new_blocks"], fetch(store, "abcdef").num_blocks) == (6, 6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_threads_for_longer(tmp_path, seed):
    with make(tmp_path, device=4, host=3, disk=8) as store:
        assert run_threads(store, seed, steps=1000) == []
        check(store)


def test_a_put_that_waited_for_places_counts_anew_what_it_needs(tmp_path, monkeypatch):
    """While it waits, a block of its prompt that was held is dropped: one place more is free, two are needed."""
    with make(tmp_path, host=8, disk=16) as store:
        saved(store, "abcde", "z")
        writer, placement, behind = store._writer, store._core.placement, store._behind
        writer._owed = behind
        owed = []

        def wait_for(free, _timeout):
            store._mover.carry(placement.forget(keys(store, "abcde")[4], 0))
            return free()

        plan = writer._plan
        monkeypatch.setattr(store._core.lock, "wait_for", wait_for)
        monkeypatch.setattr(writer, "_plan", lambda *a, **k: (plan(*a, **k), owed.append(writer._owed))[0])
        save(store, "abcdeg")

        assert owed
        assert max(owed) <= behind
        writer._owed = 0
        monkeypatch.undo()
