"""The store against its model, and every reader against its seeds and their neighbours; bugs on purpose are found."""

import json
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from kvtier.errors import ConfigError, CorruptBlockError
from kvtier.format import Verifier, verify
from kvtier.placement import Placement
from kvtier.store import TieredStore
from torture import fuzz, fuzz_targets
from torture.fuzz_records import unguided
from torture.fuzz_targets import HEADER, KEY, LABEL, PAYLOAD, TARGETS, sealed
from torture.machine import StoreMachine
from torture.report import Budget

GOOD = sealed(KEY, LABEL, PAYLOAD)

TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)

#: Until the first failure, which nobody needs small.
hunt = settings(
    max_examples=200,
    stateful_step_count=25,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)


# The machine finds what was broken on purpose


def a_flipped_bit():
    get = TieredStore.get

    def broken(self, tokens, out):
        hit = get(self, tokens, out)
        if hit.num_blocks:
            out[0][3] ^= 1
        return hit

    return patch.object(TieredStore, "get", broken)


def a_match_that_counts_as_a_use():
    match = TieredStore.match_chain

    def broken(self, keys):
        with self._core.lock:
            self._core.placement.touch(keys)
        return match(self, keys)

    return patch.object(TieredStore, "match_chain", broken)


def a_record_that_is_not_verified():
    return patch.object(Verifier, "finish", lambda self: None)


def a_lease_that_is_kept():
    return patch.object(Placement, "release", lambda self, lease: None)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (a_flipped_bit, "wrong bytes"),
        (a_match_that_counts_as_a_use, "asking changed something"),
        (a_record_that_is_not_verified, "wrong bytes"),
        (a_lease_that_is_kept, "a lease was left behind"),
    ],
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("silent")
def test_a_store_broken_on_purpose_is_found_out(broken, complaint):
    with broken(), pytest.raises(Exception) as found:
        run_state_machine_as_test(StoreMachine, settings=hunt)

    assert complaint in str(found.value) + repr(found.value)


# Readers


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_of_a_reader_is_read_or_refused_as_documented(name):
    for data in TARGETS[name].seeds():
        TARGETS[name].check(data)


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"about"}))
def test_neighbours_of_the_seeds_are_read_or_refused_as_documented(name):
    check, seeds = TARGETS[name]

    assert unguided(check, seeds(), runs=400, seconds=60, seed=1) == 400


def test_the_good_record_among_the_seeds_is_accepted():
    assert GOOD in TARGETS["record"].seeds()
    assert fuzz_targets._accepted(GOOD, 100) == LABEL


edits = st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)), min_size=1, max_size=8)


@given(edits=edits)
def test_a_changed_record_is_refused(edits):
    data = bytearray(GOOD)
    for at, mask in edits:
        data[at] ^= mask
    if data == GOOD:
        return

    with pytest.raises(CorruptBlockError):
        verify(np.frombuffer(bytes(data), np.uint8), KEY, header=HEADER, block_bytes=len(PAYLOAD))


@given(data=st.binary(max_size=300) | st.binary(min_size=HEADER + 512, max_size=HEADER + 512))
def test_bytes_that_are_no_record_are_refused(data):
    with pytest.raises(CorruptBlockError):
        verify(np.frombuffer(data, np.uint8), KEY, header=HEADER, block_bytes=len(PAYLOAD))


@pytest.mark.parametrize("name", ["record", "resealed_record"])
def test_a_reader_that_checks_too_little_is_found_out(name):
    check, seeds = TARGETS[name]

    with patch.object(Verifier, "finish", lambda self: None), pytest.raises(AssertionError) as found:
        unguided(check, seeds(), runs=2000, seconds=60, seed=0)

    assert found.value.__notes__[0].startswith("input: ")


def test_a_size_of_hundreds_of_digits_is_refused():
    with pytest.raises(ConfigError, match="400 digits"):
        fuzz_targets.parse_size("9" * 400)


@pytest.mark.parametrize("missing", ["block_bytes", "slot_bytes", "slab_slots"])
def test_an_environment_that_leaves_out_a_size_is_damaged(missing):
    path, said = fuzz_targets._environment()
    fuzz_targets.TARGETS["about"].check(json.dumps({k: v for k, v in said.items() if k != missing}).encode())

    fuzz_targets._open_tier(path)

    assert (path / "data.mdb.damaged").exists()


def test_a_fuzzer_counts_its_inputs(tmp_path):
    row = fuzz._reader("entry", tries=500, budget=Budget(directory=tmp_path, mode="ci"))

    assert (row.tried, row.survived, row.failures) == (500, 500, [])


def test_what_a_fuzzer_found_is_told_with_its_input():
    said = "noise\nOverflowError: too large\n==1== ERROR: libFuzzer: fuzz target exited\nBase64: eyJ=\nmore noise"

    assert fuzz.why(said) == "OverflowError: too large | Base64: eyJ="
