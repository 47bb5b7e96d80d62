"""Who has a directory open, told by locks of the kernel: two openers, here or in another process."""

import errno
import fcntl
import json
import os
import signal
import subprocess
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tier_helpers import disk, held, put, python

from kvtier.errors import ConfigError, TierUnavailableError
from kvtier.tiers import directory as module
from kvtier.tiers.directory import Directory


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tier"


def opened(path):
    """A directory, entered; and whether it was alone."""
    made = Directory("nvme", path)
    with made.opening():
        alone = made.enter()
    return made, alone


def alone_now(directory):
    with directory.alone() as alone:
        return alone


ANOTHER = """
import sys
from pathlib import Path
from kvtier.tiers.directory import Directory
directory = Directory("nvme", Path(sys.argv[1]))
with directory.opening():
    if sys.argv[2] == "before":
        print("opening", flush=True)
        sys.stdin.readline()
    print("alone" if directory.enter() else "joined", flush=True)
    if sys.argv[2] == "opening":
        sys.stdin.readline()
if sys.argv[2] == "exclusive":
    with directory.opening():
        print(directory.exclusive(), flush=True)
sys.stdin.readline()
"""


@contextmanager
def another(path, doing=""):
    """Another process that has entered; ends, and leaves by ending, with the block."""
    with subprocess.Popen(**python("-c", ANOTHER, path, doing, stdin=subprocess.PIPE)) as process:
        process.said = process.stdout.readline().strip()
        yield process
        process.kill()


def test_the_first_is_alone_and_the_second_is_not(path):
    first, alone = opened(path)
    second, also = opened(path)

    assert (alone, also) == (True, False)
    first.leave()
    second.leave()


def test_another_process_counts_until_it_dies(path):
    with another(path) as process:
        made, alone = opened(path)
        assert (process.said, alone, alone_now(made)) == ("alone", False, False)
        process.send_signal(signal.SIGKILL)
        process.wait(30)

        assert alone_now(made)
    made.leave()


def test_asking_whether_one_is_alone_keeps_nobody_out(path):
    made, _ = opened(path)
    assert alone_now(made)

    with another(path) as process:
        assert process.said == "joined"
        assert not alone_now(made)
        assert not alone_now(made)  # and the lock is still there afterwards
    made.leave()


def test_one_who_asks_keeps_its_lock_though_others_are_there(path):
    made, _ = opened(path)
    with another(path):
        assert not alone_now(made)
    other, alone = opened(path)

    assert not alone
    made.leave()
    other.leave()


def test_who_is_about_to_open_counts(path):
    made, _ = opened(path)
    with another(path, "opening") as process:
        assert process.said == "joined"
        assert not alone_now(made)
    made.leave()


def test_who_has_not_the_file_open_yet_and_is_about_to_counts(path):
    made, _ = opened(path)
    with another(path, "before") as process:
        assert process.said == "opening"
        assert not alone_now(made)
    made.leave()


def test_who_has_a_directory_for_itself_lets_nobody_in(path):
    made, _ = opened(path)
    with made.opening():
        assert made.exclusive()

    with pytest.raises(ConfigError, match="is being repaired or compacted; try again when that is done"):
        opened(path)
    made.leave()
    opened(path)[0].leave()


def test_where_others_are_nobody_has_a_directory_for_itself(path):
    made, _ = opened(path)
    with another(path) as process:
        with made.opening():
            assert not made.exclusive()
        process.kill()
        process.wait(30)
        other, alone = opened(path)

        assert not alone, "an attempt to have it alone loses no lock"
    made.leave()
    other.leave()


def test_another_process_that_has_it_for_itself_keeps_others_out(path):
    with another(path, "exclusive") as process:
        assert process.stdout.readline().strip() == "True"

        with pytest.raises(ConfigError, match="being repaired"):
            disk(path)


def test_leaving_twice_is_leaving(path):
    made, _ = opened(path)
    made.leave()
    made.leave()

    other, alone = opened(path)
    assert alone
    other.leave()


def test_a_forked_child_that_lives_on_keeps_no_lock_of_one_who_left(path):
    made, _ = opened(path)
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        made.leave()
        other, alone = opened(path)
        assert alone
        other.leave()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# Taking turns


