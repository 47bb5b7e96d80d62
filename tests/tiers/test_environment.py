"""Opening a directory: what is refused, by which words, and that nothing was changed by refusing it."""

import json
import os
import re
import signal
import stat
from contextlib import closing
from pathlib import Path

import lmdb
import pytest
from tier_helpers import BLOCK, disk, held, put, raw, run_python, whole

from kvtier.errors import ConfigError, SpecMismatchError, TierClosedError, TierUnavailableError
from kvtier.format import FORMAT_VERSION
from kvtier.tiers.directory import file_system_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tier"


@pytest.fixture
def filled(path):
    """A directory with three blocks, closed."""
    with closing(disk(path)) as tier:
        put(tier, 1, 2, 3)
    return path


def data_of(path):
    return (path / "data.mdb").read_bytes()


def test_a_file_in_the_place_of_the_directory_is_refused(path):
    path.write_text("mine")

    with pytest.raises(ConfigError, match=f"nvme: {path} is a file; the disk tier needs a directory"):
        disk(path)

    assert path.read_text() == "mine"


def test_a_directory_below_a_file_is_refused(path):
    path.write_text("mine")

    with pytest.raises(ConfigError, match="cannot be used: Not a directory"):
        disk(path / "below")


AS_NOBODY = """
import os, sys
from tier_helpers import disk
from kvtier.errors import ConfigError

if os.getuid() == 0:
    os.setuid(65534)
try:
    disk(sys.argv[1])
except ConfigError as exc:
    print(exc)
"""


def foreign_directory(tmp_path, mode):
    """A directory that another user made, on a path that everybody can walk."""
    place = tmp_path / "foreign"
    place.mkdir()
    place.chmod(mode)
    for parent in place.parents[:3]:
        parent.chmod(0o755)
    return place


@pytest.mark.parametrize("below", ["", "new"])
def test_a_directory_that_cannot_be_written_is_refused(tmp_path, below):
    place = foreign_directory(tmp_path, 0o555) / below

    said = run_python(AS_NOBODY, place)

    assert re.match(f"nvme: {place} (belongs to user 0|cannot be used: Permission denied)", said)


def test_a_directory_that_cannot_be_entered_is_refused(tmp_path):
    place = foreign_directory(tmp_path, 0o000) / "new"

    said = run_python(AS_NOBODY, place)
    place.parent.chmod(0o700)

    assert said.startswith(f"nvme: {place} cannot be used: Permission denied; choose a directory")


def test_a_lock_file_that_cannot_be_opened_is_refused(path):
    (path / "kvtier.lock").mkdir(parents=True)

    with pytest.raises(ConfigError, match=r"kvtier\.lock cannot be opened: not a file"):
        disk(path)


def test_a_directory_with_somebodys_files_is_refused_and_left_alone(path):
    path.mkdir()
    (path / "thesis.tex").write_text("mine")

    with pytest.raises(ConfigError, match=r"is not kvtier's: it holds 'thesis\.tex'; choose an empty directory"):
        disk(path)

    assert list(path.iterdir()) == [path / "thesis.tex"]


def test_an_lmdb_environment_of_somebody_else_is_refused_and_stays_the_same(path):
    path.mkdir()
    with raw(path) as env, env.begin(write=True) as txn:
        txn.put(b"key", b"value", db=env.open_db(b"theirs", txn=txn))
    before = data_of(path)

    with pytest.raises(ConfigError, match="holds an LMDB environment that is not kvtier's; choose another directory"):
        disk(path)

    assert data_of(path) == before


@pytest.mark.parametrize("value", [None, b"\xff", b"not json", b"[1]", b'{"other": 1}'])
def test_an_lmdb_environment_with_a_database_called_meta_is_not_yet_kvtiers(path, value):
    path.mkdir()
    with raw(path) as env, env.begin(write=True) as txn:
        meta = env.open_db(b"meta", txn=txn)
        if value is not None:
            txn.put(b"format", value, db=meta)
    before = data_of(path)

    with pytest.raises(ConfigError, match="is not kvtier's"):
        disk(path)

    assert data_of(path) == before


def test_an_lmdb_environment_with_plain_values_is_refused(path):
    path.mkdir()
    with raw(path) as env, env.begin(write=True) as txn:
        txn.put(b"meta", b"a value, not a database")

    with pytest.raises(ConfigError, match="is not kvtier's"):
        disk(path)


