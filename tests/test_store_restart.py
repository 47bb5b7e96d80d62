"""What a restart finds: everything flushed, nothing half written, nothing without its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_helpers import (
    check,
    counters,
    fetch,
    keys,
    make,
    orphans,
    raw_delete,
    raw_shorten,
    save,
    saved,
    settle,
    used,
    where,
)

TESTS = Path(__file__).parent
LAYOUTS = {
    "disk": {"disk": 16},
    "host-disk": {"host": 4, "disk": 16},
    "device-host-disk": {"device": 4, "host": 2, "disk": 16},
}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def sizes(request):
    return request.param


def test_everything_closed_over_is_found_again(tmp_path, sizes):
    words = ["ab", "cd", "efg"]
    with make(tmp_path, **sizes) as store:
        saved(store, *words)

    with make(tmp_path, **sizes) as store:
        assert [where(store, word) for word in words] == [("disk",) * 2, ("disk",) * 2, ("disk",) * 3]
        assert [fetch(store, word).num_blocks for word in words] == [2, 2, 3]


def test_a_second_restart_finds_the_same(tmp_path, sizes):
    with make(tmp_path, **sizes) as store:
        saved(store, "ab", "cd")
    with make(tmp_path, **sizes) as store:
        saved(store, "abX")

    with make(tmp_path, **sizes) as store:
        assert [fetch(store, word).num_blocks for word in ("abX", "cd")] == [3, 2]


def test_a_block_whose_index_entry_is_damaged_is_lost_with_its_descendants(tmp_path):
    with make(tmp_path, disk=8) as store:
        saved(store, "abc", "xy")
        damaged = keys(store, "abc")[1]
    raw_shorten(tmp_path, damaged)

    with make(tmp_path, disk=8) as store:
        assert [fetch(store, word).num_blocks for word in ("abc", "xy")] == [1, 2]
        assert counters(store)["damaged_blocks"] == 1
        assert save(store, "abc").num_new == 2
        assert fetch(store, "abc").num_blocks == 3
        check(store)


def test_a_restart_that_finds_more_than_fits_keeps_what_was_used_last(tmp_path):
    with make(tmp_path, disk=8) as store:
        saved(store, "ab", "cd", "ef", "gh")

    with make(tmp_path, disk=4) as store:
        check(store)
        assert [fetch(store, word).num_blocks for word in ("ab", "cd", "ef", "gh")] == [0, 0, 2, 2]


def test_a_restart_makes_objects_only_for_blocks_that_are_used(tmp_path):
    with make(tmp_path, host=4, disk=16) as store:
        saved(store, "abc", "xyz", "uvw")

    with make(tmp_path, host=4, disk=16) as store:
        index = store._core.placement.index
        assert (where(store, "abc"), len(index.nodes)) == (("disk",) * 3, 0)
        assert (fetch(store, "abX").num_blocks, len(index.nodes)) == (2, 2)
        store.flush()
        assert len(index.nodes) == 2


def test_memory_alone_remembers_nothing():
    with make(host=4) as store:
        saved(store, "ab")

    with make(host=4) as store:
        assert where(store, "ab") == ()


def test_a_reopened_store_can_be_written_on(tmp_path):
    with make(tmp_path, disk=4) as store:
        saved(store, "ab")

    with make(tmp_path, disk=4) as store:
        assert save(store, "abcd").num_new == 2
        check(store)


def test_a_larger_disk_takes_up_what_a_smaller_one_held(tmp_path):
    with make(tmp_path, disk=2) as store:
        saved(store, "ab")

    with make(tmp_path, disk=64) as store:
        saved(store, "cdefgh")
        assert (fetch(store, "ab").num_blocks, fetch(store, "cdefgh").num_blocks) == (2, 6)


def test_a_smaller_disk_keeps_heads_and_drops_tails(tmp_path):
    with make(tmp_path, disk=12) as store:
        saved(store, "abcd", "abXY", "pqrs")

    with make(tmp_path, disk=6) as store:
        check(store)
        assert (used(store)["disk"], orphans(store)) == (6, [])
        assert fetch(store, "abcd").num_blocks >= 1


def test_a_smaller_disk_keeps_the_prompt_used_last(tmp_path):
    with make(tmp_path, disk=8) as store:
        saved(store, "abcd", "pqrs")

    with make(tmp_path, disk=4) as store:
        assert (fetch(store, "pqrs").num_blocks, fetch(store, "abcd").num_blocks) == (4, 0)


def test_blocks_whose_parent_is_gone_are_dropped(tmp_path):
    with make(tmp_path, disk=8) as store:
        saved(store, "abcd", "xy")
        lost = keys(store, "ab")[1]

    raw_delete(tmp_path, lost)

    with make(tmp_path, disk=8) as store:
        check(store)
        assert (fetch(store, "abcd").num_blocks, used(store)["disk"]) == (1, 3)


def test_dropped_orphans_stay_gone(tmp_path):
    with make(tmp_path, disk=8) as store:
        saved(store, "abc")
        lost = keys(store, "a")[0]
    raw_delete(tmp_path, lost)
    make(tmp_path, disk=8).close()

    with make(tmp_path, disk=8) as store:
        assert used(store)["disk"] == 0


def test_a_prompt_whose_orphans_were_dropped_can_be_put_again(tmp_path):
    with make(tmp_path, disk=8) as store:
        saved(store, "abcd")
        lost = keys(store, "a")[0]
    raw_delete(tmp_path, lost)

    with make(tmp_path, disk=8) as store:
        assert (save(store, "abcd").num_new, fetch(store, "abcd").num_blocks) == (4, 4)


# Killed in the middle

#: Forks a writer for each line it reads, since importing torch takes longer than everything else. A
#: writer flushes a word, says its process id, then puts and gets without end until it is killed.
NURSERY = """
import os
import sys

