"""A check finds what was done to a store, and a repair leaves what is whole and hangs together."""

import struct

import numpy as np
import pytest
from doctor_helpers import (
    BLOCK,
    LONG,
    OTHER,
    PAGE,
    SIDE,
    SLOT,
    all_held,
    destroy_trees,
    entry_of,
    fill,
    flip,
    held,
    names_of,
    opened,
    pages,
    place_of,
    raw,
    set_entry,
    set_meta,
    write_at,
)

from kvtier.doctor.checking import check
from kvtier.doctor.copying import Source
from kvtier.doctor.reading import alone, read
from kvtier.errors import ConfigError, CorruptBlockError


def kinds(report):
    return dict(report.counts)


def blocks_found(report, kind):
    return {finding.block for finding in report.findings if finding.kind == kind}


def hexes(names):
    return {name.hex() for name in names}


# A store as it should be


def test_nothing_is_wrong_with_a_store_that_was_closed(store):
    report = check(store)

    assert report.findings == []
    assert (report.blocks, report.records_read, report.kept_blocks) == (11, 11, 11)
    assert report.bytes_read == 11 * SLOT


def test_accounted_and_allocated_bytes_are_both_told(store):
    report = check(store)

    assert report.accounted_bytes == 11 * BLOCK
    assert report.file_bytes == (store / "data.mdb").stat().st_blocks * 512


def test_a_check_changes_no_byte_of_the_data_file(store):
    before = (store / "data.mdb").read_bytes()

    check(store)
    check(store, repair=True)

    assert (store / "data.mdb").read_bytes() == before


def test_progress_ends_with_every_byte_of_every_record(store):
    told = []

    check(store, progress=lambda done, total: told.append((done, total)))

    assert told[-1] == (11 * SLOT, 11 * SLOT)
    assert told == sorted(told)


def test_a_store_that_holds_nothing_is_as_it_should_be(tmp_path):
    assert check(fill(tmp_path / "empty")).clean


# Who may be looked at


def test_a_store_in_use_is_refused_by_the_number_of_its_process(store):
    import os

    with opened(store), pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        check(store)


def test_a_check_during_another_is_refused(store):
    with alone(store), pytest.raises(ConfigError, match="being repaired or compacted"):
        check(store)


def test_a_store_can_be_opened_again_after_a_check(store):
    check(store)

    assert held(store, LONG) == 5


def test_a_directory_without_a_store_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no store"):
        check(tmp_path)


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not a directory"):
        check(tmp_path / "nowhere")


def test_somebody_elses_lmdb_file_is_refused_and_left_alone(tmp_path):
    import lmdb

    with lmdb.open(str(tmp_path), max_dbs=1) as env:
        env.open_db(b"theirs")
    before = (tmp_path / "data.mdb").read_bytes()

    with pytest.raises(ConfigError, match="not kvtier's"):
        check(tmp_path, repair=True)

    assert (tmp_path / "data.mdb").read_bytes() == before


def test_another_format_is_refused(store):
    with raw(store) as env, env.begin() as txn:
        about = txn.get(b"format", db=env.open_db(b"meta", txn=txn, create=False))
    set_meta(store, b"format", about.replace(b'"format": 3', b'"format": 9'))

    with pytest.raises(ConfigError, match="has format 9"):
        check(store, repair=True)


def test_lmdb_is_not_asked_about_a_file_whose_pages_are_damaged(store, monkeypatch):
    def ask(*_, **__):
        raise AssertionError("LMDB has been handed a damaged file")

    destroy_trees(store)
    monkeypatch.setattr("kvtier.doctor.reading.lmdb.open", ask)

    assert kinds(check(store)) == {"structure": 1}


# Records


@pytest.mark.parametrize("at", [8, 20, 50, 84, 88, 100, PAGE - 1, PAGE, SLOT - 1])
def test_a_changed_byte_of_a_record_is_found(store, at):
    name = names_of(LONG)[4]
    flip(store, place_of(store, name) + at)

    report = check(store)

    assert kinds(report) == {"record": 1}
    assert blocks_found(report, "record") == {name.hex()}
    assert not report.clean


def test_what_hangs_on_a_damaged_block_is_named_as_well(store):
    chain = names_of(LONG)
    flip(store, place_of(store, chain[2]) + PAGE)

    report = check(store)

    assert blocks_found(report, "record") == {chain[2].hex()}
    assert blocks_found(report, "orphan") == hexes(chain[3:])