def test_a_data_file_that_is_not_lmdbs_is_refused_and_stays_the_same(path):
    path.mkdir()
    (path / "data.mdb").write_bytes(b"a database of another kind" * 1000)

    with pytest.raises(ConfigError, match=r"is not an LMDB file kvtier can read: .*; choose another directory"):
        disk(path)

    assert data_of(path) == b"a database of another kind" * 1000


def test_a_directory_refused_once_can_be_used_once_it_is_emptied(path):
    path.mkdir()
    (path / "data.mdb").write_bytes(b"a database of another kind" * 1000)
    with pytest.raises(ConfigError):
        disk(path)
    (path / "data.mdb").unlink()

    with closing(disk(path)) as tier:
        put(tier, 1)


def test_a_newer_format_is_refused_by_both_numbers_and_stays_the_same(filled):
    newer = FORMAT_VERSION + 1
    with raw(filled) as env, env.begin(write=True) as txn:
        txn.put(b"format", json.dumps({"format": newer}).encode(), db=env.open_db(b"meta", txn=txn))
    before = data_of(filled)

    with pytest.raises(ConfigError, match=f"has format {newer}, this kvtier reads {FORMAT_VERSION}; use the release"):
        disk(filled)

    assert data_of(filled) == before


def test_another_block_size_is_refused_and_the_blocks_are_still_there(filled):
    with pytest.raises(SpecMismatchError, match=f"holds blocks of {BLOCK} bytes in slots of 8192, expected"):
        disk(filled, block_bytes=2 * BLOCK)

    with closing(disk(filled)) as tier:
        assert whole(tier, 1, 2, 3)


def test_another_header_length_is_refused(filled):
    with pytest.raises(SpecMismatchError):
        disk(filled, block_tokens=2000)


def test_room_for_less_than_one_block_is_refused_before_anything_is_made(path):
    with pytest.raises(ConfigError, match=f"nvme: {BLOCK - 1} bytes hold no block of {BLOCK} bytes"):
        disk(path, block_bytes=BLOCK, blocks=(BLOCK - 1) / BLOCK)

    assert not path.exists()


def test_a_directory_open_in_this_process_is_refused_by_its_number(path):
    with closing(disk(path)) as tier:
        with pytest.raises(
            ConfigError, match=rf"is open in this process \(pid {os.getpid()}\) already; use that store"
        ):
            disk(path)

        put(tier, 1)
        assert whole(tier, 1)


def test_a_directory_can_be_opened_again_after_close(filled):
    with closing(disk(filled)) as tier:
        assert held(tier) == [1, 2, 3]


def test_a_forked_child_that_lives_on_does_not_keep_the_directory(path):
    tier = disk(path)
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        tier.close()

        with closing(disk(path)) as again:
            put(again, 1)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_forked_child_is_refused_and_may_close(path):
    with closing(disk(path)) as tier:
        put(tier, 1)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            refused = False
            try:
                whole(tier, 1)
            except TierClosedError:
                refused = True
            tier.close()
            os._exit(0 if refused else 1)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert whole(tier, 1)
        with pytest.raises(ConfigError, match="is open in this process"):
            disk(path)


def set_aside(path):
    """Bytes of the damaged file that was moved out of the way; None if there is none."""
    damaged = path / "data.mdb.damaged"
    return damaged.read_bytes() if damaged.exists() else None


@pytest.mark.parametrize("size", [1, 100, 4096, 5000, 2 * 4096, 3 * 4096, 8 * 4096])
def test_a_data_file_cut_short_is_set_aside_and_the_store_starts_afresh(filled, size, caplog):
    os.truncate(filled / "data.mdb", size)
    before = data_of(filled)

    with closing(disk(filled)) as tier:
        assert held(tier) == []
        put(tier, 7)
        assert whole(tier, 7)

    assert set_aside(filled) == before
    assert "is damaged and set aside as data.mdb.damaged; the store starts afresh" in caplog.text


def test_of_damaged_files_the_newest_is_kept(filled):
    for size in (5000, 4096):
        os.truncate(filled / "data.mdb", size)
        disk(filled).close()

    assert len(set_aside(filled)) == 4096