from store_helpers import fetch, make, save, settle


def write_for_ever(path, word, write):
    store = make(path, device=4, host=3, disk=24, write=write)
    save(store, word)
    settle(store)
    store.flush()
    print(os.getpid(), flush=True)
    for round in range(10**9):
        head = chr(ord("a") + round % 20)
        save(store, head + "yz")
        fetch(store, head + "y")
        if round % 7 == 0:
            fetch(store, word)


for line in sys.stdin:
    child = os.fork()
    if not child:
        write_for_ever(*line.split())
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


@pytest.fixture(scope="module")
def killed_writer():
    """Has a writer flush a word to a directory, and kills it some time after that."""
    environ = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", NURSERY]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environ, text=True, bufsize=1) as nursery:

        def run(path, word, write, delay_s):
            nursery.stdin.write(f"{path} {word} {write}\n")
            pid = int(nursery.stdout.readline())
            time.sleep(delay_s)
            os.kill(pid, signal.SIGKILL)
            assert nursery.stdout.readline() == "dead\n"

        yield run
        nursery.stdin.close()


WORDS = [chr(ord("a") + i) + "yz" for i in range(20)]


@pytest.mark.parametrize("write", ["on_eviction", "on_insertion"])
def test_a_store_killed_again_and_again_opens_and_serves_only_whole_blocks(tmp_path, killed_writer, write):
    delays_s = [0.0, 0.01, 0.02, 0.05, 0.1, 0.2]
    kept = [f"K{i}E" for i in range(len(delays_s))]
    for word, delay_s in zip(kept, delays_s, strict=True):
        killed_writer(tmp_path, word, write, delay_s)

        with make(tmp_path, device=4, host=3, disk=24) as store:
            check(store)
            assert orphans(store) == []
            for each in [*kept, *WORDS]:
                fetch(store, each)  # verifies every block it delivers
                settle(store)


@pytest.mark.parametrize("delay_s", [0.0, 0.002])
def test_what_a_flush_acknowledged_survives_a_kill(tmp_path, killed_writer, delay_s):
    killed_writer(tmp_path, "KEE", "on_eviction", delay_s)

    with make(tmp_path, device=4, host=3, disk=24) as store:
        assert fetch(store, "KEE").num_blocks == 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_many_kills(tmp_path, killed_writer, seed):
    killed_writer(tmp_path, "KEE", ("on_eviction", "on_insertion")[seed % 2], 0.01 * seed)

    with make(tmp_path, device=4, host=3, disk=24) as store:
        check(store)
        for word in ["KEE", *WORDS]:
            fetch(store, word)
            settle(store)
