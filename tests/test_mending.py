"""A store whose disk is taken from under it goes on with what memory holds, and has a disk again with the next call."""

import os
import shutil
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest
from store_helpers import check, fetch, make, save, saved, settle, tokens, used, where

from kvtier.tiers.disk import LMDBTier


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kv"


@pytest.fixture
def store(path):
    """Three blocks in memory, and below them three on disk."""
    with closing(make(path, host=4, disk=16)) as opened:
        saved(opened, "xyz", "abc")
        assert (where(opened, "xyz"), where(opened, "abc")) == (("disk",) * 3, ("host",) * 3)
        yield opened


def state(store):
    return store.stats()["tiers"]["disk"]["state"]


def remove(path):
    shutil.rmtree(path)


def cut(path):
    os.truncate(path / "data.mdb", 3 * 4096)


@pytest.mark.parametrize(("harm", "said"), [(remove, "was removed while it was open"), (cut, "was cut to")])
def test_a_disk_taken_from_under_a_store_is_a_miss_and_then_works_again(store, path, harm, said, caplog):
    harm(path)

    assert fetch(store, "xyz").num_blocks == 0
    assert fetch(store, "abc").num_blocks == 3
    assert where(store, "xyz") == ()
    assert said in next(line for line in caplog.messages if line.startswith("disk: degraded, it cannot read"))
    assert (state(store), used(store)) == ("ok", {"host": 3, "disk": 0})

    save(store, "pqr")
    store.flush()
    assert fetch(store, "pqr").num_blocks == 3
    check(store)


def test_a_write_reported_after_its_file_was_taken_away_is_not_believed(store, path, monkeypatch):
    written, go_on, write = threading.Event(), threading.Event(), LMDBTier.write

    def write_and_wait(*args):
        write(*args)
        written.set()
        assert go_on.wait(60)

    monkeypatch.setattr(LMDBTier, "write", write_and_wait)
    flusher = threading.Thread(target=store.flush)
    flusher.start()
    assert written.wait(60)
    remove(path)
    for _ in range(2):  # the first one finds it gone, the second opens it anew
        assert fetch(store, "xyz").num_blocks == 0
    go_on.set()
    flusher.join()

    check(store)
    assert (state(store), used(store)) == ("ok", {"host": 3, "disk": 0})
    assert store.flush().num_blocks == 3
    check(store)


def test_what_memory_held_is_on_the_new_disk_after_a_restart(store, path):
    remove(path)
    fetch(store, "xyz")
    assert store.flush().num_blocks == 3
    store.close()

    with closing(make(path, host=4, disk=16)) as store:
        assert fetch(store, "abc").num_blocks == 3
        assert fetch(store, "xyz").num_blocks == 0


def test_a_disk_that_cannot_come_back_disturbs_neither_gets_nor_puts(store, path, monkeypatch):
    remove(path)
    path.write_text("in the way")
    for _ in range(4):
        assert fetch(store, "xyz").num_blocks == 0
        assert fetch(store, "abc").num_blocks == 3
    assert "opening it anew failed" in state(store)
    assert save(store, "uvw").num_refused == 0
    settle(store)
    assert fetch(store, "uvw").num_blocks == 3
    assert store.match(tokens("xyz")).stopped_by == "unavailable"

    path.unlink()
    monkeypatch.setattr("kvtier.core.time", SimpleNamespace(monotonic=lambda: 1e12))  # every wait is over
    save(store, "pqr")
    store.flush()
    assert fetch(store, "pqr").num_blocks == 3
    assert state(store) == "ok"
    check(store)