def test_a_damaged_file_of_a_newer_release_is_refused_and_stays_the_same(filled):
    (filled / "kvtier.lock").write_text(json.dumps({"format": FORMAT_VERSION + 1}))
    os.truncate(filled / "data.mdb", 5000)
    before = data_of(filled)

    with pytest.raises(ConfigError, match=f"has format {FORMAT_VERSION + 1}, this kvtier reads {FORMAT_VERSION}"):
        disk(filled)

    assert (data_of(filled), set_aside(filled)) == (before, None)


def test_a_directory_without_its_marker_is_opened_all_the_same(filled):
    (filled / "kvtier.lock").unlink()

    with closing(disk(filled)) as tier:
        assert whole(tier, 1, 2, 3)


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 2000])
def test_a_reader_table_that_is_lost_or_garbage_is_made_anew(filled, garbage):
    (filled / "lock.mdb").write_bytes(garbage)

    with closing(disk(filled)) as tier:
        assert whole(tier, 1, 2, 3)


def test_the_reader_table_has_all_its_space_from_the_start(filled):
    with closing(disk(filled)):
        table = (filled / "lock.mdb").stat()
        assert table.st_blocks * 512 >= table.st_size > 0


def test_another_capacity_is_noted_when_nobody_else_has_it_open(filled):
    with closing(disk(filled, 5)) as tier:
        assert tier._volume.env.books.capacity_blocks == 5
    with closing(disk(filled, 7)) as tier:
        assert tier._volume.env.books.capacity_blocks == 7
        assert whole(tier, 1, 2, 3)


def test_a_data_file_cut_behind_its_last_page_is_whole(filled):
    with raw(filled) as env:
        needed = (env.info()["last_pgno"] + 1) * 4096
    os.truncate(filled / "data.mdb", needed)

    with closing(disk(filled)) as tier:
        assert whole(tier, 1, 2, 3)


def test_an_empty_data_file_is_a_new_environment(path):
    path.mkdir()
    (path / "data.mdb").touch()

    with closing(disk(path)) as tier:
        put(tier, 1)
        assert whole(tier, 1)


def test_an_environment_killed_before_its_first_commit_is_a_new_one(path):
    path.mkdir()
    lmdb.open(str(path), max_dbs=10).close()

    with closing(disk(path)) as tier:
        put(tier, 1)
        assert whole(tier, 1)


def test_what_a_power_cut_leaves_of_the_first_commit_is_set_aside(path, monkeypatch):
    def cut(*_):
        raise TierUnavailableError("nvme", "no power")

    with monkeypatch.context() as patch:
        patch.setattr("kvtier.tiers.environment.Environment._open_lmdb", cut)
        with pytest.raises(TierUnavailableError, match="no power"):
            disk(path)
    (path / "data.mdb").write_bytes(b"half a page")

    with closing(disk(path)) as tier:
        put(tier, 1)
        assert whole(tier, 1)
    assert set_aside(path) == b"half a page"


def test_files_and_directory_belong_to_their_owner_alone(filled):
    def mode(place):
        return stat.S_IMODE(place.stat().st_mode)

    assert mode(filled) == 0o700
    assert {entry.name: mode(entry) for entry in filled.iterdir()} == {
        "data.mdb": 0o600,
        "lock.mdb": 0o600,
        "kvtier.lock": 0o600,
    }


def test_a_home_directory_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    with closing(disk("~/cache")):
        assert (tmp_path / "cache" / "data.mdb").exists()


def without_places(path):
    """An environment that is sound and lacks a database."""
    with raw(path) as env:
        places = env.open_db(b"places")
        with env.begin(write=True) as txn:
            txn.drop(places)


def test_an_environment_without_all_its_databases_is_damaged(filled):
    without_places(filled)

    with closing(disk(filled)) as tier:
        assert held(tier) == []
    assert set_aside(filled) is not None


@pytest.mark.parametrize("books", [b"", b"12345678" * 2, b"12345678" * 4])
def test_an_environment_whose_books_are_missing_or_of_another_length_is_damaged(filled, books):
    with raw(filled) as env:
        meta = env.open_db(b"meta")
        with env.begin(write=True) as txn:
            txn.delete(b"books", db=meta)
            if books:
                txn.put(b"books", books, db=meta)

    with closing(disk(filled)) as tier:
        assert held(tier) == []
    assert set_aside(filled) is not None


def test_an_environment_without_all_its_databases_and_no_marker_is_refused_by_what_is_missing(filled):
    without_places(filled)
    (filled / "kvtier.lock").unlink()

    with pytest.raises(ConfigError, match="is incomplete"):
        disk(filled)

    assert set_aside(filled) is None