def test_openers_take_turns_and_one_waits_no_longer_than_it_has_patience(path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    with another(path, "opening") as process:
        with pytest.raises(ConfigError, match=r"has been opened by another process for 0\.05 s"):
            disk(path)
        process.stdin.write("\n")
        process.stdin.flush()
        monkeypatch.setattr(module, "_PATIENCE_S", 60.0)

        opened(path)[0].leave()


def test_a_turn_ends_though_a_forked_child_has_the_same_descriptor(path):
    made = Directory("nvme", path)
    with made.opening():
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        turn = os.open(path, os.O_RDONLY)
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(turn)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_turn_ends_with_an_error_too(path):
    made = Directory("nvme", path)
    with pytest.raises(ZeroDivisionError), made.opening():
        raise ZeroDivisionError

    with made.opening():
        pass


# The data file


def test_a_new_directory_is_made_for_its_owner_alone(path):
    made, _ = opened(path / "below")

    assert [each.stat().st_mode & 0o777 for each in (path / "below", made.data)] == [0o700, 0o600]
    made.leave()


def test_what_was_removed_or_replaced_is_not_at_its_place(path):
    made, _ = opened(path)
    assert made.is_at_its_place()
    made.data.rename(path / "elsewhere")
    assert not made.is_at_its_place()
    made.data.touch()
    assert not made.is_at_its_place()

    (path / "elsewhere").rename(made.data)
    assert made.is_at_its_place()
    made.leave()


def test_a_file_set_aside_is_kept_beside_a_new_one_that_is_open(path, caplog):
    made, _ = opened(path)
    made.data.write_bytes(b"damaged")
    with made.opening():
        made.set_aside("a page is in use twice")

    assert (path / "data.mdb.damaged").read_bytes() == b"damaged"
    assert (made.data.read_bytes(), made.is_at_its_place()) == (b"", True)
    assert "the store starts afresh: a page is in use twice" in caplog.text
    other, alone = opened(path)
    assert not alone
    made.leave()
    other.leave()


def test_a_file_that_cannot_be_set_aside_makes_the_tier_unavailable(path):
    made, _ = opened(path)
    (path / "data.mdb.damaged").mkdir()

    with made.opening(), pytest.raises(TierUnavailableError, match="is damaged and cannot be set aside"):
        made.set_aside("why")
    assert made.data.exists()


def test_a_data_file_that_is_a_link_is_not_followed(path, tmp_path):
    made = Directory("nvme", path)
    made.data.symlink_to(tmp_path / "victim")

    with made.opening(), pytest.raises(ConfigError, match=r"cannot be opened: .*; who made it"):
        made.enter()
    assert not (tmp_path / "victim").exists()


# The marker


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"7"])
def test_a_marker_that_cannot_be_read_says_nothing(path, content):
    made = Directory("nvme", path)
    (path / "kvtier.lock").write_bytes(content)

    assert made.marker() == {}


def test_a_marker_says_what_the_directory_holds_and_which_lock_file_is_its(path):
    made, _ = opened(path)
    (path / "lock.mdb").touch()
    (path / "kvtier.lock").write_text("much longer than what is to be written" * 10)
    made.mark({"format": 3})

    assert made.marker() == {"format": 3, "lock": (path / "lock.mdb").stat().st_ino}
    made.check_joinable()
    made.leave()


def test_a_marker_that_is_a_link_is_not_followed(path, tmp_path):
    made, _ = opened(path)
    (path / "lock.mdb").touch()
    (path / "kvtier.lock").symlink_to(tmp_path / "victim")

    with pytest.raises(ConfigError, match="cannot be written"):
        made.mark({})
    assert not (tmp_path / "victim").exists()
    made.leave()


@pytest.mark.parametrize("lost", ["lock.mdb", "kvtier.lock", "both", "other"])
def test_where_the_lock_file_is_not_the_one_in_use_nobody_joins(path, lost):
    with closing(disk(path)) as tier:
        put(tier, 1)
        if lost == "other":
            (path / "lock.mdb").rename(path / "elsewhere")
            (path / "lock.mdb").touch()
        else:
            for name in ("lock.mdb", "kvtier.lock") if lost == "both" else (lost,):
                (path / name).unlink()

        with pytest.raises(ConfigError, match="its lock file or marker was removed meanwhile; close the stores"):
            tier._volume.env.directory.check_joinable()

    with closing(disk(path)) as tier:
        assert held(tier) == [1]


@pytest.mark.parametrize("before", [None, b"what a dead process left"])
def test_a_lock_file_made_anew_is_empty_and_has_all_its_space(path, before):
    made = Directory("nvme", path)
    if before is not None:
        (path / "lock.mdb").write_bytes(before)
    made.renew_lock_file(8192)

    state = (path / "lock.mdb").stat()
    assert ((path / "lock.mdb").read_bytes(), state.st_mode & 0o777) == (bytes(8192), 0o600)
    assert state.st_blocks * 512 >= 8192


def test_a_new_directory_is_marked_before_there_is_a_lock_file(path):
    made = Directory("nvme", path)
    made.claim({"format": 3})

    assert made.marker() == {"format": 3, "lock": None}


def test_while_one_is_told_to_be_alone_nobody_comes_in(path):
    made, _ = opened(path)
    with made.alone() as alone:
        assert alone
        with pytest.raises(ConfigError, match="being repaired"):
            Directory("nvme", path).enter()
    other, _ = opened(path)
    made.leave()
    other.leave()


def test_one_whose_directory_is_gone_cannot_tell(path):
    made, _ = opened(path)
    path.rename(path.with_name("away"))

    assert not alone_now(made)
    made.leave()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC, errno.EIO])
def test_what_may_pass_is_not_the_directorys_fault(path, monkeypatch, code):
    made = Directory("nvme", path)

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    with made.opening(), monkeypatch.context() as patched:
        patched.setattr(module.os, "open", refuse)
        for call in (made.enter, lambda: made.mark({})):
            with pytest.raises(OSError, match=os.strerror(code)) as caught:
                call()
            assert not isinstance(caught.value, ConfigError)


def test_a_directory_with_kvtiers_data_and_somebodys_note_is_kvtiers(path):
    with closing(disk(path)) as tier:
        put(tier, 1)
    Path(path / "note.txt").write_text("mine")

    with closing(disk(path)) as tier:
        assert held(tier) == [1]
    assert json.loads((path / "kvtier.lock").read_text())["block_bytes"] == 4096
