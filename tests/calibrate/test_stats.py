"""Percentiles, summaries, and the order in which cases take turns."""

import math
from collections.abc import Callable

import pytest

from kvtier.calibrate.stats import interleave, percentile, summary


@pytest.mark.parametrize(("q", "expected"), [(0, 1.0), (50, 3.0), (75, 4.0), (90, 4.6), (100, 5.0)])
def test_percentile_interpolates_between_ranks(q: float, expected: float) -> None:
    assert percentile([5.0, 1.0, 4.0, 2.0, 3.0], q) == pytest.approx(expected)


def test_percentile_of_one_sample_is_that_sample() -> None:
    assert percentile([7.0], 99) == 7.0


@pytest.mark.parametrize(("samples", "q"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_percentile_refuses_what_has_no_answer(samples: list[float], q: float) -> None:
    with pytest.raises(ValueError, match=r"sample|between 0 and 100"):
        percentile(samples, q)


def test_summary_turns_seconds_into_milliseconds() -> None:
    result = summary([0.001, 0.002, 0.006])

    assert result["n"] == 3
    assert result["p50_ms"] == pytest.approx(2.0)
    assert result["mean_ms"] == pytest.approx(3.0)
    assert (result["min_ms"], result["max_ms"]) == pytest.approx((1.0, 6.0))
    assert math.isclose(result["p99_ms"], 2 + 0.98 * 4)


def recorder(order: list[str], name: str) -> Callable[[], float]:
    """A case that notes its turn and returns how many turns there have been."""

    def case() -> float:
        order.append(name)
        return float(len(order))

    return case


def test_interleave_starts_each_round_with_the_next_case() -> None:
    order: list[str] = []

    results = interleave([(n, recorder(order, n)) for n in "abc"], 4, progress=False)

    assert "".join(order) == "abc|bca|cab|abc".replace("|", "")
    assert results == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}


def test_interleave_tells_progress_on_standard_error_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    interleave([("a", lambda: 1.0)], 3)

    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3/3 runs" in captured.err


def test_interleave_is_silent_when_told(capsys: pytest.CaptureFixture[str]) -> None:
    interleave([("a", lambda: 1.0)], 3, progress=False)

    assert capsys.readouterr() == ("", "")


def test_interleave_ends_with_the_case_that_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        interleave([("a", lambda: 1 / 0)], 1, progress=False)


@pytest.mark.parametrize(("names", "runs"), [("aa", 1), ("ab", 0)])
def test_interleave_refuses_ambiguous_names_and_no_runs(names: str, runs: int) -> None:
    with pytest.raises(ValueError, match=r"must"):
        interleave([(name, lambda: 0.0) for name in names], runs, progress=False)
