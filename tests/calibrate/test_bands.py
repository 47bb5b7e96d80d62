"""Bands that hold the true median as often as they say, counted over all ways in which runs can fall."""

from math import comb

import pytest

from kvtier.calibrate.bands import LEVEL, measured, median_band


def coverage(count, edge):
    """Share of the equally likely ways to fall below or above the median in which two order statistics enclose it."""
    return sum(comb(count, below) for below in range(edge + 1, count - edge)) / 2**count


@pytest.mark.parametrize("count", range(5, 80))
def test_a_band_holds_the_median_in_nine_cases_of_ten_and_is_no_wider_than_that_takes(count):
    band = median_band([float(n) for n in range(count)])
    edge = int(band.lo)

    assert band.hi == count - 1 - edge
    assert coverage(count, edge) >= LEVEL
    assert coverage(count, edge + 1) < LEVEL


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_few_runs_give_their_extremes(count):
    band = median_band([float(n) for n in range(count)])

    assert (band.lo, band.hi) == (0, count - 1)


def test_the_order_of_runs_does_not_matter():
    assert median_band([5.0, 1.0, 4.0, 2.0, 3.0]) == (1.0, 3.0, 5.0)


def test_no_runs_have_no_band():
    with pytest.raises(ValueError, match="at least one sample"):
        median_band([])


def test_a_measured_figure_says_so_and_has_the_band():
    figure = measured(median_band([1.0, 2.0, 4.0]), "s", "a clock")

    assert (figure.kind, figure.unit, figure.source) == ("measured", "s", "a clock")
    assert figure.band == (1.0, 2.0, 4.0)
