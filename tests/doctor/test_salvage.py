"""Records that prove themselves are brought back from a file that says nothing true any more."""

import random
import shutil

import pytest
from doctor_helpers import (
    BLOCK,
    LONG,
    NAMES,
    OTHER,
    OTHERS,
    PAGE,
    SIDE,
    SLOT,
    all_held,
    copy_store,
    destroy_trees,
    fill,
    flip,
    held,
    names_of,
    opened,
    pages,
    place_of,
    prompt,
    write_at,
)

from kvtier.doctor.checking import check
from kvtier.doctor.salvage import candidates_in

ALL = (LONG, SIDE, OTHER)


def counts(store, **options):
    return all_held(store, *ALL, **options)


def test_without_any_page_of_the_trees_every_block_is_recovered(store):
    destroy_trees(store)

    report = check(store, repair=True)

    assert (report.repaired, report.kept_blocks) == (True, 11)
    assert check(store).findings == []
    assert counts(store) == [5, 4, 3]


def test_a_check_without_repair_leaves_a_destroyed_file_as_it_is(store):
    destroy_trees(store)
    before = (store / "data.mdb").read_bytes()

    report = check(store)

    assert set(report.counts) == {"structure"}
    assert not report.clean
    assert (store / "data.mdb").read_bytes() == before


def test_blocks_that_are_damaged_too_are_left_out_with_what_hangs_on_them(store):
    flip(store, place_of(store, names_of(LONG)[2]) + SLOT - 1)
    destroy_trees(store)

    assert check(store, repair=True).kept_blocks == 8
    assert check(store).findings == []
    assert counts(store) == [2, 4, 3]


def test_random_damage_costs_at_most_the_blocks_it_hit_and_what_hangs_on_them(tmp_path, store):
    random.seed(7)
    records = {name: place_of(store, name) for tokens in ALL for name in names_of(tokens)}
    for number in range(12):
        copy = copy_store(store, tmp_path / str(number))
        hit = set()
        for _ in range(3):
            name = random.choice(sorted(records))
            flip(copy, records[name] + random.randrange(SLOT))
            hit.add(name)
        destroy_trees(copy)

        check(copy, repair=True)

        for tokens, found in zip(ALL, counts(copy), strict=True):
            chain = names_of(tokens)
            assert found == next((i for i, name in enumerate(chain) if name in hit), len(chain))


def test_after_random_damage_to_any_page_of_the_trees_a_repair_leaves_a_store_with_nothing_wrong(tmp_path, store):
    random.seed(11)
    ends = [at + int.from_bytes(page[12:16], "little") * PAGE for at, page in pages(store) if page[16:20] == b"KVTS"]
    trees = [(at, page) for at, page in pages(store) if any(page) and not ends[0] - 65 * SLOT <= at < ends[0]]
    assert len(trees) > 8
    for number in range(20):
        copy = copy_store(store, tmp_path / str(number))
        at, page = random.choice(trees)
        flip(copy, at + random.choice([place for place, byte in enumerate(page) if byte]))

        report = check(copy, repair=True)

        assert report.clean
        assert check(copy).findings == []
        counts(copy)  # compares every block it gets


def test_a_database_whose_name_has_changed_is_damage_and_the_records_are_saved(store):
    for at, page in list(pages(store)):
        if (name := page.find(b"index")) >= 0:
            write_at(store, at + name, b"indey")

    report = check(store, repair=True)

    assert report.findings[0].detail.endswith("1 of its databases are missing")
    assert report.kept_blocks == 11
    assert counts(store) == [5, 4, 3]


def test_a_file_cut_short_gives_what_lies_before_the_cut(store):
    places = sorted(place_of(store, name) for name in {name for tokens in ALL for name in names_of(tokens)})
    with (store / "data.mdb").open("r+b") as file:
        file.truncate(places[5] + PAGE)

    report = check(store, repair=True)

    assert "structure" in report.counts
    assert report.repaired
    assert report.kept_blocks <= 5
    assert check(store).findings == []
    assert sum(counts(store)) >= report.kept_blocks


def test_a_repaired_store_takes_up_new_blocks(store):
    destroy_trees(store)
    check(store, repair=True)

    fill(store, prompt("c", blocks=20))

    assert held(store, prompt("c", blocks=20)) == 20
    assert check(store).findings == []


def test_a_file_without_a_single_record_is_left_alone(store):
    size = (store / "data.mdb").stat().st_size
    (store / "data.mdb").write_bytes(b"\xa5" * 8 * PAGE)

    report = check(store, repair=True)

    assert (report.repaired, report.clean) == (False, False)
    assert (store / "data.mdb").read_bytes() == b"\xa5" * 8 * PAGE
    assert size > 8 * PAGE


def test_a_header_that_lies_about_its_length_is_passed_over(store):
    place = place_of(store, names_of(OTHER)[0])
    write_at(store, place + 88, (1 << 62).to_bytes(8, "little"))
    destroy_trees(store)

    check(store, repair=True)

    assert counts(store) == [5, 4, 0]


def test_a_length_that_only_a_lying_header_says_sizes_nothing(tmp_path):
    store = fill(tmp_path / "one", OTHER[:16])
    write_at(store, place_of(store, names_of(OTHER)[0]) + 88, (1 << 62).to_bytes(8, "little"))
    destroy_trees(store)

    assert not check(store, repair=True).repaired


def test_a_file_whose_records_are_all_damaged_is_left_alone(tmp_path):
    store = fill(tmp_path / "one", OTHER[:16])
    flip(store, place_of(store, names_of(OTHER)[0]) + PAGE)
    destroy_trees(store)
    before = (store / "data.mdb").read_bytes()

    assert not check(store, repair=True).repaired
    assert (store / "data.mdb").read_bytes() == before


