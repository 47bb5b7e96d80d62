"""What is chosen leaves one store and arrives in another, byte for byte and with all blocks before it."""

import os

import pytest
from doctor_helpers import (
    BLOCK,
    LONG,
    NAMES,
    OTHER,
    OTHERS,
    PAGE,
    SIDE,
    all_held,
    destroy_trees,
    fill,
    flip,
    held,
    names_of,
    opened,
    place_of,
    prompt,
)

import kvtier
from kvtier.doctor.bundle import BundleReader
from kvtier.doctor.carrying import export, import_bundle
from kvtier.doctor.checking import check
from kvtier.doctor.inspecting import inspect
from kvtier.doctor.reports import Choice
from kvtier.errors import ConfigError, KVTierError, SpecMismatchError, TierUnavailableError


@pytest.fixture
def carried(store, tmp_path):
    """Exports a choice; returns what was said and the names in the bundle."""

    def make(name="bundle", **choice):
        done = export(store, tmp_path / name, Choice(**choice))
        with BundleReader(tmp_path / name) as reader:
            return done, set(reader.prove())

    return make


def all_names(*prompts):
    return {name for tokens in prompts for name in names_of(tokens)}


# What is chosen


def test_everything_is_everything(carried):
    done, names = carried(everything=True)

    assert names == all_names(LONG, SIDE, OTHER)
    assert (done.blocks, done.damaged) == (11, 0)


def test_a_prompt_is_taken_as_far_as_it_is_held(carried):
    done, names = carried(prompts=[SIDE + prompt("never stored", blocks=2)])

    assert names == all_names(SIDE)
    assert done.prompt_tokens == [len(SIDE)]


def test_a_prompt_shorter_than_what_is_held_ends_where_it_ends(carried):
    done, names = carried(prompts=[LONG[:50]])  # three whole blocks and two tokens

    assert names == all_names(LONG[:48])
    assert done.prompt_tokens == [48]


def test_several_prompts_share_their_beginning(carried):
    assert carried(prompts=[LONG, SIDE])[1] == all_names(LONG, SIDE)


def test_a_block_named_by_its_first_digits_brings_all_blocks_before_it(carried):
    assert carried(prefixes=[names_of(LONG)[2].hex()[:12]])[1] == all_names(LONG[:48])


def test_digits_may_be_written_large(carried):
    assert carried(prefixes=[names_of(OTHER)[0].hex().upper()])[1] == all_names(OTHER[:16])


def test_with_below_comes_all_that_goes_on_from_there(carried):
    assert carried(prefixes=[names_of(LONG)[0].hex()], below=True)[1] == all_names(LONG, SIDE)


def test_without_below_nothing_that_goes_on_from_there_comes_along(carried):
    assert carried(prefixes=[names_of(LONG)[0].hex()])[1] == all_names(LONG[:16])


def test_a_namespace_leaves_the_others_out(store, carried):
    fill(store, LONG, namespace=OTHERS)

    assert carried(everything=True, namespace=OTHERS.root.hex()[:8])[1] == set(names_of(LONG, OTHERS))


def test_a_prompt_is_looked_for_in_every_namespace(store, carried):
    fill(store, LONG, namespace=OTHERS)

    assert carried(prompts=[LONG])[1] == all_names(LONG) | set(names_of(LONG, OTHERS))


def test_a_limit_takes_the_newest_with_all_before_them(carried):
    """The last prompt stored has three blocks; the head of the one before it, newest of its own, is next."""
    assert carried(everything=True, limit_blocks=3)[1] == all_names(OTHER)


def test_a_limit_takes_nothing_that_was_not_chosen(carried):
    assert carried(prompts=[LONG], limit_blocks=2)[1] == all_names(LONG[:32])


