"""What list prices imply, against the multiples and times that follow from them by hand."""

import math

import pytest

from kvtier.econ import tariffs
from kvtier.econ.prices import load_prices
from kvtier.errors import ConfigError

PRICES = load_prices()


@pytest.mark.parametrize(
    ("write", "read", "k"), [(1.25, 0.1, 0.25 / 0.9), (2, 0.1, 1 / 0.9), (1, 0.1, 0), (0.5, 0.1, 0)]
)
def test_reads_that_pay_for_a_write(write, read, k):
    assert tariffs.least_reads(write=write, read=read) == pytest.approx(k)


@pytest.mark.parametrize(("write", "read"), [(1.25, 0.1), (2, 0.1), (1.25, 0.5), (2, 0.025)])
def test_one_read_more_than_the_least_is_cheaper_than_no_cache_and_one_less_is_not(write, read):
    k = tariffs.least_reads(write=write, read=read)

    assert write + (k + 0.01) * read < 1 + (k + 0.01)
    assert write + (k - 0.01) * read > 1 + (k - 0.01)


def test_reads_that_are_not_cheaper_never_pay():
    assert tariffs.least_reads(write=1.25, read=1) == math.inf


@pytest.mark.parametrize("write", [1, 1.25, 2])
@pytest.mark.parametrize("read", [0.02, 0.025, 0.05, 0.1, 0.25, 0.5])
def test_pings_are_the_most_that_stay_below_a_new_write(write, read):
    n = tariffs.most_pings(write=write, read=read)

    assert read * (n + 1) < write or n == 0
    assert read * (n + 2) >= write - 1e-9


@pytest.mark.parametrize(("read", "minutes"), [(0.1, 60), (0.025, 245)])
def test_the_longest_gap_that_pings_bridge(read, minutes):
    assert tariffs.longest_gap_s(write=1.25, read=read, ttl_s=300) == minutes * 60


def test_expiries_that_pay_for_an_hour():
    value = tariffs.expiries_that_pay_a_longer_ttl(write_short=1.25, write_long=2, read=0.1)

    assert value == pytest.approx(0.75 / 1.15)


def test_a_longer_life_that_saves_nothing_never_pays():
    assert tariffs.expiries_that_pay_a_longer_ttl(write_short=0.1, write_long=2, read=0.1) == math.inf


@pytest.mark.parametrize(
    ("model", "minutes"), [("gemini-2.5-pro", 15.0), ("gemini-2.5-flash", 16.2), ("gemini-3.8-flash", 81.0)]
)
def test_how_seldom_a_stored_entry_may_be_used(model, minutes):
    price = PRICES[f"google/{model}"]
    seconds = tariffs.hold_s_of_storage(
        input_usd=price.input.value, read_usd=price.cached_read.value, storage_usd_per_hour=price.storage.value
    )

    assert seconds / 60 == pytest.approx(minutes, rel=1e-3)


def test_storage_that_is_free_is_kept_for_ever():
    assert tariffs.hold_s_of_storage(input_usd=1, read_usd=0.1, storage_usd_per_hour=0) == math.inf


@pytest.mark.parametrize("calls", [1, 2, 3, 10])
def test_a_warm_up_saves_the_difference_of_the_two_bills(calls):
    cold, warm = calls * 1.25, 1.25 + calls * 0.1

    assert tariffs.warm_up_saving(num_calls=calls, write=1.25, read=0.1) == pytest.approx(cold - warm)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: tariffs.least_reads(write=-1, read=0.1),
        lambda: tariffs.least_reads(write=1, read=-0.1),
        lambda: tariffs.most_pings(write=1, read=0),
        lambda: tariffs.longest_gap_s(write=1, read=0.1, ttl_s=0),
        lambda: tariffs.warm_up_saving(num_calls=0, write=1, read=0.1),
        lambda: tariffs.hold_s_of_storage(input_usd=-1, read_usd=0, storage_usd_per_hour=1),
        lambda: tariffs.expiries_that_pay_a_longer_ttl(write_short=-1, write_long=2, read=0.1),
    ],
)
def test_an_absurd_input_is_refused(wrong):
    with pytest.raises(ConfigError, match="expected a finite number"):
        wrong()