def test_of_the_blocks_that_cannot_be_reached_the_nearest_to_the_damage_comes_first(store):
    chain = names_of(LONG)
    flip(store, place_of(store, chain[1]) + PAGE)

    orphans = [finding for finding in check(store).findings if finding.kind == "orphan"]

    assert [finding.block for finding in orphans] == [name.hex() for name in chain[2:]]
    assert orphans[0].detail == f"the block before it, {chain[1].hex()[:12]}, is damaged"
    assert orphans[1].detail == f"the block before it, {chain[2].hex()[:12]}, cannot be reached itself"


def test_a_repair_takes_out_the_damaged_block_and_what_hangs_on_it(store):
    flip(store, place_of(store, names_of(LONG)[2]) + PAGE)

    report = check(store, repair=True)

    assert (report.repaired, report.kept_blocks, report.removed_blocks) == (True, 8, 3)
    assert check(store).findings == []
    assert all_held(store, LONG, SIDE, OTHER) == [2, 4, 3]


def test_a_damaged_first_block_takes_all_prompts_that_begin_with_it(store):
    flip(store, place_of(store, names_of(LONG)[0]) + PAGE)

    assert check(store, repair=True).kept_blocks == 3
    assert all_held(store, LONG, SIDE, OTHER) == [0, 0, 3]


def test_slots_that_a_repair_freed_can_be_used_again(store):
    flip(store, place_of(store, names_of(LONG)[0]) + PAGE)
    check(store, repair=True)

    fill(store, LONG, SIDE)

    assert all_held(store, LONG, SIDE, OTHER) == [5, 4, 3]
    assert check(store).findings == []


def test_a_record_where_another_should_be_is_found(store):
    first, second = names_of(OTHER)[1], names_of(LONG)[4]
    place = place_of(store, first)
    with (store / "data.mdb").open("rb") as file:
        file.seek(place)
        record = file.read(SLOT)
    write_at(store, place_of(store, second), record)

    assert blocks_found(check(store), "record") == {second.hex()}


# Entries


def test_an_entry_that_disagrees_with_its_record_is_found(store):
    name = names_of(LONG)[4]
    head, tokens = entry_of(store, name)
    set_entry(store, name, head.tobytes() + tokens[:-4] + b"\x01\x02\x03\x04")

    report = check(store)

    assert blocks_found(report, "record") == {name.hex()}
    assert "its index entry" in report.findings[0].detail


def test_an_entry_with_another_depth_than_its_record_is_found(store):
    name = names_of(LONG)[4]
    head, tokens = entry_of(store, name)
    head["depth"] = 7
    set_entry(store, name, head.tobytes() + tokens)

    assert blocks_found(check(store), "record") == {name.hex()}


def test_an_entry_too_short_to_be_one_is_found_and_removed(store):
    name = names_of(LONG)[4]
    set_entry(store, name, b"short")

    report = check(store, repair=True)

    assert kinds(report) == {"entry": 1}
    assert blocks_found(report, "entry") == {name.hex()}
    assert check(store).findings == []
    assert held(store, LONG) == 4


def test_an_entry_that_names_no_slot_is_found_and_removed(store):
    name = names_of(LONG)[4]
    head, tokens = entry_of(store, name)
    head["slot"] = 64
    set_entry(store, name, head.tobytes() + tokens)

    report = check(store, repair=True)

    assert kinds(report) == {"no slot": 1}
    assert check(store).findings == []
    assert held(store, LONG) == 4


def test_of_two_entries_for_one_slot_a_repair_keeps_the_one_that_is_true(store):
    name, thief = names_of(OTHER)[0], names_of(LONG)[4]
    head, tokens = entry_of(store, thief)
    head["slot"] = entry_of(store, name)[0]["slot"]
    set_entry(store, thief, head.tobytes() + tokens)

    report = check(store, repair=True)

    assert blocks_found(report, "slot twice") == hexes([name, thief])
    assert blocks_found(report, "record") == {thief.hex()}
    assert check(store).findings == []
    assert all_held(store, LONG, OTHER) == [4, 3]


def test_blocks_whose_parent_left_are_orphans(store):
    chain = names_of(LONG)
    set_entry(store, chain[1], None)

    report = check(store)

    assert blocks_found(report, "orphan") == hexes(chain[2:])
    assert kinds(report) == {"books": 1, "orphan": 3}


def test_a_repair_of_orphans_leaves_closed_prefixes(store):
    set_entry(store, names_of(LONG)[1], None)

    check(store, repair=True)

    assert check(store).findings == []
    assert all_held(store, LONG, SIDE, OTHER) == [1, 4, 3]


# Books