@pytest.mark.parametrize("about", [b"{", b"[" * 5000, b'{"format": 3}', b'{"format": 3, "block_bytes": 1e99}'])
def test_an_environment_that_cannot_say_what_it_holds_is_damaged(filled, about):
    with raw(filled) as env, env.begin(write=True) as txn:
        txn.put(b"format", about, db=env.open_db(b"meta", txn=txn))

    with closing(disk(filled)) as tier:
        put(tier, 1)
        assert whole(tier, 1)
    assert set_aside(filled) is not None


def test_an_environment_of_slabs_without_slots_is_damaged(filled):
    with raw(filled) as env, env.begin(write=True) as txn:
        meta = env.open_db(b"meta", txn=txn)
        about = json.loads(txn.get(b"format", db=meta)) | {"slab_slots": 0}
        txn.put(b"format", json.dumps(about).encode(), db=meta)

    with closing(disk(filled)) as tier:
        put(tier, 1)
        assert whole(tier, 1)
    assert set_aside(filled) is not None


# Whose directory it is


def test_a_directory_that_is_a_symbolic_link_is_refused(tmp_path, filled):
    (tmp_path / "link").symlink_to(filled)

    with pytest.raises(ConfigError, match="is a symbolic link; name the directory itself"):
        disk(tmp_path / "link")


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb", "kvtier.lock", "data.mdb.damaged"])
def test_a_symbolic_link_in_the_place_of_a_file_is_refused_and_not_followed(tmp_path, filled, name):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (filled / name).unlink(missing_ok=True)
    (filled / name).symlink_to(victim)

    with pytest.raises(ConfigError, match=f"{name} is a symbolic link; who made it"):
        disk(filled)

    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("name", ["", "data.mdb", "lock.mdb", "kvtier.lock"])
def test_what_belongs_to_another_user_is_refused(filled, name):
    os.chown(filled / name, 65534, -1)

    with pytest.raises(ConfigError, match="belongs to user 65534"):
        disk(filled)


def test_a_filled_directory_that_others_can_write_is_refused(filled):
    filled.chmod(0o770)

    with pytest.raises(ConfigError, match="can be written by other users, who can forge blocks"):
        disk(filled)


def test_an_empty_directory_that_others_can_use_becomes_its_owners_alone(path):
    path.mkdir(mode=0o755)
    path.chmod(0o777)

    disk(path).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_files_that_others_can_read_become_their_owners_alone(filled):
    (filled / "data.mdb").chmod(0o644)

    disk(filled).close()

    assert stat.S_IMODE((filled / "data.mdb").stat().st_mode) == 0o600


def mounts(path, kind):
    return f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:40 / {path} rw,relatime shared:3 - {kind} host:/export rw\n"


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "ceph"])
def test_a_file_system_of_several_hosts_is_refused_by_its_name(path, monkeypatch, kind):
    path.mkdir()
    genuine = Path.read_text

    def read(self, **options):
        return mounts(path, kind) if str(self) == "/proc/self/mountinfo" else genuine(self, **options)

    monkeypatch.setattr(Path, "read_text", read)

    with pytest.raises(ConfigError, match=f"is on {kind}, a file system of several hosts"):
        disk(path)


def test_the_kind_of_a_file_system_is_that_of_the_innermost_mount(tmp_path, monkeypatch):
    inner = tmp_path / "a b"
    inner.mkdir()
    text = mounts(str(tmp_path), "xfs") + mounts(str(inner).replace(" ", "\\040"), "nfs")
    monkeypatch.setattr(Path, "read_text", lambda _, **__: text)

    assert (file_system_of(inner), file_system_of(tmp_path), file_system_of(tmp_path.parent)) == ("nfs", "xfs", "ext4")


def test_without_mounts_to_look_at_a_directory_is_taken(path, monkeypatch):
    monkeypatch.setattr("kvtier.tiers.directory.file_system_of", lambda _: "")

    disk(path).close()


def test_the_oldest_reader_is_the_one_with_the_oldest_snapshot(path):
    with closing(disk(path)) as tier:
        env = tier._volume.env
        put(tier, 1)
        with env.reading():
            oldest = env.last_commit
            put(tier, 1, 2)
            with env.reading():
                assert env.last_commit > oldest
                assert env.oldest_reader() == oldest
        assert env.oldest_reader() > env.last_commit
