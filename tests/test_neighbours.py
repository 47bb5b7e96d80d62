"""Why a prompt is a miss: another namespace in the same directory has it, and in what it differs."""

from contextlib import closing
from dataclasses import replace

import pytest
from store_helpers import NAMESPACE, blank, make, save, tokens
from test_core import Memory, Shared

from kvtier.errors import TierUnavailableError
from kvtier.neighbours import difference, neighbours_of

OTHER = replace(NAMESPACE, weights="other", adapter="lora")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kv"


def filled_by(path, namespace, word="abc"):
    with closing(make(path, disk=16, namespace=namespace)) as store:
        save(store, word)


def asked(path, word, namespace=NAMESPACE):
    """What a store of a namespace says to a prompt."""
    with closing(make(path, disk=16, namespace=namespace)) as store:
        return store.get(tokens(word), blank(len(word)))


def test_a_miss_that_another_namespace_could_serve_names_what_differs(path):
    filled_by(path, OTHER)
    hit = asked(path, "abc")

    assert (hit.num_blocks, hit.stopped_by) == (0, "other_namespace")
    assert hit.detail == "weights: held for 'other', asked for 'w'; adapter: held for 'lora', asked for ''"


def test_a_prompt_that_nobody_has_is_a_plain_miss(path):
    filled_by(path, OTHER)
    hit = asked(path, "xyz")

    assert (hit.stopped_by, hit.detail) == ("not_held", None)


def test_a_prompt_of_no_block_is_held_by_everybody(path):
    filled_by(path, OTHER)

    assert asked(path, "").stopped_by is None


def test_a_prompt_held_in_part_here_is_not_explained_by_others(path):
    filled_by(path, OTHER)
    filled_by(path, NAMESPACE, "a")
    hit = asked(path, "abc")

    assert (hit.num_blocks, hit.stopped_by) == (1, "not_held")


@pytest.mark.parametrize(("theirs", "ours"), [(b"secret", b""), (b"secret", b"other")])
def test_a_namespace_with_a_salt_is_never_named(path, theirs, ours):
    filled_by(path, replace(OTHER, salt=theirs))
    hit = asked(path, "abc", replace(NAMESPACE, salt=ours))

    assert (hit.stopped_by, hit.detail) == ("not_held", None)


def test_no_salt_is_written_to_the_directory(path):
    filled_by(path, replace(OTHER, salt=b"a secret of the tenant"))

    assert b"a secret of the tenant" not in (path / "data.mdb").read_bytes()


def test_a_record_that_does_not_say_whether_it_has_a_salt_is_left_out():
    tier = Shared("disk")
    tier.introduce = lambda namespace: [(OTHER.root, {"weights": "other"})]

    assert neighbours_of([tier], NAMESPACE) == []


def test_a_tier_that_cannot_note_a_namespace_is_passed_over(caplog):
    bad, good = Shared("bad"), Shared("good")

    def refuse(namespace):
        raise TierUnavailableError("bad", "read-only")

    bad.introduce = refuse
    good.introduce = lambda namespace: [(OTHER.root, OTHER.record())]
    found = neighbours_of([Memory("host"), bad, good], NAMESPACE)

    assert [each.root for each in found] == [OTHER.root]
    assert "bad: the namespace is not noted: read-only" in caplog.text


def test_one_that_two_tiers_know_is_named_once():
    one, two = Shared("one"), Shared("two")
    one.introduce = two.introduce = lambda namespace: [(OTHER.root, OTHER.record())]

    assert len(neighbours_of([one, two], NAMESPACE)) == 1


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        ({"layers": 4}, {"layers": 4}, ""),
        ({"layers": 4}, {"layers": 8}, "layers: held for 4, asked for 8"),
        ({"new": 1}, {}, "new: held for 1, asked for None"),
        ({}, {"new": 1}, "new: held for None, asked for 1"),
    ],
)
def test_only_what_differs_is_named(theirs, ours, said):
    assert difference(theirs, ours) == said