def test_books_that_disagree_with_the_index_are_set_right(store):
    set_meta(store, b"books", struct.pack("<QQQ", 12, 40, 64))

    report = check(store, repair=True)

    assert kinds(report) == {"books": 1}
    assert check(store).findings == []
    assert all_held(store, LONG, SIDE, OTHER) == [5, 4, 3]


def test_a_repair_does_not_count_commits_anew(store):
    set_meta(store, b"books", struct.pack("<QQQ", 12, 40, 64))

    check(store, repair=True)

    with raw(store) as env, env.begin() as txn:
        assert struct.unpack("<QQQ", txn.get(b"books", db=env.open_db(b"meta", txn=txn, create=False))) == (11, 41, 64)


def test_books_that_cannot_be_read_are_written_anew(store):
    set_meta(store, b"books", b"?")

    report = check(store, repair=True)

    assert (kinds(report), report.kept_blocks) == ({"books": 1}, 11)
    assert check(store).findings == []
    assert all_held(store, LONG, SIDE, OTHER) == [5, 4, 3]


# Slabs


def lose_slab(store):
    """Overwrite the header of the slab that holds everything."""
    (at,) = (at for at, page in pages(store) if page[16:20] == b"KVTS")
    write_at(store, at + 16, bytes(24))


def test_a_slab_that_cannot_be_found_is_named_with_every_block_in_it(store):
    lose_slab(store)

    assert kinds(check(store)) == {"slab": 1, "no slot": 11}


def test_the_records_of_a_slab_that_cannot_be_found_are_found_by_themselves(store):
    lose_slab(store)

    report = check(store, repair=True)

    assert (report.repaired, report.kept_blocks) == (True, 11)
    assert check(store).findings == []
    assert all_held(store, LONG, SIDE, OTHER) == [5, 4, 3]


def test_a_slab_whose_place_was_not_noted_is_searched_for(store):
    with raw(store) as env:
        places = env.open_db(b"places", create=False)
        with env.begin(write=True) as txn:
            value = txn.get(struct.pack(">I", 0), db=places)
            txn.put(struct.pack(">I", 0), bytes(8) + value[8:], db=places)

    assert check(store).findings == []


# Sizes


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b'"slot_bytes": 8192', b'"slot_bytes": 8193'),
        (b'"slot_bytes": 8192', b'"slot_bytes": 4096'),
        (b'"slot_bytes": 8192', b'"slot_bytes": 1099511627776'),
        (b'"slab_slots": 64', b'"slab_slots": 0'),
        (b'"block_bytes"', b'"block_bites"'),
        (b"{", b"["),
    ],
)
def test_sizes_that_make_no_sense_are_damage_and_the_records_are_saved(store, right, wrong):
    with raw(store) as env, env.begin() as txn:
        about = txn.get(b"format", db=env.open_db(b"meta", txn=txn, create=False))
    assert right in about
    set_meta(store, b"format", about.replace(right, wrong))

    assert kinds(check(store)) == {"structure": 1}
    assert check(store, repair=True).kept_blocks == 11
    assert all_held(store, LONG, SIDE, OTHER) == [5, 4, 3]


# What a check says


def test_every_block_in_a_report_is_named_in_full(store):
    flip(store, place_of(store, names_of(LONG)[1]) + PAGE)

    assert {len(finding.block) for finding in check(store).findings} == {64}


def test_a_report_can_be_written_as_json(store):
    import json

    flip(store, place_of(store, names_of(LONG)[3]) + PAGE)

    written = json.loads(json.dumps(check(store).as_dict()))

    assert written["counts"] == {"record": 1, "orphan": 1}
    assert (written["clean"], written["blocks"]) == (False, 11)


@pytest.mark.parametrize("threads", [1, 4])
def test_every_record_is_read_from_the_medium_once(store, monkeypatch, threads):
    from kvtier.doctor import copying

    places = []
    record = copying.Source.record

    def noted(self, place, *args):
        places.append(place)
        return record(self, place, *args)

    monkeypatch.setattr(copying.Source, "record", noted)
    check(store, threads=threads)

    assert len(places) == len(np.unique(places)) == 11


def test_what_an_earlier_record_left_in_memory_does_not_stand_in_for_bytes_that_are_missing(store):
    name = names_of(OTHER)[2]
    place = place_of(store, name)
    held = read(store)
    with Source(store / "data.mdb", held.geometry) as source:
        buffer = source.buffer()
        source.record(place, name, None, buffer)
        with (store / "data.mdb").open("r+b") as file:
            file.truncate(place + SLOT - 100)

        with pytest.raises(CorruptBlockError, match="ends 100 bytes too early"):
            source.record(place, name, None, buffer)