def test_records_of_another_size_among_them_are_left_out(tmp_path, store):
    import kvtier

    spec = kvtier.KVSpec(layers=5, kv_heads=1, head_dim=32, dtype="bfloat16", block_tokens=16)
    names = kvtier.Namespace(spec=spec, weights="larger")
    with kvtier.open_store(tmp_path / "larger", names, device=0, host=0, disk=8 * spec.block_bytes) as larger:
        import torch

        larger.put(LONG[:16], [torch.ones(spec.block_bytes, dtype=torch.uint8)])
        larger.flush()
    with (tmp_path / "larger" / "data.mdb").open("rb") as file:
        file.seek(place_of(tmp_path / "larger", names_of(LONG[:16], names)[0]))
        foreign = file.read(PAGE + spec.block_bytes)
    destroy_trees(store)
    with (store / "data.mdb").open("r+b") as file:
        file.seek(1 << 24)
        file.write(foreign)

    assert check(store, repair=True).kept_blocks == 11
    assert check(store).findings == []


def test_a_record_inside_a_payload_is_not_taken_for_one(tmp_path):
    """The payload of a block may be anything, also a whole record of some other block."""
    import torch

    import kvtier

    spec = kvtier.KVSpec(layers=8, kv_heads=1, head_dim=32, dtype="bfloat16", block_tokens=16)
    names = kvtier.Namespace(spec=spec, weights="w")
    inner, outer = prompt("inner"), prompt("outer")
    with kvtier.open_store(tmp_path / "s", names, device=0, host=0, disk=8 * spec.block_bytes) as store:
        store.put(inner, [torch.zeros(spec.block_bytes, dtype=torch.uint8)])
    record = bytearray((tmp_path / "s" / "data.mdb").read_bytes())
    at = place_of(tmp_path / "s", names_of(inner, names)[0])
    evil = torch.zeros(spec.block_bytes, dtype=torch.uint8)
    evil[:PAGE] = torch.frombuffer(record[at : at + PAGE], dtype=torch.uint8)  # zeros follow, as in the record
    with kvtier.open_store(tmp_path / "t", names, device=0, host=0, disk=8 * spec.block_bytes) as store:
        store.put(outer, [evil])
    begins = [each.place for each in candidates_in(tmp_path / "t" / "data.mdb")]
    assert len(begins) == 2
    destroy_trees(tmp_path / "t")

    assert check(tmp_path / "t", repair=True).kept_blocks == 1


def test_blocks_of_several_namespaces_are_all_brought_back(store):
    fill(store, LONG, namespace=OTHERS)
    destroy_trees(store)

    assert check(store, repair=True).kept_blocks == 16
    assert held(store, LONG, namespace=OTHERS) == 5
    assert held(store, LONG, namespace=NAMES) == 5


# A file set aside


def test_a_file_set_aside_is_mentioned_by_a_check(tmp_path, store):
    shutil.copy(store / "data.mdb", store / "data.mdb.damaged")

    assert dict(check(store).counts) == {"set aside": 1}


def test_what_is_whole_in_a_file_set_aside_joins_what_is_held(tmp_path):
    old = fill(tmp_path / "old", LONG, SIDE)
    destroy_trees(old)
    new = fill(tmp_path / "new", OTHER, SIDE)
    shutil.move(old / "data.mdb", new / "data.mdb.damaged")

    report = check(new, repair=True)

    assert (report.repaired, report.kept_blocks) == (True, 11)
    assert not (new / "data.mdb.damaged").exists()
    assert check(new).findings == []
    assert counts(new) == [5, 4, 3]


def test_blocks_that_were_held_are_younger_than_those_brought_back(tmp_path):
    old = fill(tmp_path / "old", LONG)
    new = fill(tmp_path / "new", OTHER)
    shutil.move(old / "data.mdb", new / "data.mdb.damaged")
    check(new, repair=True)

    with opened(new, blocks=3):
        pass  # opened with room for three: the oldest leave

    assert counts(new) == [0, 0, 3]


def test_a_store_whose_only_file_was_set_aside_is_made_anew(store):
    destroy_trees(store)
    (store / "data.mdb").rename(store / "data.mdb.damaged")

    assert check(store, repair=True).kept_blocks == 11
    assert sorted(file.name for file in store.iterdir() if "damaged" in file.name or "rebuilt" in file.name) == []
    assert counts(store) == [5, 4, 3]


def test_what_a_killed_repair_left_is_mentioned_and_removed(store):
    (store / "kvtier.rebuilt").mkdir()
    (store / "kvtier.rebuilt" / "data.mdb").write_bytes(b"half")

    assert dict(check(store).counts) == {"left over": 1}
    check(store, repair=True)

    assert check(store).findings == []
    assert counts(store) == [5, 4, 3]


def test_holes_are_passed_over(tmp_path):
    file = tmp_path / "sparse"
    with file.open("wb") as data:
        data.truncate(1 << 40)

    assert list(candidates_in(file)) == []


def test_a_new_file_that_does_not_fit_beside_the_old_one_is_refused_before_anything_is_written(store, monkeypatch):
    import os

    from kvtier.errors import TierFullError

    destroy_trees(store)
    before = (store / "data.mdb").read_bytes()
    real = os.statvfs(store)
    full = type("Stat", (), {"f_bavail": BLOCK // real.f_frsize, "f_frsize": real.f_frsize})
    monkeypatch.setattr("kvtier.doctor.rebuilding.os.statvfs", lambda path: full)

    with pytest.raises(TierFullError, match="beside the old one"):
        check(store, repair=True)

    assert (store / "data.mdb").read_bytes() == before
    assert not (store / "kvtier.rebuilt").exists()
