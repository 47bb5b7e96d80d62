"""Several processes on one directory: they see each other's blocks, keep one cap, and outlive each other's deaths.

The other process is this file, run with a directory: it does what each line on its standard input says
and answers with a line.
"""

import os
import signal
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from store_helpers import (
    BLOCK,
    check,
    counters,
    fetch,
    keys,
    make,
    payload,
    save,
    settle,
    tokens,
    used,
    where,
)
from tier_helpers import python, raw_flip

from kvtier.errors import ConfigError, TierClosedError


class Other:
    """A store in another process."""

    def __init__(self, process):
        self.process = process
        self.pid = process.pid

    def __call__(self, *words):
        self.tell(*words)
        return self.answer()

    def tell(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def answer(self):
        said = self.process.stdout.readline()
        assert said, "the other process died"
        return said.strip()

    def kill(self):
        self.process.kill()
        self.process.wait()


@contextmanager
def another(path, disk=16, host=0):
    command = python(Path(__file__), path, str(disk), str(host), stdin=subprocess.PIPE)
    with subprocess.Popen(**command) as process:
        other = Other(process)
        try:
            assert other.answer() == "open"
            yield other
        finally:
            process.stdin.close()
            process.wait(60)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kv"


def test_what_another_process_puts_is_seen_and_read(path):
    with closing(make(path, disk=16)) as store, another(path) as other:
        assert where(store, "abc") == ()
        assert other("put", "abc") == "3"

        assert where(store, "abc") == ("disk",) * 3
        assert fetch(store, "abc").num_blocks == 3
        check(store)


def test_another_process_sees_and_reads_what_is_put_here(path):
    with closing(make(path, disk=16)) as store, another(path) as other:
        assert other("get", "abc") == "0"
        save(store, "abc")

        assert other("get", "abc") == "3"
        assert other("check") == "fine"


def test_a_block_that_both_have_put_is_stored_once(path):
    with closing(make(path, disk=16)) as store, another(path) as other:
        save(store, "abc")
        assert other("put", "abd") == "1"

        assert used(store) == {"disk": 4}
        assert where(store, "abd") == ("disk",) * 3


def test_what_another_process_evicts_is_a_miss_here(path):
    with closing(make(path, disk=4)) as store, another(path, disk=4) as other:
        save(store, "abcd")
        assert other("put", "wxyz") == "4"

        assert where(store, "abcd") == ()
        assert where(store, "wxyz") == ("disk",) * 4
        check(store)


def test_slots_that_another_process_has_emptied_are_spare_here(path):
    with closing(make(path, disk=16)) as store, another(path) as other:
        save(store, "abcd")
        raw_flip(store.tiers[0], keys(store, "abcd")[1], 4100)
        assert other("get", "abcd") == "1"  # it drops three of them, and keeps one slot back
        assert other("settle") == "fine"
        save(store, "e")

        volume = store.tiers[0]._volume
        assert volume.env.books.blocks == 2
        assert volume.slots.num - volume.slots.spare == 2 + 1


def test_a_pin_does_not_bind_another_process(path):
    with closing(make(path, disk=4)) as store, another(path, disk=4) as other:
        save(store, "abcd")
        with store.pin(tokens("abcd"), owner="here") as pinned:
            assert pinned.num_blocks == 4
            assert other("put", "wxyz") == "4"

            assert fetch(store, "abcd").num_blocks == 0
        check(store)


def test_two_processes_that_write_at_once_keep_within_one_cap(path):
    words = ["abcd", "efgh", "ijkl", "mnop", "qrst", "uvwx", "abxy", "efij"]
    with closing(make(path, disk=8)) as store, another(path, disk=8) as other:
        for turn in range(12):
            other.tell("put", words[(turn + 3) % len(words)])
            save(store, words[turn % len(words)])
            other.answer()
            assert used(store)["disk"] <= 8
            for word in words:
                fetch(store, word)

        settle(store)
        assert other("check") == "fine"
        check(store)


def test_a_chain_continued_by_another_process_is_whole(path):
    with closing(make(path, disk=16)) as store, another(path) as other:
        save(store, "ab")
        assert other("put", "abcd") == "2"

        assert fetch(store, "abcd").num_blocks == 4


def test_a_block_whose_parent_only_another_process_holds_waits_for_it(path):
    """The other's host tier keeps the head and has let the tail sink."""
    with closing(make(path, disk=16)) as store, another(path, host=4) as other:
        other("put", "abc")
        other("put", "x")
        other("settle")
        assert (where(store, "abc"), used(store)["disk"]) == ((), 1)

        other("flush")

        assert fetch(store, "abc").num_blocks == 3
        check(store)


def test_blocks_that_wait_for_a_parent_take_places_and_are_evicted_last(path):
    with closing(make(path, disk=4)) as store, another(path, disk=4, host=4) as other:
        other("put", "abc")
        other("put", "x")
        other("settle")
        strangers = used(store)["disk"]
        save(store, "pqr")
        assert (strangers, used(store)["disk"]) == (1, 4)
        save(store, "wxyz")

        assert where(store, "wxyz") == ("disk",) * 4
        check(store)


def test_another_size_is_refused_while_the_directory_is_open_and_taken_afterwards(path):
    with (
        another(path, disk=16),
        pytest.raises(ConfigError, match="room for 16 blocks, not for 8; open it with the same"),
    ):
        make(path, disk=8)

    make(path, disk=8).close()


def test_a_process_killed_while_it_writes_keeps_nobody_waiting(path):
    with closing(make(path, disk=16)) as store, another(path) as other:
        other("put", "abc")
        other.tell("hang", "xyz")
        assert other.answer() == "hangs"  # with LMDB's lock in its hands
        other.kill()

        save(store, "pqrs")
        assert fetch(store, "pqrs").num_blocks == 4
        assert fetch(store, "abc").num_blocks == 3
        assert where(store, "xyz") == ()
        check(store)


def test_a_process_killed_while_it_reads_does_not_hold_dropped_blocks_for_ever(path):
    with closing(make(path, disk=4)) as store, another(path, disk=4) as other:
        save(store, "abcd")
        assert other("hold") == "holds"  # a snapshot in which the blocks are there
        other.kill()

        for word in ("efgh", "ijkl"):
            save(store, word)
            assert fetch(store, word).num_blocks == 4


def test_a_reader_in_another_process_keeps_what_it_reads_from_being_written_over(path, monkeypatch):
    monkeypatch.setattr("kvtier.tiers.volume.READER_PATIENCE_S", 0.2)
    with closing(make(path, disk=4)) as store, another(path, disk=4) as other:
        save(store, "abcd")
        assert other("hold") == "holds"
        save(store, "efgh")

        assert where(store, "efgh") == ()
        assert other("held", "abcd") == "same"
        assert "degraded: cannot write: readers have held up" in store.stats()["tiers"]["disk"]["state"]


def test_a_process_that_joins_later_finds_everything(path):
    with closing(make(path, disk=16)) as store:
        save(store, "abc")
        with another(path) as other:
            assert other("get", "abc") == "3"


def test_who_has_fallen_behind_reads_the_index_again(path, monkeypatch):
    with closing(make(path, disk=16)) as store, another(path) as other:
        other("journal", "2")
        for word in ("a", "b", "c", "d", "e", "f"):
            other("put", word)

        assert [where(store, word) for word in "abcdef"] == [("disk",)] * 6
        check(store)
        save(store, "xy")
        assert other("get", "xy") == "2"


def test_damage_found_by_one_process_is_gone_for_the_other(path):
    with closing(make(path, disk=16)) as store, another(path) as other:
        save(store, "abc")
        assert other("get", "abc") == "3"
        raw_flip(store.tiers[0], keys(store, "abc")[1], 4100)

        assert fetch(store, "abc").num_blocks == 1
        settle(store)

        assert counters(store)["damaged_blocks.checksum"] == 1
        assert other("where", "abc") == "1"


def test_a_slot_in_quarantine_is_written_by_nobody(path):
    with closing(make(path, disk=4)) as store, another(path, disk=4) as other:
        save(store, "a")
        raw_flip(store.tiers[0], keys(store, "a")[0], 4100)
        assert fetch(store, "a").num_blocks == 0
        settle(store)
        assert other("put", "wxyz") == "4"

    with closing(make(path, disk=4)) as store:
        assert store.tiers[0]._volume.slabs.num_slots > 4
        assert fetch(store, "wxyz").num_blocks == 4


def test_without_its_lock_file_a_directory_in_use_is_not_joined(path):
    with closing(make(path, disk=16)) as store, another(path) as other:
        (path / "lock.mdb").unlink()

        with pytest.raises(subprocess.CalledProcessError, match="status 3"):
            subprocess.run(**python(Path(__file__), path, "16", "0", stdin=subprocess.DEVNULL), check=True)
        save(store, "abc")
        assert other("get", "abc") == "3"


def test_a_forked_child_is_refused_and_the_parent_goes_on(path):
    with closing(make(path, disk=16)) as store:
        save(store, "ab")
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            try:
                fetch(store, "ab")
            except TierClosedError as exc:
                os._exit(0 if "forked process" in str(exc) else 1)
            os._exit(2)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert fetch(store, "ab").num_blocks == 2


# The other process


def _say(answer):
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()


def _hang(store, word):
    """Begin to write, and stop with the records in their slots and the lock in hand."""
    tier = store.tiers[-1]

    def stop(*_):
        _say("hangs")
        signal.pause()

    tier._volume._fill = stop
    chain = store.name(tokens(word))
    tier.write(chain.keys, [payload(key) for key in chain.keys], chain.labels)


def _held(store, word, snapshot):
    """Whether blocks seen in a snapshot are still there, byte for byte."""
    volume = store.tiers[-1]._volume
    names = keys(store, word)
    places, damage = volume.places(snapshot, names)
    size = volume.slabs.layout.slot_bytes
    same = [os.pread(volume.slabs._plain, size, place)[4096 : 4096 + BLOCK] for place in places]
    assert damage is None
    return same == [payload(name).numpy().tobytes() for name in names]


def _obey(store):
    snapshots = []
    for line in sys.stdin:
        verb, *words = line.split()
        if verb == "put":
            _say(save(store, words[0]).num_new)
        elif verb == "get":
            _say(fetch(store, words[0]).num_blocks)
        elif verb == "where":
            _say(len(where(store, words[0])))
        elif verb == "hang":
            _hang(store, words[0])
        elif verb == "hold":
            reading = store.tiers[-1]._volume.env.reading()
            snapshots.append((reading.__enter__(), reading))
            _say("holds")
        elif verb == "held":
            _say("same" if _held(store, words[0], snapshots[0][0]) else "changed")
        elif verb == "journal":
            import kvtier.tiers.journal

            kvtier.tiers.journal.JOURNAL_COMMITS = int(words[0])
            _say("short")
        else:
            {"check": check, "settle": settle, "flush": lambda store: store.flush()}[verb](store)
            _say("fine")
    for _, reading in snapshots:
        reading.__exit__(None, None, None)


if __name__ == "__main__":
    try:
        opened = make(Path(sys.argv[1]), disk=int(sys.argv[2]), host=int(sys.argv[3]))
    except ConfigError:
        sys.exit(3)
    _say("open")
    with closing(opened):
        _obey(opened)