@pytest.mark.parametrize("limit", range(1, 12))
def test_a_limit_is_kept_and_the_prefixes_stay_closed(carried, limit):
    done, names = carried(everything=True, limit_blocks=limit)  # the reader refuses what is not closed

    assert done.blocks == len(names) == limit


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"prefixes": ["00112233445566"]}, "0 blocks have names"),
        ({"prefixes": [""]}, "11 blocks have names"),
        ({"everything": True, "namespace": "00112233"}, "0 namespaces"),
        ({"prompts": [[-1]]}, "outside 0"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(store, tmp_path, choice, message):
    with pytest.raises(ValueError, match=message):
        export(store, tmp_path / "bundle", Choice(**choice))


def test_a_choice_of_nothing_that_is_held_makes_no_bundle(store, tmp_path):
    with pytest.raises(KVTierError, match="nothing that was chosen is held"):
        export(store, tmp_path / "bundle", Choice(prompts=[prompt("never stored")]))

    assert not (tmp_path / "bundle").exists()


def test_an_empty_store_has_nothing_to_take_along(tmp_path):
    with pytest.raises(KVTierError, match="nothing that was chosen is held"):
        export(fill(tmp_path / "empty"), tmp_path / "bundle", Choice(everything=True, prompts=[LONG]))


# What is damaged stays behind


def test_a_damaged_block_and_what_hangs_on_it_stay_behind(store, carried):
    flip(store, place_of(store, names_of(LONG)[2]) + PAGE)

    done, names = carried(everything=True)

    assert names == all_names(LONG[:32], SIDE, OTHER)
    assert done.damaged == 3


def test_a_store_of_damaged_structure_is_not_read(store, tmp_path):
    destroy_trees(store)

    with pytest.raises(TierUnavailableError, match="check --repair"):
        export(store, tmp_path / "bundle", Choice(everything=True))


def test_a_store_in_use_is_not_exported(store, tmp_path):
    with opened(store), pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        export(store, tmp_path / "bundle", Choice(everything=True))


# What arrives


def test_a_new_store_gives_every_block_back(tmp_path, carried):
    carried(everything=True)

    done = import_bundle(tmp_path / "new", tmp_path / "bundle")

    assert (done.imported, done.skipped, done.refused) == (11, 0, {})
    assert all_held(tmp_path / "new", LONG, SIDE, OTHER) == [5, 4, 3]
    assert check(tmp_path / "new").findings == []


def test_what_is_known_of_a_namespace_comes_along(tmp_path, carried):
    carried(everything=True)

    import_bundle(tmp_path / "new", tmp_path / "bundle")

    assert [space.about for space in inspect(tmp_path / "new").spaces] == [NAMES.record()]


def test_a_second_import_changes_nothing(tmp_path, carried):
    carried(everything=True)
    import_bundle(tmp_path / "new", tmp_path / "bundle")

    done = import_bundle(tmp_path / "new", tmp_path / "bundle")

    assert (done.imported, done.skipped) == (0, 11)
    assert check(tmp_path / "new").findings == []


def test_blocks_already_held_are_left_where_they_are(tmp_path, carried):
    fill(tmp_path / "new", LONG)
    place = place_of(tmp_path / "new", names_of(LONG)[2])
    carried(everything=True)

    done = import_bundle(tmp_path / "new", tmp_path / "bundle")

    assert (done.imported, done.skipped) == (6, 5)
    assert place_of(tmp_path / "new", names_of(LONG)[2]) == place
    assert all_held(tmp_path / "new", LONG, SIDE, OTHER) == [5, 4, 3]


@pytest.mark.parametrize("room", range(1, 11))
def test_only_as_much_is_taken_as_there_is_room_for_and_it_hangs_together(tmp_path, carried, room):
    carried(everything=True)

    done = import_bundle(tmp_path / "new", tmp_path / "bundle", capacity_bytes=room * BLOCK)

    assert (done.imported, done.refused) == (room, {"no room": 11 - room})
    report = check(tmp_path / "new")
    assert (report.findings, report.blocks) == ([], room)


def test_what_is_held_already_counts_against_the_room(tmp_path, carried):
    fill(tmp_path / "new", prompt("mine", blocks=6), blocks=8)
    carried(everything=True)

    done = import_bundle(tmp_path / "new", tmp_path / "bundle", capacity_bytes=8 * BLOCK)

    assert (done.imported, done.refused) == (2, {"no room": 9})
    assert held(tmp_path / "new", prompt("mine", blocks=6), blocks=8) == 6


def test_without_a_size_a_store_takes_no_more_than_it_was_last_opened_for(tmp_path, carried):
    fill(tmp_path / "new", prompt("mine", blocks=6), blocks=8)
    carried(everything=True)

    assert import_bundle(tmp_path / "new", tmp_path / "bundle").imported == 2


def test_blocks_of_a_namespace_the_store_does_not_know_are_refused(tmp_path, carried):
    fill(tmp_path / "new", LONG, namespace=OTHERS)
    carried(everything=True)

    done = import_bundle(tmp_path / "new", tmp_path / "bundle")

    assert done.imported == 0
    assert done.refused == {f"namespace {NAMES.root.hex()[:12]} has no block in this store": 11}


def test_a_new_namespace_is_taken_when_that_is_asked_for(tmp_path, carried):
    fill(tmp_path / "new", LONG, namespace=OTHERS)
    carried(everything=True)

    assert import_bundle(tmp_path / "new", tmp_path / "bundle", new_namespaces=True).imported == 11
    assert held(tmp_path / "new", LONG) == held(tmp_path / "new", LONG, namespace=OTHERS) == 5


def test_a_store_of_other_blocks_is_left_alone(tmp_path, carried):
    spec = kvtier.KVSpec(layers=4, kv_heads=1, head_dim=32, dtype="bfloat16", block_tokens=16)
    with kvtier.open_store(
        tmp_path / "new", kvtier.Namespace(spec=spec, weights="w"), device=0, host=0, disk=8 * spec.block_bytes
    ):
        pass
    carried(everything=True)
    before = (tmp_path / "new" / "data.mdb").read_bytes()

    with pytest.raises(SpecMismatchError, match="nothing was imported"):
        import_bundle(tmp_path / "new", tmp_path / "bundle")

    assert (tmp_path / "new" / "data.mdb").read_bytes() == before


def test_a_store_in_use_takes_nothing(tmp_path, carried):
    carried(everything=True)

    with opened(tmp_path / "new"), pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        import_bundle(tmp_path / "new", tmp_path / "bundle")


def test_an_import_tells_how_far_it_is(tmp_path, carried):
    carried(everything=True)
    told = []

    import_bundle(tmp_path / "new", tmp_path / "bundle", progress=lambda done, total: told.append(done == total))

    assert told[-1]
    assert sum(told) == 2  # the proof, then the writing
