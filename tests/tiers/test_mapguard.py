"""A page of a map that is gone: zeros where the map is watched, the end of the process elsewhere.

What may end a process is tried in one of its own.
"""

import signal
import subprocess
from pathlib import Path

import pytest
from tier_helpers import python, run_python

from kvtier.tiers import mapguard
from kvtier.tiers.mapguard import SUPPORTED, MapGuard

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="Linux on x86-64 and AArch64 only")

MAPS = """
import ctypes, faulthandler, mmap, os, signal, sys, threading
from pathlib import Path
import numpy as np
from kvtier.tiers.mapguard import MapGuard

PAGE = mmap.PAGESIZE

def mapped(name, pages):
    path = Path(sys.argv[1], name)
    path.write_bytes(b"x" * pages * PAGE)
    with path.open("r+b") as file:
        seen = np.frombuffer(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), np.uint8)
    return path, seen

path, seen = mapped("watched", 400)
guard = MapGuard()
"""


def died(code, *args):
    """The signal that ended a process, and what it said."""
    done = subprocess.run(**python("-c", MAPS + code, *args, stderr=subprocess.PIPE), check=False, timeout=120)
    assert done.returncode < 0, done.stdout
    return signal.Signals(-done.returncode), done.stderr


def test_pages_that_were_cut_off_are_zeros_and_those_before_are_as_they_were(tmp_path):
    code = """
guard.watch_maps_of(path)
assert not guard.hit and seen.all()
os.truncate(path, 3 * PAGE)
assert not guard.hit
assert seen[: 3 * PAGE].all() and not guard.hit
assert not seen[3 * PAGE :].any() and guard.hit
print(len(seen) // PAGE)
"""
    assert run_python(MAPS + code, tmp_path) == "400\n"


def test_a_map_is_watched_by_its_addresses_as_well(tmp_path):
    code = """
guard.watch(seen.ctypes.data + 10 * PAGE, 5 * PAGE)
os.truncate(path, 10 * PAGE)
print(int(seen[10 * PAGE]), int(seen[15 * PAGE - 1]), guard.hit)
"""
    assert run_python(MAPS + code, tmp_path) == "0 0 True\n"
    for outside in (9, 15):
        code = f"""
guard.watch(seen.ctypes.data + 10 * PAGE, 5 * PAGE)
os.truncate(path, 9 * PAGE)
seen[{outside} * PAGE]
"""
        assert died(code, tmp_path)[0] == signal.SIGBUS


def test_many_threads_may_meet_pages_that_are_gone_at_once(tmp_path):
    code = """
guard.watch_maps_of(path)
os.truncate(path, 0)
import torch
sums = []
def look(start):
    sums.append(int(seen[start:].sum()))
    out = torch.ones(len(seen), dtype=torch.uint8)
    out.copy_(torch.from_numpy(seen))  # on threads that Python does not know
    sums.append(int(out.sum()))
threads = [threading.Thread(target=look, args=(i * PAGE,)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sums == [0] * 16, guard.hit)
"""
    assert run_python(MAPS + code, tmp_path) == "True True\n"


def test_only_the_guard_of_the_map_is_hit(tmp_path):
    code = """
other_path, other = mapped("other", 2)
others = MapGuard()
guard.watch_maps_of(path)
others.watch_maps_of(other_path)
os.truncate(other_path, 0)
print(int(other[PAGE]), guard.hit, others.hit)
"""
    assert run_python(MAPS + code, tmp_path) == "0 False True\n"


@pytest.mark.parametrize("release", ["", "seen.ctypes.data"])
def test_a_map_that_was_released_is_not_watched_any_more(tmp_path, release):
    code = f"""
guard.watch_maps_of(path)
guard.release({release})
os.truncate(path, 0)
seen[0]
"""
    assert died(code, tmp_path)[0] == signal.SIGBUS


def test_to_release_one_map_leaves_the_others(tmp_path):
    code = """
other_path, other = mapped("other", 2)
others = MapGuard()
others.watch_maps_of(other_path)
guard.watch_maps_of(path)
guard.watch_maps_of(other_path)
guard.release(other.ctypes.data)
os.truncate(path, 0)
os.truncate(other_path, 0)
print(int(seen[0]), int(other[0]), guard.hit, others.hit)
"""
    assert run_python(MAPS + code, tmp_path) == "0 0 True True\n"


def test_a_page_that_is_gone_from_another_map_ends_the_process_as_it_did(tmp_path):
    code = """
faulthandler.enable()
guard.watch_maps_of(path)
another_path, another = mapped("another", 2)
MapGuard().watch_maps_of(another_path)
other_path, other = mapped("other", 2)
os.truncate(other_path, 0)
other[0]
"""
    ended_by, said = died(code, tmp_path)

    assert ended_by == signal.SIGBUS
    assert "Bus error" in said, "whoever was told of it before is still told"


def test_a_signal_that_somebody_sends_ends_the_process(tmp_path):
    code = """
guard.watch_maps_of(path)
signal.raise_signal(signal.SIGBUS)
"""
    assert died(code, tmp_path)[0] == signal.SIGBUS


def test_a_handler_from_before_is_still_called(tmp_path):
    code = """
signal.signal(signal.SIGBUS, lambda *_: (print("told", flush=True), os._exit(0)))
guard.watch_maps_of(path)
os.kill(os.getpid(), signal.SIGBUS)
signal.pause()
"""
    assert run_python(MAPS + code, tmp_path) == "told\n"


@pytest.mark.parametrize("maps", ["/proc/self/maps", "/proc/self/none"])
def test_nothing_is_watched_where_no_such_map_is_found(tmp_path, monkeypatch, maps):
    watched = mapguard._state.watched
    monkeypatch.setattr(mapguard, "_MAPS", Path(maps))

    MapGuard().watch_maps_of(tmp_path / "none")

    assert mapguard._state.watched == watched


BLIND = """
import os, sys, threading, time
from unittest.mock import patch
from store_helpers import BLOCK, TOKENS, check, fetch, make, make_over, memory, save, saved, settle
from kvtier.tiers.disk import LMDBTier
from kvtier.tiers.environment import Environment

# As if the file were cut in the instant after each look at its length.
patch.object(Environment, "lost", lambda env: "a page is gone" if env.guard.hit else None).start()
"""


@pytest.mark.parametrize("page_cache", ["keep", "bypass"])
@pytest.mark.parametrize("pages", [0, 1, 3, 6, 20])
def test_a_store_whose_file_is_cut_behind_its_back_serves_nothing_wrong_and_goes_on(tmp_path, pages, page_cache):
    code = """
pages, page_cache = int(sys.argv[2]), sys.argv[3]
disk = LMDBTier(
    "disk", sys.argv[1], capacity_bytes=64 * BLOCK, block_bytes=BLOCK, block_tokens=TOKENS, page_cache=page_cache
)
store = make_over(memory("host", 4), disk)
words = ["abcd", "abef", "pqrs", "vwxyz"]
saved(store, *words)
store.flush()
done, wrong = threading.Event(), []
def look():
    while not done.is_set():
        for word in words:
            try:
                fetch(store, word)
            except BaseException as exc:
                wrong.append(repr(exc))
                raise
lookers = [threading.Thread(target=look) for _ in range(3)]
for each in lookers: each.start()
os.truncate(sys.argv[1] + "/data.mdb", pages * 4096)
for word in ("klmn", "ghij"):
    save(store, word)
    settle(store)
done.set()
for each in lookers: each.join()
for word in words:
    fetch(store, word)
deadline = time.monotonic() + 60  # a tier that failed twice is asked again after a while
while store.stats()["tiers"]["disk"]["state"] != "ok" or fetch(store, "uvwx").num_blocks < 4:
    assert time.monotonic() < deadline
    time.sleep(0.05)
    saved(store, "uvwx")
check(store)
assert not wrong, wrong
state = store.stats()["tiers"]["disk"]["state"]
store.close()
print(state)
"""
    assert run_python(BLIND + code, tmp_path / "kv", pages, page_cache) == "ok\n"


def test_nothing_is_watched_any_more_once_a_store_is_closed(tmp_path):
    code = """
from tier_helpers import disk, put
from kvtier.tiers.mapguard import _state

tier = disk(sys.argv[1])
put(tier, 1)
print(len(_state.watched))
tier._volume.slabs.close()
print(len(_state.watched))
tier.close()
print(len(_state.watched))
"""
    assert run_python(BLIND + code, tmp_path / "kv") == "2\n1\n0\n"


def test_a_command_that_looks_into_a_file_says_that_a_page_is_gone(tmp_path):
    code = """
from pathlib import Path
from contextlib import suppress
import lmdb
from tier_helpers import disk, put
from kvtier.doctor.reading import _opened
from kvtier.errors import TierUnavailableError
from kvtier.tiers.mapguard import _state

tier = disk(sys.argv[1])
put(tier, 1, 2, 3)
tier.close()
try:
    with _opened(Path(sys.argv[1]), readonly=True, lock=False) as env:
        index = env.open_db(b"index", create=False)
        os.truncate(sys.argv[1] + "/data.mdb", 2 * 4096)
        with suppress(lmdb.Error), env.begin(db=index) as txn:
            print(list(txn.cursor()))
except TierUnavailableError as exc:
    print(exc)
print(len(_state.watched))
"""
    said = run_python(BLIND + code, tmp_path / "kv")

    assert "data.mdb: a page could not be read, so what was found is worth nothing" in said
    assert said.endswith("\n0\n")


def test_what_was_made_of_zeros_is_not_committed_and_not_returned(tmp_path):
    code = """
from tier_helpers import disk, put
from kvtier.errors import TierUnavailableError

tier = disk(sys.argv[1])
put(tier, 1, 2, 3)
env = tier._volume.env
said = []
try:
    with env.reading() as txn:
        env.guard.hit = True
    said.append("read")
except TierUnavailableError as exc:
    said.append(str(exc))
env.guard.hit = False
number = env.last_commit
try:
    with env.writing(), env.change() as commit:
        commit.put(b"new", b"made of zeros", env.meta)
        env.guard.hit = True
    said.append("written")
except TierUnavailableError as exc:
    said.append(str(exc))
env.guard.hit = False
assert env.last_commit == number
print(*said, sep="\\n")
"""
    said = run_python(BLIND + code, tmp_path / "kv")

    assert said.count("a page is gone") == 2, said


def test_a_page_that_could_not_be_read_is_why_a_directory_is_opened_anew(tmp_path):
    code = """
patch.stopall()
store = make(sys.argv[1], host=4, disk=64)
saved(store, "abcd", "pqrs")
env = store.tiers[-1]._volume.env
env.guard.hit = True
print(env.lost())
fetch(store, "abcd")
fetch(store, "pqrs")
assert store.tiers[-1]._volume.env is not env
saved(store, "uvwx", "klmn")
assert fetch(store, "uvwx").num_blocks == 4
check(store)
store.close()
"""
    assert run_python(BLIND + code, tmp_path / "kv").endswith("data.mdb could not be read\n")


def test_two_processes_guard_their_own_maps(tmp_path):
    code = """
guard.watch_maps_of(path)
os.truncate(path, 0)
child = os.fork()
value = int(seen[0])
if child == 0:
    os._exit(10 + value + guard.hit)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), value, guard.hit)
"""
    assert run_python(MAPS + code, tmp_path) == "11 0 True\n"
